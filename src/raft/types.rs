//! What Raft's pieces are for Callboard: who takes part, what an entry holds, what comes of it.

use std::fmt;
use std::io::Cursor;

use crate::engine::metadata::{ApplyError, MetadataRecord};
use crate::types::{DirectoryId, NodeId};

/// A member of the Raft group: one data directory of one controller. A directory that was wiped or damaged never comes back
/// under the same number, because it has forgotten its votes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RaftId {
    /// The member that a node becomes which joins a cluster that has begun: another one for each data directory, and none of those that
    /// the cluster began with, which are numbered as their nodes are.
    #[must_use]
    pub fn of(directory: DirectoryId) -> Self {
        let (random, _) = directory.0.as_u64_pair();
        Self(random | 1 << 63)
    }

    /// The member that a node is which the cluster began with.
    #[must_use]
    pub fn first_of(node: NodeId) -> Self {
        Self(u64::from(node.0))
    }
}

impl From<u64> for RaftId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Who stands behind a [`RaftId`], and where it can be reached. Node and directory together are its identity: whoever answers
/// at the address with another directory is somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerNode {
    /// The node, by its configuration.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The host that other controllers connect to.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl Default for ControllerNode {
    /// Nobody, nowhere: openraft needs one for members that it is told of by number only.
    fn default() -> Self {
        Self { node: NodeId(0), directory: DirectoryId(uuid::Uuid::nil()), host: String::new(), port: 0 }
    }
}

/// One change of the metadata, all or nothing: one entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Applied in this order.
    pub records: Vec<MetadataRecord>,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The image's index afterwards: one more than the entry's.
    pub index: u64,
    /// Why the decision did not fit the image that it met. It changed nothing then.
    pub outcome: Result<(), ApplyError>,
}

/// The types that all our Raft configurations share. They differ in their runtime only: tokio's, or a seeded one in a test.
pub trait MetadataRaft:
    openraft::RaftTypeConfig<
        D = Decision,
        R = Decided,
        NodeId = RaftId,
        Node = ControllerNode,
        Entry = openraft::Entry<Self>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = openraft::impls::OneshotResponder<Self>,
    >
{
}

impl<C> MetadataRaft for C where
    C: openraft::RaftTypeConfig<
            D = Decision,
            R = Decided,
            NodeId = RaftId,
            Node = ControllerNode,
            Entry = openraft::Entry<C>,
            SnapshotData = Cursor<Vec<u8>>,
            Responder = openraft::impls::OneshotResponder<C>,
        >
{
}

openraft::declare_raft_types!(
    /// Raft as a controller runs it.
    pub TypeConfig:
        D = Decision,
        R = Decided,
        NodeId = RaftId,
        Node = ControllerNode,
);

/// The position of an entry, and the leader that wrote it.
pub type LogId = openraft::LogId<RaftId>;
/// Whom this member voted for, or follows.
pub type Vote = openraft::Vote<RaftId>;
/// The members at some entry.
pub type StoredMembership = openraft::StoredMembership<RaftId, ControllerNode>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<RaftId, ControllerNode>;
/// Why openraft has stopped for good.
pub type Fatal = openraft::error::Fatal<RaftId>;
/// What openraft is told of a failed disk: it stops for good.
pub type StorageError = openraft::StorageError<RaftId>;
