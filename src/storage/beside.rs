//! The small files of a partition, written beside the appends: checkpoints and producer snapshots.
//!
//! ```text
//!   begin_checkpoint() ─────────┐
//!   begin_producer_snapshot() ──┴► SideJob ──run() on a disk thread──► SideDone ──► finish_side(): it is on record
//! ```
//!
//! Replacing a small file syncs it, and on a file system that is busy with other data that takes as long as the data does
//! (measured: 70 to 100 ms, once a second, with a gigabyte a second going in). Appends do not wait for it: the log only lends what is to be
//! written down. One job at a time, and nothing else writes these files meanwhile.

use std::io;
use std::sync::Arc;

use super::atomic_file::write_atomically;
use super::checksum::SegmentChecksum;
use super::error::LogError;
use super::leader_epochs::LeaderEpochs;
use super::log::Log;
use super::partition_state::PartitionState;
use super::producer_snapshots::{self, SNAPSHOT_SUFFIX};
use super::segment::segment_path;
use super::view::{SegmentRef, Shared};
use crate::types::Offset;

/// What is to be written down. Run it on a thread that may block.
#[derive(Debug)]
#[must_use = "the log writes down nothing else until this one was run and finished"]
pub struct SideJob {
    shared: Arc<Shared>,
    note: Note,
}

/// What came of a [`SideJob`]: hand it to [`Log::finish_side`].
#[derive(Debug)]
#[must_use = "the log does not know until it is told"]
pub struct SideDone {
    note: Note,
    result: io::Result<()>,
}

#[derive(Debug)]
enum Note {
    /// The epochs come first, if the file lacks some: a recovery from the new recovery point does not see the batches before.
    Checkpoint {
        epochs: Option<LeaderEpochs>,
        state: PartitionState,
        /// A closed segment that has no file of checksums yet.
        to_sum: Option<Box<SegmentRef>>,
    },
    Snapshot {
        at: Offset,
        payload: Vec<u8>,
        outdated: Vec<Offset>,
    },
}

impl SideJob {
    /// Writes. Blocks for as long as the disk takes.
    pub fn run(mut self) -> SideDone {
        let result = self.write();
        SideDone { note: self.note, result }
    }

    fn write(&mut self) -> io::Result<()> {
        let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
        match &mut self.note {
            Note::Checkpoint { epochs, state, to_sum } => {
                if let Some(epochs) = epochs {
                    epochs.save(disk, dir)?;
                }
                // Written under this boot: the next open under the same one cannot be sure that it is durable.
                state.boot_id = disk.boot_id()?;
                state.write(disk, dir)?;
                if let Some(segment) = to_sum.take()
                    && let Err(error) = self.shared.sum(&segment)
                {
                    // Without it, damage to a head is found later; the checkpoint is good all the same.
                    tracing::warn!(?dir, base = %segment.base, %error, "a closed segment gets no file of checksums");
                }
                Ok(())
            }
            Note::Snapshot { at, payload, outdated } => {
                let (magic, version) = producer_snapshots::FORMAT;
                write_atomically(disk, &segment_path(dir, *at, SNAPSHOT_SUFFIX), magic, version, payload)?;
                outdated.iter().try_for_each(|old| disk.remove_file(&segment_path(dir, *old, SNAPSHOT_SUFFIX)))
            }
        }
    }
}

impl Shared {
    /// Writes the file of checksums of a closed segment.
    fn sum(&self, segment: &SegmentRef) -> io::Result<()> {
        let file = self.log_file(segment)?;
        match SegmentChecksum::of_segment(&*file, segment.base, segment.size, segment.end)? {
            Some(checksum) => checksum.write(&*self.disk, &self.dir, segment.base),
            None => Ok(()),
        }
    }
}

impl Log {
    /// What [`Log::save_checkpoint`] would write down now, and the file of checksums of a segment that was closed. `None` when nothing has changed, while another job is under way,
    /// and for a log that has failed or that nothing was written to since it was opened.
    pub fn begin_checkpoint(&mut self, high_watermark: Offset) -> Option<SideJob> {
        if self.side_in_flight || self.failure.is_some() || self.state.clean.is_some() {
            return None;
        }
        let epochs = self.epochs.is_unsaved().then(|| self.epochs.clone());
        let state = self.state_now(high_watermark);
        let to_sum = self.next_to_sum();
        if epochs.is_none() && state == self.state && to_sum.is_none() {
            return None;
        }
        Some(self.side_job(Note::Checkpoint { epochs, state, to_sum }))
    }

    /// What [`Log::write_producer_snapshot`] would write. `None` while another job is under way, and for a log that has failed.
    pub fn begin_producer_snapshot(&mut self, at: Offset, payload: Vec<u8>) -> Option<SideJob> {
        if self.side_in_flight || self.failure.is_some() {
            return None;
        }
        let outdated = self.outdated_by(at);
        Some(self.side_job(Note::Snapshot { at, payload, outdated }))
    }

    /// One closed segment: a checkpoint reads the heads of at most one, so that it ends soon.
    fn next_to_sum(&mut self) -> Option<Box<SegmentRef>> {
        let view = self.shared.read();
        while let Some(base) = self.unsummed.pop() {
            let at = view.segments.iter().position(|segment| segment.base == base && segment.handles.is_none());
            if let Some(at) = at {
                return Some(Box::new(view.segment_ref(at)));
            }
        }
        None
    }

    fn side_job(&mut self, note: Note) -> SideJob {
        self.side_in_flight = true;
        SideJob { shared: Arc::clone(&self.shared), note }
    }

    /// Takes note of what was written down.
    ///
    /// # Errors
    /// The disk's. What was written down before still holds then, and the log goes on.
    pub fn finish_side(&mut self, done: SideDone) -> Result<(), LogError> {
        self.side_in_flight = false;
        done.result?;
        match done.note {
            Note::Checkpoint { epochs, state, .. } => {
                self.state = state;
                if let Some(saved) = epochs {
                    self.epochs.were_saved_as(&saved);
                }
            }
            Note::Snapshot { at, outdated, .. } => {
                self.snapshots.retain(|old| !outdated.contains(old));
                self.note_snapshot(at);
            }
        }
        Ok(())
    }
}
