//! Why another node gave no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::ApiError;

/// Why a request to another node has no answer. `peer` is the node and where it was looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no connection. The request was not sent.
    #[error("{peer} cannot be reached: {reason}")]
    Unreachable {
        /// The other node.
        peer: Arc<str>,
        /// What the connection says.
        reason: Arc<str>,
    },
    /// The connection broke before the answer came. Whether the request arrived is not known.
    #[error("the connection to {peer} broke before it answered: {reason}")]
    Lost {
        /// The other node.
        peer: Arc<str>,
        /// What the connection says.
        reason: Arc<str>,
    },
    /// No answer came in time. Whether the request arrived is not known.
    #[error("{peer} did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// The other node.
        peer: Arc<str>,
        /// The time it had.
        after: Duration,
    },
    /// Somebody else answers there: another cluster, node or directory, or software that does not speak this.
    #[error("{peer} was not found there: {reason}")]
    Refused {
        /// The other node.
        peer: Arc<str>,
        /// What was found, and what to do.
        reason: Arc<str>,
    },
    /// So much is under way to that node already that this was not sent.
    #[error("{peer} has not answered {what} yet, and no more may be under way: come back later")]
    Busy {
        /// The other node.
        peer: Arc<str>,
        /// What is under way.
        what: Arc<str>,
    },
    /// The request is larger than what the other node takes. It was not sent.
    #[error(
        "{bytes} bytes for {peer} are above its limit of {limit} bytes: this is an error in the software, please report it"
    )]
    TooLarge {
        /// The other node.
        peer: Arc<str>,
        /// The frame's size.
        bytes: usize,
        /// What the other node takes.
        limit: usize,
    },
    /// It answered with an error.
    #[error("{peer} answered: {error}")]
    Answered {
        /// The other node.
        peer: Arc<str>,
        /// What it says.
        error: ApiError,
    },
}

impl PeerError {
    /// Whether the same request may succeed later without anyone doing something about it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::TimedOut { .. } | Self::Busy { .. } => true,
            Self::Refused { .. } | Self::TooLarge { .. } => false,
            Self::Answered { error, .. } => error.is_retryable(),
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Somebody answered who is not the one that was looked for.
    pub is_refusal: bool,
    pub reason: Arc<str>,
}

impl Failure {
    pub fn unreachable(reason: impl Into<Arc<str>>) -> Self {
        Self { is_refusal: false, reason: reason.into() }
    }

    pub fn refusal(reason: impl Into<Arc<str>>) -> Self {
        Self { is_refusal: true, reason: reason.into() }
    }

    /// What the other end said instead of a hello.
    pub fn answered(error: &ApiError) -> Self {
        let reason = format!("it answered: {error}");
        if error.is_retryable() { Self::unreachable(reason) } else { Self::refusal(reason) }
    }

    /// What whoever asks is told.
    pub fn to_error(&self, peer: &Arc<str>) -> PeerError {
        let (peer, reason) = (Arc::clone(peer), Arc::clone(&self.reason));
        if self.is_refusal { PeerError::Refused { peer, reason } } else { PeerError::Unreachable { peer, reason } }
    }
}
