//! Why the reader of a connection ended, and what its peer is told.

use std::io;
use std::time::Duration;

use crate::protocol::frame::FrameError;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::CorrelationId;

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
