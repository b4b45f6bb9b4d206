//! Making the log durable: one sync at a time, run on another thread while appends go on.
//!
//! ```text
//!   begin_sync() ──► SyncJob ──run() on a disk thread──► SyncDone ──► finish_sync(): the durable end moves
//! ```

use std::io;
use std::sync::Arc;

use super::disk::{DiskFile, SyncPoint, is_out_of_descriptors};
use super::error::LogError;
use super::log::{Log, Tail};
use super::partition_state::RecoveryPoint;
use super::view::Shared;
use crate::types::{Mutant, Offset};

/// What has to be synced so that everything written until now is durable. Run it on a thread that may block.
#[derive(Debug)]
#[must_use = "the log starts no other sync until this one was run and finished"]
pub struct SyncJob {
    sealed: Vec<Arc<dyn DiskFile>>,
    active: Option<Arc<dyn DiskFile>>,
    directory: Option<Arc<Shared>>,
    reached: RecoveryPoint,
    generation: u64,
}

/// What came of a [`SyncJob`]: hand it to [`Log::finish_sync`].
#[derive(Debug)]
#[must_use = "the durable end moves when the log is told"]
pub struct SyncDone {
    reached: RecoveryPoint,
    generation: u64,
    sealed_any: bool,
    result: io::Result<()>,
}

impl SyncJob {
    /// The end that becomes durable, exclusive.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.reached.offset
    }

    /// Syncs. Blocks for as long as the disk takes.
    pub fn run(self) -> SyncDone {
        let result = self.sync();
        let sealed_any = !self.sealed.is_empty();
        SyncDone { reached: self.reached, generation: self.generation, sealed_any, result }
    }

    fn sync(&self) -> io::Result<()> {
        for file in self.sealed.iter().chain(&self.active) {
            file.sync_data(SyncPoint::LogData)?;
        }
        let Some(log) = &self.directory else { return Ok(()) };
        match log.disk.sync_dir(&log.dir, SyncPoint::SegmentCreated) {
            // A directory is opened to be synced. This time the kernel has not seen it: a second one tells the truth.
            Err(error) if is_out_of_descriptors(&error) => {
                log.files.close_all();
                log.disk.sync_dir(&log.dir, SyncPoint::SegmentCreated)
            }
            synced => synced,
        }
    }
}

impl SyncDone {
    /// Whether a segment was closed since the sync before: a good moment for a checkpoint.
    #[must_use]
    pub fn closed_a_segment(&self) -> bool {
        self.sealed_any
    }
}

impl Log {
    /// What has to be synced, or `None` when everything written is durable, a sync is in flight, or the log has failed.
    pub fn begin_sync(&mut self) -> Option<SyncJob> {
        let reached = self.written_place();
        let nothing = self.sealed_unsynced.is_empty() && !self.new_names && reached.offset == self.synced.offset;
        if self.sync_in_flight || self.failure.is_some() || nothing {
            return None;
        }
        self.sync_in_flight = true;
        let active = match &self.tail {
            Tail::Open(handles) => Some(Arc::clone(&handles.log)),
            Tail::Closed | Tail::Sealed => None,
        };
        let new_names = std::mem::take(&mut self.new_names);
        Some(SyncJob {
            sealed: std::mem::take(&mut self.sealed_unsynced),
            active,
            directory: new_names.then(|| Arc::clone(&self.shared)),
            reached,
            generation: self.shared.read().generation,
        })
    }

    /// As [`Log::note_synced`]. When a segment was closed since the sync before, the recovery point, which is in the new
    /// segment then, is written down.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the sync failed. That is final: after a failed sync nobody knows what is on disk, and
    /// a second one would report success without having written anything.
    pub fn finish_sync(&mut self, done: SyncDone) -> Result<Offset, LogError> {
        let sealed_any = done.sealed_any;
        let durable = self.note_synced(done)?;
        if sealed_any && let Err(error) = self.save_checkpoint(self.state.high_watermark) {
            // What was synced stays synced; an older recovery point only makes a recovery longer.
            tracing::warn!(partition = %self.identity, %error, "cannot write down the recovery point, going on");
        }
        Ok(durable)
    }

    /// Takes note of a finished sync and returns the durable end. Writes nothing: after a sync that
    /// [closed a segment](SyncDone::closed_a_segment) it is time for a checkpoint.
    ///
    /// # Errors
    /// As [`Log::finish_sync`].
    pub fn note_synced(&mut self, done: SyncDone) -> Result<Offset, LogError> {
        self.sync_in_flight = false;
        if let Err(error) =
            done.result.or_else(|error| if Mutant::GoesOnAfterAFailedSync.is_on() { Ok(()) } else { Err(error) })
        {
            return Err(self.fail(error));
        }
        self.check_alive()?;
        // A truncation meanwhile has synced for itself, and what was synced here may be gone.
        if done.generation >= self.truncated_at_generation && done.reached.offset >= self.synced.offset {
            self.synced = done.reached;
        }
        Ok(self.durable_end())
    }

    /// The place where the next batch goes.
    pub(super) fn written_place(&self) -> RecoveryPoint {
        let view = self.shared.read();
        let offset = view.written_end;
        match (&self.tail, view.segments.back()) {
            (Tail::Open(_) | Tail::Closed, Some(active)) => {
                RecoveryPoint { offset, segment: active.base, position: active.size }
            }
            // The next segment starts here.
            _ => RecoveryPoint { offset, segment: offset, position: 0 },
        }
    }
}
