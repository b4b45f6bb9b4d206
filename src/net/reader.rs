//! The reader of one connection: bytes to frames, no faster than they are worked off.
//!
//! ```text
//!   nothing read ── first byte ──► length incomplete ── 4 bytes ──► length known ── permits ──► payload incomplete ──► frame
//!    idle deadline                  partial deadline                 no deadline: the node       partial deadline
//!    (while nothing is outstanding)                                  is busy, not the client
//! ```
//!
//! Before the payload of a frame is read, room for it is taken from the budgets of the connection and of the node. While
//! there is none the socket is not read, so TCP pushes back. At most [`READ_AHEAD_BYTES`] are read without a permit, and
//! a connection that waits for its next frame holds no buffer at all.
//!
//! A frame longer than [`READ_AHEAD_BYTES`] is read straight into a buffer of the node's pool, which it keeps to itself: no
//! byte of it is copied, but for what was read ahead when the frame before it was a short one. Short frames are read many
//! at a time by way of the stack and copied once, into memory of just their size: a slice of something larger would keep
//! that alive for as long as the frame is.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::ready;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::timeout;

use super::NetLimits;
use super::budget::{Activity, ByteBudget, BytePermit, FramePermit};
use crate::protocol::frame::{Frame, FrameCodec, FrameError, LENGTH_BYTES};
use crate::types::{Buffer, BufferPool};

/// Bytes that one read may bring beyond the frame at hand. Sixteen frames of 1 KiB then cost one system call. A frame that
/// is longer is a large one.
pub const READ_AHEAD_BYTES: usize = 16 * 1_024;

/// A frame, and the permit that goes back when the work on it is done.
#[derive(Debug)]
pub struct ReceivedFrame {
    /// The frame.
    pub frame: Frame,
    /// Its room in the budgets.
    pub permit: FramePermit,
}

/// Why a reader ended.
#[derive(Debug)]
pub enum ReadEnd {
    /// The peer closed the connection between frames.
    Closed,
    /// Nothing was asked for this long while nothing was outstanding (`limits.idle_timeout_ms`).
    Idle(Duration),
    /// A frame had begun and was not complete in this time (`limits.partial_frame_timeout_ms`).
    PartialTimeout(Duration),
    /// What came is no frame, or too long. The peer can be told: [`FrameError::to_api_error`].
    Frame(FrameError),
    /// The socket failed.
    Io(io::Error),
    /// Nobody takes the frames any more.
    ReceiverGone,
}

impl ReadEnd {
    /// The reason in words, for logs and for the peer.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Closed => "the peer closed the connection".to_owned(),
            Self::Idle(limit) => {
                format!("nothing was asked for {} ms, the limit set by limits.idle_timeout_ms", limit.as_millis())
            }
            Self::PartialTimeout(limit) => format!(
                "a frame was not complete within {} ms, the limit set by limits.partial_frame_timeout_ms",
                limit.as_millis()
            ),
            Self::Frame(error) => error.to_string(),
            Self::Io(error) => format!("the connection failed: {error}"),
            Self::ReceiverGone => "the node closed the connection".to_owned(),
        }
    }
}

/// The frame limit of one connection: small until its session has seen a good `Hello`. Clones share it.
#[derive(Clone, Debug)]
pub struct FrameLimit {
    raised: Arc<AtomicBool>,
    before: FrameCodec,
    after: FrameCodec,
}

impl FrameLimit {
    /// The small limit, to be raised.
    #[must_use]
    pub fn new(limits: &NetLimits) -> Self {
        let after = FrameCodec::new(limits.max_frame_bytes);
        let before = FrameCodec {
            max_frame_bytes: limits.max_frame_bytes_before_hello,
            limit_key: "limits.max_frame_bytes_before_hello",
            ..after
        };
        Self { raised: Arc::default(), before, after }
    }

    /// Allows full-sized frames from the next frame on.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }

    fn codec(&self) -> &FrameCodec {
        if self.raised.load(Ordering::Acquire) { &self.after } else { &self.before }
    }
}

/// Reads the frames of one connection.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    /// What was read of short frames, or of a large one that was not expected.
    buffer: BytesMut,
    /// What was read of a large frame.
    large: Option<Filling>,
    /// The size of the last frame with its length field, if it was a large one: the next is expected to be like it.
    expected_bytes: Option<usize>,
    pool: BufferPool,
    limit: FrameLimit,
    connection_budget: ByteBudget,
    node_budget: ByteBudget,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    partial_frame_timeout: Duration,
}

/// A buffer with the start of a large frame.
#[derive(Debug)]
struct Filling {
    buffer: Buffer,
    filled: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader with a budget of its own and a share in the node's, and buffers from `pool`.
    #[must_use]
    pub fn new(io: R, limits: &NetLimits, limit: FrameLimit, node_budget: ByteBudget, pool: BufferPool) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            large: None,
            expected_bytes: None,
            pool,
            limit,
            connection_budget: ByteBudget::new(limits.connection_bytes_in_flight),
            node_budget,
            activity: Arc::default(),
            idle_timeout: limits.idle_timeout,
            partial_frame_timeout: limits.partial_frame_timeout,
        }
    }

    /// Reads until the connection ends, handing each frame to `deliver`, which returns whether it wants more. The next
    /// frame is read when it is done: a `deliver` that waits for a bounded queue holds the peer back.
    pub async fn run<F, D>(mut self, mut deliver: D) -> ReadEnd
    where
        D: FnMut(ReceivedFrame) -> F,
        F: Future<Output = bool>,
    {
        loop {
            match self.next_frame().await {
                Ok(received) => {
                    if !deliver(received).await {
                        return ReadEnd::ReceiverGone;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Like [`Reader::run`], into a bounded channel.
    pub async fn run_into(self, frames: tokio::sync::mpsc::Sender<ReceivedFrame>) -> ReadEnd {
        self.run(move |frame| {
            let frames = frames.clone();
            async move { frames.send(frame).await.is_ok() }
        })
        .await
    }

    /// The next frame. Not safe to cancel: a frame that waits for its permits keeps its place only while polled.
    ///
    /// # Errors
    /// [`ReadEnd`] when there is none.
    pub async fn next_frame(&mut self) -> Result<ReceivedFrame, ReadEnd> {
        self.await_first_byte().await?;
        let deadline = self.partial_frame_timeout;
        let late = |_| ReadEnd::PartialTimeout(deadline);
        if self.received().len() < LENGTH_BYTES {
            timeout(deadline, self.fill_length()).await.map_err(late)??;
        }
        // The limit is looked at here, not before: the Hello that raises it may have been answered meanwhile.
        let codec = *self.limit.codec();
        let length = codec.peek_length(self.received()).map_err(ReadEnd::Frame)?.unwrap_or(0);
        let (connection, node) = self.room_for(length).await;
        let permit = FramePermit::new(connection, node, Arc::clone(&self.activity));
        let whole = LENGTH_BYTES + length;
        let is_large = whole > READ_AHEAD_BYTES;
        self.expected_bytes = is_large.then_some(whole);
        let frame = if is_large {
            let filling = self.large_frame(whole);
            let filling = timeout(deadline, self.fill_large(filling, whole)).await.map_err(late)??;
            let payload = filling.buffer.freeze(whole).split_off(LENGTH_BYTES);
            Frame::decode(&payload, codec.max_values).map_err(ReadEnd::Frame)?
        } else {
            self.give_large_back();
            if self.buffer.len() < whole {
                timeout(deadline, self.fill_payload(whole)).await.map_err(late)??;
            }
            codec.take_frame(&mut self.buffer, length).map_err(ReadEnd::Frame)?
        };
        if self.buffer.is_empty() {
            // The frame's memory lives as long as the frame, not as long as the connection.
            self.buffer = BytesMut::new();
        }
        Ok(ReceivedFrame { frame, permit })
    }

    /// What was read and belongs to no frame yet.
    fn received(&self) -> &[u8] {
        self.large.as_ref().map_or(&self.buffer, |large| &large.buffer[..large.filled])
    }

    async fn room_for(&mut self, length: usize) -> (BytePermit, BytePermit) {
        if let Some(connection) = self.connection_budget.try_acquire(length)
            && let Some(node) = self.node_budget.try_acquire(length)
        {
            return (connection, node);
        }
        // Whoever waits for room must not hold a large buffer meanwhile.
        self.give_large_back();
        let connection = self.connection_budget.acquire(length).await;
        (connection, self.node_budget.acquire(length).await)
    }

    /// Puts what was read ahead into memory of its size.
    fn give_large_back(&mut self) {
        if let Some(Filling { buffer, filled }) = self.large.take() {
            self.buffer.extend_from_slice(&buffer[..filled]);
        }
    }

    /// The buffer for a frame of `whole` bytes, with what was read of it.
    fn large_frame(&mut self, whole: usize) -> Filling {
        if let Some(large) = self.large.take_if(|large| large.buffer.len() >= whole) {
            return large;
        }
        self.give_large_back();
        let mut buffer = self.pool.take(whole);
        let filled = self.buffer.len().min(whole);
        buffer[..filled].copy_from_slice(&self.buffer.split_to(filled));
        Filling { buffer, filled }
    }

    async fn await_first_byte(&mut self) -> Result<(), ReadEnd> {
        while self.received().is_empty() {
            let finished_before = self.activity.finished();
            match timeout(self.idle_timeout, self.read_some()).await {
                Ok(Ok(0)) => return Err(ReadEnd::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(ReadEnd::Io(error)),
                // Whoever waits for a reply, or has just been given one, is not idle: the deadline starts anew.
                Err(_) if self.activity.outstanding() > 0 || self.activity.finished() != finished_before => {}
                Err(_) => return Err(ReadEnd::Idle(self.idle_timeout)),
            }
        }
        Ok(())
    }

    async fn fill_length(&mut self) -> Result<(), ReadEnd> {
        self.give_large_back();
        while self.buffer.len() < LENGTH_BYTES {
            if self.read_by_way_of_the_stack().await.map_err(ReadEnd::Io)? == 0 {
                return Err(self.cut_short());
            }
        }
        Ok(())
    }

    /// Reads what lacks and no more: the frame alone keeps that memory alive.
    async fn fill_payload(&mut self, whole: usize) -> Result<(), ReadEnd> {
        self.buffer.reserve(whole - self.buffer.len());
        while self.buffer.len() < whole {
            let missing = whole - self.buffer.len();
            let mut room = (&mut self.buffer).limit(missing);
            if self.io.read_buf(&mut room).await.map_err(ReadEnd::Io)? == 0 {
                return Err(self.cut_short());
            }
        }
        Ok(())
    }

    /// Reads the rest of a large frame, straight to where it stays.
    async fn fill_large(&mut self, mut filling: Filling, whole: usize) -> Result<Filling, ReadEnd> {
        while filling.filled < whole {
            let read = self.io.read(&mut filling.buffer[filling.filled..whole]).await.map_err(ReadEnd::Io)?;
            if read == 0 {
                return Err(ReadEnd::Frame(FrameError::CutShort { have: filling.filled }));
            }
            filling.filled += read;
        }
        Ok(filling)
    }

    /// One read when nothing is at hand.
    async fn read_some(&mut self) -> io::Result<usize> {
        match self.expected_bytes {
            Some(bytes) => self.read_into_large(bytes).await,
            None => self.read_by_way_of_the_stack().await,
        }
    }

    /// One read of up to [`READ_AHEAD_BYTES`], to where a large frame of `expected_bytes` would stay. While there is nothing
    /// to read, the buffer is others'.
    async fn read_into_large(&mut self, expected_bytes: usize) -> io::Result<usize> {
        let Self { io, large, pool, .. } = self;
        poll_fn(|context| {
            let mut buffer = pool.take(expected_bytes);
            let mut read = ReadBuf::new(&mut buffer[..READ_AHEAD_BYTES]);
            ready!(Pin::new(&mut *io).poll_read(context, &mut read))?;
            let filled = read.filled().len();
            *large = (filled > 0).then_some(Filling { buffer, filled });
            std::task::Poll::Ready(Ok(filled))
        })
        .await
    }

    /// One read by way of the stack, so that waiting for it takes no buffer.
    async fn read_by_way_of_the_stack(&mut self) -> io::Result<usize> {
        let Self { io, buffer, .. } = self;
        poll_fn(|context| {
            let mut scratch = [MaybeUninit::<u8>::uninit(); READ_AHEAD_BYTES];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut *io).poll_read(context, &mut read))?;
            buffer.extend_from_slice(read.filled());
            std::task::Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    fn cut_short(&self) -> ReadEnd {
        ReadEnd::Frame(FrameError::CutShort { have: self.received().len() })
    }
}

#[cfg(test)]
mod tests;
