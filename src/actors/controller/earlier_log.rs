//! The metadata log of releases before Raft: the records in a partition log, the image in a snapshot file. It is read once more,
//! when a directory of theirs is opened for the first time.
//!
//! ```text
//!   <data_dir>/__cluster_metadata/snapshot     the image after its first `index` records
//!                                 log/         one MessagePack record for each change; record n has offset n
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::engine::metadata::{ApplyError, ClusterImage, FEATURE_LEVEL, MetadataRecord};
use crate::storage::atomic_file::{AtomicFileError, Magic, read_checked};
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::storage::{Log, LogConfig, LogError, PartitionIdentity};
use crate::types::record_batch::{RecordBatch, RecordError, decode_records};
use crate::types::{ClusterId, Offset, PartitionIndex, TopicConfig, TopicId, TopicName};

const SNAPSHOT_MAGIC: Magic = *b"CBIM";
const SNAPSHOT_VERSION: u16 = 1;
const READ_BYTES: usize = 1 << 20;
const INFLATE_LIMIT_BYTES: usize = 64 << 20;

/// Why the metadata could not be read or written. Each ends the start of the node: without metadata nothing is safe.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLogError {
    /// The log itself.
    #[error("the metadata log: {0}")]
    Log(#[from] LogError),
    /// The snapshot file.
    #[error("the metadata snapshot: {0}")]
    Snapshot(#[from] AtomicFileError),
    /// The disk.
    #[error("the metadata log: {0}")]
    Io(#[from] std::io::Error),
    /// The records cannot be read.
    #[error("the metadata log: {0}")]
    Records(#[from] RecordError),
    /// A record or the snapshot does not decode: other software wrote it, or it is damaged.
    #[error(
        "the metadata at index {index} does not decode ({reason}): upgrade this node, or restore its data directory"
    )]
    Undecodable {
        /// Which record.
        index: u64,
        /// What the decoder says.
        reason: String,
    },
    /// Snapshot and log do not fit together.
    #[error(
        "the metadata log starts or ends at {found} where {expected} is needed: restore the data directory from one backup"
    )]
    Gap {
        /// The index needed.
        expected: u64,
        /// The index there is.
        found: u64,
    },
    /// Newer software wrote the log.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// The files of the earlier log under the directory of the metadata.
pub(super) const EARLIER_FILES: [&str; 2] = ["snapshot", "log"];

/// Whether there is an earlier log under `dir`.
///
/// # Errors
/// The disk's.
pub(super) fn is_there(disk: &dyn Disk, dir: &Path) -> Result<bool, MetadataLogError> {
    Ok(disk.exists(&dir.join(EARLIER_FILES[0]))? || disk.exists(&dir.join(EARLIER_FILES[1]))?)
}

/// Reads the log under `dir`, recovering it where its node was killed, and rebuilds the image.
///
/// # Errors
/// [`MetadataLogError`]: the node must not start on metadata that it cannot read whole.
pub(super) fn read(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    dir: &Path,
    cluster_id: ClusterId,
) -> Result<ClusterImage, MetadataLogError> {
    let [snapshot, log_dir] = EARLIER_FILES.map(|name| dir.join(name));
    let mut image = match read_checked(disk.as_ref(), &snapshot, SNAPSHOT_MAGIC, SNAPSHOT_VERSION)? {
        None => ClusterImage::empty(cluster_id),
        Some((_, payload)) => decode_snapshot(&payload)?,
    };
    if !disk.exists(&log_dir)? {
        return Err(MetadataLogError::Gap { expected: image.index, found: 0 });
    }
    let identity = PartitionIdentity {
        cluster_id,
        topic: TopicName::new("__cluster_metadata").expect("a legal name"),
        topic_id: TopicId(uuid::Uuid::nil()),
        partition: PartitionIndex(0),
    };
    let settings = TopicConfig { retention_ms: -1, segment_bytes: 16 << 20, ..TopicConfig::default() };
    let config = LogConfig::from(&settings);
    let (log, report) = Log::open(Arc::clone(disk), Arc::clone(files), &log_dir, &identity, config, &mut ())?;
    if let Some((from, _)) = report.damaged.first() {
        return Err(LogError::Damaged { from: *from, next_valid: None }.into());
    }
    if let Some(cut) = &report.cut {
        tracing::warn!(?cut, "the metadata log had a torn tail: a change that nobody was told of was dropped");
    }
    replay(&log, &mut image)?;
    Ok(image)
}

fn replay(log: &Log, image: &mut ClusterImage) -> Result<(), MetadataLogError> {
    let (start, end) = (log.log_start(), log.written_end());
    if start.0 > image.index || end.0 < image.index {
        let found = if start.0 > image.index { start.0 } else { end.0 };
        return Err(MetadataLogError::Gap { expected: image.index, found });
    }
    let reader = log.reader();
    let mut next = Offset(image.index);
    while next < end {
        let slice = reader.read(next, end, READ_BYTES)?;
        let mut bytes = slice.bytes;
        while !bytes.is_empty() {
            let batch = RecordBatch::split_from(&mut bytes)
                .map_err(|e| MetadataLogError::Undecodable { index: next.0, reason: e.to_string() })?;
            let mut entry = Vec::new();
            for record in decode_records(&batch, INFLATE_LIMIT_BYTES)? {
                if record.offset.0 >= image.index {
                    let at = Offset(image.index + entry.len() as u64);
                    entry.push(decode(at, record.offset, record.value.as_deref().unwrap_or_default())?);
                }
            }
            apply_again(image, &entry)?;
        }
        next = slice.next;
    }
    Ok(())
}

fn decode_snapshot(payload: &[u8]) -> Result<ClusterImage, MetadataLogError> {
    let image: ClusterImage = rmp_serde::from_slice(payload)
        .map_err(|e| MetadataLogError::Undecodable { index: 0, reason: e.to_string() })?;
    // The record that says it is not replayed: the snapshot stands in its place.
    let found = image.feature_level;
    if found > FEATURE_LEVEL { Err(ApplyError::FeatureLevel { found }.into()) } else { Ok(image) }
}

/// The record at `found`, which must be the one at `expected`.
fn decode(expected: Offset, found: Offset, value: &[u8]) -> Result<MetadataRecord, MetadataLogError> {
    if found != expected {
        return Err(MetadataLogError::Gap { expected: expected.0, found: found.0 });
    }
    rmp_serde::from_slice(value).map_err(|e| MetadataLogError::Undecodable { index: found.0, reason: e.to_string() })
}

/// Applies a batch of the log: the records of one decision.
fn apply_again(image: &mut ClusterImage, entry: &[MetadataRecord]) -> Result<(), MetadataLogError> {
    match image.apply_entry(entry) {
        Err(error @ ApplyError::FeatureLevel { .. }) => Err(error.into()),
        // A precondition that failed when the decision was committed fails again: that is what `apply` is for.
        Ok(()) | Err(_) => Ok(()),
    }
}
