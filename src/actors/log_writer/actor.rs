//! The log writer's shell: what the queue says can be done is done here, or on a disk thread.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use tokio::sync::oneshot;

use super::messages::*;
use crate::actors::send::{post, post_to};
use crate::actors::threads::{DiskPool, Lane};
use crate::config::LogWriterPlacement;
use crate::metrics::PartitionMetrics;
use crate::replica::ProducerReplay;
use crate::storage::queue::{Done, Job, LogNews, LogQueue, LogWork};
use crate::storage::{Log, LogError};
use crate::types::{Clock, FlushPolicy};

/// A mailbox this deep keeps a burst of appends from another arbiter in one drain (measured: 16 runs at a third of 128).
const MAILBOX: usize = 128;

/// What a log writer is started with, beside its log.
#[derive(Clone)]
pub struct LogWriterSettings {
    /// When to sync.
    pub flush: FlushSettings,
    /// Where writes run.
    pub placement: LogWriterPlacement,
    /// The most bytes of one vectored write.
    pub group_bytes: usize,
    /// How long after a write a checkpoint is due.
    pub checkpoint_interval: Duration,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// Threads for what may block.
    pub disk: DiskPool,
    /// Whom to tell what became of the log.
    pub events: Recipient<LogEvent>,
    /// What is counted of this partition.
    pub metrics: Arc<PartitionMetrics>,
}

/// See the module page.
pub struct LogWriter {
    pub(super) queue: LogQueue<Room, ProducerReplay>,
    pub(super) settings: LogWriterSettings,
    news: Vec<LogNews<ProducerReplay>>,
    closing: Option<oneshot::Sender<Result<(), LogError>>>,
    pump_scheduled: bool,
    pub(super) interval_running: bool,
    pub(super) checkpoint_scheduled: bool,
    pub(super) put_offs: u64,
}

impl LogWriter {
    /// A writer of `log`.
    #[must_use]
    pub fn new(log: Log, settings: LogWriterSettings) -> Self {
        Self {
            queue: LogQueue::new(log, settings.flush.policy, settings.group_bytes),
            settings,
            news: Vec::new(),
            closing: None,
            pump_scheduled: false,
            interval_running: false,
            checkpoint_scheduled: false,
            put_offs: 0,
        }
    }

    pub(super) fn enqueue(&mut self, work: LogWork<Room, ProducerReplay>, ctx: &mut Context<Self>) {
        self.queue.push(work);
        if self.queue.is_full() {
            self.pump(ctx);
        } else if !self.pump_scheduled {
            // Runs after everything that is in the mailbox now: a group commit for nothing.
            self.pump_scheduled = true;
            ctx.notify(Pump);
        }
    }

    /// Has done whatever can be done now.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        let mut news = std::mem::take(&mut self.news);
        while let Some(job) = self.queue.next(self.settings.clock.wall(), &mut news) {
            match self.placement(&job) {
                LogWriterPlacement::Core => self.queue.finish(job.run(), &mut news),
                LogWriterPlacement::Disk => self.send_away(job, ctx),
            }
            self.tell(&mut news, ctx);
        }
        self.tell(&mut news, ctx);
        self.news = news;
        if self.settings.flush.policy == FlushPolicy::Interval {
            self.start_interval(ctx);
        }
    }

    /// Where a job runs: the one function that decides it. A write that only touches the page cache is cheaper on the
    /// partition's own thread than a trip to another one (docs/performance.md); whatever creates files or syncs is not.
    fn placement(&self, job: &Job<Room, ProducerReplay>) -> LogWriterPlacement {
        match job {
            Job::Append { group, bytes, may_block, .. } => {
                self.settings.metrics.wrote(group.len(), *bytes);
                self.settings.metrics.queued(self.queue.queued_bytes());
                if *may_block { LogWriterPlacement::Disk } else { self.settings.placement }
            }
            Job::Lent { .. } | Job::Sync(_) | Job::Side(_) | Job::Scrub(..) => LogWriterPlacement::Disk,
        }
    }

    fn send_away(&mut self, job: Job<Room, ProducerReplay>, ctx: &Context<Self>) {
        let home = ctx.address();
        if job.is_the_last() {
            // Told from there: an actor that nobody holds any more can end before it handles a last message.
            let told = self.closing.take();
            self.settings.disk.run(Lane::Background, move || {
                if let Done::Closed(result) = job.run() {
                    // Nobody listens any more when the node was told to stop at once.
                    let _ = told.map(|told| told.send(result));
                }
                post(&home, Ended);
            });
            return;
        }
        let lane = match job {
            Job::Append { .. } | Job::Sync(_) => Lane::Sync,
            Job::Lent { .. } | Job::Side(_) | Job::Scrub(..) => Lane::Background,
        };
        if matches!(job, Job::Sync(_)) {
            let (clock, metrics) = (Arc::clone(&self.settings.clock), Arc::clone(&self.settings.metrics));
            self.settings.disk.run(lane, move || {
                let began = clock.now();
                let done = job.run();
                metrics.synced(clock.now().since(began));
                post(&home, JobDone(done));
            });
        } else {
            self.settings.disk.run(lane, move || post(&home, JobDone(job.run())));
        }
    }

    fn tell(&mut self, news: &mut Vec<LogNews<ProducerReplay>>, ctx: &mut Context<Self>) {
        for item in news.drain(..) {
            match &item {
                LogNews::Written(_) => self.schedule_checkpoint(ctx),
                LogNews::PutOff(error) => {
                    self.wait_for_descriptor(error, ctx);
                    continue;
                }
                LogNews::Trouble(what, error) => {
                    tracing::warn!(%error, "{what}");
                    continue;
                }
                // The job itself tells that, and ends the actor.
                LogNews::Closed(_) => continue,
                _ => {}
            }
            post_to(&self.settings.events, LogEvent::News(item));
        }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Close> for LogWriter {
    type Result = ();
    fn handle(&mut self, Close { how, done }: Close, ctx: &mut Self::Context) {
        self.closing = Some(done);
        let work = match how {
            CloseHow::Cleanly { high_watermark, producer_snapshot } => {
                LogWork::Close { high_watermark, producers: producer_snapshot }
            }
            CloseHow::Abandoned => LogWork::Abandon,
        };
        self.enqueue(work, ctx);
    }
}

impl Handler<Pump> for LogWriter {
    type Result = ();
    fn handle(&mut self, _: Pump, ctx: &mut Self::Context) {
        self.pump_scheduled = false;
        self.pump(ctx);
    }
}

impl Handler<Ended> for LogWriter {
    type Result = ();
    fn handle(&mut self, _: Ended, ctx: &mut Self::Context) {
        // The leader and this actor hold each other's address: neither would end by itself.
        ctx.stop();
    }
}

impl Handler<JobDone> for LogWriter {
    type Result = ();
    fn handle(&mut self, JobDone(done): JobDone, ctx: &mut Self::Context) {
        let mut news = std::mem::take(&mut self.news);
        self.queue.finish(done, &mut news);
        self.tell(&mut news, ctx);
        self.news = news;
        self.pump(ctx);
    }
}
