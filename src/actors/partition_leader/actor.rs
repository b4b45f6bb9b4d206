//! The leader's handlers: translate, ask the engine, carry out its commands.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, SpawnHandle};
use tokio::sync::oneshot;

use super::keeping::Keeping;
use super::messages::*;
use super::read_budget::ReadBudget;
use super::reads;
use super::tail_cache::{CacheBudget, TailCache};
use crate::actors::log_writer::{
    self, Append, ApplyRetention, Close, CloseHow, FlushSettings, LogEvent, LogWriter, LogWriterSettings, Reconfigure,
    Room, SaveCheckpoint, StoreProducerSnapshot,
};
use crate::actors::send::post;
use crate::actors::spans;
use crate::actors::threads::DiskPool;
use crate::config::{LogWriterPlacement, StorageSection};
use crate::engine::leader::{
    Command, DeleteRecordsEvent, FetchEvent, LeaderEngine, LeaderSettings, Leadership, ListOffsetsEvent, Output,
    ProduceEvent, ReplicaFetchEvent,
};
use crate::engine::producer_state::ProducerTable;
use crate::metrics::{LogFiles, Metrics, PartitionHandle};
use crate::protocol::{ApiError, ErrorCode};
use crate::replica::{self, ReadState};
use crate::storage::{Log, LogConfig, LogError, LogReader};
use crate::types::record_batch::RecordBatch;
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
    partition: TopicPartition,
    topic: TopicName,
    pub(super) engine: LeaderEngine<ReplyTo>,
    out: Output<ReplyTo>,
    pub(super) cache: TailCache,
    pub(super) reader: LogReader,
    writer: Addr<LogWriter>,
    pub(super) settings: PartitionLeaderSettings,
    pub(super) metrics: PartitionHandle,
    deadline_timer: Option<(MonoTime, SpawnHandle)>,
    stopping: Option<oneshot::Sender<Result<(), LogError>>>,
}

impl PartitionLeader {
    /// Starts the leader and its log writer on the arbiter that `ctx` belongs to.
    #[must_use]
    pub fn new(
        ctx: &mut Context<Self>,
        (partition, topic): (TopicPartition, TopicName),
        leadership: Leadership,
        config: TopicConfig,
        (log, producers): (Log, ProducerTable),
        settings: PartitionLeaderSettings,
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
        let producer_expiry_ms = i64::try_from(settings.storage.producer_expiry_ms).unwrap_or(i64::MAX);
        let judging = LeaderSettings { producer_expiry_ms, ..LeaderSettings::default() };
        let now = settings.clock.now();
        let mut engine = LeaderEngine::new(now, settings.node, leadership, config, state, judging);
        // The controller runs in this process: nobody else can elect another leader.
        engine.on_lease(now, MonoTime(Duration::MAX), &mut Output::default());
        Self {
            partition,
            topic,
            engine,
            out: Output::default(),
            cache: TailCache::new(settings.storage.tail_cache_partition_bytes, settings.cache.clone()),
            reader,
            writer: writer.start(),
            settings,
            metrics,
            deadline_timer: None,
            stopping: None,
        }
    }

    /// Runs `event` against the engine and carries out what it commands. `batch` is what an `Append` is about.
    fn step(
        &mut self,
        ctx: &mut Context<Self>,
        batch: Option<(RecordBatch, Room)>,
        event: impl FnOnce(&mut LeaderEngine<ReplyTo>, MonoTime, &mut Output<ReplyTo>),
    ) {
        let mut out = std::mem::take(&mut self.out);
        event(&mut self.engine, self.settings.clock.now(), &mut out);
        let mut batch = batch;
        for command in out.0.drain(..) {
            self.carry_out(command, &mut batch);
        }
        self.out = out;
        let cursors = self.engine.cursors();
        self.metrics.moved(cursors.log_start(), cursors.high_watermark(), cursors.written_end());
        self.arm_deadline(ctx);
        self.finish_stop(ctx);
    }

    pub(super) fn carry_out(&mut self, command: Command<ReplyTo>, batch: &mut Option<(RecordBatch, Room)>) {
        match command {
            Command::Append { base_offset, leader_epoch, append_time } => {
                let (batch, room) = batch.take().expect("the engine appends only the batch of the event at hand");
                let stamped = batch.stamped(base_offset, leader_epoch, append_time);
                self.metrics.appended(u64::from(stamped.header.record_count.unsigned_abs()), stamped.total_bytes());
                self.cache.push(&stamped);
                match self.settings.keeping {
                    Keeping::Log => post(&self.writer, Append { batch: stamped, room }),
                    Keeping::Nothing => self.let_go(&stamped),
                }
            }
            Command::Produced { reply, result } => reply.answer(result.map(Answer::Produced)),
            Command::Fetched { reply, result } => {
                let empty = |state| Answer::Fetched(FetchedRecords { state, chunks: Vec::new(), next_offset: None });
                reply.answer(result.map(empty));
            }
            Command::Read { reply, range, state } => self.read(reply, range, ReadState::Consumer(state)),
            Command::ReadForFollower { reply, range, state } => self.read(reply, range, ReadState::Follower(state)),
            Command::ReadForRepair { reply, range, state } => self.read(reply, range, ReadState::Repair(state)),
            Command::ReplicaFetched { reply, result } => reply.answer(result.map(|(verdict, state)| {
                Answer::ForFollower(RecordsForFollower { verdict, state, chunks: Vec::new() })
            })),
            // A partition with one replica has no set to propose: brokers hold no more than that as yet.
            Command::Propose(_) => {}
            Command::Listed { reply, result } => reply.answer(result.map(Answer::Listed)),
            Command::LookUp { reply, at, upper_exclusive } => {
                reads::list(&self.settings.disk, self.reader.clone(), at, upper_exclusive, self.engine.epoch(), reply);
            }
            Command::DeleteRecords { before } => post(&self.writer, log_writer::DeleteRecords { before }),
            Command::RecordsDeleted { reply, result } => reply.answer(result.map(Answer::RecordsDeleted)),
            Command::SnapshotProducers { at, payload } => post(&self.writer, StoreProducerSnapshot { at, payload }),
        }
    }

    pub(super) fn now(&self) -> MonoTime {
        self.settings.clock.now()
    }

    /// Keeps one timer for the earliest deadline. An earlier one replaces it, a later one waits for it to fire.
    fn arm_deadline(&mut self, ctx: &mut Context<Self>) {
        let Some(next) = self.engine.next_deadline() else { return };
        if let Some((armed, handle)) = self.deadline_timer {
            if armed <= next {
                return;
            }
            ctx.cancel_future(handle);
        }
        let wait = next.since(self.settings.clock.now());
        let handle = ctx.run_later(wait, |leader, ctx| {
            leader.deadline_timer = None;
            leader.step(ctx, None, |engine, now, out| engine.on_tick(now, out));
        });
        self.deadline_timer = Some((next, handle));
    }

    /// A stopping leader closes its log once everything that it accepted is written and, with `always`, synced.
    fn finish_stop(&mut self, ctx: &mut Context<Self>) {
        let settled = self.engine.cursors().high_watermark() == self.engine.cursors().next_offset();
        if self.stopping.is_none() || !(settled || self.engine.is_failed()) {
            return;
        }
        let Some(done) = self.stopping.take() else { return };
        let cause =
            ApiError::new(ErrorCode::ShuttingDown, "the node is stopping: try again on another or a little later");
        let mut out = Output::default();
        self.engine.on_stop(&cause, &mut out);
        for command in out.0.drain(..) {
            self.carry_out(command, &mut None);
        }
        let how = match self.settings.keeping {
            Keeping::Log => CloseHow::Cleanly {
                high_watermark: self.engine.cursors().high_watermark(),
                producer_snapshot: self.engine.producers().to_snapshot(),
            },
            Keeping::Nothing => CloseHow::Abandoned,
        };
        post(&self.writer, Close { how, done });
        ctx.stop();
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
        self.step(ctx, Some((batch, room)), |engine, now, out| engine.on_produce(now, event, out));
    }
}

impl Handler<Fetch> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: Fetch, ctx: &mut Self::Context) {
        let Fetch { offset, max_bytes, leader_epoch, wait_until, owner, reply } = message;
        let _span = spans::of(reply.tag()).entered();
        self.cache.note_reader();
        let event = FetchEvent { offset, max_bytes, leader_epoch, wait_until, owner, reply };
        self.step(ctx, None, |engine, now, out| engine.on_fetch(now, event, out));
    }
}

impl Handler<FetchForFollower> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: FetchForFollower, ctx: &mut Self::Context) {
        let FetchForFollower { fetch, wait_until, reply } = message;
        let event = ReplicaFetchEvent { fetch, wait_until, reply };
        self.step(ctx, None, |engine, now, out| engine.on_replica_fetch(now, event, out));
    }
}

impl Handler<CancelFetch> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, CancelFetch { owner, request }: CancelFetch, _: &mut Self::Context) {
        self.engine.on_cancel_fetch(owner, |reply| reply.tag().request == request);
    }
}

impl Handler<OwnerGone> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, OwnerGone(owner): OwnerGone, _: &mut Self::Context) {
        self.engine.on_owner_gone(owner);
    }
}

impl Handler<ListOffset> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, ListOffset { at, reply }: ListOffset, ctx: &mut Self::Context) {
        let deadline = self.settings.clock.now().plus(LISTING_WAIT);
        let event = ListOffsetsEvent { at, deadline, owner: reply.owner(), reply };
        self.step(ctx, None, |engine, now, out| engine.on_list_offsets(now, event, out));
    }
}

impl Handler<DeleteRecords> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, message: DeleteRecords, ctx: &mut Self::Context) {
        let DeleteRecords { before, deadline, owner, reply } = message;
        let event = DeleteRecordsEvent { before, deadline, owner, reply };
        self.step(ctx, None, |engine, _, out| engine.on_delete_records(event, out));
    }
}

impl Handler<DescribeLog> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, DescribeLog { reply }: DescribeLog, _: &mut Self::Context) {
        let (size_bytes, segments) =
            (self.reader.size_bytes(), u32::try_from(self.reader.segment_count()).unwrap_or(u32::MAX));
        let described = self.engine.describe(size_bytes, segments, self.reader.damaged_ranges());
        reply.answer(Ok(Answer::Described(described)));
    }
}

impl Handler<ExamineReplica> for PartitionLeader {
    type Result = ReplicaHealth;
    fn handle(&mut self, _: ExamineReplica, _: &mut Self::Context) -> Self::Result {
        let damaged_ranges = self.reader.damaged_ranges().len();
        ReplicaHealth { failure: self.engine.failure().cloned(), damaged_ranges }
    }
}

impl Handler<LogEvent> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, event: LogEvent, ctx: &mut Self::Context) {
        match event {
            LogEvent::Written(end) => self.step(ctx, None, |engine, now, out| engine.on_written(now, end, out)),
            LogEvent::Synced(end) => self.step(ctx, None, |engine, now, out| engine.on_synced(now, end, out)),
            LogEvent::Rolled => self.step(ctx, None, |engine, _, out| engine.on_rolled(out)),
            LogEvent::LogStart(start) => self.step(ctx, None, |engine, _, out| engine.on_log_start(start, out)),
            LogEvent::DeleteFailed(before, cause) => {
                self.step(ctx, None, |engine, _, out| engine.on_delete_failed(before, &cause, out));
            }
            LogEvent::CheckpointDue => {
                post(&self.writer, SaveCheckpoint { high_watermark: self.engine.cursors().high_watermark() });
            }
            // A leader has neither its log cut nor takes another's batches.
            LogEvent::Truncated(_) | LogEvent::Refused(_) => {}
            LogEvent::Failed(cause) => {
                tracing::error!(topic = %self.topic, partition = %self.partition.partition, %cause, "the replica is offline");
                self.metrics.failed(cause.message.clone());
                self.step(ctx, None, |engine, _, out| engine.on_failed(cause, out));
            }
        }
    }
}

impl Handler<SetConfig> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, SetConfig(config): SetConfig, ctx: &mut Self::Context) {
        post(&self.writer, Reconfigure { flush: flush_settings(&config), log: LogConfig::from(&config) });
        self.step(ctx, None, |engine, now, out| engine.on_config(now, config, out));
    }
}

impl Handler<SetDiskSpace> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, SetDiskSpace(refusing): SetDiskSpace, _: &mut Self::Context) {
        self.engine.on_disk_space(refusing);
    }
}

impl Handler<RetentionTick> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, _: RetentionTick, _: &mut Self::Context) {
        self.cache.shrink();
        post(&self.writer, ApplyRetention { high_watermark: self.engine.cursors().high_watermark() });
    }
}

impl Handler<Stop> for PartitionLeader {
    type Result = ();
    fn handle(&mut self, Stop { why, done }: Stop, ctx: &mut Self::Context) {
        match why {
            StopReason::NodeStops => {
                let cause = ApiError::new(ErrorCode::ShuttingDown, "the node is stopping: try again a little later");
                self.engine.on_disk_space(Some(cause));
                self.stopping = Some(done);
                self.finish_stop(ctx);
            }
            StopReason::TopicDeleted => {
                let text = format!("topic '{}' was deleted", self.topic);
                let cause = ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
                self.step(ctx, None, |engine, _, out| engine.on_stop(&cause, out));
                post(&self.writer, Close { how: CloseHow::Abandoned, done });
                ctx.stop();
            }
        }
    }
}
