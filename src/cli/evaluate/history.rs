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
//! 4. a record is at one offset, whoever looks at it, acknowledged or not;
//! 5. the records of one producer keep their order in each partition;
//! 6. an acknowledged record is at the offset that was told, for every reader that got there. A reader that ended early needs to
//!    have seen all before the last one that it saw: it must not have skipped any.
//!
//! A record without an acknowledgement may be there or not: only whoever sent it can decide what that means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::violation::Violation;
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
    /// How many records were acknowledged in each partition.
    acknowledged: BTreeMap<Place, u64>,
    /// The highest offset that is known to be taken in each partition: acknowledged, or seen by some reader.
    highest: BTreeMap<Place, Offset>,
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
        let place = sent.place.clone();
        *self.acknowledged.entry(place.clone()).or_default() += 1;
        self.is_taken(&place, offset);
    }

    fn is_taken(&mut self, place: &Place, offset: Offset) {
        match self.highest.get_mut(place) {
            Some(highest) => *highest = offset.max(*highest),
            None => drop(self.highest.insert(place.clone(), offset)),
        }
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
        self.is_taken(place, offset);
    }

    /// How many records were sent.
    #[must_use]
    pub fn sent_count(&self) -> u64 {
        self.sent.len().try_into().unwrap_or(u64::MAX)
    }

    /// How many records were acknowledged in each partition.
    #[must_use]
    pub fn acknowledged_counts(&self) -> BTreeMap<Place, u64> {
        self.acknowledged.clone()
    }

    /// How many records all readers have seen together.
    #[must_use]
    pub fn seen_count(&self) -> usize {
        self.readers.values().flat_map(|reader| reader.seen.values()).map(Vec::len).sum()
    }

    /// The readers that have not ended and have not yet seen what is acknowledged, or what another one has seen, now.
    #[must_use]
    pub fn behind(&self) -> Vec<String> {
        let is_behind = |reader: &Reader| {
            let last = |place| reader.seen.get(place).and_then(|seen| seen.last()).map(|(offset, _)| *offset);
            self.highest.iter().any(|(place, highest)| last(place) < Some(*highest))
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
        let mut seen_first = BTreeMap::new();
        for (name, reader) in &self.readers {
            for (place, seen) in &reader.seen {
                self.check_sequence(name, place, seen, &mut found);
                self.check_contents(name, place, seen, (&mut contents, &mut seen_first), &mut found);
            }
        }
        for (name, reader) in &self.readers {
            self.check_acknowledged(name, reader, &mut found);
            self.check_skipped(name, reader, &contents, &mut found);
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
        (contents, seen_first): (&mut Contents, &mut BTreeMap<RecordId, (Offset, String)>),
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
            let (first, first_witness) = seen_first.entry(*record).or_insert_with(|| (*offset, reader.to_owned()));
            if first != offset {
                found.push(Violation::Twice {
                    record: *record,
                    place: place.clone(),
                    first: *first,
                    first_witness: first_witness.clone(),
                    second: *offset,
                    second_witness: reader.to_owned(),
                });
            }
        }
    }

    /// Rule 6.
    fn check_acknowledged(&self, name: &str, reader: &Reader, found: &mut Vec<Violation>) {
        let seen = reader.seen.values().flatten();
        let seen_at: BTreeMap<RecordId, Offset> =
            seen.filter_map(|(offset, record)| Some((*record.as_ref().ok()?, *offset))).collect();
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

    /// Rule 7, for records without an acknowledgement: rule 6 is about the others.
    fn check_skipped(&self, name: &str, reader: &Reader, contents: &Contents, found: &mut Vec<Violation>) {
        for (place, seen) in &reader.seen {
            let offsets: BTreeSet<Offset> = seen.iter().map(|(offset, _)| *offset).collect();
            let Some(last) = offsets.last() else { continue };
            let before_last = (place.clone(), Offset(0))..(place.clone(), *last);
            for ((_, offset), (record, witness)) in contents.0.range(before_last) {
                let is_acknowledged = self.sent.get(record).is_some_and(|sent| sent.acknowledged.is_some());
                if !is_acknowledged && !offsets.contains(offset) {
                    let (reader, place, witness) = (name.to_owned(), place.clone(), witness.clone());
                    found.push(Violation::Skipped { reader, place, offset: *offset, record: *record, witness });
                }
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
