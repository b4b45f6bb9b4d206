//! Snapshots of the producer state beside the log, so that opening need not read the whole log for it.
//!
//! A snapshot at offset N, in the file `<N, 20 digits>.snapshot`, holds what the batches before N have led to. Its content
//! is the producer state's own affair; here it is bytes. The newest two are kept: the second one is for the case that
//! the log is truncated below the first, or that the first cannot be read.

use std::path::Path;

use super::atomic_file::{AtomicFileError, Magic, read_checked, write_atomically};
use super::disk::Disk;
use super::error::LogError;
use super::log::Log;
use super::segment::segment_path;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// Ends the name of a snapshot file.
pub const SNAPSHOT_SUFFIX: &str = ".snapshot";

const MAGIC: Magic = *b"CBsn";
const VERSION: u16 = 1;
/// The form of the file.
pub(super) const FORMAT: (Magic, u16) = (MAGIC, VERSION);
const KEPT: usize = 2;

/// Is told, while a log is opened and by [`Log::replay_producers`], what its producers have done: a snapshot if there is a usable one, then the header of
/// each batch after it, in order. `()` does not listen.
pub trait Replay {
    /// The producer state at `at`. Returns whether it can be used; if not, an older one is offered, or all of the log.
    fn snapshot(&mut self, at: Offset, payload: &[u8]) -> bool;
    /// A batch that follows.
    fn batch(&mut self, header: &BatchHeader);
    /// Whether a batch can follow on what came before. Of one that cannot the checksum is looked at, before it is told.
    fn fits(&self, _header: &BatchHeader) -> bool {
        true
    }
    /// Batches that cannot be told come here: they are damaged, or gone without a usable snapshot of what they said.
    fn gap(&mut self) {}
    /// Whether batches are of interest at all. If not, none is read for this.
    fn wants_batches(&self) -> bool {
        true
    }
}

impl Replay for () {
    fn snapshot(&mut self, _at: Offset, _payload: &[u8]) -> bool {
        true
    }
    fn batch(&mut self, _header: &BatchHeader) {}
    fn wants_batches(&self) -> bool {
        false
    }
}

impl Log {
    /// Writes the producer state as of `at` (everything before it is included) and removes older snapshots but one.
    ///
    /// # Errors
    /// The disk's; older snapshots are still there then.
    pub fn write_producer_snapshot(&mut self, at: Offset, payload: &[u8]) -> Result<(), LogError> {
        let (disk, dir) = (&*self.shared.disk, &self.shared.dir);
        write_atomically(disk, &segment_path(dir, at, SNAPSHOT_SUFFIX), MAGIC, VERSION, payload)?;
        let outdated = self.outdated_by(at);
        self.note_snapshot(at);
        for old in outdated {
            self.shared.disk.remove_file(&segment_path(&self.shared.dir, old, SNAPSHOT_SUFFIX))?;
            self.snapshots.retain(|known| *known != old);
        }
        Ok(())
    }

    /// Up to where records may go: at or after that offset, and below the watermark, where no truncation reaches, there is a
    /// snapshot of what they say of producers.
    #[must_use]
    pub fn producers_are_kept_to(&self, high_watermark: Offset) -> Offset {
        let newest = self.snapshots.iter().rfind(|at| **at <= high_watermark);
        newest.map_or(self.log_start(), |at| (*at).max(self.log_start()))
    }

    pub(super) fn note_snapshot(&mut self, at: Offset) {
        if let Err(place) = self.snapshots.binary_search(&at) {
            self.snapshots.insert(place, at);
        }
    }

    /// The snapshots that are too many once there is one at `at`. The newest that no truncation can reach stays: what it says of
    /// producers may stand nowhere else.
    pub(super) fn outdated_by(&self, at: Offset) -> Vec<Offset> {
        let mut all = self.snapshots.clone();
        if let Err(place) = all.binary_search(&at) {
            all.insert(place, at);
        }
        let safe = all.iter().rposition(|known| *known <= self.state.high_watermark).map(|place| all[place]);
        all.truncate(all.len().saturating_sub(KEPT));
        all.retain(|known| *known != at && Some(*known) != safe);
        all
    }

    /// Removes the snapshots that speak of more than the log up to `end`.
    pub(super) fn drop_snapshots_after(&mut self, end: Offset) -> std::io::Result<()> {
        while let Some(at) = self.snapshots.last().copied().filter(|at| *at > end) {
            self.shared.disk.remove_file(&segment_path(&self.shared.dir, at, SNAPSHOT_SUFFIX))?;
            self.snapshots.pop();
        }
        Ok(())
    }
}

/// Offers the snapshots, newest first, and returns the offset from which batches are to be replayed.
pub(super) fn replay_snapshot(
    disk: &dyn Disk,
    dir: &Path,
    snapshots: &[Offset],
    log_start: Offset,
    replay: &mut dyn Replay,
) -> Result<Offset, LogError> {
    for at in snapshots.iter().rev() {
        match read_checked(disk, &segment_path(dir, *at, SNAPSHOT_SUFFIX), MAGIC, VERSION) {
            Ok(Some((_, payload))) if replay.snapshot(*at, &payload) => {
                if *at < log_start {
                    replay.gap();
                }
                return Ok(*at);
            }
            Ok(_) => tracing::warn!(?dir, offset = %at, "a producer snapshot cannot be used, trying an older one"),
            // An older one, and what is left of the batches after it, may know less: a retry could become a duplicate.
            Err(error @ AtomicFileError::NewerVersion { .. }) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "a producer snapshot cannot be read, trying an older one"),
        }
    }
    if log_start > Offset::ZERO {
        replay.gap();
    }
    Ok(log_start)
}
