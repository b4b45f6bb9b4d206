//! Who a node is to others, and whom it looks for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::config::ControllerAddress;
use crate::protocol::messages::peer::{PeerConnection, PeerHello, PeerHelloReply};
use crate::protocol::peer_api::PEER_PROTOCOL_VERSION;
use crate::types::{ClusterId, DirectoryId, NodeId};

/// What a node calls its software.
pub const SOFTWARE: &str = concat!("callboard ", env!("CARGO_PKG_VERSION"));

/// The cluster of this node: unknown at first perhaps, and then the same for good. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OwnCluster(Arc<OnceLock<ClusterId>>);

impl OwnCluster {
    /// The cluster, once it is known.
    #[must_use]
    pub fn get(&self) -> Option<ClusterId> {
        self.0.get().copied()
    }

    /// Takes note of the cluster. Returns the one that is on record: another one, if it was known before.
    pub fn learn(&self, cluster: ClusterId) -> ClusterId {
        *self.0.get_or_init(|| cluster)
    }
}

impl From<ClusterId> for OwnCluster {
    fn from(cluster: ClusterId) -> Self {
        Self(Arc::new(OnceLock::from(cluster)))
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Myself {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Its cluster.
    pub cluster: OwnCluster,
}

/// Where a node listens for others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// A name or an address.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        // An IPv6 address and its port need a border between them.
        if host.contains(':') && !host.starts_with('[') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Another node: who is expected, as far as that is known, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTarget {
    /// The node; `None` takes whichever answers.
    pub node: Option<NodeId>,
    /// Its data directory; `None` takes any.
    pub directory: Option<DirectoryId>,
    /// Where it listens.
    pub address: PeerAddress,
}

impl From<&ControllerAddress> for PeerTarget {
    /// A controller as it is listed: with whichever directory it has.
    fn from(listed: &ControllerAddress) -> Self {
        let address = PeerAddress { host: listed.host.clone(), port: listed.port };
        Self { node: Some(listed.node), directory: None, address }
    }
}

impl fmt::Display for PeerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "node {node} at {}", self.address),
            None => write!(f, "the node at {}", self.address),
        }
    }
}

impl PeerTarget {
    /// What this node says when it opens a connection of this kind to the target.
    #[must_use]
    pub fn hello(&self, myself: &Myself, connection: PeerConnection) -> PeerHello {
        PeerHello {
            protocol_min: PEER_PROTOCOL_VERSION,
            protocol_max: PEER_PROTOCOL_VERSION,
            cluster: myself.cluster.get(),
            node: myself.node,
            directory: myself.directory,
            connection,
            expected_node: self.node,
            expected_directory: self.directory,
            software: SOFTWARE.to_owned(),
        }
    }

    /// Whether whoever answered is the one that was looked for. The other end has looked, too; this end takes nobody's word.
    ///
    /// # Errors
    /// What was found, and what to do.
    pub fn check(&self, myself: &Myself, reply: &PeerHelloReply) -> Result<(), String> {
        if reply.protocol != PEER_PROTOCOL_VERSION {
            return Err(format!(
                "it chose version {} of the protocol between nodes, this node speaks {PEER_PROTOCOL_VERSION}: upgrade the \
                 older of the two",
                reply.protocol
            ));
        }
        let here = Identity { cluster: reply.cluster, node: reply.node, directory: reply.directory };
        let there = Identity { cluster: myself.cluster.get(), node: myself.node, directory: myself.directory };
        let expected = Expected { node: self.node, directory: self.directory };
        here.suits(&expected, &there, ["it", "this node"])
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its cluster, if it has one.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
}

/// What one end looks for at the other.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The node.
    pub node: Option<NodeId>,
    /// Its data directory.
    pub directory: Option<DirectoryId>,
}

impl Identity {
    /// Whether this end of a connection is what `other`, which opened it, looks for. `names` is what to call this end and the
    /// other one.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn suits(&self, expected: &Expected, other: &Self, names: [&str; 2]) -> Result<(), String> {
        let [here, there] = names;
        if let (Some(own), Some(others)) = (self.cluster, other.cluster)
            && own != others
        {
            return Err(format!(
                "{here} is of cluster {own}, {there} of cluster {others}: correct the address that leads from one to the other"
            ));
        }
        if let Some(node) = expected.node.filter(|node| *node != self.node) {
            return Err(format!(
                "{here} is node {}, node {node} was expected: correct the address of node {node}",
                self.node
            ));
        }
        if let Some(directory) = expected.directory.filter(|directory| *directory != self.directory) {
            return Err(format!(
                "{here} is node {} with data directory {}, {directory} was expected: the directory was replaced or another \
                 one restored; a controller comes back from that under a new id only",
                self.node, self.directory
            ));
        }
        if self.node == other.node && self.directory != other.directory {
            return Err(format!(
                "{here} and {there} are both node {} and have different data directories: give one of them another node.id",
                self.node
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: Option<u128>, node: u32, directory: u128) -> Identity {
        let cluster = cluster.map(|cluster| ClusterId(uuid::Uuid::from_u128(cluster)));
        Identity { cluster, node: NodeId(node), directory: DirectoryId(uuid::Uuid::from_u128(directory)) }
    }

    #[test]
    fn an_end_suits_whoever_looks_for_its_cluster_node_and_directory_or_for_anyone() {
        let here = identity(Some(1), 2, 20);
        let anyone = Expected { node: None, directory: None };
        let this_one = Expected { node: Some(NodeId(2)), directory: Some(here.directory) };
        for expected in [anyone, this_one] {
            for other in [identity(Some(1), 3, 30), identity(None, 3, 30), here] {
                assert_eq!(here.suits(&expected, &other, ["a", "b"]), Ok(()));
            }
        }
        let refusal = |expected, other| here.suits(&expected, &other, ["this node", "the other"]).expect_err("refused");
        let of_another_cluster = refusal(anyone, identity(Some(7), 3, 30));
        assert!(of_another_cluster.contains("0001, the other of cluster"), "{of_another_cluster}");
        let other = identity(Some(1), 3, 30);
        let node_5 = Expected { node: Some(NodeId(5)), directory: None };
        assert!(refusal(node_5, other).starts_with("this node is node 2, node 5 was expected"));
        let directory_9 = Expected { node: Some(NodeId(2)), directory: Some(identity(None, 0, 9).directory) };
        assert!(refusal(directory_9, other).contains("was replaced"));
        assert!(refusal(anyone, identity(Some(1), 2, 21)).contains("another node.id"), "two nodes with one id");
    }

    #[test]
    fn an_address_is_written_as_it_is_dialled() {
        let address = |host: &str| PeerAddress { host: host.to_owned(), port: 9_645 }.to_string();
        assert_eq!([address("db-1"), address("::1"), address("[::1]")], ["db-1:9645", "[::1]:9645", "[::1]:9645"]);
    }

    #[test]
    fn a_cluster_is_learnt_once() {
        let cluster = OwnCluster::default();
        assert_eq!(cluster.get(), None);
        let [first, second] = [1, 2].map(|n| ClusterId(uuid::Uuid::from_u128(n)));
        assert_eq!((cluster.learn(first), cluster.learn(second), cluster.clone().get()), (first, first, Some(first)));
    }
}
