//! What consumers hold against what was sent: each record once, in the order of its producer, with its content.
//!
//! The client library has verified the checksum of every batch before a record gets here (`src/client/consumer/buffer.rs`),
//! and fails with `Damaged` where it does not match. This is the check of what a checksum cannot see: records that are
//! missing, doubled, out of order, in another partition, or another's.

use std::sync::Arc;

use super::record::{Content, NotOurs, Stamp};

/// What is wrong with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value that was not sent by this run.
    #[error("the record at offset {offset} of partition {partition} is wrong: {reason}")]
    Wrong {
        /// Where.
        partition: u32,
        /// Where.
        offset: u64,
        /// What is wrong with it.
        reason: NotOurs,
    },
    /// A record without a value.
    #[error("the record at offset {offset} of partition {partition} has no value")]
    Empty {
        /// Where.
        partition: u32,
        /// Where.
        offset: u64,
    },
    /// Records were left out.
    #[error(
        "lost: after record {} of producer {producer} came {found}, at offset {offset} of partition {partition}",
        .expected.wrapping_sub(1)
    )]
    Lost {
        /// Who sent them.
        producer: u32,
        /// The first one missing.
        expected: u64,
        /// What came instead.
        found: u64,
        /// Where.
        partition: u32,
        /// Where.
        offset: u64,
    },
    /// A record that had come before, or comes after later ones.
    #[error(
        "doubled or out of order: record {found} of producer {producer} came where {expected} was due, at offset {offset} of partition {partition}"
    )]
    Again {
        /// Who sent it.
        producer: u32,
        /// The one that was due.
        expected: u64,
        /// What came.
        found: u64,
        /// Where.
        partition: u32,
        /// Where.
        offset: u64,
    },
    /// An offset that does not follow on the one before.
    #[error("offset {found} of partition {partition} came where {expected} was due")]
    Offset {
        /// The partition.
        partition: u32,
        /// The offset after the one before.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A record of a producer that sends to another partition, or of none.
    #[error("record {number} of producer {producer} came in partition {partition}, where it was not sent to")]
    Misplaced {
        /// Who sent it.
        producer: u32,
        /// Which.
        number: u64,
        /// Where it came.
        partition: u32,
    },
    /// The last records of a producer never came.
    #[error("lost: producer {producer} sent {sent} records, {came} came")]
    Short {
        /// Who sent them.
        producer: u32,
        /// How many were acknowledged.
        sent: u64,
        /// How many came.
        came: u64,
    },
}

/// What a consumer is to see.
#[derive(Debug)]
pub struct Verifier {
    content: Arc<Content>,
    /// The number that is due next, by producer.
    due: Vec<u64>,
    /// The offset that is due next, by partition; none before the first record.
    offsets: Vec<Option<u64>>,
}

impl Verifier {
    /// A consumer that begins before record `first[producer]` of each producer. Producer n sends to partition n modulo
    /// `partitions`.
    #[must_use]
    pub fn new(content: Arc<Content>, first: Vec<u64>, partitions: u32) -> Self {
        Self { content, due: first, offsets: vec![None; partitions as usize] }
    }

    /// Holds the next record of a partition against what is due.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn check(&mut self, partition: u32, offset: u64, value: Option<&[u8]>) -> Result<Stamp, Fault> {
        let value = value.ok_or(Fault::Empty { partition, offset })?;
        let stamp = self.content.read(value).map_err(|reason| Fault::Wrong { partition, offset, reason })?;
        let Stamp { producer, number, .. } = stamp;
        let misplaced = Fault::Misplaced { producer, number, partition };
        let partitions = u32::try_from(self.offsets.len()).unwrap_or(u32::MAX);
        let due =
            self.due.get_mut(producer as usize).filter(|_| producer % partitions == partition).ok_or(misplaced)?;
        let expected = *due;
        if number > expected {
            return Err(Fault::Lost { producer, expected, found: number, partition, offset });
        }
        if number < expected {
            return Err(Fault::Again { producer, expected, found: number, partition, offset });
        }
        let place = &mut self.offsets[partition as usize];
        if let Some(expected) = place.filter(|expected| *expected != offset) {
            return Err(Fault::Offset { partition, expected, found: offset });
        }
        *due += 1;
        *place = Some(offset + 1);
        Ok(stamp)
    }

    /// Nothing more comes of `partition`: whether all that its producers sent has come. `sent` is by producer.
    ///
    /// # Errors
    /// [`Fault::Short`].
    pub fn finish(&self, partition: u32, sent: &[u64]) -> Result<(), Fault> {
        let of_this = (partition as usize..sent.len()).step_by(self.offsets.len());
        for (producer, at) in of_this.map(|at| (u32::try_from(at).unwrap_or(u32::MAX), at)) {
            if self.due[at] != sent[at] {
                return Err(Fault::Short { producer, sent: sent[at], came: self.due[at] });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::record::Maker;

    /// Reads records given as (partition, offset, producer, number) of three producers and two partitions.
    fn reading(records: &[(u32, u64, u32, u64)]) -> (Verifier, Result<(), Fault>) {
        let content = Arc::new(Content::new(1, 64));
        let mut verifier = Verifier::new(Arc::clone(&content), vec![0; 3], 2);
        let mut maker = Maker::default();
        for &(partition, offset, producer, number) in records {
            let value = maker.make(&content, Stamp { producer, number, intended_ns: 0 });
            if let Err(fault) = verifier.check(partition, offset, Some(&value)) {
                return (verifier, Err(fault));
            }
        }
        (verifier, Ok(()))
    }

    #[test]
    fn records_of_several_producers_may_mix_and_all_have_come() {
        let (verifier, read) = reading(&[(0, 5, 0, 0), (1, 0, 1, 0), (0, 6, 2, 0), (0, 7, 2, 1), (0, 8, 0, 1)]);
        assert_eq!(read, Ok(()));
        assert_eq!((verifier.finish(0, &[2, 1, 2]), verifier.finish(1, &[2, 1, 2])), (Ok(()), Ok(())));
        assert_eq!(verifier.finish(0, &[2, 1, 3]), Err(Fault::Short { producer: 2, sent: 3, came: 2 }));
        assert_eq!(verifier.finish(1, &[9, 1, 9]), Ok(()), "the producers of the other partition do not count");
    }

    #[test]
    fn a_lost_a_doubled_and_a_reordered_record_are_detected() {
        let lost = Fault::Lost { producer: 0, expected: 1, found: 2, partition: 0, offset: 1 };
        assert_eq!(reading(&[(0, 0, 0, 0), (0, 1, 0, 2)]).1, Err(lost));
        let doubled = Fault::Again { producer: 0, expected: 1, found: 0, partition: 0, offset: 1 };
        assert_eq!(reading(&[(0, 0, 0, 0), (0, 1, 0, 0)]).1, Err(doubled));
        let reordered = Fault::Lost { producer: 2, expected: 0, found: 1, partition: 0, offset: 0 };
        assert_eq!(reading(&[(0, 0, 2, 1), (0, 1, 2, 0)]).1, Err(reordered));
    }

    #[test]
    fn gaps_in_offsets_and_records_of_other_partitions_are_detected() {
        let gap = Fault::Offset { partition: 0, expected: 6, found: 7 };
        assert_eq!(reading(&[(0, 5, 0, 0), (0, 7, 0, 1)]).1, Err(gap));
        let misplaced = Fault::Misplaced { producer: 1, number: 0, partition: 0 };
        assert_eq!(reading(&[(0, 0, 1, 0)]).1, Err(misplaced));
        let unknown = Fault::Misplaced { producer: 4, number: 0, partition: 0 };
        assert_eq!(reading(&[(0, 0, 4, 0)]).1, Err(unknown));
    }

    #[test]
    fn a_corrupted_record_and_one_without_a_value_are_detected() {
        let content = Arc::new(Content::new(1, 64));
        let mut verifier = Verifier::new(Arc::clone(&content), vec![0], 1);
        let mut value = Maker::default().make(&content, Stamp { producer: 0, number: 0, intended_ns: 0 }).to_vec();
        value[40] ^= 0x20;
        let wrong = Fault::Wrong { partition: 0, offset: 0, reason: NotOurs::Content };
        assert_eq!(verifier.check(0, 0, Some(&value)), Err(wrong));
        assert_eq!(verifier.check(0, 0, None), Err(Fault::Empty { partition: 0, offset: 0 }));
        value[40] ^= 0x20;
        assert!(verifier.check(0, 0, Some(&value)).is_ok(), "what was refused before has changed nothing");
    }
}
