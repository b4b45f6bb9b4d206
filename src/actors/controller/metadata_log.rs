//! The metadata log of a single controller: the records in a partition log, the image in a snapshot file.
//!
//! ```text
//!   <data_dir>/__cluster_metadata/snapshot     the image after its first `index` records
//!                                 log/         one MessagePack record for each change; record n has offset n
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::metadata::{ApplyError, ClusterImage, FEATURE_LEVEL, MetadataRecord};
use crate::storage::atomic_file::{AtomicFileError, Magic, read_checked, write_atomically};
use crate::storage::disk::{Disk, SyncPoint, create_dir_durably};
use crate::storage::file_cache::FileCache;
use crate::storage::{Log, LogConfig, LogError, PartitionIdentity};
use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch, RecordError, decode_records};
use crate::types::{ClusterId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicConfig, TopicId, TopicName};

const SNAPSHOT_MAGIC: Magic = *b"CBIM";
const SNAPSHOT_VERSION: u16 = 1;
/// A snapshot is taken after this many records, so that a start replays no more than these.
const SNAPSHOT_INTERVAL: u64 = 1_000;
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
    /// The snapshot could not be written.
    #[error("cannot write the metadata snapshot: {0}")]
    Write(#[from] std::io::Error),
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

/// See the module page.
#[derive(Debug)]
pub struct MetadataLog {
    disk: Arc<dyn Disk>,
    snapshot: PathBuf,
    log: Log,
    snapshot_index: u64,
}

impl MetadataLog {
    /// Opens the log under `dir`, or creates it, and rebuilds the image.
    ///
    /// # Errors
    /// [`MetadataLogError`]: the node must not start on metadata that it cannot read whole.
    pub fn open(
        disk: Arc<dyn Disk>,
        files: Arc<FileCache>,
        dir: &Path,
        cluster_id: ClusterId,
    ) -> Result<(Self, ClusterImage), MetadataLogError> {
        // By itself, whoever syncs the data directory next: a record that was answered must not go with its directory.
        create_dir_durably(disk.as_ref(), dir, SyncPoint::DataDirCreated)?;
        let (snapshot, log_dir) = (dir.join("snapshot"), dir.join("log"));
        let mut image = match read_checked(disk.as_ref(), &snapshot, SNAPSHOT_MAGIC, SNAPSHOT_VERSION)? {
            None => ClusterImage::empty(cluster_id),
            Some((_, payload)) => decode_snapshot(&payload)?,
        };
        let identity = PartitionIdentity {
            cluster_id,
            topic: TopicName::new("__cluster_metadata").expect("a legal name"),
            topic_id: TopicId(uuid::Uuid::nil()),
            partition: PartitionIndex(0),
        };
        let settings = TopicConfig { retention_ms: -1, segment_bytes: 16 << 20, ..TopicConfig::default() };
        let config = LogConfig::from(&settings);
        let log = if disk.exists(&log_dir)? {
            let (log, report) = Log::open(Arc::clone(&disk), files, &log_dir, &identity, config, &mut ())?;
            if let Some((from, _)) = report.damaged.first() {
                return Err(LogError::Damaged { from: *from, next_valid: None }.into());
            }
            if let Some(cut) = &report.cut {
                tracing::warn!(?cut, "the metadata log had a torn tail: a change that nobody was told of was dropped");
            }
            log
        } else if image.index == 0 {
            Log::create(Arc::clone(&disk), files, &log_dir, &identity, config)?
        } else {
            return Err(MetadataLogError::Gap { expected: image.index, found: 0 });
        };
        let snapshot_index = image.index;
        let mut metadata = Self { disk, snapshot, log, snapshot_index };
        metadata.replay(&mut image)?;
        if image.feature_level < FEATURE_LEVEL {
            // From here on older software would misread what follows. It also gives a new log its first record.
            metadata.append(&[MetadataRecord::FeatureLevel { level: FEATURE_LEVEL }], TimestampMs::NONE)?;
            image.apply(&MetadataRecord::FeatureLevel { level: FEATURE_LEVEL })?;
        }
        Ok((metadata, image))
    }

    fn replay(&mut self, image: &mut ClusterImage) -> Result<(), MetadataLogError> {
        let (start, end) = (self.log.log_start(), self.log.written_end());
        if start.0 > image.index || end.0 < image.index {
            let found = if start.0 > image.index { start.0 } else { end.0 };
            return Err(MetadataLogError::Gap { expected: image.index, found });
        }
        let reader = self.log.reader();
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

    /// Appends `records` and syncs them. They are durable when this returns.
    ///
    /// # Errors
    /// [`MetadataLogError`]; whether the records will be found by the next start is then unknown.
    pub fn append(&mut self, records: &[MetadataRecord], now: TimestampMs) -> Result<(), MetadataLogError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut builder = BatchBuilder::new(Compression::None, 256 * records.len());
        for record in records {
            let value = rmp_serde::to_vec_named(record).map_err(|e| MetadataLogError::Undecodable {
                index: self.log.written_end().0,
                reason: e.to_string(),
            })?;
            builder.append(now, None, Some(&value), &[]);
        }
        let mut bytes = builder.build()?;
        let batch = RecordBatch::split_from(&mut bytes)
            .map_err(|cause| LogError::InvalidBatch { base_offset: self.log.written_end(), cause })?;
        self.log.append(now, &[batch.stamped(self.log.written_end(), LeaderEpoch(0), None)])?;
        while let Some(job) = self.log.begin_sync() {
            self.log.finish_sync(job.run())?;
        }
        Ok(())
    }

    /// Takes a snapshot when enough records have come since the last one.
    ///
    /// # Errors
    /// [`MetadataLogError`]; the log still has everything.
    pub fn snapshot_if_due(&mut self, image: &ClusterImage) -> Result<(), MetadataLogError> {
        if image.index >= self.snapshot_index + SNAPSHOT_INTERVAL { self.take_snapshot(image) } else { Ok(()) }
    }

    fn take_snapshot(&mut self, image: &ClusterImage) -> Result<(), MetadataLogError> {
        let payload = rmp_serde::to_vec_named(image)
            .map_err(|e| MetadataLogError::Undecodable { index: image.index, reason: e.to_string() })?;
        write_atomically(self.disk.as_ref(), &self.snapshot, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, &payload)?;
        self.snapshot_index = image.index;
        self.log.advance_log_start(Offset(image.index))?;
        Ok(())
    }

    /// Ends cleanly, with a snapshot if anything came since the last one.
    ///
    /// # Errors
    /// [`MetadataLogError`]; the next start recovers what is on disk.
    pub fn close(mut self, image: &ClusterImage) -> Result<(), MetadataLogError> {
        if image.index > self.snapshot_index {
            self.take_snapshot(image)?;
        }
        let end = self.log.written_end();
        Ok(self.log.close_cleanly(end, &[])?)
    }
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
