//! The writer of one connection: replies to bytes, in few system calls, with a bound on what waits.
//!
//! ```text
//!   WriterHandle ── send: waits for room ──┐
//!   WriterHandle ── try_send: or gives back ┴─► queue, bounded in bytes ─► all that waits, up to 1 MiB ─► one vectored write
//! ```
//!
//! A client that does not read its replies fills its socket, then the queue. Then `send` waits, `try_send` gives the frame
//! back, and when nothing moves for `limits.write_timeout_ms` the connection ends: a bounded amount of memory for a
//! bounded time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::NetLimits;
use super::budget::{ByteBudget, BytePermit};
use crate::protocol::frame::{OutFrame, SegmentedBuf};

/// The writer takes frames off the queue until it has this much, then writes. More gains nothing on loopback (limits.md).
const GROUP_BYTES: usize = 1 << 20;
/// A client must take this much, or all there is, within the write timeout. Without it a client that takes a byte now
/// and then could hold its queue for ever.
const PROGRESS_BYTES: usize = 64 * 1_024;

/// A frame that was not accepted for sending. It comes back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The queue of the connection is full: the client does not read its replies fast enough.
    #[error(
        "more than {limit_bytes} bytes wait for a client that does not read them, the limit set by limits.write_queue_bytes"
    )]
    Full {
        /// The frame.
        frame: Box<OutFrame>,
        /// The limit.
        limit_bytes: usize,
    },
    /// The connection has ended, or is about to.
    #[error("the connection is closed")]
    Closed {
        /// The frame.
        frame: Box<OutFrame>,
    },
}

/// Why a writer ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteEnd {
    /// It was asked to, and everything before that is written.
    #[error("the node closed the connection")]
    Closed,
    /// The client took next to nothing for the whole write timeout.
    #[error(
        "the client took less than 64 KiB of its replies within {} ms, the limit set by limits.write_timeout_ms: \
         {waiting_bytes} bytes were waiting",
        limit.as_millis()
    )]
    Stalled {
        /// The limit.
        limit: Duration,
        /// What it left unread, the queue included.
        waiting_bytes: usize,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(Arc<io::Error>),
    /// The task was dropped before it could finish.
    #[error("the connection's writer was stopped")]
    Dropped,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(OutFrame, BytePermit)>,
    bytes: usize,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    room: ByteBudget,
    limit_bytes: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held, and the queue would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: OutFrame, permit: BytePermit) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.closing {
            return Err(SendError::Closed { frame: frame.into() });
        }
        queue.bytes += frame.wire_bytes();
        queue.frames.push_back((frame, permit));
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_one();
    }
}

/// Queues frames for one connection. When the last clone is dropped, what is queued is written and the writer ends.
#[derive(Clone, Debug)]
pub struct WriterHandle(Arc<CloseOnDrop>);

#[derive(Debug)]
struct CloseOnDrop {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<WriteEnd>>,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl WriterHandle {
    /// Queues a frame if there is room. An empty queue takes a frame of any size.
    ///
    /// # Errors
    /// [`SendError`] gives the frame back.
    pub fn try_send(&self, frame: OutFrame) -> Result<(), SendError> {
        let shared = &self.0.shared;
        match shared.room.try_acquire(frame.wire_bytes()) {
            Some(permit) => shared.push(frame, permit),
            None if shared.lock().closing => Err(SendError::Closed { frame: frame.into() }),
            None => Err(SendError::Full { frame: frame.into(), limit_bytes: shared.limit_bytes }),
        }
    }

    /// Queues a frame as soon as there is room: first come, first served.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the connection ends instead.
    pub async fn send(&self, frame: OutFrame) -> Result<(), SendError> {
        let shared = &self.0.shared;
        tokio::select! {
            biased;
            permit = shared.room.acquire(frame.wire_bytes()) => shared.push(frame, permit),
            _ = self.ended() => Err(SendError::Closed { frame: frame.into() }),
        }
    }

    /// Bytes of frames that were queued and not yet taken up by a write.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.shared.lock().bytes
    }

    /// Accepts nothing more, writes what is queued, closes the sending direction, and returns how that ended. Takes no
    /// longer than the client is allowed to take for its replies.
    pub async fn close(&self) -> WriteEnd {
        self.0.shared.close();
        self.ended().await
    }

    /// Waits until the writer has ended for whatever reason.
    pub async fn ended(&self) -> WriteEnd {
        let mut ended = self.0.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(WriteEnd::Dropped),
            Err(_) => WriteEnd::Dropped,
        }
    }
}

/// A writer for `io` and the handle that feeds it. Spawn [`Writer::run`].
#[must_use]
pub fn writer<W: AsyncWrite + Unpin>(io: W, limits: &NetLimits) -> (WriterHandle, Writer<W>) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        wake: Notify::new(),
        room: ByteBudget::new(limits.write_queue_bytes),
        limit_bytes: limits.write_queue_bytes,
    });
    let (ended_sender, ended) = watch::channel(None);
    let handle = WriterHandle(Arc::new(CloseOnDrop { shared: Arc::clone(&shared), ended }));
    let ended = EndSender { shared, sender: ended_sender };
    let writer =
        Writer { io, buffer: SegmentedBuf::new(), in_write: Vec::new(), write_timeout: limits.write_timeout, ended };
    (handle, writer)
}

/// Makes the queue refuse frames and gives its memory back however the writer goes, even if its task is aborted.
#[derive(Debug)]
struct EndSender {
    shared: Arc<Shared>,
    sender: watch::Sender<Option<WriteEnd>>,
}

impl Drop for EndSender {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        queue.frames.clear();
        queue.bytes = 0;
    }
}

/// Writes the frames of one connection.
#[derive(Debug)]
pub struct Writer<W> {
    io: W,
    buffer: SegmentedBuf,
    /// Room of the frames in `buffer`: given back once they are written.
    in_write: Vec<BytePermit>,
    write_timeout: Duration,
    ended: EndSender,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until the connection ends or every handle is gone.
    pub async fn run(mut self) -> WriteEnd {
        let end = match self.write_queue().await {
            Ok(()) => {
                // A peer that has gone already got everything it will get: a failure here changes nothing.
                let _ = timeout(self.write_timeout, self.io.shutdown()).await;
                WriteEnd::Closed
            }
            Err(end) => end,
        };
        let Self { ended, .. } = self;
        ended.shared.lock().closing = true;
        ended.sender.send_replace(Some(end.clone()));
        end
    }

    async fn write_queue(&mut self) -> Result<(), WriteEnd> {
        loop {
            let closing = self.take_group()?;
            if self.buffer.has_remaining() {
                self.write_group().await?;
            } else if closing {
                return Ok(());
            } else {
                self.buffer.release_memory();
                self.ended.shared.wake.notified().await;
            }
        }
    }

    /// Moves what waits into the buffer, as far as one group goes. Returns whether nothing more will come.
    fn take_group(&mut self) -> Result<bool, WriteEnd> {
        let mut queue = self.ended.shared.lock();
        while self.buffer.remaining() < GROUP_BYTES {
            let Some((frame, permit)) = queue.frames.pop_front() else {
                break;
            };
            queue.bytes = queue.bytes.saturating_sub(frame.wire_bytes());
            self.in_write.push(permit);
            self.buffer.put_frame(frame).map_err(|e| WriteEnd::Io(Arc::new(io::Error::other(e))))?;
        }
        Ok(queue.closing)
    }

    async fn write_group(&mut self) -> Result<(), WriteEnd> {
        while self.buffer.has_remaining() {
            let goal = self.buffer.remaining().saturating_sub(PROGRESS_BYTES);
            match timeout(self.write_timeout, write_down_to(&mut self.io, &mut self.buffer, goal)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(WriteEnd::Io(Arc::new(error))),
                Err(_) => {
                    let waiting_bytes = self.buffer.remaining() + self.ended.shared.lock().bytes;
                    return Err(WriteEnd::Stalled { limit: self.write_timeout, waiting_bytes });
                }
            }
        }
        self.in_write.clear();
        Ok(())
    }
}

/// Writes until `goal` bytes are left, then lets layers that buffer (TLS) pass them on.
async fn write_down_to<W: AsyncWrite + Unpin>(io: &mut W, buffer: &mut SegmentedBuf, goal: usize) -> io::Result<()> {
    while buffer.remaining() > goal {
        // One vectored write of up to 64 segments.
        if io.write_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    if goal == 0 { io.flush().await } else { Ok(()) }
}

#[cfg(test)]
mod tests;
