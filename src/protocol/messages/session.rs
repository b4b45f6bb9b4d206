//! Opening a connection, and finding out who leads what.

use serde::{Deserialize, Serialize};

use super::{Outcome, Request};
use crate::protocol::Api;
use crate::protocol::api::ApiVersions;
use crate::types::{ClusterId, LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName};

/// The first request of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that the client speaks.
    pub protocol_min: u16,
    /// The newest protocol version that the client speaks.
    pub protocol_max: u16,
    /// What the client calls itself, at most 255 bytes. Appears in logs and metrics.
    pub client_id: String,
    /// Name and version of the client's software.
    pub software: String,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The protocol version for this connection.
    pub protocol: u16,
    /// The cluster that was reached.
    pub cluster_id: ClusterId,
    /// The node that was reached.
    pub node_id: NodeId,
    /// The node's software version.
    pub software: String,
    /// The largest frame that the node takes from now on, in bytes.
    pub max_frame_bytes: u32,
    /// The requests and versions served.
    pub apis: Vec<ApiVersions>,
}

impl Request for Hello {
    const API: Api = Api::Hello;
    type Reply = HelloReply;
}

/// Asks for brokers, topics and leaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The topics to describe; nil for all.
    pub topics: Option<Vec<String>>,
}

/// The answer to [`Metadata`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataReply {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The active controller, if one is known.
    pub controller: Option<NodeId>,
    /// The live brokers.
    pub brokers: Vec<BrokerAddress>,
    /// One entry for each topic asked for, in the order of the request; all by name when all were asked for.
    pub topics: Vec<TopicEntry>,
}

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerAddress {
    /// The broker.
    pub node_id: NodeId,
    /// The advertised host name or address.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

/// One topic of a [`MetadataReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEntry {
    /// The name asked for.
    pub name: String,
    /// The topic, or why it cannot be described.
    pub topic: Outcome<TopicMetadata>,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMetadata {
    /// The topic's identity, which requests for its data carry.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionMetadata>,
}

/// A partition and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMetadata {
    /// Its number.
    pub partition: PartitionIndex,
    /// Who leads it; nil while nobody does.
    pub leader: Option<NodeId>,
    /// The epoch of that leader.
    pub leader_epoch: LeaderEpoch,
    /// Who holds a replica, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Which replicas are in sync.
    pub in_sync: Vec<NodeId>,
}

impl Request for Metadata {
    const API: Api = Api::Metadata;
    type Reply = MetadataReply;
}
