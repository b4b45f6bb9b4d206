//! What a link to another node is told, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::error::Failure;
use super::identity::PeerAddress;
use super::outstanding::Answered;
use crate::net::budget::BytePermit;
use crate::net::{ReceivedFrame, WriterHandle};
use crate::protocol::frame::OutFrame;
use crate::protocol::messages::peer::{PeerConnection, PeerHelloReply};
use crate::types::{ClusterId, DirectoryId, NodeId};

/// The room of a request among those under way on its link.
#[derive(Debug)]
pub(super) struct Room {
    pub _in_flight: OwnedSemaphorePermit,
    pub _bytes: BytePermit,
}

/// Send this, and say what came back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ask {
    /// Under correlation id 0.
    pub frame: OutFrame,
    pub deadline: Instant,
    pub patience: Duration,
    pub answer: oneshot::Sender<Answered>,
    pub room: Room,
}

/// Dial the other node, beside its link, and say whether its machine has a process there.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Reach")]
pub(super) struct DialBack {
    pub patience: Duration,
}

/// What dialling back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The operating system there refused the connection: the machine is up, and no process listens. A broker whose link broke and
    /// that is refused is gone.
    Refused,
    /// Somebody accepted the connection.
    Accepted,
    /// Neither came in time, or the network failed. It may be alive and cut off.
    Unknown {
        /// What the network says.
        reason: String,
    },
}

/// Tell this one of every change from here on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Subscribe(pub Recipient<PeerEvent>);

/// The other node is to be found here from now on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct MoveTo(pub PeerAddress);

/// End: nobody needs the link any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Close;

/// A connection came up or was lost. Goes to those who subscribed.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct PeerEvent {
    /// The node that is looked for, where it is known.
    pub node: Option<NodeId>,
    /// Its directory, where it is known.
    pub directory: Option<DirectoryId>,
    /// Which of the two connections.
    pub connection: PeerConnection,
    /// What happened.
    pub change: PeerChange,
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// It is there, and the one who was looked for is at its other end.
    Connected {
        /// The node there.
        node: NodeId,
        /// Its directory.
        directory: DirectoryId,
        /// Its cluster, if it has one: what a node that has none may learn.
        cluster: Option<ClusterId>,
        /// What it runs.
        software: String,
    },
    /// It was there and is lost.
    Lost {
        /// Why.
        reason: Arc<str>,
    },
}

/// The connection with this number is open.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Connected {
    pub number: u64,
    pub writer: WriterHandle,
    pub hello: PeerHelloReply,
}

/// A frame came on the connection with this number.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct FrameArrived {
    pub number: u64,
    pub received: ReceivedFrame,
}

/// The connection with this number has ended, or could not be opened.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub number: u64,
    pub failure: Failure,
}
