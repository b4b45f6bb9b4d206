//! The metadata snapshot on disk and on the wire: the whole image at one entry.
//!
//! ```text
//!   ClusterImage ──► MessagePack ──► data ──► chunks, over the transport
//!                                     └──► snapshot: cluster, last entry, members, id, data       replaced as a whole
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::RaftStorageError;
use super::format::{StoredLogId, StoredMembersAt};
use super::log_files::RaftPlace;
use super::types::SnapshotMeta;
use crate::engine::metadata::{ApplyError, ClusterImage, FEATURE_LEVEL};
use crate::storage::atomic_file::{Magic, read_checked, write_atomically};
use crate::storage::disk::{Disk, child};
use crate::types::ClusterId;
use crate::types::record_batch::header::crc32c;

const FILE: &str = "snapshot";
const MAGIC: Magic = *b"CBrs";
const VERSION: u16 = 1;
/// Ahead of the image in what is sent, so that the receiver can tell a form that it does not know, and damage on the way.
const DATA_VERSION: u16 = 1;
const DATA_HEADER_BYTES: usize = 6;

#[derive(Debug, Serialize, Deserialize)]
struct StoredSnapshot {
    last: Option<StoredLogId>,
    members: StoredMembersAt,
    id: String,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
}

/// A snapshot as it was saved.
#[derive(Clone, Debug)]
pub struct SavedSnapshot {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The image, encoded.
    pub data: Vec<u8>,
}

/// The snapshot file. There is at most one, and it never goes back.
#[derive(Debug)]
pub struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    cluster: ClusterId,
    current: Option<SnapshotMeta>,
}

/// Encodes an image as it is sent and kept: version, checksum, MessagePack.
///
/// # Errors
/// [`RaftStorageError::Snapshot`].
pub fn encode_image(image: &ClusterImage) -> Result<Vec<u8>, RaftStorageError> {
    let body =
        rmp_serde::to_vec_named(image).map_err(|error| RaftStorageError::Snapshot { reason: error.to_string() })?;
    let mut data = Vec::with_capacity(DATA_HEADER_BYTES + body.len());
    data.extend_from_slice(&DATA_VERSION.to_be_bytes());
    data.extend_from_slice(&crc32c(&body).to_be_bytes());
    data.extend_from_slice(&body);
    Ok(data)
}

/// Decodes what [`encode_image`] made, here or on another controller of `cluster`.
///
/// # Errors
/// [`RaftStorageError::Snapshot`], or [`RaftStorageError::Newer`] when this software is too old for it.
pub fn decode_image(data: &[u8], cluster: ClusterId) -> Result<ClusterImage, RaftStorageError> {
    let unusable = |reason: String| RaftStorageError::Snapshot { reason };
    let (Some(header), Some(body)) = (data.first_chunk::<DATA_HEADER_BYTES>(), data.get(DATA_HEADER_BYTES..)) else {
        return Err(unusable(format!("it has only {} bytes", data.len())));
    };
    let version = u16::from_be_bytes([header[0], header[1]]);
    if version > DATA_VERSION {
        return Err(unusable(format!("it has format version {version}, this release reads up to {DATA_VERSION}")));
    }
    if crc32c(body) != u32::from_be_bytes([header[2], header[3], header[4], header[5]]) {
        return Err(unusable("its checksum is wrong".to_owned()));
    }
    let image: ClusterImage = rmp_serde::from_slice(body).map_err(|error| unusable(error.to_string()))?;
    if image.cluster_id != cluster {
        return Err(unusable(format!("it is of cluster {}, this is cluster {cluster}", image.cluster_id)));
    }
    let found = image.feature_level;
    if found > FEATURE_LEVEL { Err(RaftStorageError::Newer(ApplyError::FeatureLevel { found })) } else { Ok(image) }
}

impl SnapshotFiles {
    /// Opens the snapshot, if there is one, and returns what it holds.
    ///
    /// # Errors
    /// [`RaftStorageError`] when there is one that cannot be used.
    pub fn open(place: &RaftPlace) -> Result<(Self, Option<(SnapshotMeta, ClusterImage)>), RaftStorageError> {
        let path = child(&place.dir, FILE);
        let cluster = place.identity.cluster;
        let mut files = Self { disk: Arc::clone(&place.disk), path, cluster, current: None };
        let Some(saved) = files.load()? else {
            return Ok((files, None));
        };
        let image = decode_image(&saved.data, cluster)?;
        files.current = Some(saved.meta.clone());
        Ok((files, Some((saved.meta, image))))
    }

    /// Reads the snapshot.
    ///
    /// # Errors
    /// As [`SnapshotFiles::open`].
    pub fn load(&self) -> Result<Option<SavedSnapshot>, RaftStorageError> {
        let Some((_, payload)) = read_checked(&*self.disk, &self.path, MAGIC, VERSION)? else {
            return Ok(None);
        };
        let stored: StoredSnapshot = rmp_serde::from_slice(&payload)
            .map_err(|error| RaftStorageError::Snapshot { reason: error.to_string() })?;
        let meta = SnapshotMeta {
            last_log_id: stored.last.map(Into::into),
            last_membership: stored.members.into(),
            snapshot_id: stored.id,
        };
        Ok(Some(SavedSnapshot { meta, data: stored.data }))
    }

    /// Writes the first snapshot of a member that begins with an image.
    pub(super) fn create(place: &RaftPlace, meta: &SnapshotMeta, image: &ClusterImage) -> Result<(), RaftStorageError> {
        Self::open(place)?.0.save(meta, encode_image(image)?)
    }

    /// What the snapshot covers.
    #[must_use]
    pub fn current(&self) -> Option<&SnapshotMeta> {
        self.current.as_ref()
    }

    /// Puts a snapshot in the place of the one there is, unless that one is newer. Durable when this returns.
    ///
    /// # Errors
    /// The disk's: the old one is still there then.
    pub fn save(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> Result<(), RaftStorageError> {
        if self.current.as_ref().is_some_and(|current| current.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let stored = StoredSnapshot {
            last: meta.last_log_id.map(Into::into),
            members: (&meta.last_membership).into(),
            id: meta.snapshot_id.clone(),
            data,
        };
        let payload = rmp_serde::to_vec_named(&stored).map_err(std::io::Error::other)?;
        write_atomically(&*self.disk, &self.path, MAGIC, VERSION, &payload)?;
        self.current = Some(meta.clone());
        Ok(())
    }

    /// The cluster that snapshots must be of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }
}
