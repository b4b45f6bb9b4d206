//! The log writer's handlers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use tokio::sync::oneshot;

use super::beside::Beside;
use super::messages::*;
use crate::actors::errors::storage_error;
use crate::actors::send::{post, post_to};
use crate::actors::threads::{DiskPool, Lane};
use crate::config::LogWriterPlacement;
use crate::metrics::PartitionMetrics;
use crate::storage::{Appended, Log, LogConfig, LogError, RetentionOutcome, SyncDone};
use crate::types::record_batch::RecordBatch;
use crate::types::{Clock, FlushPolicy, Offset};

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

pub(super) enum Work {
    Append(RecordBatch, Room),
    Snapshot(Offset, Vec<u8>),
    Retention(Offset),
    DeleteRecords(Offset),
    Checkpoint(Offset),
    Reconfigure(LogConfig),
    Close(CloseHow, oneshot::Sender<Result<(), LogError>>),
}

/// See the module page.
pub struct LogWriter {
    pub(super) log: Option<Box<Log>>,
    pub(super) settings: LogWriterSettings,
    pub(super) work: VecDeque<Work>,
    pub(super) queued_bytes: usize,
    group: Vec<RecordBatch>,
    /// Room of the frames that the group came in: given back once it is written.
    group_rooms: Vec<Room>,
    pump_scheduled: bool,
    syncing: bool,
    pub(super) sync_wanted: bool,
    pub(super) interval_running: bool,
    finished_sync: Option<SyncDone>,
    pub(super) beside: Beside,
    pub(super) checkpoint_scheduled: bool,
    failed: bool,
    /// The next append waits for a descriptor.
    pub(super) is_put_off: bool,
    pub(super) put_offs: u64,
}

/// Where a write runs: the one function that decides it. A write that only touches the page cache is cheaper on the
/// partition's own thread than a trip to another one (docs/performance.md); whatever creates files or syncs is not.
fn placement(settings: &LogWriterSettings, log: &Log, bytes: usize) -> LogWriterPlacement {
    if log.append_may_block(settings.clock.wall(), bytes) { LogWriterPlacement::Disk } else { settings.placement }
}

impl LogWriter {
    /// A writer of `log`.
    #[must_use]
    pub fn new(log: Log, settings: LogWriterSettings) -> Self {
        Self {
            log: Some(Box::new(log)),
            settings,
            work: VecDeque::new(),
            queued_bytes: 0,
            group: Vec::new(),
            group_rooms: Vec::new(),
            pump_scheduled: false,
            syncing: false,
            sync_wanted: false,
            interval_running: false,
            finished_sync: None,
            beside: Beside::default(),
            checkpoint_scheduled: false,
            failed: false,
            is_put_off: false,
            put_offs: 0,
        }
    }

    pub(super) fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) {
        self.work.push_back(work);
        if self.log.is_some() && self.queued_bytes >= self.settings.group_bytes {
            self.pump(ctx);
        } else if !self.pump_scheduled {
            // Runs after everything that is in the mailbox now: a group commit for nothing.
            self.pump_scheduled = true;
            ctx.notify(Pump);
        }
    }

    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        loop {
            let Some(log) = self.log.as_mut() else { return };
            if let Some(done) = self.finished_sync.take() {
                if done.closed_a_segment() {
                    self.beside.checkpoint.get_or_insert(log.saved_high_watermark());
                }
                let synced = log.note_synced(done);
                self.on_synced(synced);
            }
            self.work_beside(ctx);
            match self.work.front() {
                None => break,
                Some(_) if self.is_put_off => return,
                Some(Work::Append(..)) => self.append_group(ctx),
                Some(Work::Reconfigure(_)) => {
                    if let (Some(log), Some(Work::Reconfigure(config))) = (self.log.as_mut(), self.work.pop_front()) {
                        log.set_config(config);
                    }
                }
                // A log is closed only when no sync of it is under way; the end of the sync pumps again.
                Some(Work::Close(..)) if self.syncing => return,
                // One that has to sync for itself waits for the sync under way, too.
                Some(Work::DeleteRecords(before)) if self.syncing && self.is_ahead_of_disk(*before) => return,
                Some(Work::Checkpoint(_) | Work::Snapshot(..)) => match self.work.pop_front() {
                    Some(Work::Checkpoint(high_watermark)) => self.beside.checkpoint = Some(high_watermark),
                    Some(Work::Snapshot(at, payload)) => self.beside.snapshot = Some((at, payload)),
                    _ => {}
                },
                // What writes the small files itself waits for the job that does. Syncs do not.
                Some(_) if self.beside.is_under_way => break,
                Some(_) => {
                    if let Some(work) = self.work.pop_front() {
                        self.lend(work, ctx);
                    }
                }
            }
        }
        self.sync_if_due(ctx);
    }

    pub(super) fn durable_end(&self) -> Option<Offset> {
        self.log.as_ref().map(|log| log.durable_end())
    }

    fn is_ahead_of_disk(&self, offset: Offset) -> bool {
        self.durable_end().is_some_and(|durable| offset > durable)
    }

    /// Takes appends from the front of the queue into the group, up to its limit, and returns how many bytes they have.
    fn gather(&mut self) -> usize {
        let mut bytes = 0;
        while bytes < self.settings.group_bytes && matches!(self.work.front(), Some(Work::Append(..))) {
            if let Some(Work::Append(batch, room)) = self.work.pop_front() {
                bytes += batch.total_bytes();
                self.group.push(batch);
                self.group_rooms.push(room);
            }
        }
        bytes
    }

    /// Writes the next group of appends, here or on a disk thread.
    fn append_group(&mut self, ctx: &mut Context<Self>) {
        let bytes = self.gather();
        self.queued_bytes -= bytes;
        self.settings.metrics.queued(self.queued_bytes);
        let Some(log) = self.log.as_mut() else { return };
        if self.failed {
            self.group.clear();
            self.group_rooms.clear();
            return;
        }
        self.settings.metrics.wrote(self.group.len(), bytes);
        if placement(&self.settings, log, bytes) == LogWriterPlacement::Core {
            let appended = log.append(self.settings.clock.wall(), &self.group);
            if let Err(error @ LogError::NoDescriptor { .. }) = appended {
                let (group, rooms) = (std::mem::take(&mut self.group), std::mem::take(&mut self.group_rooms));
                self.put_off(&error, group, rooms, ctx);
                return;
            }
            self.group.clear();
            self.group_rooms.clear();
            self.on_appended(appended, ctx);
        } else {
            self.lend_append(ctx);
        }
    }

    fn lend_append(&mut self, ctx: &mut Context<Self>) {
        // Before the log goes away: under a steady load it might never be here when the queue is empty.
        self.sync_if_due(ctx);
        let Some(mut log) = self.log.take() else { return };
        let (group, rooms) = (std::mem::take(&mut self.group), std::mem::take(&mut self.group_rooms));
        let (wall, home) = (self.settings.clock.wall(), ctx.address());
        self.settings.disk.run(Lane::Sync, move || {
            let outcome = match log.append(wall, &group) {
                Err(error @ LogError::NoDescriptor { .. }) => WorkOutcome::NotYet(error, group, rooms),
                appended => {
                    drop((group, rooms));
                    WorkOutcome::Appended(appended)
                }
            };
            post(&home, LogReturned { log, outcome });
        });
    }

    /// Lends the log to a disk thread for work that may block.
    fn lend(&mut self, work: Work, ctx: &mut Context<Self>) {
        let syncs_itself = match work {
            Work::Close(..) => true,
            Work::DeleteRecords(before) => self.is_ahead_of_disk(before),
            _ => false,
        };
        if !syncs_itself {
            self.sync_if_due(ctx);
        }
        let Some(mut log) = self.log.take() else { return };
        let (wall, home) = (self.settings.clock.wall(), ctx.address());
        self.settings.disk.run(Lane::Background, move || {
            let outcome = match work {
                Work::Close(how, done) => {
                    let closed = match how {
                        CloseHow::Cleanly { high_watermark, producer_snapshot } => {
                            log.close_cleanly(high_watermark, &producer_snapshot)
                        }
                        CloseHow::Abandoned => {
                            drop(log);
                            Ok(())
                        }
                    };
                    // Nobody listens any more when the node was told to stop at once.
                    let _ = done.send(closed);
                    post(&home, Ended);
                    return;
                }
                Work::Retention(high_watermark) => WorkOutcome::Retained(log.apply_retention(wall, high_watermark)),
                Work::DeleteRecords(before) => WorkOutcome::Deleted(before, log.delete_records_before(before)),
                Work::Append(..) | Work::Reconfigure(_) | Work::Checkpoint(_) | Work::Snapshot(..) => {
                    WorkOutcome::Nothing
                }
            };
            post(&home, LogReturned { log, outcome });
        });
    }

    fn on_appended(&mut self, appended: Result<Appended, LogError>, ctx: &mut Context<Self>) {
        match appended {
            Ok(Appended { end, rolled, .. }) => {
                post_to(&self.settings.events, LogEvent::Written(end));
                if rolled {
                    self.on_rolled();
                }
                self.schedule_checkpoint(ctx);
            }
            Err(error) => self.fail(&error),
        }
    }

    fn on_rolled(&mut self) {
        // The closed segment is synced whatever the policy, so that recovery need not read it again.
        self.sync_wanted = true;
        post_to(&self.settings.events, LogEvent::Rolled);
    }

    fn sync_if_due(&mut self, ctx: &mut Context<Self>) {
        let due = self.sync_wanted || self.settings.flush.policy == FlushPolicy::Always;
        if self.settings.flush.policy == FlushPolicy::Interval {
            self.start_interval(ctx);
        }
        if self.syncing || self.failed || !due {
            return;
        }
        let Some(job) = self.log.as_mut().and_then(|log| log.begin_sync()) else { return };
        self.syncing = true;
        self.sync_wanted = false;
        let (home, clock, metrics) =
            (ctx.address(), Arc::clone(&self.settings.clock), Arc::clone(&self.settings.metrics));
        self.settings.disk.run(Lane::Sync, move || {
            let began = clock.now();
            let done = job.run();
            metrics.synced(clock.now().since(began));
            post(&home, SyncEnded(done));
        });
    }

    fn on_synced(&mut self, synced: Result<Offset, LogError>) {
        match synced {
            Ok(end) => post_to(&self.settings.events, LogEvent::Synced(end)),
            Err(error) => self.fail(&error),
        }
    }

    pub(super) fn on_front_gone(&mut self, RetentionOutcome { log_start, rolled, .. }: RetentionOutcome) {
        post_to(&self.settings.events, LogEvent::LogStart(log_start));
        if rolled {
            self.on_rolled();
        }
    }

    pub(super) fn fail(&mut self, error: &LogError) {
        if !self.failed {
            self.failed = true;
            post_to(&self.settings.events, LogEvent::Failed(storage_error(error)));
        }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Append> for LogWriter {
    type Result = ();
    fn handle(&mut self, Append { batch, room }: Append, ctx: &mut Self::Context) {
        self.queued_bytes += batch.total_bytes();
        self.settings.metrics.queued(self.queued_bytes);
        self.enqueue(Work::Append(batch, room), ctx);
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

impl Handler<SyncEnded> for LogWriter {
    type Result = ();
    fn handle(&mut self, SyncEnded(done): SyncEnded, ctx: &mut Self::Context) {
        self.syncing = false;
        self.finished_sync = Some(done);
        self.pump(ctx);
    }
}

impl Handler<LogReturned> for LogWriter {
    type Result = ();
    fn handle(&mut self, LogReturned { log, outcome }: LogReturned, ctx: &mut Self::Context) {
        self.log = Some(log);
        match outcome {
            WorkOutcome::Appended(appended) => self.on_appended(appended, ctx),
            WorkOutcome::NotYet(error, group, rooms) => self.put_off(&error, group, rooms, ctx),
            WorkOutcome::Retained(Ok(gone)) => self.on_front_gone(gone),
            WorkOutcome::Deleted(_, Ok(gone)) => self.on_deleted(gone),
            WorkOutcome::Deleted(before, Err(error)) => self.on_delete_failed(before, &error),
            WorkOutcome::Retained(Err(error)) => tracing::warn!(%error, "retention could not be applied"),
            WorkOutcome::Nothing => {}
        }
        self.pump(ctx);
    }
}
