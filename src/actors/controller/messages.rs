//! What the controller is asked, and what it tells brokers.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};

use crate::actors::peer::Reach;
use crate::engine::broker::{Answer, Request};
use crate::engine::metadata::ClusterImage;
use crate::protocol::ApiError;
use crate::protocol::messages::peer::FindControllerReply;
use crate::protocol::messages::{AlterTopic, CreatedTopic, InitProducerReply, NewTopic};
use crate::raft::{ControllerNode, Decided, RaftId};
use crate::types::{BrokerEpoch, NodeId, ProducerEpoch, ProducerId, TopicId, TopicPartition};

/// An answer that is true once the metadata has been applied up to `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// The index of the image that the answer stands on.
    pub index: u64,
    /// The answer.
    pub answer: T,
}

/// Create topics, each on its own. An error of the whole means that this controller could not take it up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<CreatedTopic, ApiError>>>, ApiError>")]
pub struct CreateTopics {
    /// The topics wanted.
    pub topics: Vec<NewTopic>,
    /// Check only.
    pub validate_only: bool,
}

/// Delete topics by name, each on its own. An error of the whole means that this controller could not take it up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>")]
pub struct DeleteTopics(pub Vec<String>);

/// Change the settings of topics, each on its own. An error of the whole means that this controller could not take it up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>")]
pub struct AlterTopics(pub Vec<AlterTopic>);

/// Hand out a producer id, or the next epoch of one.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<InitProducerReply, ApiError>")]
pub struct InitProducer(pub Option<(ProducerId, ProducerEpoch)>);

/// What a broker asks, or says. `None`: heard, and the metadata will show what comes of it. An error means that this controller could
/// not take it up ([`ErrorCode::NotController`](crate::protocol::ErrorCode::NotController): another may), and that nothing is known of
/// what became of it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Answer>, ApiError>")]
pub struct AskController(pub Request);

/// Does this controller decide, and who does, as far as it knows?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "FindControllerReply")]
pub struct FindController;

/// What was decided since an index? Answered when there is something, when the broker is to hand a leadership over, or when
/// `patience` is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<MetadataNews, ApiError>")]
pub struct FollowMetadata {
    /// Who asks.
    pub node: NodeId,
    /// Its registration: what it leads under another it is not asked to hand over.
    pub epoch: Option<BrokerEpoch>,
    /// The index of the metadata that it has; 0 for none.
    pub index: u64,
    /// How long to wait for news.
    pub patience: Duration,
}

/// The answer to [`FollowMetadata`].
#[derive(Clone, Debug)]
pub struct MetadataNews {
    /// The metadata as it is now.
    pub image: Arc<ClusterImage>,
    /// The entries that lead there from the index that was asked from, each an encoded array of records; `None` if they are too many, or
    /// not kept any more: then only the image leads there.
    pub entries: Option<Vec<Bytes>>,
    /// Leaderships of the broker that are to go to another.
    pub hand_overs: Vec<(TopicPartition, NodeId)>,
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

/// Whether a majority confirmed that this controller leads, after all renewals had come that this confirmation was asked for.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RenewalsConfirmed {
    pub number: u64,
    pub confirmed: bool,
}

/// It could not be decided, in that term, to fence a broker.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct NotFenced {
    pub term: u64,
    pub node: NodeId,
    pub epoch: BrokerEpoch,
}

/// What dialling a broker found whose connection had been lost in that term.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Reached {
    pub term: u64,
    pub node: NodeId,
    pub epoch: BrokerEpoch,
    pub reach: Reach,
    /// How often it was dialled.
    pub attempt: u32,
}
