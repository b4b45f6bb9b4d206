//! Who makes up the cluster, and what is amiss in it.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::protocol::Api;
use crate::types::{BrokerEpoch, ClusterId, DirectoryId, NodeId, PartitionIndex, TopicId, TopicName};

/// Asks who makes up the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeCluster {}

/// The answer to [`DescribeCluster`]: what the node that was asked knows, which may be a little behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeClusterReply {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The active controller, if one is known.
    pub controller: Option<NodeId>,
    /// Every controller, as the active one sees them; none when it could not be asked.
    pub controllers: Vec<ControllerDescription>,
    /// Every broker that ever registered and was not removed.
    pub brokers: Vec<BrokerDescription>,
    /// How many topics there are.
    pub topics: u32,
    /// How many partitions they have in all.
    pub partitions: u32,
    /// The partitions that are not as they should be.
    pub trouble: ClusterTrouble,
}

/// A broker as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerDescription {
    /// The broker.
    pub node_id: NodeId,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// Whether it is fenced: registered, but not counted on.
    pub fenced: bool,
    /// How many partitions it leads.
    pub leads: u32,
    /// How many replicas it holds.
    pub replicas: u32,
    /// Its software version.
    pub software: String,
    /// The epoch of its registration: another one after each start.
    pub registration_epoch: BrokerEpoch,
    /// Whether it is about to stop: it hands over what it leads.
    pub stopping: bool,
    /// For how many milliseconds it is counted on without another sign of life; nil when it is fenced, or the active controller could
    /// not be asked.
    pub lease_ms: Option<u64>,
}

/// A controller as the active one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerDescription {
    /// The node.
    pub node_id: NodeId,
    /// Its data directory: a controller is a node with its directory, since its votes are in there.
    pub directory: DirectoryId,
    /// Where other nodes reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What it is to the others.
    pub role: ControllerRole,
    /// How many entries of the metadata log it lacks.
    pub behind: u64,
    /// Why it could not be reached; nil when it could.
    pub trouble: Option<String>,
}

/// What a controller is to the others. A string on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerRole {
    /// It leads: the active controller.
    Leader,
    /// It votes.
    Voter,
    /// It follows the metadata log and has no vote: it is being added, or that was broken off.
    Learner,
}

impl ControllerRole {
    /// Its name on the wire and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// Adds, removes or resets a controller. One change at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeControllers {
    /// What is to be done.
    pub action: ControllerAction,
    /// To which controller.
    pub node_id: NodeId,
    /// Where other nodes reach it: needed to add one; when one is reset, nil stands for where it was.
    pub host: Option<String>,
    /// The port there: given with the host.
    pub port: Option<u16>,
}

/// What is to be done to a controller. A string on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerAction {
    /// A node becomes a controller, or is reached at another address from now on.
    Add,
    /// It is one no longer.
    Remove,
    /// Its data directory was lost: it comes back with another one, as another member.
    Reset,
}

/// The answer to [`ChangeControllers`], when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeControllersReply {
    /// The controllers from then on.
    pub controllers: Vec<ControllerDescription>,
}

impl Request for ChangeControllers {
    const API: Api = Api::ChangeControllers;
    type Reply = ChangeControllersReply;
}

/// Partitions that are not as they should be. One counts wherever it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTrouble {
    /// How many there are in all.
    pub count: u32,
    /// How many have no leader: they take and give no records.
    pub without_leader: u32,
    /// How many have fewer replicas in sync than `min_insync_replicas`: what is written there is not acknowledged.
    pub below_minimum: u32,
    /// How many have a replica that is not in sync.
    pub under_replicated: u32,
    /// The first of them, at most 100: those without a leader, then those below the minimum, then the others; by name.
    pub partitions: Vec<TroubledPartition>,
}

/// A partition that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubledPartition {
    /// Its topic.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: TopicName,
    /// Its number.
    pub partition: PartitionIndex,
    /// Who leads it; nil while nobody does.
    pub leader: Option<NodeId>,
    /// Who holds a replica, or is to hold one.
    pub replicas: Vec<NodeId>,
    /// Which replicas are in sync.
    pub in_sync: Vec<NodeId>,
    /// How many have to be.
    pub min_in_sync: u32,
    /// The replicas that are not in sync, and why.
    pub missing: Vec<MissingReplica>,
}

/// A replica that is not in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingReplica {
    /// Whose.
    pub node_id: NodeId,
    /// Why.
    pub reason: MissingReason,
}

/// Why a replica is not in sync. A string on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingReason {
    /// No broker of that id has registered.
    NotRegistered,
    /// Its broker is fenced: it has stopped, or is not heard of.
    Fenced,
    /// Its broker is about to stop.
    Stopping,
    /// Its broker is there: it fetches what it lacks, or is damaged and repairs itself.
    CatchingUp,
}

impl MissingReason {
    /// Its name on the wire and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotRegistered => "not-registered",
            Self::Fenced => "fenced",
            Self::Stopping => "stopping",
            Self::CatchingUp => "catching-up",
        }
    }
}

impl Request for DescribeCluster {
    const API: Api = Api::DescribeCluster;
    type Reply = DescribeClusterReply;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_travels_as_its_name() {
        let all =
            [MissingReason::NotRegistered, MissingReason::Fenced, MissingReason::Stopping, MissingReason::CatchingUp];
        for reason in all {
            let encoded = rmp_serde::to_vec(&reason).expect("encodes");
            assert_eq!(encoded, rmp_serde::to_vec(reason.name()).expect("encodes"));
            assert_eq!(rmp_serde::from_slice::<MissingReason>(&encoded).expect("decodes"), reason);
        }
    }
}
