//! Giving up records at the end: what a deposed leader wrote and nobody else has.
//!
//! ```text
//!   is it allowed? ──► recovery point lowered ──► files cut, from the end ──► synced ──► leader epochs
//!       ├── below the high watermark that was written down, without an unclean election: refused, nothing changes
//!       └── within damage: refused, or, where nobody counts on the replica, at the start of the damage
//! ```
//!
//! The recovery point is lowered first, so that a crash between two steps leaves a longer log that is checked from the cut
//! on, never one that is believed. The leader epochs come last: entries that lie past the end are dropped at every open.

use std::io;
use std::sync::Arc;

use super::disk::SyncPoint;
use super::error::LogError;
use super::log::{Log, Tail};
use super::partition_state::{PartitionState, RecoveryPoint};
use super::scan::Step;
use super::segment::{Handles, Segment};
use super::view::View;
use crate::types::{LeaderEpoch, Mutant, Offset};

/// What a truncation may give up. By default only what is asked, and of that nothing below the high watermark that was written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TruncateLeave {
    /// Committed records too: the metadata has it on record that a replica which lacked some of them was elected. This is the
    /// epoch that it began; one that is not newer than every epoch in the log explains nothing.
    pub unclean_election: Option<LeaderEpoch>,
    /// More than is asked, where that lies within damage: back to where the damage starts, even below the high watermark. Only for a
    /// replica that nobody counts on, as the records that have to stay are fetched again.
    pub back_to_damage: bool,
}

/// Where a log can be cut.
enum Place {
    /// Where a batch starts.
    Whole(RecoveryPoint),
    /// Where damage starts that holds the end.
    WithinDamage(RecoveryPoint, LogError),
}

impl Log {
    /// Cuts the log off at `end`, or at the start of the batch or damaged range that `end` falls into, and returns the end that
    /// it has then. What was cut off is gone for good when this returns, with the producer snapshots and leader epochs that speak of it; the
    /// high watermark that was written down lies at or before the end. An `end` at or past the written end does nothing.
    ///
    /// A sync that began before it makes nothing durable that is appended after it.
    ///
    /// # Errors
    /// [`LogError::BelowHighWatermark`] when that would give up more than `leave` allows, [`LogError::Damaged`] when it lies within
    /// damage, which is remembered: nothing has changed then. [`LogError::OffsetOutOfRange`] below the log's start, where
    /// truncation cannot help: see [`Log::truncate_fully_and_start_at`]. [`LogError::SyncOutstanding`] while a side job is in flight, which would write
    /// down what is about to go. A failure of the disk is final.
    pub fn truncate_to(&mut self, end: Offset, leave: TruncateLeave) -> Result<Offset, LogError> {
        self.check_alive()?;
        if end >= self.written_end() {
            return Ok(self.written_end());
        }
        if end < self.log_start() {
            return Err(self.shared.read().out_of_range(end));
        }
        let cut = match self.place_of(end)? {
            Place::Whole(cut) => {
                self.check_leave(cut.offset, leave)?;
                cut
            }
            Place::WithinDamage(cut, damaged) => {
                self.check_leave(end, leave)?;
                if !leave.back_to_damage {
                    return Err(damaged);
                }
                cut
            }
        };
        if self.side_in_flight {
            return Err(LogError::SyncOutstanding);
        }
        self.mark_written()
            .and_then(|()| self.lower_recovery_point(cut))
            .and_then(|()| self.cut_at(cut))
            .map_err(|error| self.fail(error))?;
        Ok(cut.offset)
    }

    /// Whether the log may end at `end`.
    pub(super) fn check_leave(&self, end: Offset, leave: TruncateLeave) -> Result<(), LogError> {
        let high_watermark = self.state.high_watermark;
        if end >= high_watermark || Mutant::CutsBelowTheWatermark.is_on() {
            return Ok(());
        }
        let is_newer = |epoch: &LeaderEpoch| self.epochs.latest().is_none_or(|latest| latest < *epoch);
        match leave.unclean_election.filter(is_newer) {
            Some(leader_epoch) => {
                tracing::warn!(
                    partition = %self.identity, %end, %high_watermark, %leader_epoch,
                    "committed records are given up, because of an unclean election"
                );
                Ok(())
            }
            None => Err(LogError::BelowHighWatermark { end, high_watermark }),
        }
    }

    /// Where the batch starts that holds `end`.
    fn place_of(&self, end: Offset) -> Result<Place, LogError> {
        let view = self.shared.read();
        let Some(at) = view.position_of_segment(end) else {
            return Err(view.out_of_range(end));
        };
        let segment = view.segment_ref(at);
        drop(view);
        let file = self.shared.log_file(&segment)?;
        let cut = |offset, position| RecoveryPoint { offset, segment: segment.base, position };
        let mut scanner = self.shared.place_before(&segment, end).scanner(&*file, &segment)?;
        loop {
            let reached = scanner.expected.unwrap_or(segment.base).min(end);
            match scanner.step()? {
                Step::Batch { header, position } if header.end_offset_exclusive() > end => {
                    // Agreed ends are ends of batches: one that reaches past may say so because it is damaged.
                    if header.base_offset >= end || !scanner.step_back_if_led_astray()? {
                        return Ok(Place::Whole(cut(header.base_offset.min(end), position)));
                    }
                }
                Step::Batch { .. } => continue,
                Step::Bad { .. } => {}
                Step::End => return Ok(Place::Whole(cut(reached, segment.size))),
            }
            match scanner.resync(segment.end)?.map(|(header, _)| header.base_offset) {
                // The damaged range stays, and with it what is good behind it.
                Some(next) if next <= end => {}
                next => {
                    let (position, due) = scanner.bad_place;
                    let from = due.unwrap_or(reached).min(end);
                    let damaged = self.shared.note_damage(&segment, from, next);
                    return Ok(match damaged.filter(|_| from < end) {
                        Some(damaged) => Place::WithinDamage(cut(from, position), damaged),
                        None => Place::Whole(cut(from, position)),
                    });
                }
            }
        }
    }

    /// A crash while files are cut must find a recovery point that lies before the cut.
    fn lower_recovery_point(&mut self, cut: RecoveryPoint) -> io::Result<()> {
        if self.synced.offset > cut.offset {
            self.synced = cut;
        }
        let recovery = if self.state.recovery.offset > cut.offset { cut } else { self.state.recovery };
        // Damage past the cut is found again should the cut not come to pass. Kept, it would hide what is appended there.
        let mut damaged = self.state.damaged.clone();
        clip_ranges(&mut damaged, cut.offset);
        let high_watermark = self.state.high_watermark.min(cut.offset);
        let state = PartitionState { recovery, high_watermark, damaged, ..self.state.clone() };
        if state != self.state {
            state.write(&*self.shared.disk, &self.shared.dir)?;
            self.state = state;
        }
        Ok(())
    }

    fn cut_at(&mut self, cut: RecoveryPoint) -> io::Result<()> {
        if !Mutant::KeepsSnapshotsOfACut.is_on() {
            self.drop_snapshots_after(cut.offset)?;
        }
        // From the end, so that a kill in between leaves a log without a hole.
        loop {
            let newest = self.shared.read().segments.back().map(|newest| newest.base);
            let Some(base) = newest.filter(|base| *base > cut.segment) else {
                break;
            };
            let mut view = self.shared.write();
            view.segments.pop_back();
            view.end_at(base);
            drop(view);
            self.tail = Tail::Closed;
            self.shared.remove_files(base)?;
        }
        // Appended to again: what its file of checksums says would soon be wrong. It goes for good.
        self.shared.remove_checksum(cut.segment)?;
        // Before the cut: else a power loss could bring later segments back behind a log that ends before them.
        self.shared.disk.sync_dir(&self.shared.dir, SyncPoint::Truncation)?;
        let handles = self.writable_newest()?;
        {
            let mut view = self.shared.write();
            view.end_at(cut.offset);
            self.truncated_at_generation = view.generation;
            if let Some(newest) = view.segments.back_mut() {
                (newest.size, newest.end) = (cut.position, cut.offset);
            }
        }
        handles.log.set_len(cut.position)?;
        self.cut_indexes(&handles, cut)?;
        if !Mutant::CutsWithoutSyncing.is_on() {
            handles.log.sync_data(SyncPoint::Truncation)?;
        }
        self.epochs.truncate_to(cut.offset);
        self.epochs.save(&*self.shared.disk, &self.shared.dir)?;
        // What the sync above covered of this segment is durable; sealed segments before it may still have to be synced.
        if self.sealed_unsynced.is_empty() && !self.sync_in_flight {
            self.synced = cut;
        }
        Ok(())
    }

    /// The newest segment's files, opened for writing: it is the active one again.
    fn writable_newest(&mut self) -> io::Result<Handles> {
        if matches!(self.tail, Tail::Sealed) {
            self.tail = Tail::Closed;
        }
        self.open_tail()
    }

    fn cut_indexes(&mut self, handles: &Handles, cut: RecoveryPoint) -> io::Result<()> {
        let mut view = self.shared.write();
        let Some(newest) = view.segments.back_mut() else {
            return Ok(());
        };
        let mut cut_segment =
            Segment { handles: newest.handles.take(), opened_at: newest.opened_at, ..Segment::empty(newest.base) };
        std::mem::swap(&mut cut_segment.offsets, &mut newest.offsets);
        std::mem::swap(&mut cut_segment.times, &mut newest.times);
        // Readers must not follow entries that are about to go: until the cut is done they see an empty index.
        newest.handles = cut_segment.handles.clone();
        drop(view);
        cut_segment.offsets.truncate_where(&*handles.index, |entry| entry.last_offset < cut.offset)?;
        cut_segment.times.truncate_where(&*handles.time_index, |entry| entry.last_offset < cut.offset)?;
        cut_segment.resume(handles, cut.position, cut.offset, self.config.index_interval_bytes)?;
        if let Some(newest) = self.shared.write().segments.back_mut() {
            *newest = cut_segment;
        }
        Ok(())
    }
}

impl View {
    /// The log ends at `end` now: readers that saw more start over.
    pub(super) fn end_at(&mut self, end: Offset) {
        self.generation += 1;
        self.rewritten += 1;
        self.written_end = end;
        Arc::make_mut(&mut self.epochs).truncate_to(end);
        clip_ranges(&mut self.damaged, end);
    }
}

/// Keeps of the ranges what lies before `end`.
fn clip_ranges(ranges: &mut Vec<(Offset, Offset)>, end: Offset) {
    ranges.retain(|(start, _)| *start < end);
    if let Some((_, last)) = ranges.last_mut() {
        *last = (*last).min(end);
    }
}
