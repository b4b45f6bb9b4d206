//! One segment: a file of record batches named after its first offset, and the two indexes beside it.
//!
//! ```text
//!   00000000000000004711.log         record batches, one after the other
//!   00000000000000004711.index       offset → position        every index_interval_bytes
//!   00000000000000004711.timeindex   timestamp → offset       at the same places
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{DiskFile, child};
use super::index::{OffsetEntry, SparseIndex};
use super::scan::{Check, Scanner, Step};
use super::time_index::TimeEntry;
use crate::types::record_batch::BatchHeader;
use crate::types::{Offset, TimestampMs};

/// Ends the name of a file of record batches.
pub const LOG_SUFFIX: &str = ".log";
/// Ends the name of an offset index.
pub const INDEX_SUFFIX: &str = ".index";
/// Ends the name of a time index.
pub const TIME_INDEX_SUFFIX: &str = ".timeindex";

/// Kafka's indexes hold positions and relative offsets as signed 32-bit numbers.
pub(super) const MAX_RELATIVE: u64 = i32::MAX as u64;

/// The path of one of a segment's files.
#[must_use]
pub fn segment_path(dir: &Path, base: Offset, suffix: &str) -> PathBuf {
    child(dir, &format!("{:020}{suffix}", base.0))
}

/// The base offset in a file's name, if it is a segment's file with that suffix.
#[must_use]
pub fn base_of(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == 20)?;
    digits.parse().ok().filter(|base| *base <= Offset::MAX.0).map(Offset)
}

/// The open files of the active segment.
#[derive(Clone, Debug)]
pub(super) struct Handles {
    pub log: Arc<dyn DiskFile>,
    pub index: Arc<dyn DiskFile>,
    pub time_index: Arc<dyn DiskFile>,
}

/// What is known of a segment without reading it.
#[derive(Debug)]
pub(super) struct Segment {
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Bytes of whole batches in the file.
    pub size: u64,
    /// When the first record was appended, by the broker's clock.
    pub opened_at: Option<TimestampMs>,
    /// The largest timestamp and the last offset of the batch that has it; `None` when there is none or nobody looked.
    pub largest: Option<(TimestampMs, Offset)>,
    pub offsets: SparseIndex<OffsetEntry>,
    pub times: SparseIndex<TimeEntry>,
    /// The timestamp of the last time index entry.
    pub last_indexed_time: TimestampMs,
    /// Bytes of batches since the last index entry.
    pub bytes_since_index: u64,
    /// A reader found that the offset index points to a wrong place.
    pub index_is_wrong: bool,
    /// Only the active segment's, once something was appended.
    pub handles: Option<Handles>,
}

impl Segment {
    pub(super) fn empty(base: Offset) -> Self {
        Self {
            base,
            end: base,
            size: 0,
            opened_at: None,
            largest: None,
            offsets: SparseIndex::new(base, 0),
            times: SparseIndex::new(base, 0),
            last_indexed_time: TimestampMs::NONE,
            bytes_since_index: 0,
            index_is_wrong: false,
            handles: None,
        }
    }

    /// Takes note of the batch that stands at the end of the file.
    pub(super) fn observe(&mut self, header: &BatchHeader, index_interval_bytes: u64) {
        let last_offset = header.last_offset();
        self.end = last_offset.next();
        if header.max_timestamp > self.largest.map_or(TimestampMs::NONE, |(timestamp, _)| timestamp) {
            self.largest = Some((header.max_timestamp, last_offset));
        }
        if self.bytes_since_index > index_interval_bytes {
            self.offsets.pending.push(OffsetEntry { last_offset, position: self.size });
            self.index_largest_time();
            self.bytes_since_index = 0;
        }
        let bytes = header.total_bytes() as u64;
        self.bytes_since_index += bytes;
        self.size += bytes;
    }

    /// Puts the largest timestamp into the time index unless it is there. Ends the index of a sealed segment.
    pub(super) fn index_largest_time(&mut self) {
        if let Some((timestamp, last_offset)) = self.largest
            && timestamp > self.last_indexed_time
        {
            self.times.pending.push(TimeEntry { timestamp, last_offset });
            self.last_indexed_time = timestamp;
        }
    }

    /// Whether the batch may be added without growing beyond `segment_bytes` or what an index entry can say. An empty
    /// segment takes any batch.
    pub(super) fn has_room_for(&self, header: &BatchHeader, segment_bytes: u64) -> bool {
        let size_after = self.size + header.total_bytes() as u64;
        self.size == 0
            || (size_after <= segment_bytes.min(MAX_RELATIVE)
                && header.last_offset().distance_from(self.base) <= MAX_RELATIVE)
    }
}

impl Segment {
    /// Brings what is counted along the way (size, largest timestamp, bytes since the last index entry) up to
    /// `position`, from the last index entry on, by the headers of the batches.
    pub(super) fn resume(
        &mut self,
        handles: &Handles,
        position: u64,
        end: Offset,
        index_interval_bytes: u64,
    ) -> io::Result<()> {
        let last_time = self.times.last(|| Ok(handles.time_index.clone()))?;
        let last_place = self.offsets.last(|| Ok(handles.index.clone()))?;
        self.largest = last_time.map(|entry| (entry.timestamp, entry.last_offset));
        self.last_indexed_time = last_time.map_or(TimestampMs::NONE, |entry| entry.timestamp);
        self.bytes_since_index = 0;
        let start = last_place.map_or(0, |entry| entry.position).min(position);
        self.size = start;
        let mut scanner = Scanner::new(&*handles.log, position, start, None, Check::Headers);
        loop {
            match scanner.step()? {
                Step::Batch { header, position } => {
                    self.size = position;
                    self.observe(&header, index_interval_bytes);
                }
                // Known damage on the way: what can be read behind it still counts.
                Step::Bad { .. } => match scanner.resync(end)? {
                    Some(_) => {}
                    None => break,
                },
                Step::End => break,
            }
        }
        (self.size, self.end) = (position, end);
        Ok(())
    }
}
