//! Opening a connection between nodes, and seeing whether the other end is still there.

use serde::{Deserialize, Serialize};

use super::PeerRequest;
use crate::protocol::peer_api::PeerApi;
use crate::types::{ClusterId, DirectoryId, NodeId};

/// What a connection between two nodes is for. On the wire 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum PeerConnection {
    /// Raft, leases, metadata: small, urgent, served where no client load reaches.
    Control,
    /// Replica fetches, which may wait long and be large.
    Data,
}

impl From<PeerConnection> for u8 {
    fn from(connection: PeerConnection) -> Self {
        match connection {
            PeerConnection::Control => 0,
            PeerConnection::Data => 1,
        }
    }
}

impl TryFrom<u8> for PeerConnection {
    type Error = String;
    fn try_from(value: u8) -> Result<Self, String> {
        match value {
            0 => Ok(Self::Control),
            1 => Ok(Self::Data),
            other => Err(format!("a connection between nodes is 0 (control) or 1 (data), not {other}")),
        }
    }
}

impl std::fmt::Display for PeerConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Data => "data",
        })
    }
}

/// The first request of a connection between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The oldest version of this protocol that the node speaks.
    pub protocol_min: u16,
    /// The newest version of this protocol that the node speaks.
    pub protocol_max: u16,
    /// Its cluster; nil while it has none.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// What the connection is for.
    pub connection: PeerConnection,
    /// The node that it looks for; nil for whichever is there.
    pub expected_node: Option<NodeId>,
    /// The data directory that it looks for; nil for whichever is there.
    pub expected_directory: Option<DirectoryId>,
    /// Name and version of its software.
    pub software: String,
}

/// The answer to [`PeerHello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHelloReply {
    /// The protocol version for this connection.
    pub protocol: u16,
    /// The cluster that was reached; nil while the node has none.
    pub cluster: Option<ClusterId>,
    /// The node that was reached.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Name and version of its software.
    pub software: String,
    /// The largest frame that it takes from now on, in bytes after the length field.
    pub max_frame_bytes: u32,
}

impl PeerRequest for PeerHello {
    const API: PeerApi = PeerApi::PeerHello;
    type Reply = PeerHelloReply;
}

/// Asks whether anybody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// Somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

impl PeerRequest for Ping {
    const API: PeerApi = PeerApi::Ping;
    type Reply = Pong;
}
