//! What the log writer is told, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use crate::engine::follower::Truncated;
use crate::net::FrameRoom;
use crate::protocol::ApiError;
use crate::replica::ProducerReplay;
use crate::storage::queue::Done;
use crate::storage::{LogConfig, LogError};
use crate::types::record_batch::RecordBatch;
use crate::types::{FlushPolicy, Offset};

/// Append a stamped batch. Batches come in the order of their offsets.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Append {
    /// The batch.
    pub batch: RecordBatch,
    /// Room of the frame that it came in, given back once it is written, whatever became of the request meanwhile.
    pub room: Room,
}

/// A share in the room of a frame; `None` for a batch that came in none.
pub type Room = Option<Arc<FrameRoom>>;

/// Store a snapshot of the producers, after the appends that came before this message.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StoreProducerSnapshot {
    /// The end offset that it describes.
    pub at: Offset,
    /// Its content, opaque here.
    pub payload: Vec<u8>,
}

/// When to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushSettings {
    /// See [`FlushPolicy`].
    pub policy: FlushPolicy,
    /// Between syncs with [`FlushPolicy::Interval`].
    pub interval: Duration,
}

/// The topic's settings changed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reconfigure {
    /// When to sync from now on.
    pub flush: FlushSettings,
    /// How the log is kept from now on.
    pub log: LogConfig,
}

/// Delete what retention says, below `high_watermark`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ApplyRetention {
    /// Nothing at or beyond it is deleted.
    pub high_watermark: Offset,
}

/// Delete the records before `before`, which is committed, after the appends that came before this message.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct DeleteRecords {
    /// The first record that stays.
    pub before: Offset,
}

/// Write down how far recovery can trust the log, so that the next start after a crash reads little.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SaveCheckpoint {
    /// The end of what is committed.
    pub high_watermark: Offset,
}

/// End. Appends that came before are written first. The sender is told once the files are at rest.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Close {
    /// How.
    pub how: CloseHow,
    /// Told the result.
    pub done: oneshot::Sender<Result<(), LogError>>,
}

/// How a log ends.
#[derive(Debug)]
pub enum CloseHow {
    /// Synced, so that the next start reads no record data.
    Cleanly {
        /// The end of what is committed.
        high_watermark: Offset,
        /// The producers at the log's end.
        producer_snapshot: Vec<u8>,
    },
    /// As it is: its files are about to be deleted.
    Abandoned,
}

/// What became of the log. Goes to the partition's leader.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum LogEvent {
    /// Written up to this end offset.
    Written(Offset),
    /// Synced up to this end offset.
    Synced(Offset),
    /// A segment was closed.
    Rolled,
    /// Records below this offset are gone.
    LogStart(Offset),
    /// The log was cut or emptied.
    Truncated(Truncated),
    /// The log was not cut, or a leader's batches were not appended. It is as it was.
    Refused(ApiError),
    /// The records before this offset could not be deleted.
    DeleteFailed(Offset, ApiError),
    /// It is time for [`SaveCheckpoint`].
    CheckpointDue,
    /// A write or sync failed: nothing will be appended any more.
    Failed(ApiError),
}

/// A job was done on a disk thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct JobDone(pub Done<Room, ProducerReplay>);

/// Everything queued so far is to be worked off.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Pump;

/// The log was closed: the actor may stop.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ended;
