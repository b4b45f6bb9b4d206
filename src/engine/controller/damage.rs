//! Replicas that are not what they were: their directory is gone, or some of their records are.

use super::brokers::current;
use super::elections::change_and_settle;
use super::{Decision, Draft, refuse, stale};
use crate::engine::metadata::{ApplyError, ClusterImage, PartitionImage};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, LeaderEpoch, Mutant, NodeId, TopicPartition};

/// What became of a replica that reported damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageOutcome {
    /// It is in neither set. It comes back by fetching what it lacks, as any other does.
    Left,
    /// It stays what it is: no other member may lead now. As a leader it refuses the damaged range, and reports again when
    /// another has come into the in-sync set.
    StaysAsTheLast,
}

/// A replica that was on the broker's disk is not there: it has nothing of what was written. It leaves both sets, also as the
/// last member: then the partition stays offline, since whoever is elected beside it would lead an empty log.
///
/// # Errors
/// [`ErrorCode::StaleMetadata`] for another registration than the broker's current one,
/// [`ErrorCode::UnknownTopicOrPartition`] where it holds no replica.
pub fn report_lost(
    image: &ClusterImage,
    partition: TopicPartition,
    node: NodeId,
    broker_epoch: BrokerEpoch,
) -> Result<Decision<()>, ApiError> {
    current(image, node, broker_epoch)?;
    replica(image, partition, node)?;
    let mut draft = Draft::new(image);
    change_and_settle(&mut draft, partition, |change, min_in_sync| change.expel(node, false, min_in_sync))
        .map_err(|error| stale(&error))?;
    Ok(draft.decide(()))
}

/// A replica has a bad checksum, or a write or sync of it failed (rule 16). It leaves both sets, and another member leads where it
/// led. Where no other leads, or may lead, it stays: what it still has is served by nobody else, and the hole it refuses. Whether
/// a fenced member would be whole is known only when that one is back; until then the damaged one is the better of two.
///
/// # Errors
/// [`ErrorCode::StaleMetadata`] for another registration than the broker's current one, or another leader epoch: the replica
/// may have been repaired since. [`ErrorCode::UnknownTopicOrPartition`] where it holds no replica.
pub fn report_damaged(
    image: &ClusterImage,
    partition: TopicPartition,
    (node, broker_epoch): (NodeId, BrokerEpoch),
    leader_epoch: LeaderEpoch,
) -> Result<Decision<DamageOutcome>, ApiError> {
    current(image, node, broker_epoch)?;
    let state = replica(image, partition, node)?;
    if state.leader_epoch != leader_epoch {
        let expected = state.partition_epoch;
        return Err(stale(&ApplyError::StalePartition { partition, expected, leader_epoch }));
    }
    let mut draft = Draft::new(image);
    let may_lead = |other: &NodeId| *other != node && image.may_lead(*other);
    let is_led_by_another = state.leader.is_some_and(|leader| leader != node);
    let has_another = is_led_by_another || state.in_sync.iter().chain(&state.eligible).any(may_lead);
    if state.is_member(node) && (!has_another || Mutant::KeepsTheDamaged.is_on()) {
        return Ok(draft.decide(DamageOutcome::StaysAsTheLast));
    }
    change_and_settle(&mut draft, partition, |change, min_in_sync| change.expel(node, true, min_in_sync))
        .map_err(|error| stale(&error))?;
    Ok(draft.decide(DamageOutcome::Left))
}

fn replica(image: &ClusterImage, partition: TopicPartition, node: NodeId) -> Result<&PartitionImage, ApiError> {
    match image.partition(partition) {
        Some(state) if state.replicas.contains(&node) => Ok(state),
        _ => refuse(
            ErrorCode::UnknownTopicOrPartition,
            format!("broker {node} holds no replica of partition {partition}: refresh the metadata"),
        ),
    }
}

#[cfg(test)]
#[path = "damage_tests.rs"]
mod tests;
