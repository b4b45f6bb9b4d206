//! More partitions, partitions elsewhere, and other leaders: what an administrator asks.

use actix::{ActorFutureExt, Context, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture};

use super::actor::{Controller, not_controller};
use super::messages::Committed;
use super::topics::Each;
use crate::engine::controller::{Decision, HandOver, cancel_reassignment, reassign, to_preferred};
use crate::engine::metadata::ClusterImage;
use crate::protocol::messages::{PartitionAddition, PartitionElection, PartitionMove};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, PartitionIndex, TopicId, TopicName, TopicPartition};

/// Give topics more partitions, each on its own.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError>")]
pub struct AddPartitions(pub Vec<PartitionAddition>);

/// Move partitions to other replicas, or end such a move, each on its own. Answered with the replicas from then on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<Vec<NodeId>, ApiError>>>, ApiError>")]
pub struct Reassign(pub Vec<PartitionMove>);

/// Give leaderships back to the preferred replicas, each on its own. Answered with who is to lead; the metadata shows when it does.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed<Vec<Result<NodeId, ApiError>>>, ApiError>")]
pub struct ElectLeaders(pub Vec<PartitionElection>);

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

/// What is to be done about a leadership: whoever is to lead, and the hand-over to it, unless it leads already.
type Wanted = (NodeId, Option<HandOver>);

impl Handler<ElectLeaders> for Controller {
    type Result = ResponseActFuture<Self, Each<NodeId>>;
    /// The leader itself changes the metadata, when the other's log ends where its own does. All that is done here is to ask it.
    fn handle(&mut self, ElectLeaders(partitions): ElectLeaders, ctx: &mut Context<Self>) -> Self::Result {
        let looked = self.ask(ctx, move |sitting| {
            let look = |wanted: &PartitionElection| -> Result<Wanted, ApiError> {
                let partition = find(&sitting.image, &wanted.topic, wanted.partition)?;
                to_preferred(&sitting.image, partition)
            };
            Ok(partitions.iter().map(look).collect::<Vec<_>>())
        });
        let asked = looked.into_actor(self).map(|looked, this, _| {
            let Committed { index, answer } = looked?;
            this.want(answer.iter().flatten().filter_map(|(_, hand_over)| *hand_over))?;
            Ok(Committed { index, answer: answer.into_iter().map(|wanted| wanted.map(|(leader, _)| leader)).collect() })
        });
        Box::pin(asked)
    }
}

impl Controller {
    /// Asks leaders for these, now.
    fn want(&mut self, hand_overs: impl Iterator<Item = HandOver>) -> Result<(), ApiError> {
        let now = self.settings.clock.now();
        let tenure = self.tenure.as_mut().ok_or_else(not_controller)?;
        tenure.want(now, hand_overs);
        self.answer_followers();
        Ok(())
    }
}

fn find(image: &ClusterImage, topic: &str, partition: PartitionIndex) -> Result<TopicPartition, ApiError> {
    let name = TopicName::new(topic).map_err(|e| ApiError::new(ErrorCode::InvalidTopicName, e.to_string()))?;
    let Some(topic) = image.topic_by_name(&name) else {
        let text = format!("there is no topic '{name}': create it first");
        return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, text));
    };
    Ok(TopicPartition::new(topic.id, partition))
}

fn decide_move(image: &ClusterImage, wanted: &PartitionMove) -> Result<Decision<Vec<NodeId>>, ApiError> {
    let partition = find(image, &wanted.topic, wanted.partition)?;
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
