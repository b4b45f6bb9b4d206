//! The leader of one partition: what is appended, what is committed, what may be read, and who still waits.
//!
//! ```text
//!   on_produce ──► Append ──► (log writer) ──► on_written ──► on_synced ──► high watermark moves ──► Produced, Read
//!   on_fetch ────► Read | Fetched | parked until the high watermark moves, its deadline, or its owner goes away
//!   on_delete_records ──► DeleteRecords ──► (log writer) ──► on_log_start ──► RecordsDeleted
//! ```
//!
//! Safety in one paragraph: offsets are assigned here, one after the other, and batches reach the log in that order. The
//! high watermark never passes what the flush policy calls safe ([`Cursors::safe_end`]), `acks = all` is answered only
//! from the high watermark, and consumers are given nothing beyond it. A duplicate is answered only when the watermark
//! has passed the original.

mod delete_records;
mod events;
mod queries;
#[cfg(test)]
mod tests;

use crate::protocol::messages::{Acks, FetchedPartition, ProducedBatch};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::BatchHeader;
use crate::types::{FlushPolicy, LeaderEpoch, MonoTime, NodeId, Offset, TimestampMs, TimestampType, TopicConfig};

use super::cursors::Cursors;
use super::producer_state::{ProducerTable, Verdict};
use super::waiters::{OwnerId, Waiter, WaiterQueue};
pub use events::{Command, DeleteRecordsEvent, FetchEvent, Output, ProduceEvent, ReadRange};

#[derive(Debug)]
struct ParkedFetch<R> {
    offset: Offset,
    max_bytes: usize,
    reply: R,
}

#[derive(Debug)]
struct PendingAck<R> {
    batch: ProducedBatch,
    reply: R,
}

/// What the controller decided about this leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// This leader's epoch.
    pub epoch: LeaderEpoch,
    /// The committed in-sync set, the leader included.
    pub in_sync: Vec<NodeId>,
}

/// The state of a partition's leader. `R` is whatever the shell answers with.
#[derive(Debug)]
pub struct LeaderEngine<R> {
    leadership: Leadership,
    config: TopicConfig,
    cursors: Cursors,
    producers: ProducerTable,
    producer_expiry_ms: i64,
    unwritten: WaiterQueue<PendingAck<R>>,
    uncommitted: WaiterQueue<PendingAck<R>>,
    parked: WaiterQueue<ParkedFetch<R>>,
    deletions: WaiterQueue<R>,
    refusing: Option<ApiError>,
    failed: Option<ApiError>,
}

impl<R> LeaderEngine<R> {
    /// A leader over a log that was just opened and holds `[log_start, end)`.
    #[must_use]
    pub fn new(
        leadership: Leadership,
        config: TopicConfig,
        log_start: Offset,
        end: Offset,
        producers: ProducerTable,
        producer_expiry_ms: i64,
    ) -> Self {
        let mut engine = Self {
            leadership,
            config,
            cursors: Cursors::opened(log_start, end),
            producers,
            producer_expiry_ms,
            unwritten: WaiterQueue::default(),
            uncommitted: WaiterQueue::default(),
            parked: WaiterQueue::default(),
            deletions: WaiterQueue::default(),
            refusing: None,
            failed: None,
        };
        // The only member of the in-sync set holds all there is, and recovery has synced it.
        engine.cursors.commit(end);
        engine
    }

    /// Where the replica stands.
    #[must_use]
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The epoch of this leadership.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.leadership.epoch
    }

    /// The producers that the log knows of.
    #[must_use]
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// A batch wants to be appended.
    pub fn on_produce(&mut self, event: ProduceEvent<R>, out: &mut Output<R>) {
        let refusal = self.refusal(&event);
        let (acks, reply) = (event.acks, event.reply);
        if let Some(error) = refusal {
            out.0.push(Command::Produced { reply, result: Err(error) });
            return;
        }
        let (base_offset, end, append_time) = match self.producers.judge(&event.header) {
            Verdict::New => self.append(&event.header, event.wall, out),
            Verdict::Duplicate { base_offset, end_offset_exclusive, append_time } => {
                (base_offset, end_offset_exclusive, append_time)
            }
            Verdict::Refused(error) => {
                out.0.push(Command::Produced { reply, result: Err(error) });
                return;
            }
        };
        let batch = ProducedBatch { base_offset, append_time, log_start_offset: self.cursors.log_start() };
        let waiter =
            Waiter { until: end, deadline: event.deadline, owner: event.owner, payload: PendingAck { batch, reply } };
        match acks {
            Acks::None => {}
            Acks::Leader => self.unwritten.insert(waiter),
            Acks::All => self.uncommitted.insert(waiter),
        }
        self.answer_acks(out);
    }

    fn append(
        &mut self,
        header: &BatchHeader,
        wall: TimestampMs,
        out: &mut Output<R>,
    ) -> (Offset, Offset, Option<TimestampMs>) {
        let append_time = (self.config.timestamp_type == TimestampType::LogAppendTime).then_some(wall);
        let records = u64::try_from(header.record_count).unwrap_or(0);
        let base_offset = self.cursors.assign(records);
        let mut stamped = BatchHeader { base_offset, leader_epoch: self.leadership.epoch, ..*header };
        if let Some(time) = append_time {
            stamped.attributes = stamped.attributes.with_log_append_time();
            stamped.max_timestamp = time;
        }
        self.producers.record(&stamped);
        out.0.push(Command::Append { base_offset, leader_epoch: self.leadership.epoch, append_time });
        (base_offset, stamped.end_offset_exclusive(), append_time)
    }

    fn refusal(&self, event: &ProduceEvent<R>) -> Option<ApiError> {
        if let Some(cause) = self.failed.as_ref().or(self.refusing.as_ref()) {
            return Some(cause.clone());
        }
        if let Err(error) = self.check_epoch(event.leader_epoch) {
            return Some(error);
        }
        let limit = self.config.max_batch_bytes as usize;
        if event.batch_bytes > limit {
            return Some(ApiError::new(
                ErrorCode::BatchTooLarge,
                format!(
                    "the batch has {} bytes, the topic's max_batch_bytes is {limit}: send smaller batches or raise it",
                    event.batch_bytes
                ),
            ));
        }
        let attributes = event.header.attributes;
        if attributes.is_control() || attributes.is_transactional() {
            return Some(ApiError::new(
                ErrorCode::InvalidBatch,
                "transactional and control batches are not accepted: send the records without a transaction",
            ));
        }
        let (have, need) = (self.leadership.in_sync.len(), self.config.min_insync_replicas as usize);
        if event.acks == Acks::All && have < need {
            return Some(ApiError::new(
                ErrorCode::NotEnoughReplicas,
                format!("{have} replicas are in sync, min_insync_replicas is {need}: bring brokers back or lower it"),
            ));
        }
        None
    }

    fn check_epoch(&self, given: Option<LeaderEpoch>) -> Result<(), ApiError> {
        let current = self.leadership.epoch;
        match given {
            Some(given) if given < current => Err(ApiError::new(
                ErrorCode::FencedLeaderEpoch,
                format!("leader epoch {given} is over, the current one is {current}: refresh the metadata"),
            )),
            Some(given) if given > current => Err(ApiError::new(
                ErrorCode::UnknownLeaderEpoch,
                format!("leader epoch {given} is not known here yet, the current one is {current}: try again"),
            )),
            _ => Ok(()),
        }
    }

    /// The log writer has written up to `end`.
    pub fn on_written(&mut self, end: Offset, out: &mut Output<R>) {
        self.cursors.wrote(end);
        self.advance(out);
    }

    /// The log writer has synced up to `end`.
    pub fn on_synced(&mut self, end: Offset, out: &mut Output<R>) {
        self.cursors.synced(end);
        self.advance(out);
    }

    /// A segment was closed: the moment for a producer snapshot.
    pub fn on_rolled(&mut self, out: &mut Output<R>) {
        self.producers.expire(self.producer_expiry_ms);
        out.0
            .push(Command::SnapshotProducers { at: self.cursors.next_offset(), payload: self.producers.to_snapshot() });
    }

    fn advance(&mut self, out: &mut Output<R>) {
        // With one replica the in-sync set is the leader alone; others join the minimum with replication.
        let moved = self.cursors.commit(self.cursors.safe_end(self.config.flush));
        self.answer_acks(out);
        if moved {
            self.answer_parked(out);
        }
    }

    fn answer_acks(&mut self, out: &mut Output<R>) {
        let ends = [self.cursors.written_end(), self.cursors.high_watermark()];
        for (queue, end) in [&mut self.unwritten, &mut self.uncommitted].into_iter().zip(ends) {
            while let Some(waiter) = queue.pop_reached(end) {
                let PendingAck { batch, reply } = waiter.payload;
                out.0.push(Command::Produced { reply, result: Ok(batch) });
            }
        }
    }

    fn answer_parked(&mut self, out: &mut Output<R>) {
        // A fetch at offset N waits for the end N + 1.
        while let Some(waiter) = self.parked.pop_reached(self.cursors.high_watermark()) {
            out.0.push(self.read(waiter.payload));
        }
    }

    fn read(&self, fetch: ParkedFetch<R>) -> Command<R> {
        let upper_exclusive = self.cursors.high_watermark();
        let range = ReadRange { from: fetch.offset, upper_exclusive, max_bytes: fetch.max_bytes };
        Command::Read { reply: fetch.reply, range, state: self.fetch_state() }
    }

    fn fetch_state(&self) -> FetchedPartition {
        FetchedPartition {
            log_start_offset: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            last_stable_offset: self.cursors.high_watermark(),
        }
    }

    /// Somebody wants to read.
    pub fn on_fetch(&mut self, event: FetchEvent<R>, out: &mut Output<R>) {
        let in_range = self.check_epoch(event.leader_epoch).and_then(|()| self.check_range(event.offset));
        if let Err(error) = in_range {
            out.0.push(Command::Fetched { reply: event.reply, result: Err(error) });
            return;
        }
        let fetch = ParkedFetch { offset: event.offset, max_bytes: event.max_bytes, reply: event.reply };
        if event.offset < self.cursors.high_watermark() {
            out.0.push(self.read(fetch));
        } else if let Some(deadline) = event.wait_until {
            self.parked.insert(Waiter { until: event.offset.next(), deadline, owner: event.owner, payload: fetch });
        } else {
            out.0.push(Command::Fetched { reply: fetch.reply, result: Ok(self.fetch_state()) });
        }
    }

    fn check_range(&self, offset: Offset) -> Result<(), ApiError> {
        let (start, end) = (self.cursors.log_start(), self.cursors.next_offset());
        if (start..=end).contains(&offset) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::OffsetOutOfRange,
            format!(
                "offset {offset} is outside the partition, which holds {start} to {end} (exclusive): seek to one of these"
            ),
        ))
    }

    /// The settings of the topic changed.
    pub fn on_config(&mut self, config: TopicConfig, out: &mut Output<R>) {
        self.config = config;
        self.advance(out);
    }

    /// The disk is nearly full (`Some`, with what to say), or no longer.
    pub fn on_disk_space(&mut self, refusing: Option<ApiError>) {
        self.refusing = refusing;
    }

    /// A write or sync failed: this replica takes no more appends. What is committed stays readable.
    pub fn on_failed(&mut self, cause: ApiError, out: &mut Output<R>) {
        self.fail_acks(&cause, out);
        self.fail_deletions(&cause, |_| true, out);
        self.failed = Some(cause);
    }

    /// The replica goes away: everybody who waits is told `cause`.
    pub fn on_stop(&mut self, cause: &ApiError, out: &mut Output<R>) {
        self.fail_acks(cause, out);
        self.fail_deletions(cause, |_| true, out);
        for waiter in self.parked.take_where(|_| true) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Err(cause.clone()) });
        }
        self.failed = Some(cause.clone());
    }

    fn fail_acks(&mut self, cause: &ApiError, out: &mut Output<R>) {
        for queue in [&mut self.unwritten, &mut self.uncommitted] {
            for waiter in queue.take_where(|_| true) {
                out.0.push(Command::Produced { reply: waiter.payload.reply, result: Err(cause.clone()) });
            }
        }
    }

    /// Time passed: answers those whose deadline is over.
    pub fn on_tick(&mut self, now: MonoTime, out: &mut Output<R>) {
        for queue in [&mut self.unwritten, &mut self.uncommitted] {
            for waiter in queue.take_expired(now) {
                out.0.push(Command::Produced { reply: waiter.payload.reply, result: Err(timed_out()) });
            }
        }
        let state = self.fetch_state();
        for waiter in self.parked.take_expired(now) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Ok(state) });
        }
        self.expire_deletions(now, out);
    }

    /// When [`LeaderEngine::on_tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        let acks = [self.unwritten.next_deadline(), self.uncommitted.next_deadline()];
        acks.into_iter().chain([self.parked.next_deadline(), self.deletions.next_deadline()]).flatten().min()
    }

    /// A connection is gone: nothing of it needs an answer any more.
    pub fn on_owner_gone(&mut self, owner: OwnerId) {
        self.unwritten.take_where(|waiter| waiter.owner == owner);
        self.uncommitted.take_where(|waiter| waiter.owner == owner);
        self.parked.take_where(|waiter| waiter.owner == owner);
        self.deletions.take_where(|waiter| waiter.owner == owner);
    }

    /// Takes back parked fetches of `owner` that `matches`.
    pub fn on_cancel_fetch(&mut self, owner: OwnerId, mut matches: impl FnMut(&R) -> bool) {
        self.parked.take_where(|waiter| waiter.owner == owner && matches(&waiter.payload.reply));
    }

    /// Whether appends have ended for good: a write or sync failed, or the replica was stopped.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The flush policy in force.
    #[must_use]
    pub fn flush(&self) -> FlushPolicy {
        self.config.flush
    }
}

fn timed_out() -> ApiError {
    ApiError::new(
        ErrorCode::TimedOut,
        "the records were appended but not committed within the request's timeout: a retry of an idempotent producer is safe",
    )
}
