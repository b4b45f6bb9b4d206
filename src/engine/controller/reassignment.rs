//! Other replicas for a partition: the new ones are added, and the old ones go in one swap when all of the new are in sync.
//!
//! ```text
//!   replicas  [1 2 3] ── reassign to [4 5 6] ──► [1 2 3 4 5 6] ── 4, 5, 6 in sync ──► [4 5 6]
//!                                                      │ cancel ──► [1 2 3]
//! ```
//!
//! The swap (rule 12) is part of whichever decision brings the last of the new ones into the in-sync set. Progress is what the
//! image shows: the targets in the in-sync set, of all targets. Another reassignment while one is under way replaces its
//! targets and keeps where it came from, so that a cancellation always leads back to the replicas that held everything.

use super::elections::change_and_settle;
use super::{Decision, Draft, refuse, stale};
use crate::engine::metadata::{ClusterImage, PartitionChange, PartitionImage, Reassignment};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{Mutant, NodeId, TopicPartition};

/// Moves a partition to `targets`, the preferred leader first. Targets that are fenced are waited for; the replicas that it has
/// without a reassignment are a cancellation.
///
/// # Errors
/// [`ErrorCode::UnknownTopicOrPartition`]; [`ErrorCode::InvalidReplicationFactor`] for targets that are none, named twice,
/// unknown, or fewer than the topic's `min_insync_replicas`; [`ErrorCode::NotEnoughReplicas`] where targets of an earlier
/// reassignment would go that are the only ones who can lead.
pub fn reassign(image: &ClusterImage, partition: TopicPartition, targets: &[NodeId]) -> Result<Decision<()>, ApiError> {
    let (state, min_in_sync) = known(image, partition)?;
    let invalid = |text: String| refuse(ErrorCode::InvalidReplicationFactor, text);
    if targets.is_empty() || targets.len() < min_in_sync as usize {
        let count = targets.len();
        return invalid(format!(
            "{count} replicas are too few where min_insync_replicas is {min_in_sync}: give more, or lower it first"
        ));
    }
    for (at, node) in targets.iter().enumerate() {
        if targets[..at].contains(node) {
            return invalid(format!("broker {node} is named twice"));
        }
        if !image.brokers.contains_key(node) {
            return invalid(format!("there is no broker {node}: start it first"));
        }
    }
    let from = state.reassignment.as_ref().map_or(&state.replicas, |under_way| &under_way.from).clone();
    let to = targets.to_vec();
    if from == to {
        return cancel_reassignment(image, partition);
    }
    let mut replicas = from.clone();
    replicas.extend(to.iter().filter(|node| !from.contains(node)));
    move_to(image, partition, replicas, Some(Reassignment { from, to }))
}

/// Ends a reassignment that is under way and returns to the replicas before it. Without one nothing is decided. A leader that is
/// none of them hands over first: until it has, what is under way is the way back.
///
/// # Errors
/// [`ErrorCode::UnknownTopicOrPartition`]; [`ErrorCode::NotEnoughReplicas`] while only new replicas can lead.
pub fn cancel_reassignment(image: &ClusterImage, partition: TopicPartition) -> Result<Decision<()>, ApiError> {
    match &known(image, partition)?.0.reassignment {
        Some(Reassignment { from, .. }) => {
            let back = Reassignment { from: from.clone(), to: from.clone() };
            move_to(image, partition, from.clone(), Some(back))
        }
        None => Ok(Draft::new(image).decide(())),
    }
}

fn known(image: &ClusterImage, partition: TopicPartition) -> Result<(&PartitionImage, u32), ApiError> {
    let topic = image.topics.get(&partition.topic);
    match topic.zip(image.partition(partition)) {
        Some((topic, state)) => Ok((state, topic.min_in_sync())),
        None => refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no partition {partition}")),
    }
}

fn move_to(
    image: &ClusterImage,
    partition: TopicPartition,
    mut replicas: Vec<NodeId>,
    reassignment: Option<Reassignment>,
) -> Result<Decision<()>, ApiError> {
    let (before, _) = known(image, partition)?;
    let was_member = before.replicas.iter().any(|node| before.is_member(*node));
    if was_member && !replicas.iter().any(|node| before.is_member(*node)) {
        let text = format!("no other replica of partition {partition} can lead: wait until one is in sync");
        return refuse(ErrorCode::NotEnoughReplicas, text);
    }
    replicas.extend(before.leader.filter(|leader| !replicas.contains(leader)));
    let mut draft = Draft::new(image);
    let moved = change_and_settle(&mut draft, partition, |change, min_in_sync| {
        change.restrict_to(&replicas, min_in_sync);
        if replicas != before.replicas {
            change.replicas = Some(replicas);
        }
        change.reassignment = reassignment;
    });
    moved.map_err(|error| stale(&error))?;
    Ok(draft.decide(()))
}

/// Swaps to the targets of a reassignment if all of them are in sync, and one of them leads, or nobody does and one may: the
/// caller elects it then. A leader that is none of them hands over first: it holds a lease, and while that runs it may answer
/// from what it knows, so nobody else may be elected beside it.
pub(super) fn complete(image: &ClusterImage, change: &mut PartitionChange, min_in_sync: u32) {
    let Some(Reassignment { from, to }) = &change.reassignment else { return };
    // The way back ends with whoever of them is there.
    let is_in_sync = from == to || Mutant::SwapsTooEarly.is_on() || to.iter().all(|node| change.in_sync.contains(node));
    let may_be_led = match change.leader {
        Some(leader) => to.contains(&leader) || Mutant::ReplacesLiveLeaders.is_on(),
        None => to.iter().any(|node| image.may_lead(*node) && change.is_member(*node)),
    };
    if !is_in_sync || !may_be_led {
        return;
    }
    let to = to.clone();
    change.reassignment = None;
    change.restrict_to(&to, min_in_sync);
    change.replicas = Some(to);
}

#[cfg(test)]
#[path = "reassignment_tests.rs"]
mod tests;
