//! What a partition remembers of its idempotent producers, so that a retry is not a duplicate.
//!
//! For each producer id the last five batches are kept (Kafka's number: as many as a client has in flight, KIP-98 and
//! KAFKA-5494). A batch is new, a duplicate of one of these, or out of order. The state is a function of the log: a
//! snapshot plus the headers of the batches after it give the same state, and expiry depends on log time only.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::BatchHeader;
use crate::types::record_batch::header::sequence_plus;
use crate::types::{Offset, ProducerEpoch, ProducerId, TimestampMs};

/// How many batches of each producer are remembered.
pub const REMEMBERED_BATCHES: usize = 5;

/// How many producers a partition remembers: a few hundred bytes each. Beyond it, those that wrote longest ago are
/// forgotten: a client that takes a new id for each record must not fill the node's memory.
pub const MAX_PRODUCERS: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedBatch {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    end_offset_exclusive: Offset,
    append_time: Option<TimestampMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProducerEntry {
    epoch: ProducerEpoch,
    batches: VecDeque<RememberedBatch>,
    newest_timestamp: TimestampMs,
}

impl ProducerEntry {
    fn end(&self) -> Option<Offset> {
        self.batches.back().map(|batch| batch.end_offset_exclusive)
    }
}

/// What a batch is, seen from its producer's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It continues the sequence (or its producer is not idempotent).
    New,
    /// It was appended before, there.
    Duplicate {
        /// The offset of its first record.
        base_offset: Offset,
        /// The offset after its last record.
        end_offset_exclusive: Offset,
        /// The broker's time for it, with log-append time.
        append_time: Option<TimestampMs>,
    },
    /// It cannot be appended.
    Refused(ApiError),
}

/// The idempotent producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: HashMap<ProducerId, ProducerEntry>,
    newest_timestamp: TimestampMs,
    has_gaps: bool,
}

/// A batch that comes this much later than all before it, by the time in the log, deserves a second look. It is rare, and far below any
/// expiry that makes sense.
const LEAP_MS: i64 = 3_600_000;

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Snapshot<P> {
    newest_timestamp: TimestampMs,
    producers: Vec<P>,
    #[serde(default)]
    has_gaps: bool,
}

impl ProducerTable {
    /// Judges a batch that is about to be appended. Changes nothing.
    #[must_use]
    pub fn judge(&self, header: &BatchHeader) -> Verdict {
        if !header.is_idempotent() {
            return Verdict::New;
        }
        let Some(entry) = self.producers.get(&header.producer_id) else {
            return match header.base_sequence {
                0 => Verdict::New,
                _ => unknown_producer(header),
            };
        };
        if header.producer_epoch < entry.epoch {
            return fenced(header, entry.epoch);
        }
        if header.producer_epoch > entry.epoch {
            return match header.base_sequence {
                0 => Verdict::New,
                _ => out_of_order(header, 0),
            };
        }
        let expected = entry.batches.back().map_or(0, |last| sequence_plus(last.last_sequence, 1));
        if header.base_sequence == expected {
            return Verdict::New;
        }
        let duplicate = |batch: &&RememberedBatch| {
            batch.base_sequence == header.base_sequence && batch.last_sequence == header.last_sequence()
        };
        if let Some(batch) = entry.batches.iter().find(duplicate) {
            let RememberedBatch { base_offset, end_offset_exclusive, append_time, .. } = *batch;
            return Verdict::Duplicate { base_offset, end_offset_exclusive, append_time };
        }
        match entry.batches.front() {
            Some(oldest) if is_before(header.base_sequence, oldest.base_sequence) => too_old(header),
            _ => out_of_order(header, expected),
        }
    }

    /// Whether the time in the log leaps ahead with this batch. Read from a damaged header, it would make every other producer expire.
    /// The first batch of all can leap within itself only.
    #[must_use]
    pub fn leaps_ahead(&self, header: &BatchHeader) -> bool {
        let is_first = self.newest_timestamp == TimestampMs::default();
        let before = if is_first { header.first_timestamp } else { self.newest_timestamp };
        header.max_timestamp.0.saturating_sub(before.0) >= LEAP_MS
    }

    /// Takes note of a batch that is appended (or found in the log).
    pub fn record(&mut self, header: &BatchHeader) {
        self.newest_timestamp = self.newest_timestamp.max(header.max_timestamp);
        if !header.is_idempotent() || header.attributes.is_control() {
            return;
        }
        let entry = self.producers.entry(header.producer_id).or_insert_with(|| ProducerEntry {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED_BATCHES),
            newest_timestamp: header.max_timestamp,
        });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == REMEMBERED_BATCHES {
            entry.batches.pop_front();
        }
        entry.batches.push_back(RememberedBatch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            end_offset_exclusive: header.end_offset_exclusive(),
            append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
        });
        // The log's time at its last batch, not the producer's own: one that writes old dates is not an idle one.
        entry.newest_timestamp = self.newest_timestamp;
        if self.producers.len() > MAX_PRODUCERS {
            self.evict();
        }
    }

    /// The table as it was when the log ended at `end`, as far as the batches before that are still remembered: those that came
    /// after it are replayed by whoever starts there.
    #[must_use]
    pub fn as_of(&self, end: Offset) -> Self {
        let before = |(id, entry): (&ProducerId, &ProducerEntry)| {
            let batches: VecDeque<_> =
                entry.batches.iter().filter(|batch| batch.end_offset_exclusive <= end).copied().collect();
            (!batches.is_empty()).then(|| (*id, ProducerEntry { batches, ..entry.clone() }))
        };
        Self { producers: self.producers.iter().filter_map(before).collect(), ..*self }
    }

    /// Takes in what another table says, as of where this one is: of each producer whichever knows the later batch. The other one's
    /// word on gaps counts.
    pub fn merge(&mut self, other: Self) {
        // Its log holds all of this one: a later time here was read from a damaged header, and would make all of them expire.
        self.newest_timestamp = other.newest_timestamp;
        self.has_gaps = other.has_gaps;
        for ours in self.producers.values_mut() {
            ours.newest_timestamp = ours.newest_timestamp.min(other.newest_timestamp);
        }
        for (id, theirs) in other.producers {
            if self.producers.get(&id).is_none_or(|ours| ours.end() <= theirs.end()) {
                self.producers.insert(id, theirs);
            }
        }
    }

    /// Batches came here that nobody can read any more.
    pub fn note_gap(&mut self) {
        self.has_gaps = true;
    }

    /// Whether it may lack what batches said that cannot be read any more. It outlasts snapshots.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// Forgets producers whose newest batch is more than `expiry_ms` older than the log's newest timestamp.
    pub fn expire(&mut self, expiry_ms: i64) {
        let oldest_kept = self.newest_timestamp.0.saturating_sub(expiry_ms);
        self.producers.retain(|_, entry| entry.newest_timestamp.0 >= oldest_kept);
    }

    /// Forgets the tenth that wrote longest ago, so that the cost of finding them is spread over many batches.
    fn evict(&mut self) {
        let mut ends: Vec<Offset> = self.producers.values().filter_map(ProducerEntry::end).collect();
        let (_, oldest_kept, _) = ends.select_nth_unstable(MAX_PRODUCERS / 10);
        let oldest_kept = *oldest_kept;
        self.producers.retain(|_, entry| entry.end().is_some_and(|end| end >= oldest_kept));
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The table as bytes, for a snapshot file: the same table gives the same bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        let Self { newest_timestamp, has_gaps, .. } = *self;
        rmp_serde::to_vec(&Snapshot { newest_timestamp, producers, has_gaps }).expect("plain numbers always encode")
    }

    /// The table that [`ProducerTable::to_snapshot`] wrote; `None` when the bytes are something else.
    #[must_use]
    pub fn from_snapshot(bytes: &[u8]) -> Option<Self> {
        let snapshot: Snapshot<(ProducerId, ProducerEntry)> = rmp_serde::from_slice(bytes).ok()?;
        let Snapshot { newest_timestamp, producers, has_gaps } = snapshot;
        Some(Self { producers: producers.into_iter().collect(), newest_timestamp, has_gaps })
    }
}

/// Whether `sequence` lies before `other`, given that sequences wrap.
fn is_before(sequence: i32, other: i32) -> bool {
    let behind = i64::from(other) - i64::from(sequence);
    let behind = if behind < 0 { behind + (1 << 31) } else { behind };
    behind != 0 && behind < 1 << 30
}

fn refused(code: ErrorCode, message: String) -> Verdict {
    Verdict::Refused(ApiError::new(code, message))
}

fn fenced(header: &BatchHeader, epoch: ProducerEpoch) -> Verdict {
    let (id, given) = (header.producer_id, header.producer_epoch);
    refused(
        ErrorCode::ProducerFenced,
        format!("producer {id} with epoch {given} was replaced by one with epoch {epoch}: stop this instance"),
    )
}

fn out_of_order(header: &BatchHeader, expected: i32) -> Verdict {
    let (id, given) = (header.producer_id, header.base_sequence);
    refused(
        ErrorCode::OutOfOrderSequence,
        format!("producer {id} sent sequence {given} where {expected} comes next: a batch before it is missing"),
    )
}

fn unknown_producer(header: &BatchHeader) -> Verdict {
    let (id, given) = (header.producer_id, header.base_sequence);
    refused(
        ErrorCode::UnknownProducer,
        format!("nothing is known here of producer {id}, which sent sequence {given}: obtain a new producer id"),
    )
}

fn too_old(header: &BatchHeader) -> Verdict {
    let (id, given) = (header.producer_id, header.base_sequence);
    refused(
        ErrorCode::DuplicateSequence,
        format!("sequence {given} of producer {id} was appended so long ago that its offset is forgotten"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::record_batch::{BatchBuilder, Compression};

    fn batch(epoch: i16, sequence: i32, records: i32, base_offset: u64) -> BatchHeader {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.set_producer(ProducerId(7), ProducerEpoch(epoch), sequence);
        for _ in 0..records {
            builder.append(TimestampMs(1_000), None, Some(b"v"), &[]);
        }
        let bytes = builder.build().expect("builds");
        BatchHeader { base_offset: Offset(base_offset), ..BatchHeader::parse(&bytes).expect("parses") }
    }

    fn code(verdict: Verdict) -> Option<ErrorCode> {
        match verdict {
            Verdict::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    fn table_after(batches: &[BatchHeader]) -> ProducerTable {
        let mut table = ProducerTable::default();
        for header in batches {
            assert_eq!(table.judge(header), Verdict::New);
            table.record(header);
        }
        table
    }

    #[test]
    fn a_retry_is_answered_with_the_place_of_the_original() {
        let table = table_after(&[batch(0, 0, 3, 10), batch(0, 3, 2, 13)]);
        let original =
            Verdict::Duplicate { base_offset: Offset(10), end_offset_exclusive: Offset(13), append_time: None };
        assert_eq!(table.judge(&batch(0, 0, 3, 0)), original);
        assert_eq!(table.judge(&batch(0, 5, 1, 0)), Verdict::New);
    }

    #[test]
    fn gaps_old_epochs_and_strangers_are_refused_by_name() {
        let table = table_after(&[batch(2, 0, 3, 10)]);
        assert_eq!(code(table.judge(&batch(2, 4, 1, 0))), Some(ErrorCode::OutOfOrderSequence));
        assert_eq!(code(table.judge(&batch(1, 3, 1, 0))), Some(ErrorCode::ProducerFenced));
        assert_eq!(code(table.judge(&batch(3, 3, 1, 0))), Some(ErrorCode::OutOfOrderSequence));
        assert_eq!(table.judge(&batch(3, 0, 1, 0)), Verdict::New);
        let stranger = BatchHeader { producer_id: ProducerId(8), ..batch(0, 3, 1, 0) };
        assert_eq!(code(table.judge(&stranger)), Some(ErrorCode::UnknownProducer));
    }

    #[test]
    fn a_duplicate_older_than_the_five_remembered_is_said_to_be_one() {
        let batches: Vec<_> = (0..7).map(|n| batch(0, n, 1, n as u64)).collect();
        let table = table_after(&batches);
        assert_eq!(code(table.judge(&batches[1])), Some(ErrorCode::DuplicateSequence));
        assert!(matches!(table.judge(&batches[2]), Verdict::Duplicate { base_offset: Offset(2), .. }));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut table = table_after(&[batch(0, 0, 1, 0)]);
        table.record(&batch(0, i32::MAX - 1, 2, 1));
        assert_eq!(table.judge(&batch(0, 0, 1, 3)), Verdict::New);
    }

    #[test]
    fn a_snapshot_and_the_headers_after_it_give_the_same_table() {
        let batches: Vec<_> = (0..9).map(|n| batch(0, n, 1, n as u64)).collect();
        let whole = table_after(&batches);
        let mut restored =
            ProducerTable::from_snapshot(&table_after(&batches[..4]).to_snapshot()).expect("its own snapshot");
        for header in &batches[4..] {
            restored.record(header);
        }
        assert_eq!(restored, whole);
        assert_eq!(restored.to_snapshot(), whole.to_snapshot());
        assert_eq!(ProducerTable::from_snapshot(b"something else"), None);
    }

    #[test]
    fn of_two_tables_whoever_knows_the_later_batch_of_a_producer_is_believed() {
        let of = |id: i64, header: BatchHeader| BatchHeader { producer_id: ProducerId(id), ..header };
        let mut ours = ProducerTable::default();
        ours.note_gap();
        for (id, header) in [(1, batch(0, 0, 1, 0)), (2, batch(0, 0, 1, 4)), (3, batch(9, 0, 1, 5))] {
            ours.record(&of(id, header));
        }
        let mut theirs = ProducerTable::default();
        for (id, header) in
            [(1, batch(0, 0, 1, 0)), (1, batch(0, 1, 1, 2)), (3, batch(0, 5, 1, 5)), (4, batch(0, 0, 1, 3))]
        {
            theirs.record(&of(id, header));
        }
        ours.record(&BatchHeader { max_timestamp: TimestampMs(1 << 60), ..of(2, batch(0, 1, 1, 6)) });
        ours.merge(theirs);
        ours.expire(5_000);
        assert_eq!(ours.len(), 4, "that time was none of the log's");
        let is_known = |id, header| matches!(ours.judge(&of(id, header)), Verdict::Duplicate { .. });
        assert!(is_known(1, batch(0, 1, 1, 2)) && is_known(2, batch(0, 1, 1, 6)) && is_known(4, batch(0, 0, 1, 3)));
        assert!(is_known(3, batch(0, 5, 1, 5)), "ours was read from a damaged header");
        assert!(!ours.has_gaps());
    }

    #[test]
    fn gaps_outlast_snapshots_and_one_of_the_earlier_form_has_none() {
        let mut table = table_after(&[batch(0, 0, 1, 0)]);
        let earlier = rmp_serde::to_vec(&(table.newest_timestamp, table.producers.iter().collect::<Vec<_>>()));
        assert_eq!(ProducerTable::from_snapshot(&earlier.expect("encodes")), Some(table.clone()));
        table.note_gap();
        assert!(ProducerTable::from_snapshot(&table.to_snapshot()).expect("its own").has_gaps());
        assert!(table.as_of(Offset(0)).has_gaps());
    }

    #[test]
    fn a_producer_that_writes_old_dates_is_not_an_idle_one() {
        let now = BatchHeader { max_timestamp: TimestampMs(90_000), producer_id: ProducerId(1), ..batch(0, 0, 1, 0) };
        let backfill = BatchHeader { producer_id: ProducerId(2), ..batch(0, 0, 1, 1) };
        let mut table = table_after(&[now, backfill]);
        table.expire(5_000);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_flood_of_producer_ids_pushes_out_those_that_wrote_longest_ago() {
        let mut table = ProducerTable::default();
        let header = batch(0, 0, 1, 0);
        for id in 0..=MAX_PRODUCERS as u64 {
            let base_offset = Offset(id);
            table.record(&BatchHeader { producer_id: ProducerId(id.cast_signed()), base_offset, ..header });
        }
        assert_eq!(table.len(), MAX_PRODUCERS + 1 - MAX_PRODUCERS / 10);
        let newest = BatchHeader { producer_id: ProducerId(MAX_PRODUCERS as i64), ..header };
        assert!(matches!(table.judge(&newest), Verdict::Duplicate { .. }), "the newest are still known");
    }

    #[test]
    fn expiry_follows_the_time_in_the_log() {
        let mut table = table_after(&[batch(0, 0, 1, 0)]);
        table.expire(5_000);
        assert_eq!(table.len(), 1);
        let later = BatchHeader { producer_id: ProducerId(9), max_timestamp: TimestampMs(10_000), ..batch(0, 0, 1, 1) };
        table.record(&later);
        table.expire(5_000);
        assert_eq!(table.len(), 1, "only the producer of the newer batch is left");
    }
}
