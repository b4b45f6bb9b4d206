//! More partitions, partitions elsewhere, and other leaders.

use serde::{Deserialize, Serialize};

use super::{Outcome, Request};
use crate::protocol::Api;
use crate::types::{NodeId, PartitionIndex, TopicId};

/// Gives topics more partitions, each on its own. Keys go to other partitions from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPartitions {
    /// What is wanted of each topic.
    pub topics: Vec<PartitionAddition>,
}

/// How many partitions a topic is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionAddition {
    /// Its name.
    pub name: String,
    /// How many in all: more than it has.
    pub total: u32,
}

/// The answer to [`AddPartitions`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPartitionsReply {
    /// The id of each topic.
    pub topics: Vec<Outcome<TopicId>>,
}

impl Request for AddPartitions {
    const API: Api = Api::AddPartitions;
    type Reply = AddPartitionsReply;
}

/// Moves partitions to other replicas, each on its own. It is begun when this is answered; it is done when the replicas that go are
/// not listed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReassignPartitions {
    /// What is wanted of each partition.
    pub partitions: Vec<PartitionMove>,
}

/// Where a partition is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMove {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The replicas that it is to have, the preferred leader first; nil to end a move that is under way and go back.
    pub replicas: Option<Vec<NodeId>>,
}

/// The answer to [`ReassignPartitions`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReassignPartitionsReply {
    /// The replicas that each has now: the ones before, and those that are to come.
    pub partitions: Vec<Outcome<Vec<NodeId>>>,
}

impl Request for ReassignPartitions {
    const API: Api = Api::ReassignPartitions;
    type Reply = ReassignPartitionsReply;
}

/// Gives the leadership of partitions back to their preferred replicas, each on its own: at once, where the controller would wait until
/// the broker has been back for a while. It is asked for when this is answered; it is done when the metadata names that leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectLeaders {
    /// The partitions.
    pub partitions: Vec<PartitionElection>,
}

/// A partition whose preferred replica is to lead: the first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionElection {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

/// The answer to [`ElectLeaders`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectLeadersReply {
    /// Who is to lead each, or does already.
    pub partitions: Vec<Outcome<NodeId>>,
}

impl Request for ElectLeaders {
    const API: Api = Api::ElectLeaders;
    type Reply = ElectLeadersReply;
}
