//! The batches of one partition on their way: order, sequence numbers, retries. No I/O and no clock.
//!
//! ```text
//!   append ─► open ─ full, lingered, flushed ─► sealed ─ next_to_send ─► flying ─► acknowledged
//!                                                 ▲                        │
//!                                                 └──── failed: back in order, nothing is sent until all that fly landed
//! ```
//!
//! Sequence numbers: a batch is numbered when it is first sent and keeps its number in every retry, so that the broker
//! recognises it. Two things give numbers anew, both only once nothing flies any more:
//! * *rewind*: a batch was refused for good and never appended. The broker accepts no gap, so nothing after it was
//!   appended either: all later batches take the numbers from there on.
//! * *renew*: the broker lost track of this producer, or a batch with an unknown outcome was given up. The partition
//!   goes on under a new producer id; a later batch that may be in the log already fails instead of being written twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, Identity, sequence_plus};
use super::delivery::{Completion, Placed};
use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, NodeId};

/// A partial batch waits this long at most behind one that is on its way.
pub(super) const BUSY_HOLD: Duration = Duration::from_millis(5);

/// Where one partition's records go, and how far they are.
#[derive(Debug)]
pub(super) struct Partition {
    /// Which topic of the producer's table.
    pub topic: usize,
    /// Its number.
    pub number: u32,
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    /// Whether it stands in the list of partitions that have work.
    pub is_active: bool,
    pub open: Option<Batch>,
    pub sealed: VecDeque<Batch>,
    flying: Vec<(u64, Arc<Completion>)>,
    next_order: u64,
    identity: Option<Identity>,
    /// The identity that the broker lost track of. Never taken again.
    spent: Option<Identity>,
    next_sequence: i32,
    repair: Option<Repair>,
    /// A batch failed: nothing is sent until all that fly have landed.
    is_draining: bool,
    backoff: Backoff,
    pub not_before: Option<Instant>,
    /// How many bytes the last batch had: what the next one reserves.
    pub size_hint: usize,
}

/// How sequence numbers are set right once nothing flies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repair {
    Rewind { order: u64, sequence: i32 },
    Renew { cause: String },
}

/// A batch whose fate is decided.
pub(super) type Landed = (Batch, Result<Placed, ClientError>);

impl Partition {
    pub fn new(topic: usize, number: u32) -> Self {
        Self {
            topic,
            number,
            leader: None,
            leader_epoch: LeaderEpoch(0),
            is_active: false,
            open: None,
            sealed: VecDeque::new(),
            flying: Vec::new(),
            next_order: 0,
            identity: None,
            spent: None,
            next_sequence: 0,
            repair: None,
            is_draining: false,
            backoff: Backoff::default(),
            not_before: None,
            size_hint: 1_024,
        }
    }

    /// Whether nothing waits and nothing flies.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty() && self.flying.is_empty()
    }

    /// Takes over who leads, and returns whether there is a new leader. It is tried at once, whatever the old one did.
    pub fn follow(&mut self, leader: Option<NodeId>, epoch: LeaderEpoch) -> bool {
        let is_new = leader.is_some() && (leader, epoch) != (self.leader, self.leader_epoch);
        if is_new {
            self.backoff.reset();
            self.not_before = None;
        }
        (self.leader, self.leader_epoch) = (leader, epoch);
        is_new
    }

    /// Closes the open batch. Records that come now start the next one.
    pub fn seal(&mut self) {
        if let Some(mut batch) = self.open.take() {
            batch.order = self.next_order;
            self.next_order += 1;
            self.size_hint = batch.plain_bytes();
            self.sealed.push_back(batch);
        }
    }

    /// When the open batch shall be closed although it is not full.
    pub fn open_due_at(&self, linger: Duration) -> Option<Instant> {
        let open = self.open.as_ref()?;
        let is_quiet = self.flying.is_empty() && self.sealed.is_empty();
        Some(open.created + if is_quiet { linger } else { linger.max(BUSY_HOLD) })
    }

    /// Whether a sealed batch may go now, as far as this partition is concerned.
    pub fn may_send(&self, now: Instant, max_in_flight: usize) -> bool {
        !self.sealed.is_empty()
            && !self.is_draining
            && self.repair.is_none()
            && self.flying.len() < max_in_flight
            && self.not_before.is_none_or(|moment| moment <= now)
    }

    /// Makes sure that batches can be numbered, counting from 0 under `current` if need be. False when that is not there,
    /// or the one that the broker lost track of: a new one is needed then.
    pub fn has_identity(&mut self, current: Option<Identity>) -> bool {
        if self.identity.is_none() && current.is_some() && current != self.spent {
            self.identity = current;
            self.next_sequence = 0;
        }
        self.identity.is_some()
    }

    /// Takes the next batch to send, numbered if the producer is idempotent.
    pub fn take_next(&mut self, is_idempotent: bool) -> Option<Batch> {
        let mut batch = self.sealed.pop_front()?;
        if is_idempotent
            && batch.stamp.is_none()
            && let Some((id, epoch)) = self.identity
        {
            batch.stamp = Some((id, epoch, self.next_sequence));
            self.next_sequence = sequence_plus(self.next_sequence, batch.records);
        }
        self.flying.push((batch.order, Arc::clone(&batch.completion)));
        batch.attempts += 1;
        Some(batch)
    }

    /// What an attempt came to. Returns the batches whose fate is decided by it.
    pub fn on_landed(&mut self, batch: Batch, outcome: Result<Placed, ClientError>, now: Instant) -> Vec<Landed> {
        self.flying.retain(|(order, _)| *order != batch.order);
        let mut landed = Vec::new();
        match outcome {
            Ok(placed) => {
                self.backoff.reset();
                landed.push((batch, Ok(placed)));
            }
            Err(error) => self.on_failed(batch, error, now, &mut landed),
        }
        self.settle(&mut landed);
        landed
    }

    fn on_failed(&mut self, mut batch: Batch, error: ClientError, now: Instant, landed: &mut Vec<Landed>) {
        batch.maybe_appended |= error.leaves_outcome_unknown();
        let code = match &error {
            ClientError::Refused { error, .. } => Some(error.code),
            _ => None,
        };
        let is_behind_a_failure = self.is_draining || self.repair.is_some() || self.has_earlier(batch.order);
        match code {
            // In the log already, so long ago that the broker forgot where.
            Some(ErrorCode::DuplicateSequence) if batch.stamp.is_some() => {
                landed.push((batch, Ok(Placed { base_offset: None, append_time: None })));
            }
            Some(ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer | ErrorCode::ProducerFenced)
                if batch.stamp.is_some() =>
            {
                self.is_draining = true;
                if is_behind_a_failure {
                    // The broker misses a batch before it, which is sent again first.
                    self.put_back(batch, error);
                } else {
                    self.lost_track(batch, error, landed);
                }
            }
            _ if error.is_retryable() => {
                self.is_draining = true;
                self.not_before = Some(now + self.backoff.next_delay());
                self.put_back(batch, error);
            }
            _ => {
                self.give_up_number(&batch, &error);
                landed.push((batch, Err(error)));
            }
        }
    }

    /// The broker does not know this producer as it should, and no batch before this one explains it.
    fn lost_track(&mut self, mut batch: Batch, error: ClientError, landed: &mut Vec<Landed>) {
        self.repair = Some(Repair::Renew { cause: error.to_string() });
        if batch.maybe_appended {
            let unknown = self.outcome_unknown(&batch, error.to_string());
            landed.push((batch, Err(unknown)));
        } else {
            // This batch is certainly not in the log: it may go again under another number.
            batch.stamp = None;
            self.put_back(batch, error);
        }
    }

    /// A numbered batch will never be sent again.
    fn give_up_number(&mut self, batch: &Batch, error: &ClientError) {
        let Some((_, _, sequence)) = batch.stamp else { return };
        self.is_draining = true;
        if batch.maybe_appended {
            self.repair = Some(Repair::Renew { cause: error.to_string() });
        } else {
            match &mut self.repair {
                Some(Repair::Renew { .. }) => {}
                Some(Repair::Rewind { order, .. }) if *order < batch.order => {}
                repair => *repair = Some(Repair::Rewind { order: batch.order, sequence }),
            }
        }
    }

    /// Fails what waits past its deadline. What flies is told the callers as failed, and goes on.
    pub fn expire(&mut self, now: Instant, error: impl Fn(&Batch) -> ClientError) -> Vec<Landed> {
        let mut landed = Vec::new();
        let (late, waiting): (VecDeque<Batch>, VecDeque<Batch>) =
            std::mem::take(&mut self.sealed).into_iter().partition(|batch| batch.deadline <= now);
        self.sealed = waiting;
        for batch in late {
            let error = error(&batch);
            self.give_up_number(&batch, &error);
            landed.push((batch, Err(error)));
        }
        if let Some(batch) = self.open.take_if(|batch| batch.deadline <= now) {
            let error = error(&batch);
            landed.push((batch, Err(error)));
        }
        self.settle(&mut landed);
        landed
    }

    /// Fails everything that waits.
    pub fn fail_waiting(&mut self, error: &ClientError) -> Vec<Landed> {
        self.seal();
        let mut landed = Vec::new();
        for batch in std::mem::take(&mut self.sealed) {
            self.give_up_number(&batch, error);
            landed.push((batch, Err(error.clone())));
        }
        self.settle(&mut landed);
        landed
    }

    /// The partition is another one now (its topic was deleted and created anew): no number means anything there.
    pub fn renew(&mut self, cause: &str) -> Vec<Landed> {
        let mut landed = Vec::new();
        if self.identity.is_some() {
            // Whatever was appended is gone with the old topic.
            self.sealed.iter_mut().for_each(|batch| batch.maybe_appended = false);
            self.is_draining = true;
            self.repair = Some(Repair::Renew { cause: cause.to_owned() });
            self.settle(&mut landed);
        }
        landed
    }

    /// The futures of all records that wait or fly.
    pub fn completions(&self) -> impl Iterator<Item = Arc<Completion>> + '_ {
        let waiting = self.sealed.iter().chain(&self.open).map(|batch| Arc::clone(&batch.completion));
        self.flying.iter().map(|(_, completion)| Arc::clone(completion)).chain(waiting)
    }

    /// Once nothing flies: sets the numbers right and lets batches go again.
    fn settle(&mut self, landed: &mut Vec<Landed>) {
        if !self.flying.is_empty() || !self.is_draining {
            return;
        }
        self.is_draining = false;
        match self.repair.take() {
            None => {}
            Some(Repair::Rewind { order, sequence }) => {
                self.next_sequence = sequence;
                for batch in self.sealed.iter_mut().filter(|batch| batch.order > order) {
                    batch.stamp = None;
                    batch.maybe_appended = false;
                }
            }
            Some(Repair::Renew { cause }) => {
                self.spent = self.identity.take();
                for mut batch in std::mem::take(&mut self.sealed) {
                    if batch.stamp.take().is_some() && batch.maybe_appended {
                        let unknown = self.outcome_unknown(&batch, cause.clone());
                        landed.push((batch, Err(unknown)));
                    } else {
                        self.sealed.push_back(batch);
                    }
                }
            }
        }
    }

    fn has_earlier(&self, order: u64) -> bool {
        self.flying.iter().any(|(flying, _)| *flying < order) || self.sealed.iter().any(|batch| batch.order < order)
    }

    fn put_back(&mut self, mut batch: Batch, error: ClientError) {
        batch.last_error = Some(error);
        let place = self.sealed.partition_point(|other| other.order < batch.order);
        self.sealed.insert(place, batch);
    }

    fn outcome_unknown(&self, batch: &Batch, cause: String) -> ClientError {
        ClientError::OutcomeUnknown { topic: batch.completion.topic.to_string(), partition: self.number, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ApiError;
    use crate::types::record_batch::{BatchBuilder, BatchHeader, Compression};
    use crate::types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

    const HOUR: Duration = Duration::from_secs(3_600);

    struct Story {
        partition: Partition,
        now: Instant,
    }

    impl Story {
        fn new() -> Self {
            let mut partition = Partition::new(0, 0);
            assert!(partition.has_identity(Some((ProducerId(1), ProducerEpoch(0)))));
            Self { partition, now: Instant::now() }
        }

        /// Seals a batch of `records` records.
        fn add(&mut self, records: u32) {
            let mut builder = BatchBuilder::new(Compression::None, 0);
            (0..records).for_each(|_| builder.append(TimestampMs(0), None, Some(b"v"), &[]));
            let completion = Completion::new("rides".into(), 0);
            let mut batch = Batch::new(builder, completion, self.now, self.now + HOUR);
            batch.records = records;
            self.partition.open = Some(batch);
            self.partition.seal();
        }

        fn send(&mut self) -> Batch {
            assert!(self.partition.may_send(self.now + HOUR, 5));
            let mut batch = self.partition.take_next(true).expect("a batch waits");
            let bytes = batch.encode().expect("encodes");
            let header = BatchHeader::parse(&bytes).expect("a header");
            assert_eq!(header.verify_checksum(&bytes), Ok(()));
            assert_eq!(batch.stamp, Some((header.producer_id, header.producer_epoch, header.base_sequence)));
            batch
        }

        fn land(&mut self, batch: Batch, outcome: Result<Placed, ClientError>) -> Vec<bool> {
            self.partition.on_landed(batch, outcome, self.now).into_iter().map(|(_, outcome)| outcome.is_ok()).collect()
        }
    }

    fn sequence(batch: &Batch) -> (i64, i32) {
        batch.stamp.map(|(id, _, sequence)| (id.0, sequence)).expect("numbered")
    }

    fn ok() -> Result<Placed, ClientError> {
        Ok(Placed { base_offset: Some(Offset(0)), append_time: None })
    }

    fn refused(code: ErrorCode) -> Result<Placed, ClientError> {
        Err(ClientError::Refused { what: "test".into(), error: ApiError::new(code, "as scripted") })
    }

    fn lost() -> Result<Placed, ClientError> {
        Err(ClientError::Disconnected { address: "a".into(), cause: "cut".into() })
    }

    #[test]
    fn batches_are_numbered_by_records_and_the_numbers_wrap() {
        let mut story = Story::new();
        [3, 2, 1].into_iter().for_each(|records| story.add(records));
        let sent = [story.send(), story.send(), story.send()];
        assert_eq!(sent.each_ref().map(sequence), [(1, 0), (1, 3), (1, 5)]);
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
    }

    #[test]
    fn after_a_failure_nothing_is_sent_until_all_that_fly_have_landed_and_then_in_order() {
        let mut story = Story::new();
        (0..4).for_each(|_| story.add(1));
        let (first, second, third) = (story.send(), story.send(), story.send());
        assert!(story.land(second, lost()).is_empty());
        assert!(!story.partition.may_send(story.now + HOUR, 5), "two still fly");
        assert!(story.land(third, refused(ErrorCode::OutOfOrderSequence)).is_empty(), "the broker misses the second");
        assert_eq!(story.land(first, ok()), [true]);
        let again = [story.send(), story.send(), story.send()];
        assert_eq!(again.each_ref().map(sequence), [(1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn a_retry_waits_for_its_backoff() {
        let mut story = Story::new();
        story.add(1);
        let batch = story.send();
        story.land(batch, refused(ErrorCode::Overloaded));
        assert!(!story.partition.may_send(story.now, 5));
        assert!(story.partition.may_send(story.now + Duration::from_secs(1), 5));
    }

    #[test]
    fn a_number_that_was_never_used_is_given_to_the_next_batch_and_earlier_ones_keep_theirs() {
        let mut story = Story::new();
        (0..3).for_each(|_| story.add(2));
        let (first, second, third) = (story.send(), story.send(), story.send());
        story.land(first, lost());
        assert_eq!(story.land(second, refused(ErrorCode::InvalidBatch)), [false]);
        story.land(third, refused(ErrorCode::OutOfOrderSequence));
        let (first, third) = (story.send(), story.send());
        assert_eq!((sequence(&first), sequence(&third)), ((1, 0), (1, 2)));
    }

    #[test]
    fn a_producer_that_was_forgotten_goes_on_under_another_id_and_doubles_nothing() {
        let mut story = Story::new();
        (0..3).for_each(|_| story.add(1));
        let (first, second) = (story.send(), story.send());
        // The second may be in the log; the first certainly is not.
        story.land(second, lost());
        let draining = story.land(first, refused(ErrorCode::UnknownProducer));
        assert!(draining.is_empty(), "others had failed: the first is tried once more");
        let first = story.send();
        assert_eq!(story.land(first, refused(ErrorCode::UnknownProducer)), [false], "only the second is given up");
        assert!(!story.partition.has_identity(Some((ProducerId(1), ProducerEpoch(0)))), "never the old id again");
        assert!(story.partition.has_identity(Some((ProducerId(2), ProducerEpoch(0)))));
        assert_eq!([story.send(), story.send()].each_ref().map(sequence), [(2, 0), (2, 1)]);
    }

    #[test]
    fn a_batch_given_up_with_an_unknown_outcome_ends_the_id() {
        let mut story = Story::new();
        story.add(1);
        let batch = story.send();
        story.land(batch, lost());
        let late = story.now + 2 * HOUR;
        let error = ClientError::Closed { what: "test" };
        assert_eq!(story.partition.expire(late, |_| error.clone()).len(), 1);
        assert!(!story.partition.has_identity(None));
    }

    #[test]
    fn a_partial_batch_lingers_and_behind_another_it_is_held_a_little_longer() {
        let mut story = Story::new();
        story.add(1);
        let flying = story.send();
        let builder = BatchBuilder::new(Compression::None, 0);
        let open = Batch::new(builder, Completion::new("rides".into(), 0), story.now, story.now + HOUR);
        story.partition.open = Some(open);
        let due = |partition: &Partition, linger| partition.open_due_at(linger).map(|moment| moment - story.now);
        assert_eq!(due(&story.partition, Duration::ZERO), Some(BUSY_HOLD));
        assert_eq!(due(&story.partition, HOUR), Some(HOUR));
        story.partition.on_landed(flying, ok(), story.now);
        assert_eq!(due(&story.partition, Duration::ZERO), Some(Duration::ZERO));
    }
}
