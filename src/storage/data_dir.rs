//! A node's data directory: whose it is, whether the last stop was clean, and the partitions in it.
//!
//! ```text
//!   <root>/callboard.meta            cluster, node, directory id, last broker epoch, boot
//!   <root>/clean-stop                there from a clean stop to the next start
//!   <root>/lock                      held by the process that uses the directory
//!   <root>/__cluster_metadata/raft/  the controller's log, vote and snapshot
//!   <root>/<topic>-<topic id>-<partition>/            a partition
//!   <root>/<topic>-<topic id>-<partition>.creating/   one that is being created
//!   <root>/<topic>-<topic id>-<partition>.deleted/    one that is being removed
//!   <root>/quarantine/               what nobody recognised: kept, never removed
//! ```

mod look;
mod names;
mod ownership;
mod removal;

pub use look::{DirectoryLook, EntryKind, check_unused, look};
pub use names::{parse_partition_dir_name, partition_dir_name};
pub use ownership::{DirectoryLock, lock_directory};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::atomic_file::{self, AtomicFileError, Magic};
use super::disk::{self, Disk, SyncPoint};
use crate::types::{BrokerEpoch, ClusterId, DirectoryId, Mutant, NodeId, TopicPartition};

/// The version of the layout. It is raised when an older release could no longer read the directory.
///
/// * 1: as in the picture, but for the boot.
/// * 2: `callboard.meta` holds the machine's boot id beside the broker epoch.
/// * 3: the controller's log is a Raft log, in `__cluster_metadata/raft/`.
pub const FORMAT_VERSION: u16 = 3;
/// The directory of what a controller keeps.
pub const METADATA_DIR: &str = "__cluster_metadata";
/// The directory of what nobody recognised.
pub const QUARANTINE_DIR: &str = "quarantine";

const META_FILE: &str = "callboard.meta";
const META_MAGIC: Magic = *b"CBdd";
const CLEAN_STOP_FILE: &str = "clean-stop";
const CLEAN_STOP_MAGIC: Magic = *b"CBcs";
const LOCK_FILE: &str = "lock";
const DELETED_SUFFIX: &str = ".deleted";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// One of its own files is damaged, foreign, or of a newer release.
    #[error(transparent)]
    File(#[from] AtomicFileError),
    /// It belongs to another cluster.
    #[error(
        "data directory {} belongs to cluster {found}, this node to cluster {expected}: set node.data_dir to this cluster's directory, or to a new one",
        root.display()
    )]
    OtherCluster {
        /// The directory.
        root: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// The cluster of this node.
        expected: ClusterId,
    },
    /// It belongs to another node of the cluster.
    #[error(
        "data directory {} belongs to node {found}, this is node {expected}: set node.id to {found}, or node.data_dir to another directory",
        root.display()
    )]
    OtherNode {
        /// The directory.
        root: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// There is something in it, but not what would make it a data directory.
    #[error(
        "{} holds '{entry}' but no {META_FILE}, so it is no data directory: set node.data_dir to an empty or new directory, or put the missing file back",
        root.display()
    )]
    NotEmpty {
        /// The directory.
        root: PathBuf,
        /// One of the names in it.
        entry: String,
    },
    /// Another process uses it.
    #[error("data directory {} is in use by another process{owner}: stop that one, or set node.data_dir to another directory", root.display())]
    InUse {
        /// The directory.
        root: PathBuf,
        /// ` (pid N)` where that is known.
        owner: String,
    },
}

/// What the directory knows about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryMeta {
    /// The cluster it belongs to, for life.
    pub cluster: ClusterId,
    /// The node it belongs to, for life.
    pub node: NodeId,
    /// Its own identity: a wiped directory comes back with another.
    pub directory: DirectoryId,
    /// The epoch of the last registration, once there was one.
    pub broker_epoch: Option<BrokerEpoch>,
    /// The machine's boot id at that registration; `None` where it was written by a release that did not keep it.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// It has held a controller's votes: if they are missing, they were lost.
    #[serde(default)]
    pub holds_votes: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct CleanStop {
    /// A marker that was copied from another directory says nothing about this one.
    directory: DirectoryId,
    epoch: BrokerEpoch,
}

/// An open data directory.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    meta: Mutex<DirectoryMeta>,
}

impl DataDir {
    /// Opens a node's data directory, or creates it; without an expected cluster a new one belongs to a new cluster.
    /// Removals that a crash interrupted are finished, creations undone. Call [`lock_directory`] first where other processes may be.
    ///
    /// # Errors
    /// [`DataDirError`]: it is another cluster's or node's, of a newer release, damaged, or not a data directory.
    pub fn open(
        disk: Arc<dyn Disk>,
        root: &Path,
        node_id: NodeId,
        expected_cluster: Option<ClusterId>,
    ) -> Result<Self, DataDirError> {
        Self::open_as(disk, root, node_id, expected_cluster, DirectoryId::random())
    }

    /// What a data directory knows about itself, without opening it; `None` where there is none.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn identity(disk: &dyn Disk, root: &Path) -> Result<Option<DirectoryMeta>, DataDirError> {
        read_meta(disk, root)
    }

    /// Like [`DataDir::open`]; one that is created is `new_directory`, by which others may know it already.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_as(
        disk: Arc<dyn Disk>,
        root: &Path,
        node_id: NodeId,
        expected_cluster: Option<ClusterId>,
        new_directory: DirectoryId,
    ) -> Result<Self, DataDirError> {
        let meta = match read_meta(&*disk, root)? {
            Some(meta) => meta,
            None => create(&*disk, root, node_id, expected_cluster, new_directory)?,
        };
        let root = root.to_owned();
        if let Some(expected) = expected_cluster.filter(|expected| *expected != meta.cluster) {
            return Err(DataDirError::OtherCluster { root, found: meta.cluster, expected });
        }
        if meta.node != node_id {
            return Err(DataDirError::OtherNode { root, found: meta.node, expected: node_id });
        }
        // What a killed process renamed is seen before it is durable. Without this an identity could be announced and then
        // be lost, and a partition whose removal is finished below could come back in part.
        disk.sync_dir(&root, SyncPoint::AtomicFileRename)?;
        atomic_file::remove_temporaries(&*disk, &root)?;
        let data_dir = Self { disk, root, meta: Mutex::new(meta) };
        data_dir.remove_leftovers()?;
        Ok(data_dir)
    }

    fn lock(&self) -> MutexGuard<'_, DirectoryMeta> {
        // The value is replaced as a whole, so that a panic elsewhere leaves nothing half done.
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the directory knows about itself.
    #[must_use]
    pub fn meta(&self) -> DirectoryMeta {
        self.lock().clone()
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The disk it lies on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where the partitions' directories lie, named by [`partition_dir_name`].
    #[must_use]
    pub fn topics_dir(&self) -> &Path {
        &self.root
    }

    /// Where a controller keeps the metadata.
    #[must_use]
    pub fn metadata_dir(&self) -> PathBuf {
        self.root.join(METADATA_DIR)
    }

    /// The partitions that have a directory here, with its path, by path.
    ///
    /// # Errors
    /// The disk's.
    pub fn partitions(&self) -> io::Result<Vec<(TopicPartition, PathBuf)>> {
        let entries = self.disk.read_dir(&self.root)?;
        let partition = |entry: disk::DirEntry| {
            let partition = parse_partition_dir_name(&entry.name).filter(|_| entry.is_dir)?;
            Some((partition, self.root.join(entry.name)))
        };
        Ok(entries.into_iter().filter_map(partition).collect())
    }

    /// Whether the machine has been booted since the last registration, as far as the directory can tell: what was not synced
    /// then may be lost.
    ///
    /// # Errors
    /// The disk's.
    pub fn has_seen_another_boot(&self) -> io::Result<bool> {
        Ok(self.lock().boot_id != Some(self.disk.boot_id()?))
    }

    /// Keeps the epoch of this node's registration, durably, with the boot of the machine.
    ///
    /// # Errors
    /// The disk's.
    pub fn store_broker_epoch(&self, epoch: BrokerEpoch) -> Result<(), DataDirError> {
        let mut meta = self.lock();
        let boot_id = Some(self.disk.boot_id()?);
        let stored = DirectoryMeta { broker_epoch: Some(epoch), boot_id, ..meta.clone() };
        if !Mutant::ForgetsItsRegistration.is_on() {
            write_meta(&*self.disk, &self.root, &stored)?;
        }
        *meta = stored;
        Ok(())
    }

    /// Notes, durably, that the directory holds a controller's votes.
    ///
    /// # Errors
    /// The disk's.
    pub fn note_votes(&self) -> Result<(), DataDirError> {
        let mut meta = self.lock();
        if !meta.holds_votes {
            let noted = DirectoryMeta { holds_votes: true, ..meta.clone() };
            write_meta(&*self.disk, &self.root, &noted)?;
            *meta = noted;
        }
        Ok(())
    }

    /// Marks the directory, durably, as one of this release's form: earlier ones refuse it from here on. To be called before what
    /// they would misread is written.
    ///
    /// # Errors
    /// The disk's.
    pub fn take_own_format(&self) -> Result<(), DataDirError> {
        Ok(write_meta(&*self.disk, &self.root, &self.lock())?)
    }

    /// Says durably that all files are complete and synced. The last thing a node does before it ends.
    ///
    /// # Errors
    /// The disk's.
    pub fn mark_clean_stop(&self, epoch: BrokerEpoch) -> Result<(), DataDirError> {
        let marker = CleanStop { directory: self.meta().directory, epoch };
        let path = self.root.join(CLEAN_STOP_FILE);
        atomic_file::write_atomically(&*self.disk, &path, CLEAN_STOP_MAGIC, FORMAT_VERSION, &encode(&marker))?;
        Ok(())
    }

    /// Whether the last stop was clean, and at which epoch. Removes the marker, durably, before anything is written: a
    /// crash from here on is not mistaken for a clean stop. A marker that is damaged, or bound to another directory or
    /// to another epoch than the last stored, does not count.
    ///
    /// # Errors
    /// The disk's.
    pub fn take_clean_stop(&self) -> Result<Option<BrokerEpoch>, DataDirError> {
        let path = self.root.join(CLEAN_STOP_FILE);
        let marker = match atomic_file::read_checked(&*self.disk, &path, CLEAN_STOP_MAGIC, FORMAT_VERSION) {
            Ok(None) => return Ok(None),
            Ok(Some((_, payload))) => rmp_serde::from_slice::<CleanStop>(&payload).ok(),
            Err(AtomicFileError::Io(error)) => return Err(error.into()),
            // Without the marker recovery reads more and trusts less: the safe side.
            Err(_) => None,
        };
        if !Mutant::BelievesOldMarkers.is_on() {
            self.disk.remove_file(&path)?;
            self.disk.sync_dir(&self.root, SyncPoint::CleanMarkerRemoved)?;
        }
        let meta = self.meta();
        let holds = |marker: &CleanStop| {
            let is_newest = meta.broker_epoch.is_none_or(|epoch| epoch == marker.epoch);
            marker.directory == meta.directory && (is_newest || Mutant::BelievesOldMarkers.is_on())
        };
        Ok(marker.filter(holds).map(|marker| marker.epoch))
    }
}

fn read_meta(disk: &dyn Disk, root: &Path) -> Result<Option<DirectoryMeta>, DataDirError> {
    let path = root.join(META_FILE);
    let Some((_, payload)) = atomic_file::read_checked(disk, &path, META_MAGIC, FORMAT_VERSION)? else {
        return Ok(None);
    };
    let meta = rmp_serde::from_slice(&payload);
    Ok(Some(meta.map_err(|error| AtomicFileError::Damaged { path, reason: error.to_string() })?))
}

fn write_meta(disk: &dyn Disk, root: &Path, meta: &DirectoryMeta) -> io::Result<()> {
    atomic_file::write_atomically(disk, &root.join(META_FILE), META_MAGIC, FORMAT_VERSION, &encode(meta))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain fields, written to memory")
}

fn create(
    disk: &dyn Disk,
    root: &Path,
    node: NodeId,
    cluster: Option<ClusterId>,
    directory: DirectoryId,
) -> Result<DirectoryMeta, DataDirError> {
    // Its name is durable before anything in it is: else all of it could be gone after a power loss.
    disk::create_dir_durably(disk, root, SyncPoint::DataDirCreated)?;
    atomic_file::remove_temporaries(disk, root)?;
    // `lost+found` is what a file system of its own holds from the start.
    let foreign = |entry: &disk::DirEntry| entry.name != LOCK_FILE && entry.name != "lost+found";
    if let Some(entry) = disk.read_dir(root)?.into_iter().find(foreign) {
        return Err(DataDirError::NotEmpty { root: root.to_owned(), entry: entry.name });
    }
    let cluster = cluster.unwrap_or_else(ClusterId::random);
    let meta = DirectoryMeta { cluster, node, directory, broker_epoch: None, boot_id: None, holds_votes: false };
    write_meta(disk, root, &meta)?;
    Ok(meta)
}

#[cfg(test)]
mod tests;
