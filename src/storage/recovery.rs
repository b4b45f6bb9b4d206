//! After a crash: which of the bytes past the recovery point are records.
//!
//! ```text
//!                recovery point
//!   ─────────────────┼──────────────┬─────────────────────
//!    known good      │  verified    │ a bad place
//!   ─────────────────┴──────────────┴─────────────────────
//! ```
//!
//! What a bad place means depends on how the log was left. When the process was killed and the machine ran on
//! (same boot id), everything written is still there: a bad place with valid batches behind it is corruption, which is noted
//! and kept; one with nothing behind it is a torn tail, which is cut off. After a power loss any subset of what was not
//! synced may be on disk: the log ends at the first bad place, and what comes after it is moved aside.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::checksum::CHECKSUM_SUFFIX;
use super::copying::{copy_range, rewrite};
use super::disk::{Disk, OpenMode, SyncPoint, child};
use super::error::LogError;
use super::index::{OffsetEntry, usable_entries};
use super::open::{Cut, Listing, OpenReport};
use super::partition_state::{PartitionState, RecoveryPoint};
use super::rebuild::rebuild_indexes;
use super::scan::{Check, Scanner, Step};
use super::segment::{Handles, INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX, segment_path};
use super::time_index::TimeEntry;
use super::view::merge_range;
use crate::types::record_batch::BatchHeader;
use crate::types::{LeaderEpoch, Mutant, Offset};

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub segments: VecDeque<Segment>,
    pub end: Offset,
    /// Everything before it is synced; the next batch goes here.
    pub place: RecoveryPoint,
    pub damaged: Vec<(Offset, Offset)>,
    /// What the scan from `scanned_from` on saw.
    pub new_epochs: Vec<(LeaderEpoch, Offset)>,
    pub scanned_from: Offset,
}

impl Recovered {
    pub(super) fn nothing_at(end: Offset, place: RecoveryPoint, damaged: Vec<(Offset, Offset)>) -> Self {
        Self { segments: VecDeque::new(), end, place, damaged, new_epochs: Vec::new(), scanned_from: end }
    }
}

/// One run of recovery.
pub(super) struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    state: &'a PartitionState,
    index_interval_bytes: u64,
    same_boot: bool,
    report: &'a mut OpenReport,
    /// The offset that is due.
    due: Offset,
    epoch: LeaderEpoch,
    found: Recovered,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(
        disk: &'a dyn Disk,
        dir: &'a Path,
        state: &'a PartitionState,
        index_interval_bytes: u64,
        same_boot: bool,
        epoch: LeaderEpoch,
        report: &'a mut OpenReport,
    ) -> Self {
        let found = Recovered::nothing_at(state.log_start, state.recovery, state.damaged.clone());
        let due = state.log_start;
        Self { disk, dir, state, index_interval_bytes, same_boot, report, due, epoch, found }
    }

    pub(super) fn run(mut self, listing: &Listing) -> Result<Recovered, LogError> {
        let start = self.choose_start(listing);
        self.trust(listing, start.segment)?;
        self.due = start.offset;
        if start != self.state.recovery {
            self.epoch = LeaderEpoch(0);
        }
        self.found.scanned_from = start.offset;
        let to_scan = listing.logs.iter().position(|(base, _)| *base >= start.segment).unwrap_or(listing.logs.len());
        for at in to_scan..listing.logs.len() {
            let (base, size) = listing.logs[at];
            let position = if base == start.segment { start.position } else { 0 };
            let goes_on =
                self.accept_base(base, base == start.segment) && self.scan_segment(listing, at, position, size)?;
            if !goes_on {
                let not_scanned =
                    if self.found.segments.back().is_some_and(|last| last.base == base) { at + 1 } else { at };
                self.set_aside(&listing.logs[not_scanned..])?;
                break;
            }
        }
        self.end_below_start()?;
        // The names need no sync of their own: what a killed process left was synced when the directory was opened, and
        // what is new or was moved aside here becomes durable when the result is written down.
        self.found.end = self.due;
        self.found.damaged.retain(|(damaged_from, _)| *damaged_from < self.due);
        self.found.place = match self.found.segments.back() {
            // A sealed segment stays sealed: what is before the recovery point never changes.
            Some(newest) if newest.base >= start.segment => {
                RecoveryPoint { offset: self.due, segment: newest.base, position: newest.size }
            }
            _ => RecoveryPoint { offset: self.due, segment: self.due, position: 0 },
        };
        Ok(self.found)
    }

    /// The recovery point, or an earlier place when the files do not reach it.
    fn choose_start(&mut self, listing: &Listing) -> RecoveryPoint {
        let (state, recovery) = (self.state, self.state.recovery);
        let at_start_of = |base| RecoveryPoint { offset: base, segment: base, position: 0 };
        // Nothing is left of what lies before the recovery point, unless the log starts there.
        let nothing =
            at_start_of(state.log_start.max(if recovery.position == 0 { recovery.offset } else { Offset::ZERO }));
        let Some((first, _)) = listing.logs.first() else {
            self.report.doubtful |= recovery.offset > state.log_start;
            return nothing;
        };
        let holds = |(base, size): &&(Offset, u64)| *base == recovery.segment && *size >= recovery.position;
        if listing.logs.iter().any(|log| holds(&log)) {
            return recovery;
        }
        if recovery.segment < *first && *first <= state.log_start {
            // The segment was deleted since; what is left starts at or before the log's start.
            return at_start_of(*first);
        }
        if recovery.segment < *first {
            // The file that the recovery point lies in never became durable, though a later one did.
            self.report.doubtful |= recovery.offset > state.log_start;
            return nothing;
        }
        let before = listing.logs.iter().rev().find(|(base, _)| *base <= recovery.segment);
        match before {
            // The next segment was to start there and was never created.
            Some((base, _)) if recovery.position == 0 && *base < recovery.segment => recovery,
            // Bytes that were synced are gone: the file was rolled back or cut by someone else.
            before => {
                self.report.doubtful = true;
                at_start_of(before.map_or(*first, |(base, _)| *base))
            }
        }
    }

    /// Takes over the segments before the recovery point as their files' sizes describe them.
    fn trust(&mut self, listing: &Listing, until: Offset) -> Result<(), LogError> {
        let trusted = listing.logs.iter().take_while(|(base, _)| *base < until);
        for (at, (base, size)) in trusted.enumerate() {
            let end = listing.logs.get(at + 1).map_or(until, |(next, _)| (*next).min(until));
            let segment = match listing.segment(*base, *size, end) {
                Some(segment) => segment,
                None => {
                    self.report.rebuilt_indexes += 1;
                    rebuild_indexes(self.disk, self.dir, *base, *size, end, self.index_interval_bytes)?
                }
            };
            self.found.segments.push_back(segment);
        }
        Ok(())
    }

    /// Whether a segment that starts at `base` can follow.
    fn accept_base(&mut self, base: Offset, is_start: bool) -> bool {
        if is_start || base == self.due {
            return true;
        }
        if self.same_boot && base > self.due {
            self.note_damage(base);
            return true;
        }
        false
    }

    /// Everything from the offset that is due up to `next` is damaged.
    fn note_damage(&mut self, next: Offset) {
        if self.due < next {
            tracing::error!(dir = %self.dir.display(), from = %self.due, to = %next, "damaged records found, they are not served");
            merge_range(&mut self.found.damaged, self.due, next);
            self.due = next;
        }
    }

    /// Verifies a segment from `position` on and rebuilds its indexes there. Returns whether the log can go on after it.
    fn scan_segment(&mut self, listing: &Listing, at: usize, position: u64, size: u64) -> Result<bool, LogError> {
        let base = listing.logs[at].0;
        let handles = self.open_segment(base)?;
        let mut segment = self.resume_before(&handles, base, position)?;
        let before = listing.logs.get(at + 1).map_or(Offset::MAX, |(next, _)| *next);
        let mut scanner = Scanner::new(&*handles.log, size, position, Some(self.due), Check::Checksums);
        scanner.epoch = Some(self.epoch);
        let mut cut_at = None;
        loop {
            match scanner.step()? {
                Step::Batch { header, position } => self.take(&mut segment, &header, position),
                Step::End => break,
                Step::Bad { position, why } => {
                    tracing::warn!(dir = %self.dir.display(), %base, position, %why, "recovery found a bad place");
                    if self.same_boot
                        && let Some((header, _)) = scanner.resync(before)?
                    {
                        self.note_damage(header.base_offset);
                        // The index must lead past the bad place.
                        segment.bytes_since_index = self.index_interval_bytes + 1;
                    } else if self.same_boot && self.any_valid_in(&listing.logs[at + 1..])? {
                        self.note_damage(before);
                        segment.size = size;
                        break;
                    } else {
                        // An epoch that was damaged upwards makes all that follows look wrong. And what has all its bytes was no
                        // write that the kill cut short: it may have been synced.
                        let something_may_follow = scanner.gave_up || !scanner.is_torn(position, &why)?;
                        cut_at = Some((position, something_may_follow));
                        break;
                    }
                }
            }
        }
        self.epoch = scanner.epoch.unwrap_or(self.epoch);
        self.report.scanned_bytes += segment.size.saturating_sub(position);
        segment.end = self.due;
        if let Some((position, something_may_follow)) = cut_at {
            segment.size = position;
            self.cut(&handles, base, position..size, something_may_follow || !self.same_boot)?;
        }
        if self.same_boot && !Mutant::TrustsCleanPages.is_on() {
            // Perhaps the process ended because a sync failed. Then the page cache shows what is not on disk, and calls it
            // clean: syncing alone would report success and save nothing. Written again it is dirty again.
            rewrite(&*handles.log, position, segment.size)?;
        }
        segment.index_largest_time();
        segment.offsets.flush(&*handles.index)?;
        segment.times.flush(&*handles.time_index)?;
        for file in [&handles.log, &handles.index, &handles.time_index] {
            if !Mutant::RecoversWithoutSyncing.is_on() {
                file.sync_data(SyncPoint::RecoveredTail)?;
            }
        }
        self.found.segments.push_back(segment);
        Ok(cut_at.is_none())
    }

    fn take(&mut self, segment: &mut Segment, header: &BatchHeader, position: u64) {
        if position == 0 {
            segment.opened_at = Some(header.max_timestamp).filter(|timestamp| timestamp.0 >= 0);
        }
        segment.size = position;
        segment.observe(header, self.index_interval_bytes);
        if self.found.new_epochs.last().is_none_or(|(epoch, _)| *epoch < header.leader_epoch) {
            self.found.new_epochs.push((header.leader_epoch, header.base_offset));
        }
        self.due = header.end_offset_exclusive();
    }

    fn open_segment(&self, base: Offset) -> io::Result<Handles> {
        let open = |suffix| {
            let path = segment_path(self.dir, base, suffix);
            let mode = if self.disk.exists(&path)? { OpenMode::Write } else { OpenMode::Create };
            self.disk.open(&path, mode)
        };
        Ok(Handles { log: open(LOG_SUFFIX)?, index: open(INDEX_SUFFIX)?, time_index: open(TIME_INDEX_SUFFIX)? })
    }

    /// The segment up to `position`, before which nothing is verified. Its indexes are kept as far as they can be
    /// trusted: after a power loss not at all, because any of their pages may be missing.
    fn resume_before(&mut self, handles: &Handles, base: Offset, position: u64) -> io::Result<Segment> {
        let mut segment = Segment::empty(base);
        if self.same_boot && position > 0 {
            let due = self.due;
            let inside = |entry: &OffsetEntry| entry.position < position && entry.last_offset < due;
            segment.offsets.in_file = usable_entries(&*handles.index, base, inside)?;
            segment.times.in_file =
                usable_entries(&*handles.time_index, base, |entry: &TimeEntry| entry.last_offset < due)?;
        }
        handles.index.set_len(segment.offsets.file_bytes())?;
        handles.time_index.set_len(segment.times.file_bytes())?;
        segment.resume(handles, position, self.due, self.index_interval_bytes)?;
        Ok(segment)
    }

    /// Whether one of these segments starts with a valid batch that may follow.
    fn any_valid_in(&self, logs: &[(Offset, u64)]) -> Result<bool, LogError> {
        for (base, size) in logs {
            let file = self.disk.open(&segment_path(self.dir, *base, LOG_SUFFIX), OpenMode::Read)?;
            let mut scanner = Scanner::new(&*file, *size, 0, Some(*base), Check::Checksums);
            scanner.epoch = Some(self.epoch);
            if matches!(scanner.step()?, Step::Batch { .. }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that synced records may be missing, and writes that down before the first byte is cut off or moved: a crash
    /// after it finds a log that looks whole. The boot id stays, because it says how this log was left.
    fn doubt(&mut self) -> io::Result<()> {
        if !self.report.doubtful {
            self.report.doubtful = true;
            PartitionState { doubtful: true, ..self.state.clone() }.write(self.disk, self.dir)?;
        }
        Ok(())
    }

    /// Cuts a range off the end of a segment's file. When it may be of use it is kept aside, unless it is all zeros.
    fn cut(&mut self, handles: &Handles, base: Offset, range: Range<u64>, may_be_of_use: bool) -> Result<(), LogError> {
        let (position, size) = (range.start, range.end);
        let all_zeros = copy_range(&*handles.log, range.clone(), None)?;
        let mut saved_as = Vec::new();
        if may_be_of_use && !all_zeros {
            let name = self.free_name(&format!("{:020}.cut-{position}", base.0))?;
            let copy = self.disk.open(&child(self.dir, &name), OpenMode::Create)?;
            copy_range(&*handles.log, range, Some((&*copy, 0)))?;
            copy.sync_data(SyncPoint::RecoveredTail)?;
            self.disk.sync_dir(self.dir, SyncPoint::RecoveredTail)?;
            saved_as.push(name);
            self.doubt()?;
        }
        handles.log.set_len(position)?;
        self.report.cut = Some(Cut { offset: self.due, bytes: size - position, all_zeros, saved_as });
        Ok(())
    }

    /// Renames the segments after a cut, so that they are neither served nor lost.
    fn set_aside(&mut self, logs: &[(Offset, u64)]) -> Result<(), LogError> {
        for (base, size) in logs.iter().rev() {
            let file = self.disk.open(&segment_path(self.dir, *base, LOG_SUFFIX), OpenMode::Read)?;
            let all_zeros = copy_range(&*file, 0..*size, None)?;
            if !all_zeros {
                self.doubt()?;
            }
            let name = self.free_name(&format!("{:020}.cut-0", base.0))?;
            for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX, CHECKSUM_SUFFIX] {
                let path = segment_path(self.dir, *base, suffix);
                if self.disk.exists(&path)? {
                    self.disk.remove_file(&path)?;
                }
            }
            self.disk.rename(&segment_path(self.dir, *base, LOG_SUFFIX), &child(self.dir, &name))?;
            let offset = self.due;
            let cut = self.report.cut.get_or_insert(Cut { offset, bytes: 0, all_zeros: true, saved_as: Vec::new() });
            cut.bytes += size;
            cut.all_zeros &= all_zeros;
            cut.saved_as.push(name);
        }
        Ok(())
    }

    fn free_name(&self, wanted: &str) -> io::Result<String> {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while self.disk.exists(&child(self.dir, &name))? {
            number += 1;
            name = format!("{wanted}-{number}");
        }
        Ok(name)
    }

    /// When the log was lost below its start, it starts anew there: offsets never go back below what was deleted.
    fn end_below_start(&mut self) -> Result<(), LogError> {
        if self.due >= self.state.log_start {
            return Ok(());
        }
        for segment in self.found.segments.drain(..) {
            for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX, LOG_SUFFIX] {
                self.disk.remove_file(&segment_path(self.dir, segment.base, suffix))?;
            }
        }
        self.due = self.state.log_start;
        Ok(())
    }
}
