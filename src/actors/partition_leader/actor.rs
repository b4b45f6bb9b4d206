//! The leader's handlers: translate, ask the replica, carry out its effects.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle};
use tokio::sync::oneshot;

use super::keeping::Keeping;
use super::messages::*;
use super::read_budget::ReadBudget;
use super::reads;
use super::tail_cache::{CacheBudget, TailCache};
use crate::actors::log_writer::{FlushSettings, LogEvent, LogWriter, LogWriterSettings, Reconfigure, Room, Write};
use crate::actors::replica_fetcher::FETCH_TIMEOUT;
use crate::actors::send::{post, post_to};
use crate::actors::spans;
use crate::actors::threads::DiskPool;
use crate::config::{LogWriterPlacement, StorageSection};
use crate::engine::cursors::Cursors;
use crate::engine::follower::FollowerSettings;
use crate::engine::leader::{
    DeleteRecordsEvent, FetchEvent, LeaderSettings, ListOffsetsEvent, ProduceEvent, ReplicaFetchEvent,
};
use crate::engine::producer_state::ProducerTable;
use crate::metrics::{LogFiles, Metrics, PartitionHandle};
use crate::replica::{self, Effect, Replica, ReplicaSettings};
use crate::storage::queue::LogWork;
use crate::storage::{Log, LogError, LogReader, LogScrub};
use crate::types::{Clock, MonoTime, NodeId, TopicConfig, TopicName, TopicPartition};

/// How long a look-up waits for a new leader to learn how much is committed.
const LISTING_WAIT: Duration = Duration::from_secs(30);

/// What a leader needs of its node.
#[derive(Clone)]
pub struct PartitionLeaderSettings {
    /// The node.
    pub node: NodeId,
    /// The `storage` section of the config.
    pub storage: StorageSection,
    /// Where writes run (`threads.log_writer`).
    pub placement: LogWriterPlacement,
    /// The node's clocks.
    pub clock: Arc<dyn Clock>,
    /// Threads for what may block.
    pub disk: DiskPool,
    /// The memory that tail caches share.
    pub cache: CacheBudget,
    /// The memory that cold reads share.
    pub reads: ReadBudget,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What becomes of appended batches.
    pub keeping: Keeping,
}

/// See the module page.
pub struct PartitionLeader {
    pub(super) partition: TopicPartition,
    pub(super) topic: TopicName,
    pub(super) replica: Replica<ReplyTo, Room>,
    /// Emptied and kept, so that a steady stream of events allocates nothing.
    effects: Vec<Effect<ReplyTo, Room>>,
    pub(super) cache: TailCache,
    pub(super) reader: LogReader,
    pub(super) writer: Addr<LogWriter>,
    pub(super) settings: PartitionLeaderSettings,
    outward: Outward,
    /// As the broker knows it.
    pub(super) is_damaged: bool,
    /// A look through the log that is not over.
    pub(super) scrub: Option<LogScrub>,
    pub(super) metrics: PartitionHandle,
    deadline_timer: Option<(MonoTime, SpawnHandle)>,
    pub(super) stopping: Option<oneshot::Sender<Result<(), LogError>>>,
}

impl PartitionLeader {
    /// Starts the replica and its log writer on the arbiter that `ctx` belongs to. It does nothing before [`Assign`].
    #[must_use]
    pub fn new(
        ctx: &mut Context<Self>,
        (partition, topic): (TopicPartition, TopicName),
        config: TopicConfig,
        (log, producers): (Log, ProducerTable),
        settings: PartitionLeaderSettings,
        outward: Outward,
    ) -> Self {
        let reader = log.reader();
        let (log_start, end) = (log.log_start(), log.written_end());
        let state = replica::state_of(&log, producers);
        let metrics = settings.metrics.partitions.enter(topic.clone(), partition.partition, files_of(reader.clone()));
        metrics.moved(log_start, end, end);
        let writer = LogWriter::new(
            log,
            LogWriterSettings {
                flush: flush_settings(&config),
                placement: settings.placement,
                group_bytes: settings.storage.append_group_bytes,
                checkpoint_interval: Duration::from_millis(settings.storage.checkpoint_interval_ms),
                clock: Arc::clone(&settings.clock),
                disk: settings.disk.clone(),
                events: ctx.address().recipient(),
                metrics: metrics.share(),
            },
        );
        let replica = Replica::new(settings.node, state, config, replica_settings(&settings.storage));
        Self {
            partition,
            topic,
            is_damaged: replica.is_damaged(),
            replica,
            effects: Vec::new(),
            cache: TailCache::new(settings.storage.tail_cache_partition_bytes, settings.cache.clone()),
            reader,
            writer: writer.start(),
            settings,
            outward,
            scrub: None,
            metrics,
            deadline_timer: None,
            stopping: None,
        }
    }

    /// Lets `event` happen to the replica and carries out what comes of it.
    pub(super) fn step(&mut self, ctx: &mut Context<Self>, event: impl FnOnce(&mut Replica<ReplyTo, Room>, MonoTime)) {
        event(&mut self.replica, self.settings.clock.now());
        self.carry_out_all(ctx);
        self.report_health();
        let cursors = self.cursors();
        self.metrics.moved(cursors.log_start(), cursors.high_watermark(), cursors.written_end());
        self.arm_deadline(ctx);
        self.finish_stop(ctx);
    }

    pub(super) fn cursors(&self) -> &Cursors {
        self.replica.cursors().expect("a replica always has a role between two events")
    }

    /// What is carried out may lead to more.
    pub(super) fn carry_out_all(&mut self, ctx: &Context<Self>) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            self.replica.swap_effects(&mut effects);
            let is_done = effects.is_empty();
            effects.drain(..).for_each(|effect| self.carry_out(effect, ctx));
            self.effects = effects;
            if is_done {
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect<ReplyTo, Room>, ctx: &Context<Self>) {
        match effect {
            Effect::Write(LogWork::Append(batch, room)) => {
                self.metrics.appended(u64::from(batch.header.record_count.unsigned_abs()), batch.total_bytes());
                self.cache.push(&batch);
                match self.settings.keeping {
                    Keeping::Log => post(&self.writer, Write(LogWork::Append(batch, room))),
                    Keeping::Nothing => self.let_go(&batch),
                }
            }
            Effect::Write(LogWork::Reconfigure(log, _)) => {
                post(&self.writer, Reconfigure { flush: flush_settings(self.replica.config()), log });
            }
            Effect::Write(work) => {
                match &work {
                    LogWork::AppendReplicated(batches, _) => batches.iter().for_each(|batch| self.cache.push(batch)),
                    // What is cut off is written again by another leader.
                    LogWork::Truncate { .. } | LogWork::StartAt { .. } => self.cache.clear(),
                    _ => {}
                }
                post(&self.writer, Write(work));
            }
            Effect::Answer(reply, result) => reply.answer(result.map(Answer::from)),
            Effect::Read(reply, range, state) => self.read(ctx, reply, range, state),
            Effect::LookUp(reply, at, upper_exclusive) => {
                let Some(epoch) = self.replica.leader().map(|leader| leader.epoch()) else { return };
                reads::list(&self.settings.disk, self.reader.clone(), at, upper_exclusive, epoch, reply);
            }
            Effect::Offline(cause) => {
                tracing::error!(topic = %self.topic, partition = %self.partition.partition, %cause, "the replica is offline");
                self.metrics.failed(cause.message.clone());
                self.report(Reported::Offline(cause));
            }
            Effect::Propose(proposal) => self.report(Reported::Proposal(proposal)),
            Effect::Damaged(leader_epoch) => self.report(Reported::Damaged(leader_epoch)),
            Effect::Fetch { leader, fetch, may_wait } => {
                // One that is not carried is made again.
                let Some(fetches) = &self.outward.fetches else { return };
                let (partition, answer_to) = (self.partition, ctx.address().recipient());
                post_to(fetches, FetchFromLeader { partition, leader, fetch, may_wait, answer_to });
            }
        }
    }

    pub(super) fn report(&self, what: Reported) {
        post_to(&self.outward.reports, ReplicaReport { partition: self.partition, what });
    }

    pub(super) fn now(&self) -> MonoTime {
        self.settings.clock.now()
    }

    /// Keeps one timer for the earliest deadline. An earlier one replaces it, a later one waits for it to fire.
    fn arm_deadline(&mut self, ctx: &mut Context<Self>) {
        let Some(next) = self.replica.next_deadline() else { return };
        if let Some((armed, handle)) = self.deadline_timer {
            if armed <= next {
                return;
            }
            ctx.cancel_future(handle);
        }
        let wait = next.since(self.settings.clock.now());
        let handle = ctx.run_later(wait, |leader, ctx| {
            leader.deadline_timer = None;
            leader.step(ctx, |replica, now| replica.on_tick(now));
        });
        self.deadline_timer = Some((next, handle));
    }
}

fn replica_settings(storage: &StorageSection) -> ReplicaSettings {
    let producer_expiry_ms = i64::try_from(storage.producer_expiry_ms).unwrap_or(i64::MAX);
    ReplicaSettings {
        leader: LeaderSettings { producer_expiry_ms, ..LeaderSettings::default() },
        follower: FollowerSettings { producer_expiry_ms, fetch_timeout: FETCH_TIMEOUT, ..FollowerSettings::default() },
    }
}

/// What a scrape asks the files of a log.
fn files_of(reader: LogReader) -> impl Fn() -> LogFiles + Send + Sync {
    move || LogFiles {
        size_bytes: reader.size_bytes(),
        segments: reader.segment_count() as u64,
        damaged_ranges: reader.damaged_ranges().len() as u64,
    }
}

fn flush_settings(config: &TopicConfig) -> FlushSettings {
    FlushSettings { policy: config.flush, interval: Duration::from_millis(config.flush_interval_ms) }
}

impl Actor for PartitionLeader {
    type Context = Context<Self>;
}

impl Handler<Produce> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: Produce, ctx: &mut Self::Context) {
        let Produce { batch, room, leader_epoch, acks, deadline, owner, reply } = message;
        let _span = spans::of(reply.tag()).entered();
        let event = ProduceEvent {
            header: batch.header,
            batch_bytes: batch.total_bytes(),
            leader_epoch,
            acks,
            deadline,
            wall: self.settings.clock.wall(),
            owner,
            reply,
        };
        self.step(ctx, |replica, now| replica.on_produce(now, batch, room, event));
    }
}

impl Handler<Fetch> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: Fetch, ctx: &mut Self::Context) {
        let Fetch { offset, max_bytes, leader_epoch, wait_until, owner, reply } = message;
        let _span = spans::of(reply.tag()).entered();
        self.cache.note_reader();
        let event = FetchEvent { offset, max_bytes, leader_epoch, wait_until, owner, reply };
        self.step(ctx, |replica, now| replica.on_fetch(now, event));
    }
}

impl Handler<FetchForFollower> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: FetchForFollower, ctx: &mut Self::Context) {
        let FetchForFollower { fetch, wait_until, reply } = message;
        let event = ReplicaFetchEvent { fetch, wait_until, reply };
        self.step(ctx, |replica, now| replica.on_replica_fetch(now, event));
    }
}

impl Handler<CancelFetch> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, CancelFetch { owner, request }: CancelFetch, _: &mut Self::Context) {
        self.replica.on_cancel_fetch(owner, |reply| reply.tag().request == request);
    }
}

impl Handler<OwnerGone> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, OwnerGone(owner): OwnerGone, _: &mut Self::Context) {
        self.replica.on_owner_gone(owner);
    }
}

impl Handler<ListOffset> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, ListOffset { at, reply }: ListOffset, ctx: &mut Self::Context) {
        let deadline = self.settings.clock.now().plus(LISTING_WAIT);
        let event = ListOffsetsEvent { at, deadline, owner: reply.owner(), reply };
        self.step(ctx, |replica, now| replica.on_list_offsets(now, event));
    }
}

impl Handler<DeleteRecords> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: DeleteRecords, ctx: &mut Self::Context) {
        let DeleteRecords { before, deadline, owner, reply } = message;
        let event = DeleteRecordsEvent { before, deadline, owner, reply };
        self.step(ctx, |replica, _| replica.on_delete_records(event));
    }
}

impl Handler<DescribeLog> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, DescribeLog { reply }: DescribeLog, _: &mut Self::Context) {
        let (size_bytes, segments) =
            (self.reader.size_bytes(), u32::try_from(self.reader.segment_count()).unwrap_or(u32::MAX));
        // Without a leader the reply is dropped, which says that.
        let Some(leader) = self.replica.leader() else { return };
        let described = leader.describe(self.settings.clock.now(), size_bytes, segments, self.reader.damaged_ranges());
        reply.answer(Ok(Answer::Described(described)));
    }
}

impl Handler<ExamineReplica> for PartitionLeader {
    type Result = ReplicaHealth;
    fn handle(&mut self, _: ExamineReplica, _: &mut Self::Context) -> Self::Result {
        let damaged_ranges = self.reader.damaged_ranges().len();
        ReplicaHealth { failure: self.replica.failure().cloned(), damaged_ranges }
    }
}

impl Handler<LogEvent> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, event: LogEvent, ctx: &mut Self::Context) {
        match event {
            LogEvent::News(news) => self.step(ctx, |replica, now| replica.on_log_news(now, news)),
            LogEvent::CheckpointDue => {
                post(&self.writer, Write(LogWork::Checkpoint(self.cursors().high_watermark())));
            }
        }
    }
}

impl Handler<SetDiskSpace> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, SetDiskSpace(refusing): SetDiskSpace, _: &mut Self::Context) {
        self.replica.on_disk_space(refusing);
    }
}

impl Handler<RetentionTick> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, _: RetentionTick, _: &mut Self::Context) {
        self.cache.shrink();
        // A follower's log starts where its leader's does.
        if self.replica.leader().is_some() {
            post(&self.writer, Write(LogWork::Retention(self.cursors().high_watermark())));
        }
    }
}
