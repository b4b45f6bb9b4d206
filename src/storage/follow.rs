//! What only a follower does with its log: append what the leader sent, and start anew where the leader's log starts.
//!
//! ```text
//!   batches ──► contiguous, epochs not falling, checksums right ──► append          all of them, or none
//!
//!   truncate_fully_and_start_at:
//!   producers, aside ──► state says "starting anew at N" ──► files removed, producers in place, synced ──► state says "starts at N"
//!                                         └── a crash in between: the next open goes on
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::append::Appended;
use super::atomic_file::{AtomicFileError, read_checked, write_atomically};
use super::checksum::CHECKSUM_SUFFIX;
use super::disk::{Disk, SyncPoint, child};
use super::error::LogError;
use super::leader_epochs::LEADER_EPOCHS_FILE;
use super::log::{Log, Tail};
use super::open::Listing;
use super::partition_state::{PartitionState, RecoveryPoint};
use super::producer_snapshots::{self, SNAPSHOT_SUFFIX};
use super::segment::{INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, segment_path};
use super::truncate::TruncateLeave;
use crate::types::record_batch::RecordBatch;
use crate::types::{Offset, TimestampMs};

/// The producers of a log that starts anew, until the old log is gone: under another name than a snapshot, which would speak of the
/// old one.
pub(super) const ANEW_PRODUCERS_FILE: &str = "producers.anew";

impl Log {
    /// Appends batches as the leader's log has them: with its offsets and epochs, which must follow on this log, and with
    /// right checksums. A damaged batch is refused here, before it could count as a copy. The first batch of an empty log may
    /// begin before the log's start, if it holds it.
    ///
    /// # Errors
    /// [`LogError::NotContiguous`], [`LogError::EpochWentBack`] and [`LogError::InvalidBatch`] refuse all of the batches
    /// and change nothing, as does [`LogError::SyncOutstanding`] where an empty log would have to begin before its start while a side
    /// job is in flight, which would write down the later beginning; otherwise as [`Log::append`].
    pub fn append_replicated(&mut self, now: TimestampMs, batches: &[RecordBatch]) -> Result<Appended, LogError> {
        self.check_alive()?;
        let (start, end) = (self.log_start(), self.written_end());
        let began_before = batches
            .first()
            .map(|batch| &batch.header)
            .filter(|first| start == end && first.base_offset < start && start < first.end_offset_exclusive());
        let due = began_before.map_or(end, |first| first.base_offset);
        self.check_batches(due, batches)?;
        for batch in batches {
            let base_offset = batch.header.base_offset;
            batch.verify_checksum().map_err(|cause| LogError::InvalidBatch { base_offset, cause })?;
        }
        if due < end {
            if self.side_in_flight {
                return Err(LogError::SyncOutstanding);
            }
            self.step_back_to(due).map_err(|error| self.fail(error))?;
        }
        self.append(now, batches)
    }

    /// Lets an empty log take a batch that began before its start: records were deleted up to the middle of a batch, and the
    /// leader's log starts with the whole of it.
    fn step_back_to(&mut self, base: Offset) -> io::Result<()> {
        let place = RecoveryPoint { offset: base, segment: base, position: 0 };
        // A recovery has to look at what lies before the point where it would have begun.
        // Of this boot: else the next start would take a kill for a power loss, after which nothing need be written again.
        let boot_id = self.shared.disk.boot_id()?;
        let state = PartitionState { recovery: place, clean: None, boot_id, ..self.state.clone() };
        state.write(&*self.shared.disk, &self.shared.dir)?;
        self.state = state;
        self.synced = place;
        self.tail = Tail::Sealed;
        self.shared.write().end_at(base);
        Ok(())
    }

    /// Gives up all that the log has and lets it start, empty, at `start`: for a follower whose leader's log starts past its
    /// end. `producers` is a snapshot of the producers as they were there: their batches are gone. Everything before `start` counts as committed then. When this returns, the old records are gone for good; a
    /// crash on the way leaves either the old log or the new one.
    ///
    /// # Errors
    /// [`LogError::BelowHighWatermark`] when `start` lies below the high watermark that was written down and `leave` does
    /// not say why; [`LogError::SyncOutstanding`] while a side job is in flight. Nothing has changed then. A failure of the
    /// disk is final.
    pub fn truncate_fully_and_start_at(
        &mut self,
        start: Offset,
        leave: TruncateLeave,
        producers: Option<&[u8]>,
    ) -> Result<(), LogError> {
        self.check_alive()?;
        self.check_leave(start, leave)?;
        if self.side_in_flight {
            return Err(LogError::SyncOutstanding);
        }
        self.start_anew_at(start, producers).map_err(|error| self.fail(error))
    }

    fn start_anew_at(&mut self, start: Offset, producers: Option<&[u8]>) -> io::Result<()> {
        // Before the log is known to start there: what the producers did stands nowhere else from then on.
        if let Some(producers) = producers {
            let (magic, version) = producer_snapshots::FORMAT;
            let path = child(&self.shared.dir, ANEW_PRODUCERS_FILE);
            write_atomically(&*self.shared.disk, &path, magic, version, producers)?;
        }
        let place = RecoveryPoint { offset: start, segment: start, position: 0 };
        let state = PartitionState {
            log_start: start,
            high_watermark: start,
            recovery: place,
            clean: None,
            damaged: Vec::new(),
            starting_anew: true,
            boot_id: self.shared.disk.boot_id()?,
            ..self.state.clone()
        };
        state.write(&*self.shared.disk, &self.shared.dir)?;
        self.state = state;
        let bases = self.forget_everything(place);
        bases.into_iter().rev().try_for_each(|base| self.shared.remove_files(base))?;
        for at in std::mem::take(&mut self.snapshots) {
            self.shared.disk.remove_file(&segment_path(&self.shared.dir, at, SNAPSHOT_SUFFIX))?;
        }
        self.epochs.clear();
        self.epochs.save(&*self.shared.disk, &self.shared.dir)?;
        if producers.is_some() {
            keep_producers(&*self.shared.disk, &self.shared.dir, start)?;
            self.note_snapshot(start);
        }
        // Before the state says that all is gone: else a power loss could bring old segments back, behind a state that
        // does not know of them.
        self.shared.disk.sync_dir(&self.shared.dir, SyncPoint::Truncation)?;
        let state = PartitionState { starting_anew: false, ..self.state.clone() };
        state.write(&*self.shared.disk, &self.shared.dir)?;
        self.state = state;
        if producers.is_some() {
            self.shared.disk.remove_file(&child(&self.shared.dir, ANEW_PRODUCERS_FILE))?;
        }
        Ok(())
    }

    /// What is in memory is that of an empty log at `place`. Returns the segments there were.
    fn forget_everything(&mut self, place: RecoveryPoint) -> Vec<Offset> {
        let mut view = self.shared.write();
        view.log_start = place.offset;
        view.end_at(place.offset);
        view.damaged.clear();
        view.epochs = Arc::default();
        self.truncated_at_generation = view.generation;
        let bases = view.segments.drain(..).map(|segment| segment.base).collect();
        drop(view);
        self.tail = Tail::Sealed;
        self.sealed_unsynced.clear();
        self.unsummed.clear();
        self.new_names = false;
        self.synced = place;
        bases
    }
}

/// Makes the producers that came with a log's new start its first snapshot. They stay aside, too, until the log is known to have
/// started: whoever goes on after a crash does not know one snapshot from another. Returns whether there are any.
fn keep_producers(disk: &dyn Disk, dir: &Path, start: Offset) -> io::Result<bool> {
    let (magic, version) = producer_snapshots::FORMAT;
    match read_checked(disk, &child(dir, ANEW_PRODUCERS_FILE), magic, version) {
        Ok(None) => Ok(false),
        Ok(Some((_, producers))) => {
            write_atomically(disk, &segment_path(dir, start, SNAPSHOT_SUFFIX), magic, version, &producers)?;
            Ok(true)
        }
        Err(AtomicFileError::Io(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the producers of a log that starts anew cannot be read: its leader has them");
            Ok(false)
        }
    }
}

/// Ends what a crash in the middle of [`Log::truncate_fully_and_start_at`] left: nothing of the old log stays, and the producers that
/// came for the new one are there.
pub(super) fn finish_starting_anew(
    disk: &dyn Disk,
    dir: &Path,
    listing: &mut Listing,
    state: &mut PartitionState,
) -> io::Result<()> {
    let remove = |base: Offset, suffix| disk.remove_file(&segment_path(dir, base, suffix));
    std::mem::take(&mut listing.checksums).into_keys().try_for_each(|base| remove(base, CHECKSUM_SUFFIX))?;
    std::mem::take(&mut listing.time_indexes).into_keys().try_for_each(|base| remove(base, TIME_INDEX_SUFFIX))?;
    std::mem::take(&mut listing.indexes).into_keys().try_for_each(|base| remove(base, INDEX_SUFFIX))?;
    listing.logs.drain(..).rev().try_for_each(|(base, _)| remove(base, LOG_SUFFIX))?;
    listing.snapshots.drain(..).try_for_each(|at| remove(at, SNAPSHOT_SUFFIX))?;
    if keep_producers(disk, dir, state.log_start)? {
        listing.snapshots.push(state.log_start);
    }
    let epochs = child(dir, LEADER_EPOCHS_FILE);
    if disk.exists(&epochs)? {
        disk.remove_file(&epochs)?;
    }
    disk.sync_dir(dir, SyncPoint::Truncation)?;
    state.starting_anew = false;
    state.write(disk, dir)
}
