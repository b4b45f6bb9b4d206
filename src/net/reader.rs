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
use super::budget::{Activity, ByteBudget, BytePermit, FramePermit, NodeBudget};
use crate::protocol::frame::{Frame, FrameCodec, FrameError, LENGTH_BYTES};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::CorrelationId;

/// Bytes that one read may bring beyond the frame at hand. Sixteen frames of 1 KiB then cost one system call, while the
/// head of a large frame that is read this way, and copied once, stays small against the rest.
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

/// Why a reader ended.
#[derive(Debug)]
pub enum ReadEnd {
    /// The peer closed the connection between frames.
    Closed,
    /// Nothing was asked for this long while nothing was outstanding (`limits.idle_timeout_ms`).
    Idle(Duration),
    /// A frame had begun and was not complete in this time (`limits.partial_frame_timeout_ms`).
    PartialTimeout(Duration),
    /// A large frame came slowly, and the room for such frames was used up.
    TooSlow,
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
            Self::TooSlow => "a frame came slowly, and frames that come slowly hold a quarter of \
                limits.node_bytes_in_flight already: send smaller batches, or raise the limit"
                .to_owned(),
            Self::Frame(error) => error.to_string(),
            Self::Io(error) => format!("the connection failed: {error}"),
            Self::ReceiverGone => "the node closed the connection".to_owned(),
        }
    }

    /// What the peer is told, if anything, and about which request.
    #[must_use]
    pub fn to_api_error(&self) -> Option<(CorrelationId, ApiError)> {
        match self {
            Self::Frame(error) => Some(error.to_api_error()),
            Self::TooSlow => Some((CorrelationId(0), ApiError::new(ErrorCode::LimitExceeded, self.describe()))),
            _ => None,
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
    buffer: BytesMut,
    limit: FrameLimit,
    connection_budget: ByteBudget,
    node_budget: NodeBudget,
    activity: Arc<Activity>,
    idle_timeout: Duration,
    partial_frame_timeout: Duration,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader with a budget of its own and a share in the node's.
    #[must_use]
    pub fn new(io: R, limits: &NetLimits, limit: FrameLimit, node_budget: NodeBudget) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
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
        if self.buffer.len() < LENGTH_BYTES {
            timeout(deadline, self.fill_length()).await.map_err(late)??;
        }
        // The limit is looked at here, not before: the Hello that raises it may have been answered meanwhile.
        let codec = *self.limit.codec();
        let length = codec.peek_length(&self.buffer).map_err(ReadEnd::Frame)?.unwrap_or(0);
        let whole = LENGTH_BYTES + length;
        let head = whole.min(LENGTH_BYTES + READ_AHEAD_BYTES);
        if self.buffer.len() < head {
            timeout(deadline, self.fill_to(head)).await.map_err(late)??;
        }
        let connection = self.connection_budget.acquire(length).await;
        let node = if head == whole { &self.node_budget.small } else { &self.node_budget.prompt };
        let mut permit = FramePermit::new(connection, node.acquire(length).await, Arc::clone(&self.activity));
        if self.buffer.len() < whole {
            timeout(deadline, self.fill_payload(whole, &mut permit)).await.map_err(late)??;
        }
        let frame = codec.take_frame(&mut self.buffer, length).map_err(ReadEnd::Frame)?;
        if self.buffer.is_empty() {
            // The frame's memory lives as long as the frame, not as long as the connection.
            self.buffer = BytesMut::new();
        }
        Ok(ReceivedFrame { frame, permit })
    }

    async fn await_first_byte(&mut self) -> Result<(), ReadEnd> {
        while self.buffer.is_empty() {
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
        while self.buffer.len() < LENGTH_BYTES {
            if self.read_some().await.map_err(ReadEnd::Io)? == 0 {
                return Err(self.cut_short());
            }
        }
        Ok(())
    }

    /// Reads the rest of a frame that has its room. If its sender pauses, the room is exchanged: see the module page.
    async fn fill_payload(&mut self, whole: usize, permit: &mut FramePermit) -> Result<(), ReadEnd> {
        self.buffer.reserve(whole - self.buffer.len());
        while self.buffer.len() < whole {
            // A read that is given up has taken nothing from the socket.
            match timeout(PAUSE, self.read_up_to(whole)).await {
                Ok(read) => read?,
                Err(_) => {
                    let room = self.fill_slowly(whole, permit).await?;
                    permit.replace_node_room(room);
                }
            }
        }
        Ok(())
    }

    /// Goes on reading a frame with no more room than what has come of it needs.
    async fn fill_slowly(&mut self, whole: usize, permit: &mut FramePermit) -> Result<BytePermit, ReadEnd> {
        let take = |bytes| self.node_budget.slow.try_acquire(bytes).ok_or(ReadEnd::TooSlow);
        let mut counted = self.buffer.len();
        let mut room = take(counted)?;
        permit.give_node_room_back();
        // The memory that waited for the rest goes with the room for it.
        self.buffer = BytesMut::from(&self.buffer[..]);
        while counted < whole {
            let step = SLOW_STEP_BYTES.min(whole - counted);
            room.merge(self.node_budget.slow.try_acquire(step).ok_or(ReadEnd::TooSlow)?);
            counted += step;
            self.fill_to(counted).await?;
        }
        Ok(room)
    }

    /// Reads until so much of the frame is here, and no more, straight to where it stays: the frame alone keeps that memory
    /// alive.
    async fn fill_to(&mut self, end: usize) -> Result<(), ReadEnd> {
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            self.read_up_to(end).await?;
        }
        Ok(())
    }

    async fn read_up_to(&mut self, end: usize) -> Result<(), ReadEnd> {
        let missing = end - self.buffer.len();
        let mut room = (&mut self.buffer).limit(missing);
        if self.io.read_buf(&mut room).await.map_err(ReadEnd::Io)? == 0 {
            return Err(self.cut_short());
        }
        Ok(())
    }

    /// One read by way of the stack, so that waiting for it takes no buffer.
    async fn read_some(&mut self) -> io::Result<usize> {
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
        ReadEnd::Frame(FrameError::CutShort { have: self.buffer.len() })
    }
}

#[cfg(test)]
mod tests;
