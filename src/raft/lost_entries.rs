//! Whether a log has lost entries that had been synced, found out before the log is opened and anything is cut.
//!
//! ```text
//!   … │ entry 6 │ entry 7 │ damage │ entry 9: all before 9 was synced when this was written   ──► 8 is lost
//!   … │ entry 6 │ entry 7 │ damage │ entry 9: all before 8 was synced                         ──► a torn tail
//! ```
//!
//! Every byte is looked at: what a damaged batch claims of its length and place leads nobody past the witnesses.

use std::path::Path;

use bytes::Bytes;

use super::error::RaftStorageError;
use super::format::{FoundEntry, decode_batches, epoch_of};
use crate::storage::atomic_file::AtomicFileError;
use crate::storage::disk::{Disk, OpenMode, child, read_full_at};
use crate::storage::{LogError, PartitionState};
use crate::types::record_batch::{BatchHeader, HEADER_BYTES};

const LOG_SUFFIX: &str = ".log";

/// What was found so far.
struct Search {
    /// Entries before this one need not be there.
    start: u64,
    /// Entries from this one on were being cut off.
    truncating_from: u64,
    due: u64,
    /// The first entry that is not where it should be.
    missing: Option<u64>,
    /// The entry that was written when the missing one was synced.
    witness: Option<u64>,
}

impl Search {
    fn see(&mut self, entry: &FoundEntry, is_in_place: bool) {
        let index = entry.id.index;
        if index < self.start || index >= self.truncating_from {
            return;
        }
        if index > self.due {
            self.missing.get_or_insert(self.due);
        } else if !is_in_place {
            self.missing.get_or_insert(index);
        }
        self.due = self.due.max(index + 1);
        if self.missing.is_some_and(|missing| entry.synced_before > missing) {
            self.witness.get_or_insert(index);
        }
    }

    fn look_at(&mut self, segment: &Bytes) {
        let mut at = 0;
        while segment.len() - at >= HEADER_BYTES {
            match whole_entry(segment, at) {
                Some((entry, header)) => {
                    // Offset and epoch are outside the batch's checksum; index and term in the entry are not.
                    let in_place = header.base_offset.0 == entry.id.index
                        && header.leader_epoch == epoch_of(entry.id.leader_id.term);
                    self.see(&entry, in_place);
                    at += header.total_bytes();
                }
                None => at += 1,
            }
        }
    }
}

/// The entry whose batch starts at `at`, if a whole and good one does.
fn whole_entry(segment: &Bytes, at: usize) -> Option<(FoundEntry, BatchHeader)> {
    let header = BatchHeader::parse(&segment[at..]).ok()?;
    let batch = segment.get(at..at.checked_add(header.total_bytes())?)?;
    header.verify_checksum(batch).ok()?;
    let mut entries = Vec::new();
    decode_batches(segment.slice(at..at + header.total_bytes()), &mut entries).ok()?;
    Some((entries.pop()?, header))
}

/// Reads the whole log in `dir`.
///
/// # Errors
/// [`RaftStorageError::LostEntries`], or the disk's.
pub(super) fn find_lost_entries(
    disk: &dyn Disk,
    dir: &Path,
    truncating_from: Option<u64>,
) -> Result<(), RaftStorageError> {
    let start = match PartitionState::read(disk, dir) {
        Ok(Some(state)) => state.log_start.0,
        Err(error @ AtomicFileError::NewerVersion { .. }) => return Err(LogError::DamagedMeta(error).into()),
        // Without it nothing is known to have been deleted at the front: opening the log looks closer.
        Ok(None) | Err(_) => 0,
    };
    let truncating_from = truncating_from.unwrap_or(u64::MAX);
    let mut search = Search { start, truncating_from, due: start, missing: None, witness: None };
    // By name, which is the base offset in 20 digits: in the log's order.
    for entry in disk.read_dir(dir)?.into_iter().filter(|entry| entry.name.ends_with(LOG_SUFFIX)) {
        let file = disk.open(&child(dir, &entry.name), OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
        let filled = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(filled);
        search.look_at(&bytes.into());
    }
    match (search.missing, search.witness) {
        (Some(index), Some(witness)) => {
            let reason = format!("entry {witness} was written after it had been synced");
            Err(RaftStorageError::LostEntries { index, reason })
        }
        _ => Ok(()),
    }
}
