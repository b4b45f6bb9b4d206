//! The records of a bench: each is distinct, says who sent it as what number and when, and can be checked by itself.
//!
//! ```text
//!   0      4          8        16              24                    record_size
//!   │ run  │ producer │ number │ intended time │ filler of (producer, number) │
//! ```
//!
//! Integers are big-endian. The filler is a window into a pool of random letters; where it begins follows from producer and
//! number, so that making and checking it cost one copy and one comparison.

use bytes::{BufMut, Bytes, BytesMut};

/// Run, producer, number and time: no record is shorter.
pub const SHORTEST_BYTES: usize = 24;

/// Where a window into the pool may begin. Small enough that the pool stays in a core's cache.
const WINDOWS: u64 = 32 << 10;

/// Values are cut out of buffers of this size, which are used again once their records are encoded.
const BUFFER_BYTES: usize = 256 << 10;

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

    /// Writes a record's value behind what `buffer` holds.
    pub fn write(&self, stamp: Stamp, buffer: &mut BytesMut) {
        buffer.put_u32(self.run);
        buffer.put_u32(stamp.producer);
        buffer.put_u64(stamp.number);
        buffer.put_u64(stamp.intended_ns);
        buffer.put_slice(self.filler(stamp.producer, stamp.number));
    }
}

/// Makes values, many out of one buffer.
#[derive(Debug, Default)]
pub struct Maker {
    buffer: BytesMut,
}

impl Maker {
    /// The value of one record.
    pub fn make(&mut self, content: &Content, stamp: Stamp) -> Bytes {
        if self.buffer.capacity() < content.record_bytes() {
            // Takes the old buffer again when all its records are gone, which they are once they are encoded.
            self.buffer.reserve(BUFFER_BYTES.max(content.record_bytes()));
        }
        content.write(stamp, &mut self.buffer);
        self.buffer.split().freeze()
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

    #[test]
    fn a_record_says_who_sent_it_as_what_number_and_when() {
        for size in [SHORTEST_BYTES, 100, 1_024, 1 << 20] {
            let content = Content::new(3, size);
            let value = Maker::default().make(&content, STAMP);
            assert_eq!((value.len(), content.read(&value)), (size, Ok(STAMP)));
        }
    }

    #[test]
    fn records_are_distinct_and_each_changed_byte_is_noticed() {
        let content = Content::new(3, 100);
        let mut maker = Maker::default();
        let values: Vec<_> = (0..1_000).map(|number| maker.make(&content, Stamp { number, ..STAMP })).collect();
        let fillers: std::collections::HashSet<&[u8]> = values.iter().map(|value| &value[SHORTEST_BYTES..]).collect();
        assert!(fillers.len() > 950, "{} of 1000 differ", fillers.len());
        for at in (0..16).chain(24..100) {
            let mut changed = values[5].to_vec();
            changed[at] ^= 1;
            assert!(content.read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(content.read(&values[0][..99]), Err(NotOurs::Length { expected: 100, found: 99 }));
        assert_eq!(Content::new(4, 100).read(&values[0]), Err(NotOurs::Run));
    }

    #[test]
    fn one_buffer_serves_many_records_when_they_are_dropped_in_time() {
        let content = Content::new(3, 1_000);
        let mut maker = Maker::default();
        let first = maker.make(&content, STAMP).as_ptr() as usize;
        for _ in 0..10_000 {
            let at = maker.make(&content, STAMP).as_ptr() as usize;
            assert!(at.abs_diff(first) < BUFFER_BYTES, "another buffer was taken");
        }
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
