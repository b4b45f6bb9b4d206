//! Where the replicas of a new topic go.

use crate::protocol::{ApiError, ErrorCode};
use crate::types::NodeId;

/// Spreads `partitions` partitions of `replication_factor` replicas over `brokers`. The first replica of each is its
/// preferred leader. Leaders and followers are dealt out in turn, from where `start` points, so that topics do not all
/// begin on the same broker.
///
/// # Errors
/// [`ErrorCode::NoLiveBroker`] without brokers, [`ErrorCode::InvalidReplicationFactor`] when there are fewer brokers than
/// replicas: never a loop that waits for some.
pub fn place(
    brokers: &[NodeId],
    partitions: u32,
    replication_factor: u32,
    start: usize,
) -> Result<Vec<Vec<NodeId>>, ApiError> {
    if brokers.is_empty() {
        return Err(ApiError::new(
            ErrorCode::NoLiveBroker,
            "no broker is alive to place a partition on: start one, then create the topic again",
        ));
    }
    let copies = replication_factor as usize;
    if copies == 0 || copies > brokers.len() {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicationFactor,
            format!("replication factor {replication_factor} needs as many live brokers, there are {}", brokers.len()),
        ));
    }
    let count = brokers.len();
    let replicas_of = |partition: usize| {
        // Each round over the brokers shifts the followers by one, so that a lost broker's load spreads over all others.
        let round = partition / count;
        let leader = start + partition;
        let follower = |n: usize| leader + 1 + (n + round) % (count - 1);
        std::iter::once(leader).chain((0..copies - 1).map(follower)).map(|at| brokers[at % count]).collect()
    };
    Ok((0..partitions as usize).map(replicas_of).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn brokers(count: u32) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    #[test]
    fn replicas_of_a_partition_are_on_different_brokers_and_leaders_are_even() {
        for (count, factor) in [(1, 1), (2, 2), (4, 3), (5, 5)] {
            let placed = place(&brokers(count), 40, factor, 3).expect("enough brokers");
            let mut leads = BTreeMap::new();
            for replicas in &placed {
                let distinct: BTreeSet<_> = replicas.iter().collect();
                assert_eq!(distinct.len(), factor as usize, "{replicas:?}");
                *leads.entry(replicas[0]).or_insert(0) += 1;
            }
            assert!(leads.values().all(|led| *led == 40 / count), "{leads:?}");
        }
    }

    #[test]
    fn no_live_broker_and_too_few_brokers_are_errors() {
        assert_eq!(place(&[], 1, 1, 0).map_err(|e| e.code), Err(ErrorCode::NoLiveBroker));
        assert_eq!(place(&brokers(2), 1, 3, 0).map_err(|e| e.code), Err(ErrorCode::InvalidReplicationFactor));
    }
}
