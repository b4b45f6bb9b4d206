//! The controller's files in a data directory: opened, created, or taken over from a release before Raft.
//!
//! ```text
//!   <data_dir>/__cluster_metadata/raft/            vote, log, snapshot: see crate::raft
//!                                 snapshot, log/   of an earlier release: read once, gone when raft/ is there for good
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::earlier_log::{self, EARLIER_FILES, MetadataLogError};
use crate::raft::{
    ControllerNode, NewestImage, RaftId, RaftIdentity, RaftPlace, RaftStorage, RaftStorageError, RaftWork, TypeConfig,
    begin_with, newest_image, owner,
};
use crate::storage::LogError;
use crate::storage::atomic_file::AtomicFileError;
use crate::storage::data_dir::{DataDir, DataDirError, DirectoryMeta};
use crate::storage::disk::{Disk, SyncPoint, create_dir_durably};
use crate::storage::file_cache::FileCache;
use crate::types::{ClusterId, DirectoryId};

const RAFT_DIR: &str = "raft";

/// Why the metadata cannot be used. Each ends the start of the node: without metadata nothing is safe.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Raft's files.
    #[error(transparent)]
    Raft(#[from] RaftStorageError),
    /// The log of an earlier release.
    #[error(transparent)]
    Earlier(#[from] MetadataLogError),
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The disk.
    #[error("the metadata: {0}")]
    Io(#[from] std::io::Error),
    /// The cluster cannot be formed.
    #[error("the cluster cannot be formed: {0}")]
    Forming(String),
    /// Raft has stopped while it started.
    #[error("{0}")]
    Stopped(String),
}

impl MetadataError {
    /// Whether a newer release wrote what cannot be read.
    #[must_use]
    pub fn is_newer_format(&self) -> bool {
        let newer_file = |error: &AtomicFileError| matches!(error, AtomicFileError::NewerVersion { .. });
        let newer_log = |error: &LogError| matches!(error, LogError::DamagedMeta(file) if newer_file(file));
        match self {
            Self::Raft(RaftStorageError::Newer(_)) | Self::Earlier(MetadataLogError::Apply(_)) => true,
            Self::Raft(RaftStorageError::File(error)) | Self::Earlier(MetadataLogError::Snapshot(error)) => {
                newer_file(error)
            }
            Self::Raft(RaftStorageError::Log(error)) | Self::Earlier(MetadataLogError::Log(error)) => newer_log(error),
            _ => false,
        }
    }

    /// Whether the files belong to another member: a copy that lies in the wrong place.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Raft(RaftStorageError::Foreign { .. }))
    }

    /// Whether there is no metadata at all where some had been, if the node is a controller.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Raft(RaftStorageError::Missing { .. }))
    }

    /// Whether votes or entries of a controller are damaged or gone, so that it must not vote again as the member that it was. A disk
    /// that fails is none of that: it may be read another time.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Raft(RaftStorageError::File(error) | RaftStorageError::Log(LogError::DamagedMeta(error))) => {
                matches!(error, AtomicFileError::Damaged { .. } | AtomicFileError::ForeignMagic { .. })
            }
            Self::Raft(RaftStorageError::Log(error)) => matches!(
                error,
                LogError::Damaged { .. } | LogError::WrongPartition { .. } | LogError::MissingPartition { .. }
            ),
            Self::Raft(error) => matches!(
                error,
                RaftStorageError::Missing { .. }
                    | RaftStorageError::LostFile { .. }
                    | RaftStorageError::LostEntries { .. }
                    | RaftStorageError::Entry { .. }
                    | RaftStorageError::Snapshot { .. }
            ),
            _ => false,
        }
    }
}

/// Whether metadata that is not in a directory was lost, if its node is a controller: there is some before the directory is taken
/// for one that was used.
fn has_had_metadata(meta: &DirectoryMeta) -> bool {
    meta.broker_epoch.is_some() || meta.holds_votes
}

/// What is known of a directory's metadata before it is opened.
struct Found {
    place: RaftPlace,
    /// Whether there is a Raft storage.
    is_there: bool,
    /// Whether an earlier release's log lies beside it.
    has_earlier: bool,
}

fn find(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    dir: &Path,
    (cluster, directory, new): (ClusterId, DirectoryId, RaftId),
) -> Result<Found, MetadataError> {
    let raft_dir = dir.join(RAFT_DIR);
    let found = owner(disk.as_ref(), &raft_dir)?;
    let id = found.map_or(new, |found| found.id);
    let place = RaftPlace {
        disk: Arc::clone(disk),
        files: Arc::clone(files),
        dir: raft_dir,
        identity: RaftIdentity { cluster, directory, id },
        segment_bytes: RaftPlace::SEGMENT_BYTES,
    };
    Ok(Found { place, is_there: found.is_some(), has_earlier: earlier_log::is_there(disk.as_ref(), dir)? })
}

/// A controller's files, open.
#[derive(Debug)]
pub struct MetadataFiles {
    /// For openraft.
    pub storage: RaftStorage<TypeConfig>,
    /// The member whose they are.
    pub id: RaftId,
}

impl MetadataFiles {
    /// The members of a cluster that begins with `me` alone; `None` where it has begun.
    #[must_use]
    pub fn only_member(&self, me: &ControllerNode) -> Option<BTreeMap<RaftId, ControllerNode>> {
        (!self.are_begun()).then(|| BTreeMap::from([(self.id, me.clone())]))
    }

    /// Whether there is more than the empty log of a cluster that is being formed.
    #[must_use]
    pub fn are_begun(&self) -> bool {
        self.storage.is_begun
    }
}

impl MetadataFiles {
    /// Opens the metadata in `directory`, or creates it for `me`, which is the member `new` then. What an earlier release left is taken over, once: after a crash
    /// at any instant either that is there, or all that came of it.
    ///
    /// # Errors
    /// [`MetadataError`]: this node must not start.
    pub fn open(
        directory: &DataDir,
        files: &Arc<FileCache>,
        (me, new): (&ControllerNode, RaftId),
        work: &RaftWork,
    ) -> Result<Self, MetadataError> {
        let (disk, dir, meta) = (directory.disk(), directory.metadata_dir(), directory.meta());
        let Found { place, is_there, has_earlier } = find(disk, files, &dir, (meta.cluster, meta.directory, new))?;
        if !is_there && has_earlier {
            let image = earlier_log::read(disk, files, &dir, meta.cluster)?;
            // First: an earlier release would take what it finds afterwards for a new cluster.
            directory.take_own_format()?;
            begin_with(&place, me, &image)?;
            tracing::info!(index = image.index, "the metadata of an earlier release was taken over");
        }
        if has_earlier {
            remove_earlier(disk.as_ref(), &dir)?;
        }
        let is_new = !is_there && !has_earlier;
        let storage = if is_new && !has_had_metadata(&meta) {
            // By itself, whoever syncs the data directory next: a record that was answered must not go with its directory.
            create_dir_durably(disk.as_ref(), &dir, SyncPoint::DataDirCreated)?;
            RaftStorage::create(&place, work)?
        } else {
            RaftStorage::open(&place, work)?
        };
        Ok(Self { storage, id: place.identity.id })
    }
}

fn remove_earlier(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    let [snapshot, log] = EARLIER_FILES.map(|name| dir.join(name));
    if disk.exists(&log)? {
        disk.remove_dir_all(&log)?;
    }
    if disk.exists(&snapshot)? {
        disk.remove_file(&snapshot)?;
    }
    Ok(())
}

/// The metadata in a copy of the directory `dir`, as the next start of the node of `meta` will know it; `None` where there is none.
///
/// # Errors
/// Those that would end that start.
pub(super) fn image_in(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    dir: &Path,
    meta: &DirectoryMeta,
) -> Result<Option<NewestImage>, MetadataError> {
    let identity = (meta.cluster, meta.directory, RaftId::first_of(meta.node));
    let Found { place, is_there, has_earlier } = find(disk, files, dir, identity)?;
    Ok(if is_there {
        Some(newest_image(&place)?)
    } else if has_earlier {
        // Earlier releases had one controller.
        Some(NewestImage { image: earlier_log::read(disk, files, dir, meta.cluster)?, voters: 1 })
    } else {
        None
    })
}

/// What ends the start of a controller whose metadata in `dir` is not there; `None` where it is to have none yet.
pub(super) fn missing_in(dir: &Path, meta: &DirectoryMeta) -> Option<MetadataError> {
    has_had_metadata(meta).then(|| RaftStorageError::Missing { path: dir.join(RAFT_DIR) }.into())
}

#[cfg(test)]
#[path = "metadata_files_tests.rs"]
mod tests;
