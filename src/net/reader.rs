//! The reader of one connection: bytes to frames, no faster than they are worked off.
//!
//! ```text
//!   nothing read ── first byte ──► head incomplete ── 16 KiB, or all ──► permits ──► payload incomplete ──► frame
//!    idle deadline                  partial deadline                      no deadline:  partial deadline
//!    (while nothing is outstanding)                                       the node is busy, not the client
//! ```
//!
//! At most [`READ_AHEAD_BYTES`] of a frame are read without a permit. Then room for all of it is taken from the budgets of
//! the connection and of the node; while there is none the socket is not read, so TCP pushes back. A connection that waits
//! for its next frame holds no buffer at all.
//!
//! Room is for frames that come. A sender that pauses for [`PAUSE`] in the middle of a large frame gives the room for the
//! rest of it back, and from there on takes room only for what has come, out of a small part of the node's: see
//! [`NodeBudget`]. When that part is full, it is the slow one that is closed, and nobody else waits for it.
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

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::NetLimits;
use super::budget::{Activity, ByteBudget, BytePermit, FramePermit, NodeBudget};
use super::read_end::ReadEnd;
use crate::protocol::frame::{Frame, FrameCodec, FrameError, LENGTH_BYTES};
use crate::types::{Buffer, BufferPool};

/// Bytes that one read may bring beyond the frame at hand. Sixteen frames of 1 KiB then cost one system call. A frame that
/// is longer is a large one.
pub const READ_AHEAD_BYTES: usize = 16 * 1_024;
/// A sender that lets so much time pass without a byte is slow. Far longer than any pause of a client on the same network
/// that is at work on a frame; at the default budget a crowd of large frames that stall waits for each other so long, five
/// at a time, while small frames pass.
pub const PAUSE: Duration = Duration::from_millis(50);
/// A slow frame takes room in steps of this.
const SLOW_STEP_BYTES: usize = 64 * 1_024;

/// A frame, and the permit that goes back when the work on it is done.
#[derive(Debug)]
pub struct ReceivedFrame {
    /// The frame.
    pub frame: Frame,
    /// Its room in the budgets.
    pub permit: FramePermit,
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
    node_budget: NodeBudget,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    /// Rings when the connection may have been idle for too long. It is armed when it has rung, not for each frame.
    idle_alarm: Option<Pin<Box<Sleep>>>,
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
    pub fn new(io: R, limits: &NetLimits, limit: FrameLimit, node_budget: NodeBudget, pool: BufferPool) -> Self {
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
            idle_alarm: None,
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
        let whole = LENGTH_BYTES + length;
        let is_large = whole > READ_AHEAD_BYTES;
        let head = whole.min(READ_AHEAD_BYTES);
        if self.received().len() < head {
            // Whoever sends the start of a frame and no more holds neither room nor a large buffer.
            self.give_large_back();
            timeout(deadline, self.fill_to(head)).await.map_err(late)??;
        }
        let (connection, node) = self.room_for(length, is_large).await;
        let mut permit = FramePermit::new(connection, node, Arc::clone(&self.activity));
        self.expected_bytes = is_large.then_some(whole);
        let frame = if is_large {
            let payload = timeout(deadline, self.large_payload(whole, &mut permit)).await.map_err(late)??;
            Frame::decode(&payload, codec.max_values).map_err(ReadEnd::Frame)?
        } else {
            self.give_large_back();
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

    async fn room_for(&mut self, length: usize, is_large: bool) -> (BytePermit, BytePermit) {
        let node = if is_large { self.node_budget.prompt.clone() } else { self.node_budget.small.clone() };
        if let Some(connection) = self.connection_budget.try_acquire(length)
            && let Some(node) = node.try_acquire(length)
        {
            return (connection, node);
        }
        // Whoever waits for room must not hold a large buffer meanwhile.
        self.give_large_back();
        let connection = self.connection_budget.acquire(length).await;
        (connection, node.acquire(length).await)
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
        let mut idle_since = Instant::now();
        let mut finished_before = self.activity.finished();
        while self.received().is_empty() {
            match self.read_some_or_ring().await {
                Some(Ok(0)) => return Err(ReadEnd::Closed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ReadEnd::Io(error)),
                None => {
                    let (now, finished) = (Instant::now(), self.activity.finished());
                    if self.activity.outstanding() > 0 || finished != finished_before {
                        // Whoever waits for a reply, or has just been given one, is not idle: the deadline starts anew.
                        (idle_since, finished_before) = (now, finished);
                    } else if now >= idle_since + self.idle_timeout {
                        return Err(ReadEnd::Idle(self.idle_timeout));
                    }
                    if let Some(alarm) = &mut self.idle_alarm {
                        alarm.as_mut().reset(idle_since + self.idle_timeout);
                    }
                }
            }
        }
        Ok(())
    }

    /// One read, or `None` when the alarm rings first.
    async fn read_some_or_ring(&mut self) -> Option<io::Result<usize>> {
        let idle_timeout = self.idle_timeout;
        // Beside the reader meanwhile, which is borrowed as a whole.
        let mut alarm = self.idle_alarm.take().unwrap_or_else(|| Box::pin(sleep_until(Instant::now() + idle_timeout)));
        let read = tokio::select! {
            biased;
            read = self.read_some() => Some(read),
            () = &mut alarm => None,
        };
        self.idle_alarm = Some(alarm);
        read
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

    /// Reads the rest of a large frame, straight to where it stays. If its sender pauses, its room is exchanged: see the
    /// module page.
    async fn large_payload(&mut self, whole: usize, permit: &mut FramePermit) -> Result<Bytes, ReadEnd> {
        let mut filling = self.large_frame(whole);
        while filling.filled < whole {
            // A read that is given up has taken nothing from the socket.
            match timeout(PAUSE, self.io.read(&mut filling.buffer[filling.filled..whole])).await {
                Ok(Ok(0)) => return Err(ReadEnd::Frame(FrameError::CutShort { have: filling.filled })),
                Ok(Ok(read)) => filling.filled += read,
                Ok(Err(error)) => return Err(ReadEnd::Io(error)),
                Err(_) => return self.slow_payload(filling, whole, permit).await,
            }
        }
        Ok(filling.buffer.freeze(whole).split_off(LENGTH_BYTES))
    }

    /// Goes on reading a large frame with no more room and memory than what has come of it needs.
    async fn slow_payload(
        &mut self,
        filling: Filling,
        whole: usize,
        permit: &mut FramePermit,
    ) -> Result<Bytes, ReadEnd> {
        let mut counted = filling.filled;
        let mut room = self.node_budget.slow.try_acquire(counted).ok_or(ReadEnd::TooSlow)?;
        permit.give_node_room_back();
        self.buffer = BytesMut::from(&filling.buffer[..counted]);
        drop(filling);
        while counted < whole {
            let step = SLOW_STEP_BYTES.min(whole - counted);
            room.merge(self.node_budget.slow.try_acquire(step).ok_or(ReadEnd::TooSlow)?);
            counted += step;
            self.fill_to(counted).await?;
        }
        permit.replace_node_room(room);
        Ok(std::mem::take(&mut self.buffer).freeze().split_off(LENGTH_BYTES))
    }

    /// Reads until so much of the frame is here, and no more: the frame alone keeps that memory alive.
    async fn fill_to(&mut self, end: usize) -> Result<(), ReadEnd> {
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            let missing = end - self.buffer.len();
            let mut room = (&mut self.buffer).limit(missing);
            if self.io.read_buf(&mut room).await.map_err(ReadEnd::Io)? == 0 {
                return Err(self.cut_short());
            }
        }
        Ok(())
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
