//! The time index: which offset a point in time has reached.
//!
//! An entry says: the largest timestamp so far is this, and the batch that ends at this offset has it. Timestamps rise
//! strictly from entry to entry, whatever order the records' own have. The last entry of a sealed segment holds the
//! segment's largest timestamp, which is what retention goes by.

use super::index::{IndexEntry, relative, u32_at};
use crate::types::{Offset, TimestampMs};

/// The largest timestamp so far, and the last offset of the first batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeEntry {
    pub timestamp: TimestampMs,
    pub last_offset: Offset,
}

impl IndexEntry for TimeEntry {
    const BYTES: usize = 12;
    type Key = TimestampMs;

    fn key(&self) -> TimestampMs {
        self.timestamp
    }

    fn encode(&self, base: Offset, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
        out.extend_from_slice(&relative(self.last_offset, base).to_be_bytes());
    }

    fn decode(base: Offset, bytes: &[u8]) -> Self {
        let timestamp = bytes.first_chunk().map_or(-1, |chunk| i64::from_be_bytes(*chunk));
        Self { timestamp: TimestampMs(timestamp), last_offset: base.plus(u64::from(u32_at(bytes, 8))) }
    }
}
