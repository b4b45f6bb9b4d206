//! What a session of another node is told, and what it passes on.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Addr, Message, Recipient};
use bytes::Bytes;

use super::dialect::{BetweenNodes, PeerReplyBody, PeerRequestBody};
use crate::actors::codec::{Codec, Held, Incoming, Reply, RequestPermit};
use crate::actors::send::post;
use crate::engine::waiters::OwnerId;
use crate::protocol::frame::{Attachment, FrameHead};
use crate::protocol::messages::peer::PeerConnection;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{ClusterId, DirectoryId, NodeId};

/// A request of another node.
pub type PeerIncoming = Incoming<PeerRequestBody>;

/// Who asks, as its hello said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerContext {
    /// Its cluster, if it has one.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// What the connection is for.
    pub connection: PeerConnection,
    /// What it runs.
    pub software: String,
    /// Where it connects from.
    pub address: SocketAddr,
    /// This connection among all of this node.
    pub owner: OwnerId,
}

/// A request of another node, to be answered. Goes to whoever serves such requests.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PeerCall {
    /// Who asks.
    pub from: Arc<PeerContext>,
    /// What.
    pub body: PeerRequestBody,
    /// What came with it, shared with the frame, whose room in the budgets `answer` holds.
    pub attachments: Vec<Bytes>,
    /// Where the answer goes.
    pub answer: AnswerTo,
}

/// Owes one answer. Dropped without one, it answers with an error: no other node waits for nothing.
#[derive(Debug)]
pub struct AnswerTo(Option<Owed>);

#[derive(Debug)]
struct Owed {
    codec: Addr<Codec<BetweenNodes>>,
    head: FrameHead,
    permit: RequestPermit,
}

impl AnswerTo {
    pub(super) fn new(codec: Addr<Codec<BetweenNodes>>, head: FrameHead, permit: RequestPermit) -> Self {
        Self(Some(Owed { codec, head, permit }))
    }

    /// Answers, with attachments.
    pub fn send_with(mut self, result: Result<PeerReplyBody, ApiError>, attachments: Vec<Attachment>) {
        self.finish(result, attachments);
    }

    /// Answers.
    pub fn send(self, result: Result<PeerReplyBody, ApiError>) {
        self.send_with(result, Vec::new());
    }

    /// Gives the room of the request's frame back, for a request that waits long after its bytes were dropped.
    pub fn release_bytes(&mut self) {
        if let Some(owed) = &mut self.0 {
            owed.permit.release_bytes();
        }
    }

    fn finish(&mut self, result: Result<PeerReplyBody, ApiError>, attachments: Vec<Attachment>) {
        if let Some(Owed { codec, head, permit }) = self.0.take() {
            post(&codec, Reply { head, result, attachments, held: Held { permit: Some(permit), room: None } });
        }
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        let gone =
            ApiError::new(ErrorCode::ShuttingDown, "whoever serves this request has ended: the node is stopping");
        self.finish(Err(gone), Vec::new());
    }
}

/// Who serves the requests of other nodes on this one. A kind of request that is added gets its recipient here, and its arm in
/// the session's `route`.
#[derive(Clone, Debug, Default)]
pub struct PeerServices {
    /// Raft's: see [`super::RaftDoor`]. `None` on a node that is no controller.
    pub raft: Option<Recipient<PeerCall>>,
    /// `FormController`. `None` on a node that is no controller.
    pub forming: Option<Recipient<PeerCall>>,
    /// The controller's: what brokers ask, and `FindController`. `None` on a node that is no controller.
    pub controller: Option<Recipient<PeerCall>>,
    /// Followers' fetches, by a service for each connection. `None` on a node that is no broker.
    pub replicas: Option<StartService>,
    /// Who is told that the connection of another node is gone.
    pub gone: Option<Recipient<PeerGone>>,
}

/// A service that one connection has for itself, on the thread of its session: from its first request of that kind to its end.
#[derive(Clone, Debug)]
pub struct ConnectionService {
    /// Where its requests go.
    pub calls: Recipient<PeerCall>,
    /// Told that it is gone.
    pub gone: Recipient<PeerGone>,
}

/// Starts a [`ConnectionService`], on the thread that it is called on, for the connection of whoever is named.
#[derive(Clone)]
pub struct StartService(Arc<dyn Fn(Arc<PeerContext>) -> ConnectionService + Send + Sync>);

impl StartService {
    /// Services are started by `start`.
    pub fn new(start: impl Fn(Arc<PeerContext>) -> ConnectionService + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }

    /// Starts one, on the current thread.
    #[must_use]
    pub fn start(&self, from: Arc<PeerContext>) -> ConnectionService {
        (self.0)(from)
    }
}

impl std::fmt::Debug for StartService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StartService")
    }
}

/// A connection of another node, which had said hello, is gone. Its process may be, too.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct PeerGone {
    /// Who was at its other end.
    pub from: Arc<PeerContext>,
}
