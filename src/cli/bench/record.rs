//! The records of a bench: each is distinct, says who sent it as what number and when, and can be checked by itself.
//!
//! ```text
//!   0      4          8        16              24                    record_size
//!   │ run  │ producer │ number │ intended time │ filler of (producer, number) │
//! ```
//!
//! Integers are big-endian. The filler is a window into a pool of random letters; where it begins follows from producer and
//! number, so that making and checking it cost one copy and one comparison.

use std::slice::ChunksExact;

use bytes::BufMut;

/// Run, producer, number and time: no record is shorter.
pub const SHORTEST_BYTES: usize = 24;

/// Where a window into the pool may begin. Small enough that the pool stays in a core's cache.
const WINDOWS: u64 = 32 << 10;

/// About how many bytes of values are made at a time, and the most records.
const MADE_BYTES: usize = 16 << 10;
const MOST_MADE: usize = 64;

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who sent it.
    pub producer: u32,
    /// Its place among the records of this producer, from 0.
    pub number: u64,
    /// When it was to be sent, in nanoseconds on the bench's clock.
    pub intended_ns: u64,
}

/// Why a value is not a record of this bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Its length is another.
    #[error("it has {found} bytes where {expected} were sent")]
    Length {
        /// The record size of the bench.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// Another run sent it.
    #[error("another run of the bench, or something else, has sent it: give each run a topic of its own")]
    Run,
    /// Its filler is not the one of its producer and number.
    #[error("its content is not what was sent under this number")]
    Content,
}

/// The content of all records of a run.
#[derive(Debug)]
pub struct Content {
    run: u32,
    record_bytes: usize,
    pool: Box<[u8]>,
}

impl Content {
    /// The content of run number `run`, whose records have `record_bytes` bytes, at least [`SHORTEST_BYTES`].
    #[must_use]
    pub fn new(run: u32, record_bytes: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(0x0ca1_1b0a_2d00_0000 | u64::from(run));
        let pool = (0..WINDOWS as usize + record_bytes).map(|_| random.lowercase() as u8).collect();
        Self { run, record_bytes, pool }
    }

    /// Bytes of a record's value.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn filler(&self, producer: u32, number: u64) -> &[u8] {
        // The finishing steps of splitmix64: neighbouring numbers get windows that have nothing to do with each other.
        let mut hash = number ^ u64::from(producer).wrapping_mul(0xd134_2543_de82_ef95);
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 27;
        let start = (hash % WINDOWS) as usize;
        &self.pool[start..start + self.record_bytes - SHORTEST_BYTES]
    }

    /// What a value says about itself, once its content has been compared.
    ///
    /// # Errors
    /// [`NotOurs`].
    pub fn read(&self, value: &[u8]) -> Result<Stamp, NotOurs> {
        if value.len() != self.record_bytes {
            return Err(NotOurs::Length { expected: self.record_bytes, found: value.len() });
        }
        let (head, filler) = value.split_at(SHORTEST_BYTES);
        let number_at = |from: usize, to: usize| head[from..to].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        if number_at(0, 4) != u64::from(self.run) {
            return Err(NotOurs::Run);
        }
        let producer = u32::try_from(number_at(4, 8)).unwrap_or(u32::MAX);
        let stamp = Stamp { producer, number: number_at(8, 16), intended_ns: number_at(16, 24) };
        if *filler != *self.filler(stamp.producer, stamp.number) { Err(NotOurs::Content) } else { Ok(stamp) }
    }

    /// Puts a record's value behind what `buffer` holds.
    fn write(&self, stamp: Stamp, buffer: &mut Vec<u8>) {
        buffer.put_u32(self.run);
        buffer.put_u32(stamp.producer);
        buffer.put_u64(stamp.number);
        buffer.put_u64(stamp.intended_ns);
        buffer.put_slice(self.filler(stamp.producer, stamp.number));
    }
}

/// Makes values, always in the same memory: the producer copies them from there into its batch, which is the only copy.
#[derive(Debug, Default)]
pub struct Maker {
    values: Vec<u8>,
}

impl Maker {
    /// How many records are made at a time: few enough that they are still in the core's first cache when they are sent.
    #[must_use]
    pub fn at_a_time(content: &Content) -> u64 {
        (MADE_BYTES / content.record_bytes()).clamp(1, MOST_MADE) as u64
    }

    /// The values of `count` records: that of `first`, and those with the numbers after it.
    pub fn make(&mut self, content: &Content, first: Stamp, count: u64) -> ChunksExact<'_, u8> {
        self.values.clear();
        for number in first.number..first.number + count {
            content.write(Stamp { number, ..first }, &mut self.values);
        }
        self.values.chunks_exact(content.record_bytes())
    }
}

/// Bytes of records after which a producer's batch is full, so that it holds `records` of `value_bytes` each: what they
/// take encoded, and what the producer reckons for the last one beyond that.
#[must_use]
pub fn batch_bytes(records: u32, value_bytes: usize) -> usize {
    /// The producer's bound for all that a record takes beside its value.
    const RECKONED_BYTES: usize = 21;
    // Length, attributes, time and offset behind the first record's, key (none), value, number of headers.
    let encoded = |index: u32| {
        let body = 4 + varint_bytes(u64::from(index) << 1) + varint_bytes((value_bytes as u64) << 1) + value_bytes;
        varint_bytes((body as u64) << 1) + body
    };
    let all: usize = (0..records).map(encoded).sum();
    let last = encoded(records.saturating_sub(1));
    all + (RECKONED_BYTES + value_bytes).saturating_sub(last)
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Compression;
    use crate::types::TimestampMs;
    use crate::types::record_batch::{BatchBuilder, HEADER_BYTES};

    const STAMP: Stamp = Stamp { producer: 7, number: 1 << 33, intended_ns: u64::MAX };

    fn value(content: &Content, stamp: Stamp) -> Vec<u8> {
        Maker::default().make(content, stamp, 1).flatten().copied().collect()
    }

    #[test]
    fn a_record_says_who_sent_it_as_what_number_and_when() {
        for size in [SHORTEST_BYTES, 100, 1_024, 1 << 20] {
            let content = Content::new(3, size);
            let value = value(&content, STAMP);
            assert_eq!((value.len(), content.read(&value)), (size, Ok(STAMP)));
        }
    }

    #[test]
    fn records_are_distinct_and_each_changed_byte_is_noticed() {
        let content = Content::new(3, 100);
        let mut maker = Maker::default();
        let values: Vec<_> = maker.make(&content, Stamp { number: 0, ..STAMP }, 1_000).collect();
        let fillers: std::collections::HashSet<&[u8]> = values.iter().map(|value| &value[SHORTEST_BYTES..]).collect();
        assert!(fillers.len() > 950, "{} of 1000 differ", fillers.len());
        for at in (0..16).chain(24..100) {
            let mut changed = values[5].to_vec();
            changed[at] ^= 1;
            assert!(content.read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(content.read(&values[0][..99]), Err(NotOurs::Length { expected: 100, found: 99 }));
        assert_eq!(Content::new(4, 100).read(values[0]), Err(NotOurs::Run));
    }

    #[test]
    fn a_batch_of_so_many_records_is_just_full() {
        for (records, value_bytes) in [(1, 100), (2, 24), (1_000, 100), (1_000, 1_024), (10_000, 100), (5, 100_000)] {
            let mut builder = BatchBuilder::new(Compression::None, 0);
            let full = HEADER_BYTES + batch_bytes(records, value_bytes);
            for index in 0..records {
                let fits = builder.plain_bytes() + 21 + value_bytes <= full;
                assert!(fits, "record {index} of {records} of {value_bytes} bytes");
                builder.append(TimestampMs(1), None, Some(&vec![b'v'; value_bytes]), &[]);
            }
            assert!(builder.plain_bytes() + 21 + value_bytes > full, "one more of {value_bytes} bytes would fit");
        }
    }
}
