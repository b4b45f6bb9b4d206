//! What can go wrong with the log of a partition, with the data that a caller needs to act on it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::atomic_file::AtomicFileError;
use crate::types::record_batch::BatchError;
use crate::types::{LeaderEpoch, Offset};

/// Why an operation on a partition's log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is before the start or past the end: deleted meanwhile, truncated, or never written.
    #[error("offset {requested} is out of range: the log has {log_start} to {end} (exclusive); read from one of these")]
    OffsetOutOfRange {
        /// The offset asked for.
        requested: Offset,
        /// The first offset there is.
        log_start: Offset,
        /// The end, exclusive.
        end: Offset,
    },
    /// The records from `from` on are damaged on disk and are not served.
    #[error("the records from offset {from} {} are damaged on this disk: fetch them from another replica{}",
        next_valid.map_or("to the end of the log".to_owned(), |next| format!("to {next} (exclusive)")),
        next_valid.map_or(String::new(), |next| format!(", or go on reading at {next}")))]
    Damaged {
        /// The first offset of the damaged range.
        from: Offset,
        /// The next offset that can be read; `None` when nothing valid follows yet.
        next_valid: Option<Offset>,
    },
    /// A write or a sync failed earlier. What is on disk past the durable end is unknown, so nothing more is written.
    #[error("this log takes no more appends after a failure: {cause}. Check the disk, then restart this replica")]
    Failed {
        /// The first failure, in words.
        cause: Arc<str>,
    },
    /// A file could not be opened because too many are open. Nothing was written, and the log goes on when there is one free.
    #[error(
        "{cause}: raise the limit of open files (`ulimit -n`), or lower limits.max_connections or storage.open_files"
    )]
    NoDescriptor {
        /// What the system says.
        cause: io::Error,
    },
    /// The disk was full in the middle of a write. Final, like every failed write.
    #[error("the disk is full: {cause}. Free space, then restart this replica")]
    DiskFull {
        /// What the disk said.
        cause: io::Error,
    },
    /// The disk failed while it was read, or a file could not be opened.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The batches do not follow on each other, or not on the log's end.
    #[error("a batch starts at offset {found} where {expected} is due: stamp batches from the log's written end")]
    NotContiguous {
        /// The offset that is due.
        expected: Offset,
        /// The batch's base offset.
        found: Offset,
    },
    /// A batch carries an older leader epoch than the one before it.
    #[error("a batch carries leader epoch {found} after {last}: a deposed leader wrote it, refuse it")]
    EpochWentBack {
        /// The newest epoch in the log.
        last: LeaderEpoch,
        /// The batch's.
        found: LeaderEpoch,
    },
    /// Cutting the log there would give up committed records, and no unclean election that explains it is on record.
    #[error(
        "cutting the log at offset {end} would give up committed records: {high_watermark} was written down as its high \
         watermark. Everything is kept as it is: compare the replicas before one of them is given up"
    )]
    BelowHighWatermark {
        /// Where the log would end, exclusive.
        end: Offset,
        /// The high watermark that was written down.
        high_watermark: Offset,
    },
    /// A batch whose header does not describe its body.
    #[error("the batch at offset {base_offset} is not a whole batch: {cause}")]
    InvalidBatch {
        /// Its base offset.
        base_offset: Offset,
        /// What is wrong.
        cause: BatchError,
    },
    /// The directory belongs to another partition.
    #[error("{} belongs to {found}, not to {expected}: it was moved or copied here, move it back", path.display())]
    WrongPartition {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A directory of that name exists.
    #[error("{} exists already: open it instead of creating it", path.display())]
    AlreadyExists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory of a partition that was here before is gone.
    #[error("{} is gone, with the records in it: put it back (mount its disk, restore a backup), or delete the topic", path.display())]
    LostPartition {
        /// Where it was.
        path: PathBuf,
    },
    /// There is no partition in that directory.
    #[error("{} has no partition in it (partition.meta is missing): check the path", path.display())]
    MissingPartition {
        /// The directory.
        path: PathBuf,
    },
    /// One of the small files beside the segments cannot be used.
    #[error(transparent)]
    DamagedMeta(#[from] AtomicFileError),
    /// What the records say of producers is nowhere else: they stay.
    #[error(
        "the producers of the records before offset {before} could not be written down, so the records stay: check the disk and its free space, then try again"
    )]
    ProducersNotKept {
        /// The end of the records that were to go.
        before: Offset,
    },
    /// A sync is running: its result must come back first.
    #[error("a sync of this log is in flight: finish it before the next one, and before closing")]
    SyncOutstanding,
}

impl LogError {
    /// Whether the same call may succeed later without anyone doing something about it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::SyncOutstanding | Self::NoDescriptor { .. } => true,
            Self::Io(cause) => cause.kind() != io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// The first failed write or sync of a log: kept, and told to whoever writes later.
#[derive(Clone, Debug)]
pub(super) struct Failure(Arc<str>);

impl Failure {
    pub(super) fn new(cause: &io::Error) -> Self {
        Self(cause.to_string().into())
    }

    pub(super) fn to_error(&self) -> LogError {
        LogError::Failed { cause: Arc::clone(&self.0) }
    }
}
