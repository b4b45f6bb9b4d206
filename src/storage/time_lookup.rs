//! From a point in time to an offset: by segment, by time index, by batch header, and in the end by the record itself.

use super::disk::DiskFile;
use super::error::LogError;
use super::index::{Lookup, floor_in_file};
use super::log_reader::LogReader;
use super::place::Start;
use super::scan::{Scanner, Step};
use super::time_index::TimeEntry;
use super::view::SegmentRef;
use crate::types::record_batch::{BatchHeader, decode_records};
use crate::types::{Offset, TimestampMs};

/// A record: its offset and its timestamp.
type Hit = (Offset, TimestampMs);

impl LogReader {
    /// The first record below `upper_exclusive` whose timestamp is at or after `timestamp`; `None` if there is none. One
    /// batch is decoded for it, to at most `inflate_limit` bytes; one that cannot be decoded answers with its first
    /// offset and its largest timestamp. Damaged records are passed over.
    ///
    /// # Errors
    /// The disk's.
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        upper_exclusive: Offset,
        inflate_limit: usize,
    ) -> Result<Option<(Offset, TimestampMs)>, LogError> {
        self.undisturbed(
            |segments, log_start| {
                for (segment, lookup) in segments {
                    if segment.base >= upper_exclusive {
                        break;
                    }
                    let largest = self.shared.largest_timestamp(segment)?;
                    if largest.is_some_and(|(largest, _)| largest < timestamp) {
                        continue;
                    }
                    let start = self.start_for(segment, *lookup, timestamp)?;
                    let wanted = |hit: &Hit| hit.1 >= timestamp && hit.0 >= log_start;
                    let hit = self.first_in_segment(
                        segment,
                        start,
                        inflate_limit,
                        |header| header.max_timestamp >= timestamp,
                        wanted,
                    )?;
                    if let Some(hit) = hit {
                        return Ok(Some(hit).filter(|hit| hit.0 < upper_exclusive));
                    }
                }
                Ok(None)
            },
            timestamp,
        )
    }

    /// The record with the largest timestamp below `upper_exclusive`, the first of them when there are several.
    ///
    /// # Errors
    /// The disk's.
    pub fn max_timestamp(
        &self,
        upper_exclusive: Offset,
        inflate_limit: usize,
    ) -> Result<Option<(Offset, TimestampMs)>, LogError> {
        self.undisturbed(
            |segments, log_start| {
                let mut best: Option<(TimestampMs, Offset, &SegmentRef)> = None;
                for (segment, _) in segments.iter().filter(|(segment, _)| segment.base < upper_exclusive) {
                    let whole = segment.base >= log_start && segment.end <= upper_exclusive;
                    let largest = if whole { self.shared.largest_timestamp(segment)? } else { None };
                    let largest = match largest {
                        Some(largest) => Some(largest),
                        None => self.largest_between(segment, log_start, upper_exclusive, inflate_limit)?,
                    };
                    if let Some((timestamp, offset)) = largest
                        && best.is_none_or(|(known, ..)| timestamp > known)
                    {
                        best = Some((timestamp, offset, segment));
                    }
                }
                let Some((timestamp, last_offset, segment)) = best else {
                    return Ok(None);
                };
                let start = self.shared.place_before(segment, last_offset);
                let wanted = |hit: &Hit| hit.1 >= timestamp && hit.0 >= log_start;
                self.first_in_segment(
                    segment,
                    start,
                    inflate_limit,
                    |header| header.last_offset() == last_offset,
                    wanted,
                )
            },
            TimestampMs::NONE,
        )
    }

    /// Runs `search` over the segments as they are now, again if some went away meanwhile.
    fn undisturbed(
        &self,
        search: impl Fn(&[(SegmentRef, Lookup<TimeEntry>)], Offset) -> Result<Option<Hit>, LogError>,
        timestamp: TimestampMs,
    ) -> Result<Option<Hit>, LogError> {
        loop {
            let (segments, log_start, generation) = {
                let view = self.shared.read();
                let known = (0..view.segments.len()).map(|at| (view.segment_ref(at), view.time_floor(at, timestamp)));
                (known.collect::<Vec<_>>(), view.log_start, view.generation)
            };
            let found = search(&segments, log_start);
            if self.shared.read().generation == generation {
                return found;
            }
        }
    }

    /// Before this position all timestamps are smaller.
    fn start_for(
        &self,
        segment: &SegmentRef,
        lookup: Lookup<TimeEntry>,
        timestamp: TimestampMs,
    ) -> Result<Start, LogError> {
        let entry = match lookup {
            Lookup::Known(entry) => entry,
            Lookup::InFile(entries) => {
                let file = self.shared.time_index_file(segment)?;
                floor_in_file::<TimeEntry>(&*file, segment.base, entries, timestamp)?
            }
        };
        Ok(self.shared.place_before(segment, entry.map_or(segment.base, |entry| entry.last_offset)))
    }

    /// The first record that is `wanted` in the batches whose header `may_hold` it.
    fn first_in_segment(
        &self,
        segment: &SegmentRef,
        start: Start,
        inflate_limit: usize,
        may_hold: impl Fn(&BatchHeader) -> bool,
        wanted: impl Fn(&Hit) -> bool,
    ) -> Result<Option<Hit>, LogError> {
        let file = self.shared.log_file(segment)?;
        let mut scanner = start.scanner(&*file, segment)?;
        while let Some((header, position)) = next_batch(&mut scanner, segment.end)? {
            if !may_hold(&header) {
                continue;
            }
            let batch = scanner.batch(&header, position)?;
            if header.verify_checksum(&batch.to_vec()).is_err() {
                continue;
            }
            let hit = match decode_records(&batch, inflate_limit) {
                Ok(records) => records.iter().map(|record| (record.offset, record.timestamp)).find(&wanted),
                Err(_) => Some((header.base_offset, header.max_timestamp)).filter(&wanted),
            };
            if hit.is_some() {
                return Ok(hit);
            }
        }
        Ok(None)
    }

    /// The largest timestamp in the batches that lie between the bounds, and the last offset of the first that has it.
    fn largest_between(
        &self,
        segment: &SegmentRef,
        from: Offset,
        before: Offset,
        inflate_limit: usize,
    ) -> Result<Option<(TimestampMs, Offset)>, LogError> {
        let file = self.shared.log_file(segment)?;
        let mut scanner = self.shared.place_before(segment, from).scanner(&*file, segment)?;
        let mut best: Option<(TimestampMs, Offset)> = None;
        while let Some((header, position)) = next_batch(&mut scanner, segment.end)? {
            if header.end_offset_exclusive() <= from || header.end_offset_exclusive() > before {
                continue;
            }
            let largest = if header.base_offset < from {
                // The header speaks of deleted records, too.
                let batch = scanner.batch(&header, position)?;
                let records = decode_records(&batch, inflate_limit).unwrap_or_default();
                records.iter().filter(|record| record.offset >= from).map(|record| record.timestamp).max()
            } else {
                Some(header.max_timestamp)
            };
            if let Some(largest) = largest
                && best.is_none_or(|(timestamp, _)| largest > timestamp)
            {
                best = Some((largest, header.last_offset()));
            }
        }
        Ok(best)
    }
}

/// The next batch, past damaged places.
fn next_batch(
    scanner: &mut Scanner<'_, dyn DiskFile + '_>,
    segment_end: Offset,
) -> Result<Option<(BatchHeader, u64)>, LogError> {
    loop {
        match scanner.step()? {
            Step::Batch { header, position } => return Ok(Some((header, position))),
            Step::End => return Ok(None),
            Step::Bad { .. } => {
                if scanner.resync(segment_end)?.is_none() {
                    return Ok(None);
                }
            }
        }
    }
}
