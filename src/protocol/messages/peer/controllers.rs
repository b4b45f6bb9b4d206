//! Finding the controller that decides, forming the controllers of a new cluster, and what nodes pass on for their clients.

use serde::{Deserialize, Serialize};

use super::PeerRequest;
use crate::protocol::messages::{
    AlterTopic, ChangeControllers, ChangeControllersReply, ControllerDescription, CreatedTopic, InitProducerReply,
    NewTopic, Outcome, PartitionAddition, PartitionElection, PartitionMove,
};
use crate::protocol::peer_api::PeerApi;
use crate::types::{ClusterId, DirectoryId, NodeId, ProducerEpoch, ProducerId, TopicId};

/// Asks whether this controller decides, and who it believes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindController {}

/// The answer to [`FindController`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindControllerReply {
    /// Its cluster; nil while it has none.
    pub cluster: Option<ClusterId>,
    /// Whether it is in office.
    pub decides: bool,
    /// The term that it is in.
    pub term: u64,
    /// The node that leads in that term, as far as it knows.
    pub leader: Option<NodeId>,
    /// The controllers, as far as it knows.
    pub controllers: Vec<KnownController>,
}

/// A controller, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownController {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Where it is reached.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl PeerRequest for FindController {
    const API: PeerApi = PeerApi::FindController;
    type Reply = FindControllerReply;
}

/// Asks a node that was never part of a cluster to become one of its controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormController {
    /// The cluster that is being formed.
    pub cluster: ClusterId,
    /// All its controllers, as they are configured at the one that forms it.
    pub controllers: Vec<FormedController>,
}

/// A controller of a cluster that is being formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormedController {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub host: String,
    /// The port there.
    pub port: u16,
}

/// The answer to [`FormController`]: it has a storage for that cluster, on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormControllerReply {
    /// Its data directory.
    pub directory: DirectoryId,
}

impl PeerRequest for FormController {
    const API: PeerApi = PeerApi::FormController;
    type Reply = FormControllerReply;
}

/// Asks a node with an empty data directory to become a controller of a cluster that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinController {
    /// The cluster.
    pub cluster: ClusterId,
}

/// The answer to [`JoinController`]: it has a storage for that cluster, on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinControllerReply {
    /// Its data directory.
    pub directory: DirectoryId,
    /// As which member of the Raft group it wrote its storage.
    pub member: u64,
}

impl PeerRequest for JoinController {
    const API: PeerApi = PeerApi::JoinController;
    type Reply = JoinControllerReply;
}

/// Asks the active controller how the controllers are, and which leases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeControllers {}

/// The answer to [`DescribeControllers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeControllersReply {
    /// All of them.
    pub controllers: Vec<ControllerDescription>,
    /// The brokers that are counted on, and for how many milliseconds without another sign of life.
    pub leases: Vec<(NodeId, u64)>,
}

impl PeerRequest for DescribeControllers {
    const API: PeerApi = PeerApi::DescribeControllers;
    type Reply = DescribeControllersReply;
}

/// Adds, removes or resets a controller, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardChangeControllers {
    /// What is to be done.
    pub change: ChangeControllers,
}

impl PeerRequest for ForwardChangeControllers {
    const API: PeerApi = PeerApi::ForwardChangeControllers;
    type Reply = ChangeControllersReply;
}

/// An answer that is true once the metadata has been applied up to `index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided<T> {
    /// The index of the metadata.
    pub index: u64,
    /// The answer.
    pub answer: T,
}

/// Creates topics, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardCreateTopics {
    /// The topics wanted.
    pub topics: Vec<NewTopic>,
    /// Check only.
    pub validate_only: bool,
}

impl PeerRequest for ForwardCreateTopics {
    const API: PeerApi = PeerApi::ForwardCreateTopics;
    type Reply = Decided<Vec<Outcome<CreatedTopic>>>;
}

/// Deletes topics, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardDeleteTopics {
    /// Their names.
    pub names: Vec<String>,
}

impl PeerRequest for ForwardDeleteTopics {
    const API: PeerApi = PeerApi::ForwardDeleteTopics;
    type Reply = Decided<Vec<Outcome<TopicId>>>;
}

/// Changes topics, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAlterTopics {
    /// The changes.
    pub topics: Vec<AlterTopic>,
}

impl PeerRequest for ForwardAlterTopics {
    const API: PeerApi = PeerApi::ForwardAlterTopics;
    type Reply = Decided<Vec<Outcome<TopicId>>>;
}

/// Gives topics more partitions, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAddPartitions {
    /// The additions.
    pub topics: Vec<PartitionAddition>,
}

impl PeerRequest for ForwardAddPartitions {
    const API: PeerApi = PeerApi::ForwardAddPartitions;
    type Reply = Decided<Vec<Outcome<TopicId>>>;
}

/// Moves partitions to other replicas, or ends such a move, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardReassign {
    /// The moves.
    pub partitions: Vec<PartitionMove>,
}

impl PeerRequest for ForwardReassign {
    const API: PeerApi = PeerApi::ForwardReassign;
    type Reply = Decided<Vec<Outcome<Vec<NodeId>>>>;
}

/// Gives leaderships back to the preferred replicas, each on its own, for a client of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardElectLeaders {
    /// The partitions.
    pub partitions: Vec<PartitionElection>,
}

impl PeerRequest for ForwardElectLeaders {
    const API: PeerApi = PeerApi::ForwardElectLeaders;
    type Reply = Decided<Vec<Outcome<NodeId>>>;
}

/// Hands out a producer id, or the next epoch of one, for a client of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardInitProducer {
    /// The id and epoch that the producer has; nil for a new one.
    pub current: Option<(ProducerId, ProducerEpoch)>,
}

impl PeerRequest for ForwardInitProducer {
    const API: PeerApi = PeerApi::ForwardInitProducer;
    type Reply = InitProducerReply;
}
