//! What was sent, acknowledged and seen, and what must never be found in that.
//!
//! ```text
//!   producers ─ sent(record, place) ────────────────┐
//!             ─ acknowledged(record, place, offset) ┤
//!   readers  ── saw(reader, place, offset, value) ──┴─► History ─► check() ─► violations, or none
//! ```
//!
//! Every record is unique, and its value says which it is. What must hold:
//!
//! 1. a reader's offsets rise in each partition;
//! 2. nothing is seen that was not sent, or in another partition than it was sent to;
//! 3. an offset holds one record, whoever looks at it;
//! 4. no record is seen at two offsets, acknowledged or not;
//! 5. the records of one producer keep their order in each partition;
//! 6. an acknowledged record is at the offset that was told, for every reader that got there. A reader that ended early needs to
//!    have seen all before the last one that it saw: it must not have skipped any.
//!
//! A record without an acknowledgement may be there or not: only whoever sent it can decide what that means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::types::Offset;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
}

impl Place {
    /// Partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: &str, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One record, as its value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    /// Who sent it. A producer that is started again has another number: nothing orders what it sends after what it sent before.
    pub producer: u32,
    /// Rises by one with each record of that producer.
    pub number: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.producer, self.number)
    }
}

impl RecordId {
    /// The record with this value, if it is one.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Option<Self> {
        let (producer, number) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self { producer: producer.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Rule 1.
    #[error("{reader} saw offset {after} of {place} after offset {before}")]
    NotRising {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// The offset seen first.
        before: Offset,
        /// The offset seen next.
        after: Offset,
    },
    /// Rule 2.
    #[error("{reader} saw '{value}' at {place}@{offset}, which nobody sent there")]
    NeverSent {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// At which offset.
        offset: Offset,
        /// What.
        value: String,
    },
    /// Rule 3.
    #[error("{place}@{offset} is record {first} to {first_witness} and record {second} to {second_witness}")]
    TwoContents {
        /// Where.
        place: Place,
        /// At which offset.
        offset: Offset,
        /// One content.
        first: RecordId,
        /// Who has it.
        first_witness: String,
        /// The other.
        second: RecordId,
        /// Who has that.
        second_witness: String,
    },
    /// Rule 4.
    #[error("{reader} saw record {record} twice: at {place}@{first} and at {place}@{second}")]
    Twice {
        /// Who.
        reader: String,
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// The first offset.
        first: Offset,
        /// The second.
        second: Offset,
    },
    /// Rule 5.
    #[error("{reader} saw record {later} before record {earlier} in {place}")]
    OutOfOrder {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// What was sent first and seen last.
        earlier: RecordId,
        /// What was sent last and seen first.
        later: RecordId,
    },
    /// Rule 6: it is not there.
    #[error("{reader} never saw record {record}, which was acknowledged at {place}@{offset}")]
    Missing {
        /// Who.
        reader: String,
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// Where it should be.
        offset: Offset,
    },
    /// Rule 6: it is somewhere else.
    #[error("{reader} saw record {record} at {place}@{seen}, it was acknowledged at {place}@{acknowledged}")]
    Elsewhere {
        /// Who.
        reader: String,
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// Where it was seen.
        seen: Offset,
        /// Where it should be.
        acknowledged: Offset,
    },
}

#[derive(Clone, Debug)]
struct Sent {
    place: Place,
    acknowledged: Option<Offset>,
}

/// What one reader saw in one partition, in the order in which it did.
type Seen = Vec<(Offset, Result<RecordId, String>)>;

#[derive(Clone, Debug, Default)]
struct Reader {
    seen: BTreeMap<Place, Seen>,
    /// It ended before it could see everything.
    has_ended: bool,
}

/// What happened. Every reader reads from the beginning.
#[derive(Clone, Debug, Default)]
pub struct History {
    sent: BTreeMap<RecordId, Sent>,
    readers: BTreeMap<String, Reader>,
    /// The highest offset that was acknowledged in each partition, and how many were.
    acknowledged: BTreeMap<Place, (Offset, u64)>,
}

impl History {
    /// A record is about to be sent.
    pub fn sent(&mut self, record: RecordId, place: &Place) {
        self.sent.insert(record, Sent { place: place.clone(), acknowledged: None });
    }

    /// A record was acknowledged at this offset.
    pub fn acknowledged(&mut self, record: RecordId, offset: Offset) {
        let Some(sent) = self.sent.get_mut(&record) else { return };
        sent.acknowledged = Some(offset);
        let (highest, count) = self.acknowledged.entry(sent.place.clone()).or_insert((offset, 0));
        *highest = offset.max(*highest);
        *count += 1;
    }

    /// A reader begins.
    pub fn reader_begins(&mut self, reader: &str) {
        self.readers.entry(reader.to_owned()).or_default();
    }

    /// A reader was ended: it need not see what comes.
    pub fn reader_ended(&mut self, reader: &str) {
        self.readers.entry(reader.to_owned()).or_default().has_ended = true;
    }

    /// A reader saw a record with this value.
    pub fn saw(&mut self, reader: &str, place: &Place, offset: Offset, value: &[u8]) {
        let record = RecordId::of_value(value).ok_or_else(|| String::from_utf8_lossy(value).into_owned());
        let reader = self.readers.entry(reader.to_owned()).or_default();
        reader.seen.entry(place.clone()).or_default().push((offset, record));
    }

    /// How many records were sent.
    #[must_use]
    pub fn sent_count(&self) -> u64 {
        self.sent.len().try_into().unwrap_or(u64::MAX)
    }

    /// How many records were acknowledged in each partition.
    #[must_use]
    pub fn acknowledged_counts(&self) -> BTreeMap<Place, u64> {
        self.acknowledged.iter().map(|(place, (_, count))| (place.clone(), *count)).collect()
    }

    /// How many records all readers have seen together.
    #[must_use]
    pub fn seen_count(&self) -> usize {
        self.readers.values().flat_map(|reader| reader.seen.values()).map(Vec::len).sum()
    }

    /// The readers that have not ended and have not yet seen what is acknowledged now.
    #[must_use]
    pub fn behind(&self) -> Vec<String> {
        let is_behind = |reader: &Reader| {
            let last = |place| reader.seen.get(place).and_then(|seen| seen.last()).map(|(offset, _)| *offset);
            self.acknowledged.iter().any(|(place, (highest, _))| last(place) < Some(*highest))
        };
        let living = self.readers.iter().filter(|(_, reader)| !reader.has_ended);
        living.filter(|(_, reader)| is_behind(reader)).map(|(name, _)| name.clone()).collect()
    }

    /// Everything that must not be, in the order of the rules; nothing when all is well.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut contents = Contents::default();
        for (record, sent) in &self.sent {
            if let Some(offset) = sent.acknowledged {
                found.extend(contents.note(&sent.place, offset, *record, "its producer"));
            }
        }
        for (name, reader) in &self.readers {
            let mut seen_at = BTreeMap::new();
            for (place, seen) in &reader.seen {
                self.check_sequence(name, place, seen, &mut found);
                self.check_contents(name, place, seen, (&mut contents, &mut seen_at), &mut found);
            }
            self.check_acknowledged(name, reader, &seen_at, &mut found);
        }
        found
    }

    /// Rules 1 and 5.
    fn check_sequence(&self, reader: &str, place: &Place, seen: &Seen, found: &mut Vec<Violation>) {
        for pair in seen.windows(2) {
            let (before, after) = (pair[0].0, pair[1].0);
            if after <= before {
                found.push(Violation::NotRising { reader: reader.to_owned(), place: place.clone(), before, after });
            }
        }
        let mut newest: BTreeMap<u32, RecordId> = BTreeMap::new();
        for record in seen.iter().filter_map(|(_, record)| record.as_ref().ok()) {
            let later = *newest.entry(record.producer).or_insert(*record);
            if record.number < later.number {
                let (reader, place) = (reader.to_owned(), place.clone());
                found.push(Violation::OutOfOrder { reader, place, earlier: *record, later });
            } else {
                newest.insert(record.producer, *record);
            }
        }
    }

    /// Rules 2, 3 and 4.
    fn check_contents(
        &self,
        reader: &str,
        place: &Place,
        seen: &Seen,
        (contents, seen_at): (&mut Contents, &mut BTreeMap<RecordId, Offset>),
        found: &mut Vec<Violation>,
    ) {
        for (offset, value) in seen {
            let known = value.as_ref().ok().filter(|record| self.sent.get(*record).is_some_and(|s| s.place == *place));
            let Some(record) = known else {
                let value = value.as_ref().map_or_else(Clone::clone, RecordId::to_string);
                let (reader, place) = (reader.to_owned(), place.clone());
                found.push(Violation::NeverSent { reader, place, offset: *offset, value });
                continue;
            };
            found.extend(contents.note(place, *offset, *record, reader));
            if let Some(first) = seen_at.insert(*record, *offset) {
                let (reader, place, record) = (reader.to_owned(), place.clone(), *record);
                found.push(Violation::Twice { reader, record, place, first, second: *offset });
            }
        }
    }

    /// Rule 6.
    fn check_acknowledged(
        &self,
        name: &str,
        reader: &Reader,
        seen_at: &BTreeMap<RecordId, Offset>,
        found: &mut Vec<Violation>,
    ) {
        for (record, Sent { place, acknowledged }) in &self.sent {
            let Some(offset) = *acknowledged else { continue };
            let got_to = reader.seen.get(place).and_then(|seen| seen.iter().map(|(offset, _)| *offset).max());
            let (reader_name, record, place) = (name.to_owned(), *record, place.clone());
            match seen_at.get(&record) {
                Some(seen) if *seen == offset => {}
                Some(seen) => {
                    let (reader, seen) = (reader_name, *seen);
                    found.push(Violation::Elsewhere { reader, record, place, seen, acknowledged: offset });
                }
                None if reader.has_ended && got_to < Some(offset) => {}
                None => found.push(Violation::Missing { reader: reader_name, record, place, offset }),
            }
        }
    }
}

/// Which record each offset holds, and who was the first to say so.
#[derive(Default)]
struct Contents(BTreeMap<(Place, Offset), (RecordId, String)>);

impl Contents {
    fn note(&mut self, place: &Place, offset: Offset, record: RecordId, witness: &str) -> Option<Violation> {
        let known = self.0.entry((place.clone(), offset)).or_insert_with(|| (record, witness.to_owned()));
        (known.0 != record).then(|| Violation::TwoContents {
            place: place.clone(),
            offset,
            first: known.0,
            first_witness: known.1.clone(),
            second: record,
            second_witness: witness.to_owned(),
        })
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
