//! More partitions, and partitions elsewhere: what an administrator asks.

use actix::{Context, Handler, Message, ResponseFuture};

use super::actor::Controller;
use super::messages::Committed;
use super::topics::Each;
use crate::engine::controller::{Decision, cancel_reassignment, reassign};
use crate::engine::metadata::ClusterImage;
use crate::protocol::messages::{PartitionAddition, PartitionMove};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, TopicId, TopicName, TopicPartition};

/// Give topics more partitions, each on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>")]
pub struct AddPartitions(pub Vec<PartitionAddition>);

/// Move partitions to other replicas, or end such a move, each on its own. Answered with the replicas from then on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<Vec<NodeId>, ApiError>>>, ApiError>")]
pub struct Reassign(pub Vec<PartitionMove>);

impl Handler<AddPartitions> for Controller {
    type Result = ResponseFuture<Each<TopicId>>;
    fn handle(&mut self, AddPartitions(topics): AddPartitions, ctx: &mut Context<Self>) -> Self::Result {
        self.ask_each(ctx, topics, true, |policy, image, wanted| {
            policy.add_partitions(image, &wanted.name, wanted.total)
        })
    }
}

impl Handler<Reassign> for Controller {
    type Result = ResponseFuture<Each<Vec<NodeId>>>;
    fn handle(&mut self, Reassign(moves): Reassign, ctx: &mut Context<Self>) -> Self::Result {
        self.ask_each(ctx, moves, true, |_, image, wanted| decide_move(image, wanted))
    }
}

fn decide_move(image: &ClusterImage, wanted: &PartitionMove) -> Result<Decision<Vec<NodeId>>, ApiError> {
    let name = TopicName::new(&wanted.topic).map_err(|e| ApiError::new(ErrorCode::InvalidTopicName, e.to_string()))?;
    let Some(topic) = image.topic_by_name(&name) else {
        let text = format!("there is no topic '{name}': create it first");
        return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, text));
    };
    let partition = TopicPartition::new(topic.id, wanted.partition);
    let Decision { records, answer: () } = match &wanted.replicas {
        Some(replicas) => reassign(image, partition, replicas)?,
        None => cancel_reassignment(image, partition)?,
    };
    let mut after = image.clone();
    for record in &records {
        after.apply(record).map_err(|e| ApiError::new(ErrorCode::Unknown, e.to_string()))?;
    }
    let answer = after.partition(partition).map(|state| state.replicas.clone()).unwrap_or_default();
    Ok(Decision { records, answer })
}
