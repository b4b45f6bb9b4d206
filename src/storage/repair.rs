//! Repairing damage with batches that another replica has: the segments that the range lies in are written anew.
//!
//! ```text
//!   0000.log       good │ ▒▒▒▒▒▒▒ │ good          recovery point and appends are in a later segment
//!                    │       ▲       │
//!   0000.log.tmp   good │ batches │ good   synced, read back whole ──► renamed over 0000.log ──► indexes ──► damage mark goes
//! ```
//!
//! Writing the whole segment aside takes a copy of it, and leaves no moment at which a crash finds half of a repair: the
//! damage may have taken a length field with it, so that there is no telling in place where it ends. The damage mark goes
//! last: a repair that was cut short is done again. Readers keep to the old file until the new one is in place.

use std::io;
use std::ops::Range;

use super::append::check_form;
use super::copying::copy_range;
use super::disk::{DiskFile, OpenMode, SyncPoint, child};
use super::error::LogError;
use super::log::{Log, Tail};
use super::rebuild::rebuild_indexes;
use super::scan::{Check, Scanner, Step};
use super::segment::{Handles, INDEX_SUFFIX, LOG_SUFFIX, MAX_RELATIVE, Segment, TIME_INDEX_SUFFIX};
use super::view::View;
use crate::types::Offset;
use crate::types::record_batch::RecordBatch;

/// What becomes of one segment.
#[derive(Debug)]
struct Plan<'b> {
    base: Offset,
    /// Where the next segment starts, or the log ends.
    end: Offset,
    /// Parts of the old file that stand before the range, and those after it, what is damaged there included.
    before: Vec<Range<u64>>,
    after: Vec<Range<u64>>,
    batches: &'b [RecordBatch],
}

impl Log {
    /// Replaces `range` (start inclusive, end exclusive) by `batches`, which another replica has there, and forgets that it
    /// was damaged. The range starts and ends where a batch does, and the batches fill it exactly; of a damaged range any
    /// part may be repaired, from the start on or up to the end, and the rest stays damaged. To fetch everything past an
    /// offset anew, repair it part by part.
    ///
    /// Everything written is synced first, and an active segment that the range reaches into is closed. A crash at any step
    /// leaves each segment as it was or repaired, and the damage marked unless all of it is repaired. Takes the time, and for
    /// that time the room on the disk, of copying the segments that the range lies in.
    ///
    /// # Errors
    /// [`LogError::NotContiguous`], [`LogError::EpochWentBack`], [`LogError::InvalidBatch`], [`LogError::OffsetOutOfRange`]
    /// for batches that do not fit there: nothing has changed then. [`LogError::SyncOutstanding`] while a sync or a side job is
    /// in flight. [`LogError::Io`] when the disk failed before anything was replaced; later failures are final.
    pub fn repair(&mut self, range: Range<Offset>, batches: &[RecordBatch]) -> Result<(), LogError> {
        self.check_alive()?;
        if self.sync_in_flight || self.side_in_flight {
            return Err(LogError::SyncOutstanding);
        }
        self.check_repair(&range, batches)?;
        let plans = self.plan_repair(&range, batches)?;
        self.settle_up_to(range.end)?;
        for plan in &plans {
            let written = self.write_aside(plan);
            if written.is_err() {
                // What cannot be removed now is removed at the next open.
                let _ = self.shared.disk.remove_file(&self.aside(plan.base));
            }
            written?;
            self.put_in_place(plan).map_err(|error| match error {
                LogError::Io(cause) => self.fail(cause),
                other => other,
            })?;
        }
        self.forget_damage(&range, batches);
        let state = self.state_now(self.state.high_watermark);
        self.save_state(state)
    }

    /// Whether the batches fill the range, are whole, and carry epochs that fit between their neighbours'.
    fn check_repair(&self, range: &Range<Offset>, batches: &[RecordBatch]) -> Result<(), LogError> {
        let (mut due, after) = (range.start, self.epochs.epoch_of(range.end));
        let mut last = range.start.0.checked_sub(1).and_then(|before| self.epochs.epoch_of(Offset(before)));
        for batch in batches {
            let header = &batch.header;
            let (base_offset, found) = (header.base_offset, header.leader_epoch);
            if base_offset != due {
                return Err(LogError::NotContiguous { expected: due, found: base_offset });
            }
            if let Some(last) = last.filter(|last| found < *last) {
                return Err(LogError::EpochWentBack { last, found });
            }
            check_form(header, batch.body.len())
                .and_then(|()| batch.verify_checksum())
                .map_err(|cause| LogError::InvalidBatch { base_offset, cause })?;
            (due, last) = (header.end_offset_exclusive(), Some(found));
        }
        if due != range.end || range.is_empty() {
            return Err(LogError::NotContiguous { expected: range.end, found: due });
        }
        let view = self.shared.read();
        let first = view.segments.front().map_or(view.log_start, |oldest| oldest.base);
        if range.start < first || range.end > view.written_end || view.segments.is_empty() {
            return Err(view.out_of_range(if range.start < first { range.start } else { range.end }));
        }
        match (last, after.filter(|_| range.end < view.written_end)) {
            (Some(last), Some(found)) if found < last => Err(LogError::EpochWentBack { last, found }),
            _ => Ok(()),
        }
    }

    fn plan_repair<'b>(
        &self,
        range: &Range<Offset>,
        mut batches: &'b [RecordBatch],
    ) -> Result<Vec<Plan<'b>>, LogError> {
        let places: Vec<_> = {
            let view = self.shared.read();
            let next = |at: usize| view.segments.get(at + 1).map_or(view.written_end, |next| next.base);
            let all = (0..view.segments.len()).map(|at| (view.segment_ref(at), next(at)));
            all.filter(|(segment, end)| segment.base < range.end && range.start < *end).collect()
        };
        let mut plans = Vec::new();
        for (segment, end) in places {
            let (own, rest) = batches.split_at(batches.partition_point(|batch| batch.header.base_offset < end));
            batches = rest;
            if let Some(last) = own.last().filter(|last| last.header.end_offset_exclusive() > end) {
                // Segments never start in the middle of a batch: the other replica has other batches.
                return Err(LogError::NotContiguous { expected: end, found: last.header.end_offset_exclusive() });
            }
            let mut plan = Plan { base: segment.base, end, before: Vec::new(), after: Vec::new(), batches: own };
            plan.find_pieces(&*self.shared.log_file(&segment)?, segment.size, range)?;
            plans.push(plan);
        }
        Ok(plans)
    }

    /// Has everything synced, and the recovery point and the place of appends in a segment that the repair leaves alone: what
    /// it moves, nobody remembers by position.
    fn settle_up_to(&mut self, end: Offset) -> Result<(), LogError> {
        self.mark_written().map_err(|error| self.fail(error))?;
        let active = self.shared.read().segments.back().map(|newest| newest.base);
        if active.is_some_and(|base| base < end) && !matches!(self.tail, Tail::Sealed) {
            self.roll().map_err(|error| self.fail(error))?;
        }
        if let Some(job) = self.begin_sync() {
            self.note_synced(job.run())?;
        }
        self.synced = self.written_place();
        self.save_checkpoint(self.state.high_watermark)
    }

    fn aside(&self, base: Offset) -> std::path::PathBuf {
        child(&self.shared.dir, &format!("{:020}{LOG_SUFFIX}{}", base.0, super::atomic_file::TEMPORARY_SUFFIX))
    }

    /// Writes the repaired segment under a temporary name, syncs it, and reads it back.
    fn write_aside(&mut self, plan: &Plan<'_>) -> Result<(), LogError> {
        let old = self.shared.disk.open(&self.shared.path(plan.base, LOG_SUFFIX), OpenMode::Read)?;
        let aside = self.shared.disk.open(&self.aside(plan.base), OpenMode::Create)?;
        let mut size = 0;
        let copy = |pieces: &[Range<u64>], size: &mut u64| -> io::Result<()> {
            for piece in pieces {
                copy_range(&*old, piece.clone(), Some((&*aside, *size)))?;
                *size += piece.end - piece.start;
            }
            Ok(())
        };
        copy(&plan.before, &mut size)?;
        self.scratch.write_batches(&*aside, plan.batches, size)?;
        size += plan.batches.iter().map(|batch| batch.total_bytes() as u64).sum::<u64>();
        copy(&plan.after, &mut size)?;
        aside.sync_data(SyncPoint::Repair)?;
        plan.verify(&*aside, size)
    }

    /// Puts the repaired segment in the place of the old one.
    fn put_in_place(&mut self, plan: &Plan<'_>) -> Result<(), LogError> {
        let base = plan.base;
        // An index that somebody removed is as good as an empty one.
        let open = |suffix| {
            let path = self.shared.path(base, suffix);
            let mode = if self.shared.disk.exists(&path)? { OpenMode::Read } else { OpenMode::Create };
            self.shared.disk.open(&path, mode)
        };
        let old = Handles { log: open(LOG_SUFFIX)?, index: open(INDEX_SUFFIX)?, time_index: open(TIME_INDEX_SUFFIX)? };
        // Whoever looked for the file by its name may meet the new one with the old index: that read starts over.
        self.shared.write().exchange(base, |segment| segment.handles = Some(old));
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        self.shared.remove_checksum(base)?;
        for suffix in [TIME_INDEX_SUFFIX, INDEX_SUFFIX] {
            disk.remove_file(&self.shared.path(base, suffix))?;
        }
        // Before the rename: else a power loss could leave the new segment with what describes the old one.
        disk.sync_dir(dir, SyncPoint::Repair)?;
        disk.rename(&self.aside(base), &self.shared.path(base, LOG_SUFFIX))?;
        disk.sync_dir(dir, SyncPoint::Repair)?;
        let size = disk.open(&self.shared.path(base, LOG_SUFFIX), OpenMode::Read)?.len()?;
        let rebuilt = rebuild_indexes(&**disk, dir, base, size, plan.end, self.config.index_interval_bytes)?;
        self.shared.forget_files(base);
        self.shared.write().exchange(base, |segment| *segment = Segment { opened_at: segment.opened_at, ..rebuilt });
        self.unsummed.push(base);
        Ok(())
    }

    fn forget_damage(&mut self, range: &Range<Offset>, batches: &[RecordBatch]) {
        let written_end = self.written_end();
        let found = batches.iter().map(|batch| (batch.header.leader_epoch, batch.header.base_offset));
        self.epochs.replace(range.clone(), written_end, found);
        let mut view = self.shared.write();
        view.set_epochs(&self.epochs);
        let rest = |(start, end): &(Offset, Offset)| {
            let (before, after) = ((*start, (*end).min(range.start)), ((*start).max(range.end), *end));
            [before, after].into_iter().filter(|(start, end)| start < end)
        };
        view.damaged = view.damaged.iter().flat_map(rest).collect();
    }
}

impl Plan<'_> {
    /// Goes through the old file: what stays of it, and whether the range starts and ends where batches do.
    fn find_pieces(&mut self, file: &(dyn DiskFile + '_), size: u64, range: &Range<Offset>) -> Result<(), LogError> {
        let mut scanner = Scanner::new(file, size, 0, Some(self.base), Check::Checksums);
        loop {
            match scanner.step()? {
                Step::End => return Ok(()),
                Step::Batch { header, position } => {
                    let (first, end) = (header.base_offset, header.end_offset_exclusive());
                    for edge in [range.start, range.end] {
                        if first < edge && edge < end {
                            return Err(LogError::NotContiguous { expected: first, found: edge });
                        }
                    }
                    self.keep(first..end, position..position + header.total_bytes() as u64, range);
                }
                Step::Bad { position, .. } => {
                    let due = scanner.expected.unwrap_or(self.base);
                    let next = scanner.resync(self.end)?;
                    let (end, until) = next.map_or((self.end, size), |(header, at)| (header.base_offset, at));
                    self.keep(due..end, position..until, range);
                    if next.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn keep(&mut self, offsets: Range<Offset>, bytes: Range<u64>, replaced: &Range<Offset>) {
        let pieces = if offsets.end <= replaced.start {
            &mut self.before
        } else if offsets.start >= replaced.end {
            &mut self.after
        } else {
            // Of damage that is repaired in part the rest has no bytes that could be of use.
            return;
        };
        match pieces.last_mut().filter(|last| last.end == bytes.start) {
            Some(last) => last.end = bytes.end,
            None => pieces.push(bytes),
        }
    }

    /// Reads the new file from front to back: every batch of the repair is there, whole, at its offset.
    fn verify(&self, file: &(dyn DiskFile + '_), size: u64) -> Result<(), LogError> {
        if size > MAX_RELATIVE {
            let cause =
                io::Error::new(io::ErrorKind::FileTooLarge, "a repaired segment would be too large for its index");
            return Err(cause.into());
        }
        let mut due = self.batches.iter().map(|batch| batch.header);
        let mut next_due = due.next();
        let mut scanner = Scanner::new(file, size, 0, Some(self.base), Check::Checksums);
        loop {
            match scanner.step()? {
                Step::Batch { header, .. } if next_due == Some(header) => next_due = due.next(),
                Step::Batch { .. } => {}
                Step::Bad { .. } if scanner.resync(self.end)?.is_some() => {}
                Step::Bad { .. } | Step::End => break,
            }
        }
        match next_due {
            None => Ok(()),
            Some(lost) => Err(LogError::Damaged { from: lost.base_offset, next_valid: None }),
        }
    }
}

impl View {
    /// Changes the segment with this base; reads that began before start over.
    fn exchange(&mut self, base: Offset, change: impl FnOnce(&mut Segment)) {
        self.generation += 1;
        self.rewritten += 1;
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
            change(segment);
        }
    }
}
