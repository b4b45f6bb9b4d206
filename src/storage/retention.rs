//! Giving up old records at the front: retention and deletion. What goes at the end is [`truncate`](super::truncate)'s.
//!
//! ```text
//!    advance_log_start
//!   ◄───────────────┤
//!    ┌──────────┬──────────┬──────────┬──────┐
//!    └──────────┴──────────┴──────────┴──────┘
//! ```
//!
//! The new log start is written down before a file goes, so that a crash between the two leaves files to remove at the
//! next open, never a hole.

use std::io;

use super::append::is_aged;
use super::checksum::CHECKSUM_SUFFIX;
use super::error::LogError;
use super::log::{Log, Tail};
use super::partition_state::PartitionState;
use super::rebuild::rebuild_indexes;
use super::segment::{INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX};
use super::view::{SegmentRef, Shared};
use crate::types::{Mutant, Offset, TimestampMs};

/// A segment whose files are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedSegment {
    /// Its first offset.
    pub base: Offset,
    /// Its end, exclusive.
    pub end: Offset,
    /// The size of its records in bytes.
    pub bytes: u64,
}

/// What a round of retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionOutcome {
    /// What was deleted, oldest first.
    pub deleted: Vec<DeletedSegment>,
    /// The log's start after it.
    pub log_start: Offset,
    /// Whether the active segment was closed for its age.
    pub rolled: bool,
}

impl Log {
    /// Deletes what the retention settings no longer keep: whole segments, oldest first, never one with a record at or
    /// above `high_watermark`. An aged active segment is closed first, so that it can expire too.
    ///
    /// A segment whose records carry no timestamps never expires by age. Nothing goes at or above `keep_from`, whatever its age,
    /// nor what no sync has covered: after a power loss the log would end before it starts.
    ///
    /// # Errors
    /// The disk's, or [`LogError::Failed`].
    pub fn apply_retention(
        &mut self,
        now: TimestampMs,
        high_watermark: Offset,
        keep_from: Offset,
    ) -> Result<RetentionOutcome, LogError> {
        self.check_alive()?;
        self.rebuild_wrong_indexes()?;
        let mut start = self.log_start();
        for at in 0..self.segment_count() {
            let segment = self.shared.read().segment_ref(at);
            if (segment.end > high_watermark && !Mutant::RetainsTheUncommitted.is_on())
                || !self.is_expired(&segment, now)?
            {
                break;
            }
            start = start.max(segment.end);
        }
        start = start.max(self.start_for_size(high_watermark));
        let rolled = self.is_active_due(now, start);
        if rolled {
            self.roll().map_err(|error| self.fail(error))?;
        }
        let deleted = self.advance_log_start(
            start
                .min(if Mutant::RetainsTheUncommitted.is_on() { Offset::MAX } else { keep_from })
                .min(self.durable_end()),
        )?;
        Ok(RetentionOutcome { deleted, log_start: self.log_start(), rolled })
    }

    /// Rebuilds the indexes of sealed segments that led readers astray.
    fn rebuild_wrong_indexes(&mut self) -> Result<(), LogError> {
        let wrong: Vec<_> = {
            let view = self.shared.read();
            let sealed = view.segments.iter().filter(|segment| segment.index_is_wrong && segment.handles.is_none());
            sealed.map(|segment| (segment.base, segment.size, segment.end)).collect()
        };
        for (base, size, end) in wrong {
            let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
            let rebuilt = rebuild_indexes(disk, dir, base, size, end, self.config.index_interval_bytes)?;
            self.shared.forget_files(base);
            let mut view = self.shared.write();
            if let Some(segment) = view.segments.iter_mut().find(|segment| segment.base == base) {
                *segment = Segment { opened_at: segment.opened_at, ..rebuilt };
            }
        }
        Ok(())
    }

    fn is_expired(&self, segment: &SegmentRef, now: TimestampMs) -> Result<bool, LogError> {
        let Some(retention_ms) = self.config.retention_ms else {
            return Ok(false);
        };
        let largest = self.shared.largest_timestamp(segment)?;
        Ok(largest.is_some_and(|(largest, _)| {
            u64::try_from(now.0.saturating_sub(largest.0)).is_ok_and(|age| age > retention_ms)
        }))
    }

    /// The log start that brings the size down to what is kept. The active segment stays whatever its size.
    fn start_for_size(&self, high_watermark: Offset) -> Offset {
        let mut start = self.log_start();
        let Some(kept) = self.config.retention_bytes else {
            return start;
        };
        let mut excess = self.size_bytes().saturating_sub(kept);
        let view = self.shared.read();
        let sealed = view.segments.len() - usize::from(!view.segments.is_empty());
        for segment in view.segments.iter().take(sealed) {
            if segment.size > excess || (segment.end > high_watermark && !Mutant::RetainsTheUncommitted.is_on()) {
                break;
            }
            excess -= segment.size;
            start = start.max(segment.end);
        }
        start
    }

    fn is_active_due(&self, now: TimestampMs, start: Offset) -> bool {
        let view = self.shared.read();
        let active = view.segments.back().filter(|_| !matches!(self.tail, Tail::Sealed));
        active.is_some_and(|active| {
            active.size > 0 && (active.end <= start || is_aged(active, now, self.config.segment_ms))
        })
    }

    /// Moves the log's start up to `to` and deletes the segments that lie before it as a whole, the active one excepted.
    /// The caller keeps `to` at or below the high watermark. Moving it back does nothing.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] beyond the written end; the disk's when the new start cannot be written down.
    pub fn advance_log_start(&mut self, to: Offset) -> Result<Vec<DeletedSegment>, LogError> {
        self.check_alive()?;
        if to > self.written_end() {
            return Err(self.shared.read().out_of_range(to));
        }
        if to > self.log_start() {
            let state = PartitionState { log_start: to, ..self.state_now(self.state.high_watermark.max(to)) };
            self.save_state(state)?;
            // After the new start is written down: with the epochs first, a crash in between leaves records without one.
            self.epochs.advance_start(to);
        }
        let mut deleted = Vec::new();
        let mut view = self.shared.write();
        view.set_epochs(&self.epochs);
        view.log_start = view.log_start.max(to);
        while let Some(oldest) = view.segments.front()
            && oldest.end <= view.log_start
            && (view.segments.len() > 1 || matches!(self.tail, Tail::Sealed))
        {
            deleted.push(DeletedSegment { base: oldest.base, end: oldest.end, bytes: oldest.size });
            view.segments.pop_front();
            view.generation += 1;
        }
        let log_start = view.log_start;
        view.damaged.retain(|(_, end)| *end > log_start);
        drop(view);
        for segment in &deleted {
            if let Err(error) = self.shared.remove_files(segment.base) {
                // The next open finds it below the log's start and removes it then.
                tracing::warn!(partition = %self.identity, base = %segment.base, %error, "cannot delete a segment's files");
            }
        }
        Ok(deleted)
    }
}

impl Shared {
    /// Removes a segment's files, the records last: an index without a log is removed at the next open.
    pub(super) fn remove_files(&self, base: Offset) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        let suffixes = [CHECKSUM_SUFFIX, TIME_INDEX_SUFFIX, INDEX_SUFFIX, LOG_SUFFIX];
        let removed = suffixes.into_iter().try_for_each(|suffix| gone(self.disk.remove_file(&self.path(base, suffix))));
        self.forget_files(base);
        removed
    }

    /// The segment's largest timestamp and the last offset of the batch that has it.
    pub(super) fn largest_timestamp(&self, segment: &SegmentRef) -> io::Result<Option<(TimestampMs, Offset)>> {
        if segment.largest.is_some() || segment.size == 0 {
            return Ok(segment.largest);
        }
        let file = self.time_index_file(segment)?;
        let Some(last) = (file.len()? / 12).checked_sub(1) else {
            return Ok(None);
        };
        let entry: super::time_index::TimeEntry = super::index::entry_at(&*file, segment.base, last)?;
        let largest = Some((entry.timestamp, entry.last_offset));
        if let Some(known) =
            self.write().segments.iter_mut().find(|known| known.base == segment.base && known.size == segment.size)
        {
            known.largest = largest;
        }
        Ok(largest)
    }
}
