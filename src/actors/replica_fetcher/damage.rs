//! What can be wrong with an answer of a leader.

use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::header::BatchError;
use crate::types::{LeaderEpoch, Offset};

/// Why the records of an answer are not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordsDamaged {
    /// A batch is none, or has a wrong checksum.
    #[error("a batch of it is damaged: {0}")]
    Batch(#[from] BatchError),
    /// The fields outside the checksum do not fit those of the batch before.
    #[error("the batch at offset {offset} in epoch {epoch} does not follow the one before, which ends at {expected}")]
    OutOfPlace {
        /// Where it says that it begins.
        offset: Offset,
        /// Its epoch.
        epoch: LeaderEpoch,
        /// Where the one before ends.
        expected: Offset,
    },
    /// Records came where none belong.
    #[error("{bytes} bytes are attached to an answer that has nothing attached")]
    Unexpected {
        /// How many.
        bytes: usize,
    },
}

impl From<&RecordsDamaged> for ApiError {
    fn from(damage: &RecordsDamaged) -> Self {
        Self::new(ErrorCode::InvalidBatch, format!("what the leader sent is not taken: {damage}"))
    }
}
