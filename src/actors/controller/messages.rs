//! What the controller is asked, and what it tells brokers.

use std::sync::Arc;

use actix::{Message, Recipient};
use openraft::error::{ClientWriteError, RaftError};

use crate::engine::controller::{InSyncAccepted, InSyncProposal};
use crate::engine::metadata::{BrokerRegistration, ClusterImage};
use crate::protocol::ApiError;
use crate::protocol::messages::{AlterTopic, CreatedTopic, InitProducerReply, NewTopic};
use crate::raft::{ControllerNode, Decided, RaftId};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition,
};

/// An answer that is true once the metadata has been applied up to `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// The index of the image that the answer stands on.
    pub index: u64,
    /// The answer.
    pub answer: T,
}

/// Create topics, each on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Committed<Vec<Result<CreatedTopic, ApiError>>>")]
pub struct CreateTopics {
    /// The topics wanted.
    pub topics: Vec<NewTopic>,
    /// Check only.
    pub validate_only: bool,
}

/// Delete topics by name, each on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Committed<Vec<Result<TopicId, ApiError>>>")]
pub struct DeleteTopics(pub Vec<String>);

/// Change the settings of topics, each on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Committed<Vec<Result<TopicId, ApiError>>>")]
pub struct AlterTopics(pub Vec<AlterTopic>);

/// Hand out a producer id, or the next epoch of one.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<InitProducerReply, ApiError>")]
pub struct InitProducer(pub Option<(ProducerId, ProducerEpoch)>);

/// A broker came up. Its epoch in the message is the one that its directory remembers.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<BrokerEpoch>, ApiError>")]
pub struct RegisterBroker(pub BrokerRegistration);

/// A broker has written down its epoch, and may be counted on.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Committed<()>, ApiError>")]
pub struct UnfenceBroker {
    /// The broker.
    pub node: NodeId,
    /// The epoch that it was given.
    pub epoch: BrokerEpoch,
}

/// A broker holds replicas of a topic on disk.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct TopicOpened {
    /// The topic.
    pub topic: TopicId,
    /// The broker.
    pub node: NodeId,
    /// The replicas meant.
    pub partitions: Vec<PartitionIndex>,
}

/// Leaders here propose other in-sync sets, or other leaders. Each is decided on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<Result<InSyncAccepted, ApiError>>")]
pub struct AlterInSync(pub Vec<InSyncProposal>);

/// A replica is damaged, or has failed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ReportDamaged {
    /// The partition.
    pub partition: TopicPartition,
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// The epoch of the partition's leader, as far as the replica knows.
    pub leader_epoch: LeaderEpoch,
}

/// A broker holds no files of this deleted topic any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TopicFilesGone {
    /// The topic.
    pub topic: TopicId,
    /// The broker.
    pub node: NodeId,
}

/// Tell this broker of all metadata, from the image as it is now on.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Subscribe(pub Recipient<MetadataCommitted>);

/// The metadata changed, perhaps more than once since the message before. The first one after [`Subscribe`] is where to start.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct MetadataCommitted {
    /// The image as it is now.
    pub image: Arc<ClusterImage>,
}

/// Decide nothing more, and end. Answers when what was being decided is on disk, with the error if that failed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), String>")]
pub struct CloseController;

/// Raft has another state, or has applied something.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RaftMoved;

/// Whether a majority confirmed that this controller leads in `term`, and all that was decided before is applied.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Confirmed {
    pub term: u64,
    pub confirmed: bool,
}

/// What became of a round's entry.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Written(pub Result<Decided, RaftError<RaftId, ClientWriteError<RaftId, ControllerNode>>>);
