//! The leader of one partition: what is appended, what is committed, what may be read, and who still waits.
//!
//! ```text
//!   on_produce ──► Append ──► (log writer) ──► on_written ──► on_synced ─┐
//!   on_replica_fetch ──► (how far the followers are) ────────────────────┴► high watermark moves ──► Produced, Read
//!                   └──► ReadForFollower | ReplicaFetched | parked until there are records, or the watermark moves
//!   on_fetch ────► Read | Fetched | parked until the high watermark moves, its deadline, or its owner goes away
//!   on_leadership ◄── metadata ◄── controller ◄── Propose      in_sync: who counts, who joins, who leaves, who leads next
//!   on_delete_records ──► DeleteRecords ──► (log writer) ──► on_log_start ──► RecordsDeleted
//! ```
//!
//! Safety in one paragraph: offsets are assigned here, one after the other, and batches reach the log in that order. The
//! high watermark never passes what the flush policy calls safe ([`Cursors::safe_end`]) at the leader and at everybody in the
//! union of the committed in-sync set and what was proposed since; `acks = all` is answered only from the high watermark, and
//! consumers are given nothing beyond it. A duplicate is answered only when the watermark has passed the original. After
//! its lease the leader answers nothing of all this. docs/replication.md argues why that suffices.

#[cfg(test)]
mod damage_tests;
mod delete_records;
mod events;
mod followers;
mod in_sync;
mod queries;
mod reads;
mod serving;
#[cfg(test)]
mod tests;
mod waiting;

use crate::protocol::messages::{Acks, ProducedBatch};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::BatchHeader;
use crate::types::{
    EpochHistory, FlushPolicy, LeaderEpoch, MonoTime, Mutant, NodeId, Offset, TimestampMs, TimestampType, TopicConfig,
};

use super::cursors::Cursors;
use super::damage::Damage;
use super::producer_state::{ProducerTable, Verdict};
use super::replication::ReplicaState;
use super::waiters::{Waiter, WaiterQueue};
pub use events::{
    Command, DeleteRecordsEvent, FetchEvent, ListOffsetsEvent, Output, ProduceEvent, ReadRange, ReplicaFetchEvent,
};
use followers::Followers;
use in_sync::HandOver;
pub use in_sync::{LeaderSettings, Leadership, Proposal, ReplicaView};
use reads::{Listing, ParkedFetch};
use serving::ParkedReplica;

#[derive(Debug)]
struct PendingAck<R> {
    batch: ProducedBatch,
    reply: R,
}

/// The state of a partition's leader. `R` is whatever the shell answers with.
#[derive(Debug)]
pub struct LeaderEngine<R> {
    me: NodeId,
    leadership: Leadership,
    /// Where this epoch starts in the log.
    epoch_start: Offset,
    config: TopicConfig,
    settings: LeaderSettings,
    cursors: Cursors,
    epochs: EpochHistory,
    producers: ProducerTable,
    /// Its own: what is damaged is refused by whoever reads, and mended once another leads.
    damage: Damage,
    /// It was damaged in this epoch: the controller may have been told, and have elected another.
    was_damaged: bool,
    followers: Followers,
    /// When the next proposal may be made; none is under way when there is nothing here.
    proposed_again_at: Option<MonoTime>,
    hand_over: Option<HandOver>,
    /// Another leader was proposed, and may have been elected: what is committed now is not for this one to say.
    may_be_deposed: bool,
    /// From this moment on another may lead.
    lease_until: MonoTime,
    unwritten: WaiterQueue<PendingAck<R>>,
    uncommitted: WaiterQueue<PendingAck<R>>,
    parked: WaiterQueue<ParkedFetch<R>>,
    parked_replicas: Vec<ParkedReplica<R>>,
    listings: WaiterQueue<Listing<R>>,
    deletions: WaiterQueue<R>,
    refusing: Option<ApiError>,
    failed: Option<ApiError>,
    log_failure: Option<ApiError>,
}

impl<R> LeaderEngine<R> {
    /// The leader on `me`, over a log that is as `state` says. Its lease is still to come ([`LeaderEngine::on_lease`]).
    #[must_use]
    pub fn new(
        now: MonoTime,
        me: NodeId,
        leadership: Leadership,
        config: TopicConfig,
        state: ReplicaState,
        settings: LeaderSettings,
    ) -> Self {
        let ReplicaState { log_start, durable_end, written_end, high_watermark, epochs, producers, damage } = state;
        let mut followers = Followers::new(me, now);
        followers.follow_metadata(&leadership, true);
        let mut engine = Self {
            me,
            leadership,
            epoch_start: written_end,
            config,
            settings,
            cursors: Cursors::resumed(log_start, high_watermark, durable_end, written_end),
            epochs,
            producers,
            // Also one that was mended, and not looked through since: it may have been reported in this epoch.
            was_damaged: !damage.is_whole(),
            damage,
            followers,
            proposed_again_at: None,
            hand_over: None,
            may_be_deposed: false,
            lease_until: MonoTime::default(),
            unwritten: WaiterQueue::default(),
            uncommitted: WaiterQueue::default(),
            parked: WaiterQueue::default(),
            parked_replicas: Vec::new(),
            listings: WaiterQueue::default(),
            deletions: WaiterQueue::default(),
            refusing: None,
            failed: None,
            log_failure: None,
        };
        // Nobody waits yet: a replica that is alone in the set has all that is committed.
        engine.advance(now, &mut Output::default());
        engine
    }

    /// The lease was renewed: until then no other can lead.
    pub fn on_lease(&mut self, now: MonoTime, until: MonoTime, out: &mut Output<R>) {
        self.lease_until = self.lease_until.max(until);
        self.answer(now, out);
    }

    fn check_lease(&self, now: MonoTime) -> Result<(), ApiError> {
        if now < self.lease_until {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::NotLeader,
            "this broker's lease is over, so another may lead by now: refresh the metadata and try again",
        ))
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
    pub fn on_produce(&mut self, now: MonoTime, event: ProduceEvent<R>, out: &mut Output<R>) {
        let refusal = self.refusal(now, &event);
        let (acks, reply) = (event.acks, event.reply);
        if let Some(error) = refusal {
            out.0.push(Command::Produced { reply, result: Err(error) });
            return;
        }
        let (base_offset, end, append_time) = match self.producers.judge(&event.header) {
            Verdict::New
            | Verdict::Refused(ApiError { code: ErrorCode::UnknownProducer | ErrorCode::OutOfOrderSequence, .. })
                if self.may_have_had(now, &event.header) =>
            {
                let error = ApiError::new(
                    ErrorCode::NotEnoughReplicas,
                    "part of this replica's records is damaged, so that it cannot tell whether it had this batch before: \
                     try again, another replica leads as soon as it is in sync",
                );
                out.0.push(Command::Produced { reply, result: Err(error) });
                return;
            }
            Verdict::New => self.append(&event.header, event.wall, out),
            Verdict::Duplicate { base_offset, end_offset_exclusive, append_time } => {
                let until = if Mutant::AnswersDuplicatesAtOnce.is_on() { Offset::ZERO } else { end_offset_exclusive };
                (base_offset, until, append_time)
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
        self.answer_acks(now, out);
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
        self.epochs.note(stamped.leader_epoch, base_offset);
        out.0.push(Command::Append { base_offset, leader_epoch: self.leadership.epoch, append_time });
        (base_offset, stamped.end_offset_exclusive(), append_time)
    }

    fn refusal(&self, now: MonoTime, event: &ProduceEvent<R>) -> Option<ApiError> {
        if let Some(cause) = self.failed.as_ref().or(self.refusing.as_ref()) {
            return Some(cause.clone());
        }
        if let Err(error) = self.check_epoch(event.leader_epoch).and_then(|()| self.check_lease(now)) {
            return Some(error);
        }
        if let Some(target) = self.handing_over_to().filter(|_| !Mutant::AppendsWhileHandingOver.is_on()) {
            let text =
                format!("the leadership is being handed over to broker {target}: refresh the metadata and try again");
            return Some(ApiError::new(ErrorCode::NotLeader, text));
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
    pub fn on_written(&mut self, now: MonoTime, end: Offset, out: &mut Output<R>) {
        self.cursors.wrote(end);
        self.advance(now, out);
        self.answer_followers(now, out);
    }

    /// The log writer has synced up to `end`.
    pub fn on_synced(&mut self, now: MonoTime, end: Offset, out: &mut Output<R>) {
        self.cursors.synced(end);
        self.advance(now, out);
        if self.hand_over.is_some() {
            self.reconsider(now, out);
        }
    }

    /// A segment was closed: the moment for a producer snapshot.
    pub fn on_rolled(&mut self, out: &mut Output<R>) {
        self.producers.expire(self.settings.producer_expiry_ms);
        out.0
            .push(Command::SnapshotProducers { at: self.cursors.next_offset(), payload: self.producers.to_snapshot() });
    }

    fn advance(&mut self, now: MonoTime, out: &mut Output<R>) {
        let moved = self.committable().is_some_and(|end| self.cursors.commit(end));
        if moved {
            self.answer_followers(now, out);
        }
        self.answer(now, out);
    }

    /// Up to where records are safe with everybody who counts; `None` while there are too few, or somebody has not said.
    fn committable(&self) -> Option<Offset> {
        let proposed = if Mutant::CountsProposedForTheMinimum.is_on() { self.followers.union_size() } else { 0 };
        let have = self.leadership.in_sync.len().max(proposed);
        if have < self.config.min_insync_replicas as usize && !Mutant::CommitsBelowTheMinimum.is_on() {
            return None;
        }
        self.followers.least(self.cursors.safe_end(self.config.flush), self.config.flush)
    }

    fn answer(&mut self, now: MonoTime, out: &mut Output<R>) {
        self.answer_acks(now, out);
        self.answer_parked(now, out);
        self.answer_listings(now, out);
    }

    fn answer_acks(&mut self, now: MonoTime, out: &mut Output<R>) {
        if now >= self.lease_until && !Mutant::AcknowledgesAfterItsLease.is_on() {
            return;
        }
        let ends = [self.cursors.written_end(), self.cursors.high_watermark()];
        for (queue, end) in [&mut self.unwritten, &mut self.uncommitted].into_iter().zip(ends) {
            while let Some(waiter) = queue.pop_reached(end) {
                let PendingAck { batch, reply } = waiter.payload;
                out.0.push(Command::Produced { reply, result: Ok(batch) });
            }
        }
    }

    /// The settings of the topic changed.
    pub fn on_config(&mut self, now: MonoTime, config: TopicConfig, out: &mut Output<R>) {
        self.config = config;
        self.advance(now, out);
    }

    /// The disk is nearly full (`Some`, with what to say), or no longer.
    pub fn on_disk_space(&mut self, refusing: Option<ApiError>) {
        self.refusing = refusing;
    }

    /// A write or sync failed: this replica takes no more appends. What is committed stays readable.
    pub fn on_failed(&mut self, cause: ApiError, out: &mut Output<R>) {
        self.fail_acks(&cause, out);
        self.fail_deletions(&cause, |_| true, out);
        self.refuse_followers(&cause, out);
        self.failed = Some(cause.clone());
        self.log_failure = Some(cause);
    }

    /// The replica goes away: everybody who waits is told `cause`.
    pub fn on_stop(&mut self, cause: &ApiError, out: &mut Output<R>) {
        self.fail_acks(cause, out);
        self.fail_deletions(cause, |_| true, out);
        self.refuse_readers(cause, out);
        self.refuse_followers(cause, out);
        self.failed = Some(cause.clone());
    }

    fn fail_acks(&mut self, cause: &ApiError, out: &mut Output<R>) {
        for queue in [&mut self.unwritten, &mut self.uncommitted] {
            for waiter in queue.take_where(|_| true) {
                out.0.push(Command::Produced { reply: waiter.payload.reply, result: Err(cause.clone()) });
            }
        }
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
