//! What the log writer is told, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use crate::net::FrameRoom;
use crate::replica::ProducerReplay;
use crate::storage::queue::{Done, LogNews, LogWork};
use crate::storage::{LogConfig, LogError};
use crate::types::{FlushPolicy, Offset};

/// Do this with the log, after all that came before. Batches come stamped, in the order of their offsets.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write(pub LogWork<Room, ProducerReplay>);

/// A share in the room of a frame, which is given back once its batch is written, whatever became of the request meanwhile; `None`
/// for a batch that came in none.
pub type Room = Option<Arc<FrameRoom>>;

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
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum LogEvent {
    /// The queue has news.
    News(LogNews<ProducerReplay>),
    /// It is time for a checkpoint.
    CheckpointDue,
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
