//! The two small files of a partition's directory: whose it is, and how far it is known to be good.
//!
//! ```text
//!   partition.meta    cluster, topic, topic id, partition     written once, when the directory is created
//!   partition.state   log start, high watermark, recovery     replaced as a whole: at checkpoints, after a roll,
//!                     point, damage, clean stop, boot id      before the first write, at a clean stop
//! ```
//!
//! Both are JSON inside the checksummed envelope of [`atomic_file`](super::atomic_file), so that a person can read them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::atomic_file::{AtomicFileError, Magic, read_checked, write_atomically, write_new};
use super::disk::{Disk, child};
use super::error::LogError;
use crate::types::{ClusterId, Offset, PartitionIndex, TimestampMs, TopicId, TopicName};

/// The file that names the partition.
pub const META_FILE: &str = "partition.meta";
/// The file that says how far the log is known to be good.
pub const STATE_FILE: &str = "partition.state";

const META_MAGIC: Magic = *b"CBpm";
const STATE_MAGIC: Magic = *b"CBps";
/// The version of `partition.meta`.
const VERSION: u16 = 1;
/// Version 2 added `doubtful` and `starting_anew`, which a release that does not know them must not pass over.
const STATE_VERSION: u16 = 2;

/// Whose directory it is. Written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionIdentity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The topic's whole name.
    pub topic: TopicName,
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl std::fmt::Display for PartitionIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "partition {} of topic {} ({}) in cluster {}",
            self.partition, self.topic, self.topic_id, self.cluster_id
        )
    }
}

impl PartitionIdentity {
    /// Reads whose directory `dir` is.
    ///
    /// # Errors
    /// [`LogError::MissingPartition`] without the file, [`LogError::DamagedMeta`] when it cannot be used.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        read_json(disk, &child(dir, META_FILE), META_MAGIC, VERSION)?
            .ok_or_else(|| LogError::MissingPartition { path: dir.to_owned() })
    }

    /// Writes it into a directory that is being created.
    pub(super) fn write_new(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        Ok(write_new(disk, &child(dir, META_FILE), META_MAGIC, VERSION, &json(self)?)?)
    }
}

/// Everything before this place is on disk for good; recovery scans from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// The first offset that has to be checked.
    pub offset: Offset,
    /// The base offset of the segment it lies in.
    pub segment: Offset,
    /// The byte position in that segment's file.
    pub position: u64,
}

/// What a clean stop wrote down, so that the next start need not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanStop {
    /// The log's end, exclusive.
    pub end: Offset,
    /// The newest segment's base offset and size in bytes; `None` without segments.
    pub newest: Option<(Offset, u64)>,
    /// The newest segment's largest timestamp and the last offset of the batch that has it.
    pub largest: Option<(TimestampMs, Offset)>,
    /// When the newest segment got its first record.
    pub opened_at: Option<TimestampMs>,
}

/// How far a partition's log is known to be good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The last high watermark that was written down.
    pub high_watermark: Offset,
    /// Where recovery starts.
    pub recovery: RecoveryPoint,
    /// Set by a clean stop, removed before the first write after it.
    pub clean: Option<CleanStop>,
    /// Ranges (start, end exclusive) that are known to be damaged.
    pub damaged: Vec<(Offset, Offset)>,
    /// The boot of the machine under which the log was last written.
    pub boot_id: String,
    /// A recovery found that synced records may be missing, and nobody has compared the log with another replica since.
    #[serde(default)]
    pub doubtful: bool,
    /// The log is being emptied, to start at `log_start`: segments that are still there are removed at the next open.
    #[serde(default)]
    pub starting_anew: bool,
}

impl PartitionState {
    /// The state of a log without records.
    #[must_use]
    pub fn empty(boot_id: String) -> Self {
        let clean = CleanStop { end: Offset::ZERO, newest: None, largest: None, opened_at: None };
        Self {
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            recovery: RecoveryPoint::default(),
            clean: Some(clean),
            damaged: Vec::new(),
            boot_id,
            doubtful: false,
            starting_anew: false,
        }
    }

    /// Reads the state of the partition in `dir`; `None` when the file is missing.
    ///
    /// # Errors
    /// [`AtomicFileError`] when it is there and cannot be used.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, AtomicFileError> {
        read_json(disk, &child(dir, STATE_FILE), STATE_MAGIC, STATE_VERSION)
    }

    /// Writes it into a directory that is being created.
    pub(super) fn write_new(&self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        write_new(disk, &child(dir, STATE_FILE), STATE_MAGIC, STATE_VERSION, &json(self)?)
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        write_atomically(disk, &child(dir, STATE_FILE), STATE_MAGIC, STATE_VERSION, &json(self)?)
    }
}

/// Reads a file of JSON in the checksummed envelope, up to format `version`.
pub(super) fn read_json<T: DeserializeOwned>(
    disk: &dyn Disk,
    path: &Path,
    magic: Magic,
    version: u16,
) -> Result<Option<T>, AtomicFileError> {
    let Some((_, payload)) = read_checked(disk, path, magic, version)? else {
        return Ok(None);
    };
    let damaged =
        |error: serde_json::Error| AtomicFileError::Damaged { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(&payload).map(Some).map_err(damaged)
}

pub(super) fn json<T: Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(std::io::Error::other)
}
