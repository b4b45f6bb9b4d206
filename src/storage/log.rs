//! The log of one partition: its single writer.
//!
//! ```text
//!            log start                    durable end     written end
//!   ─────────────┼───────────────────────────────┼───────────────┼────►
//!    deleted     │ sealed segments │    active segment           │
//!                └──── synced ───────────────────┴─ being synced ┘
//! ```

use std::io;
use std::sync::Arc;

use super::append::Scratch;
use super::disk::DiskFile;
use super::error::{Failure, LogError};
use super::leader_epochs::LeaderEpochs;
use super::log_reader::LogReader;
use super::partition_state::{PartitionIdentity, PartitionState, RecoveryPoint};
use super::segment::Handles;
use super::view::{Shared, View};
use crate::types::{Offset, TopicConfig};

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is closed before it would grow beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is closed when its first record is older than this many milliseconds.
    pub segment_ms: u64,
    /// One index entry for about this many bytes of records.
    pub index_interval_bytes: u64,
    /// Segments whose newest record is older than this many milliseconds are deleted; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// The oldest segments are deleted while the log has more than this many bytes; `None` for no bound.
    pub retention_bytes: Option<u64>,
    /// The largest batch that the partition accepts, in bytes. Checked before a batch gets here, not by the log: what a
    /// leader accepted under an older setting must still be replicated.
    pub max_batch_bytes: u64,
}

impl From<&TopicConfig> for LogConfig {
    fn from(topic: &TopicConfig) -> Self {
        Self {
            segment_bytes: topic.segment_bytes,
            segment_ms: topic.segment_ms,
            index_interval_bytes: u64::from(topic.index_interval_bytes),
            retention_ms: u64::try_from(topic.retention_ms).ok(),
            retention_bytes: u64::try_from(topic.retention_bytes).ok(),
            max_batch_bytes: u64::from(topic.max_batch_bytes),
        }
    }
}

/// The segment that appends go to.
#[derive(Debug)]
pub(super) enum Tail {
    /// None: the newest segment is sealed, or there is none. The next append creates one.
    Sealed,
    /// The newest segment, whose files are not open for writing yet.
    Closed,
    /// The newest segment.
    Open(Handles),
}

/// The log of one partition. One owner writes; [`Log::reader`] gives any number of readers. All calls block on the disk.
#[derive(Debug)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: PartitionIdentity,
    pub(super) config: LogConfig,
    pub(super) tail: Tail,
    /// What `partition.state` says, or will say when it is saved next.
    pub(super) state: PartitionState,
    pub(super) epochs: LeaderEpochs,
    /// Everything before this place is synced.
    pub(super) synced: RecoveryPoint,
    /// Files of segments that were sealed since the last sync began.
    pub(super) sealed_unsynced: Vec<Arc<dyn DiskFile>>,
    /// Whether the directory got new files since the last sync began.
    pub(super) new_names: bool,
    pub(super) sync_in_flight: bool,
    /// A checkpoint or a producer snapshot is being written beside the appends.
    pub(super) side_in_flight: bool,
    /// The view's generation after the last truncation: a sync that began before it says nothing about what came after.
    pub(super) truncated_at_generation: u64,
    /// Closed segments that have no file of checksums yet. One is summed with each checkpoint.
    pub(super) unsummed: Vec<Offset>,
    /// The producer snapshots there are, by offset.
    pub(super) snapshots: Vec<Offset>,
    pub(super) failure: Option<Failure>,
    pub(super) scratch: Scratch,
}

impl Log {
    pub(super) fn assemble(
        shared: Shared,
        identity: PartitionIdentity,
        config: LogConfig,
        state: PartitionState,
        epochs: LeaderEpochs,
        tail: Tail,
    ) -> Self {
        Self {
            shared: Arc::new(shared),
            identity,
            config,
            tail,
            synced: state.recovery,
            state,
            epochs,
            sealed_unsynced: Vec::new(),
            new_names: false,
            sync_in_flight: false,
            side_in_flight: false,
            truncated_at_generation: 0,
            unsummed: Vec::new(),
            snapshots: Vec::new(),
            failure: None,
            scratch: Scratch::default(),
        }
    }

    pub(super) fn check_alive(&self) -> Result<(), LogError> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.to_error()))
    }

    /// Notes a failed write or sync: the log takes no more of either.
    pub(super) fn fail(&mut self, cause: io::Error) -> LogError {
        let failure = self.failure.get_or_insert_with(|| Failure::new(&cause));
        if cause.kind() == io::ErrorKind::StorageFull { LogError::DiskFull { cause } } else { failure.to_error() }
    }

    /// A reader: cheap to make and to clone, for any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.shared.read().log_start
    }

    /// The end of what was written, exclusive: the offset that the next record gets.
    #[must_use]
    pub fn written_end(&self) -> Offset {
        self.shared.read().written_end
    }

    /// The end of what is on disk for good, exclusive.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.synced.offset
    }

    /// Bytes of record batches in all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.reader().size_bytes()
    }

    /// How many segments have a file.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.reader().segment_count()
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> &PartitionIdentity {
        &self.identity
    }

    /// The high watermark that was written down last.
    #[must_use]
    pub fn saved_high_watermark(&self) -> Offset {
        self.state.high_watermark
    }

    /// The leader epochs in the log.
    #[must_use]
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings, from the next append and the next retention on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }
}

impl View {
    pub(super) fn empty(at: Offset) -> Self {
        Self {
            log_start: at,
            written_end: at,
            segments: [].into(),
            damaged: Vec::new(),
            epochs: Arc::default(),
            generation: 0,
            rewritten: 0,
        }
    }
}
