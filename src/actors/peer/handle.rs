//! How the rest of a node speaks to another one: typed requests, their limits, and what else a link can be asked.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, Recipient};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::actor::{Peer, PeerSettings};
use super::error::PeerError;
use super::identity::{PeerAddress, PeerTarget};
use super::messages::{Ask, Close, DialBack, MoveTo, PeerEvent, Reach, Room, Subscribe};
use crate::actors::send::post;
use crate::net::{ByteBudget, FramePermit};
use crate::protocol::ErrorCode;
use crate::protocol::frame::{Attachment, decode_outcome, encode_peer_request};
use crate::protocol::messages::peer::PeerRequest;
use crate::types::CorrelationId;

/// Requests that may be under way on one link. Raft has one of each kind to a member, a broker a handful; this is far above both
/// and, with the bytes, what bounds the link's mailbox.
pub const MAX_IN_FLIGHT: usize = 64;
/// Bytes of requests that may be under way on one link: one frame of the largest size beside small ones.
const MAX_IN_FLIGHT_BYTES: usize = 32 << 20;

/// An answer, with what came beside it.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it says.
    pub reply: T,
    /// What came with it, shared with the frame.
    pub attachments: Vec<Bytes>,
    /// The room of the frame in the node's budget: to be kept as long as the attachments.
    pub permit: FramePermit,
}

/// A link to another node. Clones share it. It lives until [`PeerHandle::close`].
#[derive(Clone, Debug)]
pub struct PeerHandle {
    link: Addr<Peer>,
    name: Arc<str>,
    in_flight: Arc<Semaphore>,
    bytes: ByteBudget,
}

impl PeerHandle {
    /// Starts a link on `arbiter`. Subscribers are told of every change, the first connection included.
    #[must_use]
    pub fn start(
        arbiter: &ArbiterHandle,
        target: PeerTarget,
        settings: PeerSettings,
        subscribers: Vec<Recipient<PeerEvent>>,
    ) -> Self {
        let name = target.to_string().into();
        let link = Peer::start_in_arbiter(arbiter, move |_| Peer::new(target, settings, subscribers));
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Self { link, name, in_flight, bytes: ByteBudget::new(MAX_IN_FLIGHT_BYTES) }
    }

    /// Sends a request and waits for its answer for at most `patience`. While there is no connection it fails at once; while one is
    /// being opened it waits for that. Dropping the future gives the answer up, not the request.
    ///
    /// # Errors
    /// [`PeerError`] says whether the other node was found, and whether a retry helps.
    pub async fn ask<R: PeerRequest>(
        &self,
        request: &R,
        attachments: Vec<Attachment>,
        patience: Duration,
    ) -> Result<Answer<R::Reply>, PeerError> {
        let peer = || Arc::clone(&self.name);
        let frame = encode_peer_request(request, CorrelationId(0), attachments);
        let busy = |what: String| PeerError::Busy { peer: peer(), what: what.into() };
        let in_flight = Arc::clone(&self.in_flight).try_acquire_owned();
        let in_flight = in_flight.map_err(|_| busy(format!("{MAX_IN_FLIGHT} requests")))?;
        let bytes = self.bytes.try_acquire(frame.wire_bytes());
        let bytes = bytes.ok_or_else(|| busy(format!("{MAX_IN_FLIGHT_BYTES} bytes")))?;
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + patience;
        let room = Room { _in_flight: in_flight, _bytes: bytes };
        post(&self.link, Ask { frame, deadline, patience, answer, room });
        // The link watches the deadline, too; here it holds even if the link's thread is held up.
        let received = match timeout_at(deadline, answered).await {
            Ok(Ok(received)) => received?,
            Ok(Err(_)) => return Err(PeerError::Unreachable { peer: peer(), reason: "its link was closed".into() }),
            Err(_) => return Err(PeerError::TimedOut { peer: peer(), after: patience }),
        };
        let head = received.frame.head;
        if head.api != R::API.number() {
            let reason = format!("it answered {:?} with a reply to request {}", R::API, head.api);
            return Err(PeerError::Refused { peer: peer(), reason: reason.into() });
        }
        match decode_outcome(&received.frame) {
            Ok(reply) => Ok(Answer { reply, attachments: received.frame.attachments, permit: received.permit }),
            Err(error) => Err(PeerError::Answered { peer: peer(), error }),
        }
    }

    /// Dials the other node, beside the link, for at most `patience`. Says whether its process is gone for certain.
    pub async fn dial_back(&self, patience: Duration) -> Reach {
        let reach = self.link.send(DialBack { patience }).await;
        reach.unwrap_or_else(|_| Reach::Unknown { reason: "its link was closed".to_owned() })
    }

    /// Has `subscriber` told of every change from here on.
    pub fn subscribe(&self, subscriber: Recipient<PeerEvent>) {
        post(&self.link, Subscribe(subscriber));
    }

    /// The other node is to be found at `address` from now on. A connection to another one is given up.
    pub fn move_to(&self, address: PeerAddress) {
        post(&self.link, MoveTo(address));
    }

    /// Ends the link. Everything that is under way fails.
    pub fn close(&self) {
        post(&self.link, Close);
    }
}

impl PeerError {
    /// Whether the other end answered that it is not the one that was looked for.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Answered { error, .. } => matches!(
                error.code,
                ErrorCode::WrongNode
                    | ErrorCode::UnknownApi
                    | ErrorCode::UnsupportedVersion
                    | ErrorCode::InvalidRequest
                    | ErrorCode::HelloRequired
            ),
            _ => false,
        }
    }
}
