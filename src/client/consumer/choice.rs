//! Which replica of a partition is read.
//!
//! ```text
//!   replicas [1 2 3], from a place that differs by consumer and partition: 2 3 1
//!       └─ the first that is in sync, on a live broker, of the rack if one is wanted, and did not fail lately; else the leader
//! ```
//!
//! That gives the same replica as long as nothing changes, and leads back to it once it is well again.

use std::collections::HashMap;

use crate::client::ReadFrom;
use crate::client::known::KnownBroker;
use crate::protocol::messages::PartitionMetadata;
use crate::types::NodeId;

/// A consumer's way to choose.
#[derive(Debug)]
pub(super) struct Choice {
    read_from: ReadFrom,
    /// Where this consumer begins, so that consumers spread.
    start: usize,
    brokers: HashMap<NodeId, KnownBroker>,
}

impl Choice {
    pub fn new(read_from: ReadFrom, start: usize) -> Self {
        Self { read_from, start, brokers: HashMap::new() }
    }

    /// Takes over which brokers there are.
    pub fn learn(&mut self, brokers: Vec<(NodeId, KnownBroker)>) {
        self.brokers = brokers.into_iter().collect();
    }

    /// Whether another replica than the leader may be chosen.
    pub fn is_for_followers(&self) -> bool {
        self.read_from != ReadFrom::Leader
    }

    /// Whom to read `partition` from; `None` while nobody can be.
    pub fn of(&self, partition: &PartitionMetadata, is_avoided: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let rack = match &self.read_from {
            ReadFrom::Leader => return partition.leader,
            ReadFrom::Any => None,
            ReadFrom::Rack(rack) => Some(rack),
        };
        let fits = |node: &NodeId| {
            let Some(broker) = self.brokers.get(node).filter(|broker| broker.is_live) else { return false };
            let is_there = rack.is_none() || broker.rack.as_ref() == rack;
            is_there && partition.in_sync.contains(node) && !is_avoided(*node)
        };
        let count = partition.replicas.len().max(1);
        let first = self.start.wrapping_add(partition.partition.0 as usize) % count;
        let (before, from_first) = partition.replicas.split_at(first.min(partition.replicas.len()));
        from_first.iter().chain(before).find(|node| fits(node)).copied().or(partition.leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderEpoch, PartitionIndex};

    const NOBODY: fn(NodeId) -> bool = |_| false;

    fn choice(read_from: ReadFrom, start: usize, live: &[u32]) -> Choice {
        let broker = |node: u32| KnownBroker {
            address: String::new(),
            rack: Some(if node < 3 { "east" } else { "west" }.to_owned()),
            is_live: live.contains(&node),
        };
        let mut choice = Choice::new(read_from, start);
        choice.learn((1..=3).map(|node| (NodeId(node), broker(node))).collect());
        choice
    }

    /// Led by broker 1, with a replica on each of 1, 2, 3.
    fn partition(number: u32, in_sync: &[u32]) -> PartitionMetadata {
        PartitionMetadata {
            partition: PartitionIndex(number),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(4),
            replicas: [1, 2, 3].map(NodeId).to_vec(),
            in_sync: in_sync.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn consumers_and_partitions_spread_over_all_replicas() {
        let chosen =
            |start, number| choice(ReadFrom::Any, start, &[1, 2, 3]).of(&partition(number, &[3, 1, 2]), NOBODY);
        assert_eq!([0, 1, 2, 3].map(|start| chosen(start, 0)), [1, 2, 3, 1].map(|node| Some(NodeId(node))));
        assert_eq!([0, 1, 2, 3].map(|number| chosen(1, number)), [2, 3, 1, 2].map(|node| Some(NodeId(node))));
        assert_eq!(chosen(usize::MAX, 1), Some(NodeId(1)));
    }

    #[test]
    fn a_replica_that_lags_failed_or_is_on_a_dead_broker_is_passed_over() {
        let any = choice(ReadFrom::Any, 1, &[1, 2, 3]);
        assert_eq!(any.of(&partition(0, &[1, 3]), NOBODY), Some(NodeId(3)), "2 lags");
        assert_eq!(any.of(&partition(0, &[1, 2, 3]), |node| node == NodeId(2)), Some(NodeId(3)), "2 failed");
        assert_eq!(choice(ReadFrom::Any, 1, &[1]).of(&partition(0, &[1, 2, 3]), NOBODY), Some(NodeId(1)));
        assert_eq!(any.of(&partition(0, &[]), NOBODY), Some(NodeId(1)), "the leader is what is left");
        assert_eq!(any.of(&partition(0, &[1, 2, 3]), NOBODY), Some(NodeId(2)), "and back again");
    }

    #[test]
    fn a_rack_without_a_replica_in_sync_leaves_the_leader() {
        let in_rack = |rack: &str| choice(ReadFrom::Rack(rack.into()), 0, &[1, 2, 3]);
        assert_eq!(in_rack("west").of(&partition(0, &[1, 2, 3]), NOBODY), Some(NodeId(3)));
        assert_eq!(in_rack("west").of(&partition(0, &[1, 2]), NOBODY), Some(NodeId(1)));
        assert_eq!(in_rack("north").of(&partition(0, &[1, 2, 3]), NOBODY), Some(NodeId(1)));
    }

    #[test]
    fn without_a_wish_it_is_the_leader() {
        let leader = choice(ReadFrom::Leader, 1, &[2, 3]);
        assert_eq!(leader.of(&partition(0, &[1, 2, 3]), |_| true), Some(NodeId(1)));
        assert!(!leader.is_for_followers());
    }
}
