//! What the broker is told, and the view of it that sessions share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use actix::{Addr, Message};

use crate::actors::controller::MetadataNews;
use crate::actors::partition_leader::PartitionLeader;
use crate::engine::broker::Answer;
use crate::engine::metadata::ClusterImage;
use crate::protocol::ApiError;
use crate::protocol::messages::ReplicasDescription;
use crate::replica::OpenedReplica;
use crate::storage::LogError;
use crate::storage::data_dir::DataDirError;
use crate::types::{LeaderEpoch, Offset, TopicId, TopicPartition};

/// What sessions need to know to route a request: the image, and the replicas that live on this node. Replaced as a whole
/// whenever the metadata changes, and shared by all sessions.
#[derive(Clone)]
pub struct BrokerView {
    /// The metadata that has been applied here.
    pub image: Arc<ClusterImage>,
    /// How many partitions the image has.
    pub partitions: usize,
    /// The replicas of this node, by topic, in the order of the partitions.
    pub replicas: HashMap<TopicId, Arc<[Replica]>>,
}

/// One replica on this node.
#[derive(Clone)]
pub enum Replica {
    /// It leads.
    Leader(Addr<PartitionLeader>),
    /// It follows, and serves readers what is committed as far as it knows.
    Follower(Addr<PartitionLeader>),
    /// The metadata has no part for it any more. Its files are still here.
    Retired(Addr<PartitionLeader>),
    /// It could not be opened: what to tell whoever asks.
    Offline(ApiError),
    /// This node has no replica of that partition.
    Elsewhere,
}

impl Replica {
    /// Its actor, whatever its part.
    #[must_use]
    pub fn address(&self) -> Option<&Addr<PartitionLeader>> {
        match self {
            Self::Leader(address) | Self::Follower(address) | Self::Retired(address) => Some(address),
            Self::Offline(_) | Self::Elsewhere => None,
        }
    }
}

impl BrokerView {
    /// The replica of `partition` on this node.
    #[must_use]
    pub fn replica(&self, partition: TopicPartition) -> Option<&Replica> {
        self.replicas.get(&partition.topic)?.get(partition.partition.0 as usize)
    }
}

/// Answered once the metadata has been applied up to `index` and the replicas that it calls for are open.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitMetadata {
    /// See [`crate::actors::controller::Committed::index`].
    pub index: u64,
}

/// Stop: hand over what is led here, say so, close every replica, and leave the marker of a clean stop. Answers when all of that is done,
/// or has taken too long, with what went wrong, if anything did.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<String>")]
pub struct StopBroker;

/// Say what is wrong with the replicas, and whether appends are refused for want of space.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "BrokerHealth")]
pub struct ExamineReplicas;

/// The answer to [`ExamineReplicas`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerHealth {
    /// The replicas with which something is wrong.
    pub replicas: ReplicasDescription,
    /// Why appends are refused, if they are.
    pub refusing_appends: Option<ApiError>,
}

/// A controller has answered what the engine asked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ControllerAnswered(pub Answer);

/// There is news of the metadata, or none could be had.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct MetadataArrived(pub Result<MetadataNews, ApiError>);

/// A disk thread has written down the registration, or could not.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct EpochStored(pub Result<(), DataDirError>);

/// Last members have said how far their logs reach.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct EndsRead(pub Vec<(TopicPartition, LeaderEpoch, Offset)>);

/// All replicas know that the lease is over.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct LeaseGivenUp;

/// All logs are at rest. What went wrong with each.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ReplicasClosed(pub Vec<String>);

/// A disk thread has left the marker of a clean stop, or could not.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct CleanStopMarked(pub Result<(), DataDirError>);

/// A disk thread has opened a replica's log, or could not.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ReplicaOpened {
    pub partition: TopicPartition,
    pub result: Result<OpenedReplica, LogError>,
}

/// A disk thread has deleted a replica's files, or could not.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ReplicaDeleted {
    pub partition: TopicPartition,
    pub result: std::io::Result<()>,
}

/// A disk thread has looked at the free space.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct DiskSpaceSeen(pub std::io::Result<u64>);

/// A disk thread has listed the data directory.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct DirectoryListed(pub std::io::Result<Vec<(TopicPartition, PathBuf)>>);
