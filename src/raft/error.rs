//! Why Raft's files cannot be read or written. A controller that meets one of these takes no part any more.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::types::{Fatal, RaftId};
use crate::engine::metadata::ApplyError;
use crate::storage::LogError;
use crate::storage::atomic_file::AtomicFileError;
use crate::types::{ClusterId, DirectoryId};

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
    #[error("the Raft log: {0}")]
    Log(#[from] LogError),
    /// One of the small files is damaged, foreign, or of a newer release.
    #[error("the Raft storage: {0}")]
    File(#[from] AtomicFileError),
    /// The directory is gone, or was never there.
    #[error(
        "there is no Raft storage at {}, and with it this controller's votes are gone: put the directory back; where there are other controllers, reset this one instead (it comes back under a new id)",
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
        "{} is gone, and this controller must not vote without it: put it back; where there are other controllers, reset this one instead (it comes back under a new id)",
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
        "the Raft log has lost entry {index}, which was synced ({reason}): this controller must not vote. Where there are others, reset it (it comes back under a new id): they have what it lost; a sole controller needs its data directory restored from one backup"
    )]
    LostEntries {
        /// The first one that is missing.
        index: u64,
        /// How that is known.
        reason: String,
    },
    /// An entry does not decode.
    #[error(
        "entry {index} of the Raft log does not decode ({reason}): upgrade this node; where there are other controllers, this one can be reset instead"
    )]
    Entry {
        /// Its index.
        index: u64,
        /// What the decoder says.
        reason: String,
    },
    /// The snapshot does not decode, or is not what it says.
    #[error(
        "the metadata snapshot cannot be used ({reason}): upgrade this node, or restore its data directory from one backup; where there are other controllers, this one can be reset instead"
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
