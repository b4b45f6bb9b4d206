//! Leaderships go back to where they were meant to be: to the first replica of each partition, gently.
//!
//! A broker that returns gets its leaderships back a few at a time, and not before it has stayed for a while: each hand-over
//! stops appends for a moment, and a broker that comes and goes would stop them again and again. The swap itself is the
//! current leader's: it waits until the other's log ends where its own does, then proposes (rule 8).

use std::collections::BTreeMap;
use std::time::Duration;

use super::refuse;
use crate::engine::metadata::{ClusterImage, PartitionImage};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, MonoTime, NodeId, TopicPartition};

/// Ask `leader` to hand the partition over to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The partition.
    pub partition: TopicPartition,
    /// Who leads it.
    pub leader: NodeId,
    /// Who is to.
    pub to: NodeId,
}

/// How gently leaderships are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gentleness {
    /// At most so many hand-overs are under way.
    pub at_most: usize,
    /// A broker gets none before it has been live for this long.
    pub settling_time: Duration,
    /// A hand-over that has not happened after this long is asked for again.
    pub retry_after: Duration,
}

/// Every leadership that is not where it was meant to be and could be: the preferred replica is in sync and may lead.
pub fn out_of_place(image: &ClusterImage) -> impl Iterator<Item = HandOver> {
    image.partitions().filter_map(|(partition, state)| {
        let (leader, to) = (state.leader?, preferred(state)?);
        let could_be = leader != to && state.in_sync.contains(&to) && image.may_lead(to);
        could_be.then_some(HandOver { partition, leader, to })
    })
}

/// Who is to lead the partition by the order of its replicas, and the hand-over that gets it there, unless it leads already.
///
/// # Errors
/// [`ErrorCode::UnknownTopicOrPartition`]. [`ErrorCode::PreferredLeaderNotAvailable`] where that replica is not in sync or may not lead
/// now, and where nobody leads: an election, which is not asked for, comes first there.
pub fn to_preferred(image: &ClusterImage, partition: TopicPartition) -> Result<(NodeId, Option<HandOver>), ApiError> {
    let Some((state, to)) = image.partition(partition).and_then(|state| Some((state, preferred(state)?))) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no partition {}", partition.partition));
    };
    let text = match state.leader {
        Some(leader) if leader == to => return Ok((to, None)),
        _ if !image.may_lead(to) => {
            format!("broker {to}, its first replica, is down or stopping: it leads when it is back")
        }
        Some(leader) if state.in_sync.contains(&to) => return Ok((to, Some(HandOver { partition, leader, to }))),
        Some(_) => format!("broker {to}, its first replica, is not in sync: it may lead when it has caught up"),
        None => {
            "nobody leads it: it needs a replica that has all that is committed, so start the brokers of the others"
                .to_owned()
        }
    };
    refuse(ErrorCode::PreferredLeaderNotAvailable, text)
}

/// The first replica; of those that a reassignment leads to while one is under way.
fn preferred(state: &PartitionImage) -> Option<NodeId> {
    state.reassignment.as_ref().map_or(&state.replicas, |under_way| &under_way.to).first().copied()
}

/// What has been asked for, and since when each broker has been live. Belongs to a controller in office.
#[derive(Clone, Debug)]
pub struct Balance {
    settings: Gentleness,
    live_since: BTreeMap<NodeId, (BrokerEpoch, MonoTime)>,
    asked: BTreeMap<TopicPartition, MonoTime>,
}

impl Balance {
    /// Nothing has been asked for. Every broker counts as just come.
    #[must_use]
    pub fn new(settings: Gentleness) -> Self {
        Self { settings, live_since: BTreeMap::new(), asked: BTreeMap::new() }
    }

    /// What to ask leaders for now. Call it from time to time, and when brokers came or went.
    pub fn next(&mut self, now: MonoTime, image: &ClusterImage) -> Vec<HandOver> {
        self.note_who_is_live(now, image);
        let wanted: BTreeMap<_, _> = out_of_place(image).map(|hand_over| (hand_over.partition, hand_over)).collect();
        let Self { settings, live_since, asked } = self;
        // What is not out of place any more was done, or cannot be done now.
        asked.retain(|partition, since| wanted.contains_key(partition) && now.since(*since) < settings.retry_after);
        let has_settled =
            |node: &NodeId| live_since.get(node).is_some_and(|(_, since)| now.since(*since) >= settings.settling_time);
        let room = settings.at_most.saturating_sub(asked.len());
        let next = wanted.into_values().filter(|hand_over| has_settled(&hand_over.to));
        let next: Vec<_> = next.filter(|hand_over| !asked.contains_key(&hand_over.partition)).take(room).collect();
        asked.extend(next.iter().map(|hand_over| (hand_over.partition, now)));
        next
    }

    /// Somebody else has asked for a hand-over of the partition.
    pub fn note_asked(&mut self, now: MonoTime, partition: TopicPartition) {
        self.asked.insert(partition, now);
    }

    fn note_who_is_live(&mut self, now: MonoTime, image: &ClusterImage) {
        self.live_since.retain(|node, (epoch, _)| image.may_lead(*node) && image.is_registered(*node, *epoch));
        for (node, broker) in image.brokers.iter().filter(|(node, _)| image.may_lead(**node)) {
            self.live_since.entry(*node).or_insert((broker.registration.epoch, now));
        }
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
