//! Why Raft's files cannot be read or written. A controller that meets one of these takes no part any more.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::types::{Fatal, RaftId};
use crate::engine::metadata::ApplyError;
use crate::storage::LogError;
use crate::storage::atomic_file::AtomicFileError;
use crate::types::{ClusterId, DirectoryId};

/// The way back of a controller that must not vote any more: the others take it as another member.
const WAY_BACK: &str = "where other controllers run, start this node with an empty node.data_dir instead, and run \
                        'callboard cluster reset-controller' with its node.id";

/// Why a controller's Raft storage cannot be used.
///
/// None of them is retried: what a member has acknowledged may be gone, and one that has forgotten its votes or entries must
/// not vote. It comes back under a new [`RaftId`] with an empty directory.
#[derive(Debug, thiserror::Error)]
pub enum RaftStorageError {
    /// The disk failed.
    #[error("the Raft storage: {0}")]
    Io(#[from] io::Error),
    /// The log failed.
    #[error("the Raft log: {}{}", .0, after_log(.0))]
    Log(#[from] LogError),
    /// One of the small files is damaged, foreign, or of a newer release.
    #[error("the Raft storage: {}{}", .0, after_file(.0))]
    File(#[from] AtomicFileError),
    /// The directory is gone, or was never there.
    #[error(
        "there is no Raft storage at {}, and with it this controller's votes are gone: put the directory back; {WAY_BACK}",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is there already.
    #[error("{} exists already: open it instead of creating it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// One of its files is gone.
    #[error(
        "{} is gone, and this controller must not vote without it: put it back; {WAY_BACK}",
        path.display()
    )]
    LostFile {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to Raft member {} (cluster {}, directory {}), this is member {} (cluster {}, directory {}): it was copied or moved here, move it back",
        path.display(), found.id, found.cluster, found.directory, expected.id, expected.cluster, expected.directory
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: RaftIdentity,
        /// Whose it should be.
        expected: RaftIdentity,
    },
    /// Entries that had been acknowledged are missing.
    #[error(
        "the Raft log has lost entry {index}, which was synced ({reason}): this controller must not vote. A sole controller needs its data directory restored from one backup; {WAY_BACK}: they have what it lost"
    )]
    LostEntries {
        /// The first one that is missing.
        index: u64,
        /// How that is known.
        reason: String,
    },
    /// An entry does not decode.
    #[error("entry {index} of the Raft log does not decode ({reason}): upgrade this node; {WAY_BACK}")]
    Entry {
        /// Its index.
        index: u64,
        /// What the decoder says.
        reason: String,
    },
    /// The snapshot does not decode, or is not what it says.
    #[error(
        "the metadata snapshot cannot be used ({reason}): upgrade this node, or restore a sole controller's data directory from one backup; {WAY_BACK}"
    )]
    Snapshot {
        /// What is wrong.
        reason: String,
    },
    /// An append would leave a hole, or write over what is there.
    #[error(
        "entry {found} was to be appended where {expected} is due: this is an error in the software, please report it"
    )]
    NotContiguous {
        /// The index that is due.
        expected: u64,
        /// The entry's.
        found: u64,
    },
    /// Newer software wrote an entry.
    #[error(transparent)]
    Newer(ApplyError),
    /// The thread that does the disk's work has ended.
    #[error("the thread for Raft's disk work has ended: restart this node")]
    ThreadEnded,
}

/// What to say after an error of the log, when that is no fault of the disk's that may pass.
fn after_log(error: &LogError) -> String {
    match error {
        LogError::DamagedMeta(error) => after_file(error),
        LogError::Damaged { .. } | LogError::WrongPartition { .. } | LogError::MissingPartition { .. } => {
            format!("; {WAY_BACK}")
        }
        _ => String::new(),
    }
}

/// What to say after an error of a small file, when that is no fault of the disk's that may pass.
fn after_file(error: &AtomicFileError) -> String {
    match error {
        AtomicFileError::Damaged { .. } | AtomicFileError::ForeignMagic { .. } => format!("; {WAY_BACK}"),
        AtomicFileError::Io(_) | AtomicFileError::NewerVersion { .. } => String::new(),
    }
}

/// Why openraft has stopped for good, in the words of what went wrong below it.
#[must_use]
pub fn cause_of(fatal: &Fatal) -> String {
    match fatal {
        Fatal::StorageError(error) => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        Fatal::Panicked | Fatal::Stopped => format!("Raft has stopped: {fatal}"),
    }
}

/// Why an entry that another member sent cannot be read. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a Raft entry cannot be read ({reason}): it was damaged on the way, or the other member is of a newer release")]
pub struct EntryError {
    /// What is wrong with it.
    pub reason: String,
}

/// Whose files they are, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The data directory: one that was wiped comes back with another.
    pub directory: DirectoryId,
    /// The member.
    pub id: RaftId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lost_votes_or_entries_is_told_the_way_back_and_a_newer_release_or_a_disk_that_fails_is_not_reset() {
        let path = || PathBuf::from("/data/__cluster_metadata/raft/voter");
        let reason = || "its checksum is wrong".to_owned();
        let lost = [
            RaftStorageError::Missing { path: path() },
            RaftStorageError::LostFile { path: path() },
            RaftStorageError::LostEntries { index: 5, reason: reason() },
            RaftStorageError::Entry { index: 5, reason: reason() },
            RaftStorageError::Snapshot { reason: reason() },
            RaftStorageError::File(AtomicFileError::Damaged { path: path(), reason: reason() }),
            RaftStorageError::Log(LogError::MissingPartition { path: path() }),
        ];
        for error in lost {
            let text = error.to_string();
            assert!(
                text.contains("empty node.data_dir") && text.contains("callboard cluster reset-controller"),
                "{text}"
            );
        }
        let kept = [
            RaftStorageError::File(AtomicFileError::NewerVersion { path: path(), found: 2, supported: 1 }),
            RaftStorageError::Io(io::ErrorKind::StorageFull.into()),
            RaftStorageError::Log(LogError::Io(io::ErrorKind::PermissionDenied.into())),
        ];
        assert!(kept.iter().all(|error| !error.to_string().contains("reset-controller")), "{kept:?}");
    }
}
