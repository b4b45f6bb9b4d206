//! Where the replicas of new partitions go.
//!
//! ```text
//!   racks   A: 1 2    B: 3 4    C: 5       brokers in turn: 1 3 5 2 4
//!   leader     whoever leads fewest partitions of the topic, then of all
//!   followers  in racks that the partition is not in yet; there, whoever holds fewest of the topic, then of all
//! ```

use std::collections::BTreeMap;

use crate::protocol::{ApiError, ErrorCode};
use crate::types::NodeId;

/// A broker that can take replicas, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub node: NodeId,
    /// Its rack; a broker without one is a rack of its own.
    pub rack: Option<String>,
    /// Partitions whose preferred leader it is.
    pub leads: usize,
    /// Replicas that it holds.
    pub replicas: usize,
}

/// Spreads `partitions` new partitions of `replication_factor` replicas over `brokers`, beside the partitions that the topic
/// has: `existing`, the replicas of each. The first replica of each is its preferred leader. Each topic is spread evenly by
/// itself, or its load would gather on a broker that has just come; what the brokers have beside it decides between equals.
///
/// # Errors
/// [`ErrorCode::NoLiveBroker`] without brokers, [`ErrorCode::InvalidReplicationFactor`] when there are fewer brokers than
/// replicas: never a loop that waits for some (rule 19).
pub fn place(
    brokers: &[Candidate],
    existing: &[Vec<NodeId>],
    partitions: u32,
    replication_factor: u32,
) -> Result<Vec<Vec<NodeId>>, ApiError> {
    if brokers.is_empty() {
        return Err(ApiError::new(
            ErrorCode::NoLiveBroker,
            "no broker is alive to place a partition on: start one, then try again",
        ));
    }
    let copies = replication_factor as usize;
    if copies == 0 || copies > brokers.len() {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicationFactor,
            format!("replication factor {replication_factor} needs as many live brokers, there are {}", brokers.len()),
        ));
    }
    let mut spread = Spread::new(brokers, existing);
    Ok((0..partitions).map(|_| spread.next_partition(copies)).collect())
}

/// A broker with what it has of the topic.
struct Place {
    node: NodeId,
    rack: usize,
    /// Of this topic, then of all.
    leads: (usize, usize),
    replicas: (usize, usize),
}

struct Spread {
    /// Brokers in turn, neighbours in different racks.
    places: Vec<Place>,
    racks: usize,
    placed: usize,
}

impl Spread {
    fn new(brokers: &[Candidate], existing: &[Vec<NodeId>]) -> Self {
        let mut racks: BTreeMap<(Option<&str>, Option<NodeId>), Vec<&Candidate>> = BTreeMap::new();
        for broker in brokers {
            let own = broker.rack.is_none().then_some(broker.node);
            racks.entry((broker.rack.as_deref(), own)).or_default().push(broker);
        }
        let count = racks.len();
        let mut places = Vec::new();
        let longest = racks.values().map(Vec::len).max().unwrap_or_default();
        for turn in 0..longest {
            for (rack, members) in racks.values().enumerate() {
                let Some(broker) = members.get(turn) else { continue };
                let leads = existing.iter().filter(|replicas| replicas.first() == Some(&broker.node)).count();
                let replicas = existing.iter().filter(|replicas| replicas.contains(&broker.node)).count();
                let (leads, replicas) = ((leads, broker.leads), (replicas, broker.replicas));
                places.push(Place { node: broker.node, rack, leads, replicas });
            }
        }
        Self { places, racks: count, placed: existing.len() }
    }

    fn next_partition(&mut self, copies: usize) -> Vec<NodeId> {
        let count = self.places.len();
        // Each round over the brokers shifts the followers by one, so that a lost broker's load spreads over all others.
        let round = self.placed / count;
        self.placed += 1;
        let leader = (0..count).min_by_key(|at| (self.places[*at].leads, *at)).unwrap_or_default();
        let mut chosen = vec![leader];
        let mut in_rack = vec![0_usize; self.racks];
        in_rack[self.places[leader].rack] += 1;
        while chosen.len() < copies {
            let distance = |at: usize| (at + 2 * count - leader - 1 - round % count) % count;
            let key = |at: &usize| (in_rack[self.places[*at].rack], self.places[*at].replicas, distance(*at));
            let Some(follower) = (0..count).filter(|at| !chosen.contains(at)).min_by_key(key) else { break };
            in_rack[self.places[follower].rack] += 1;
            chosen.push(follower);
        }
        let lead = &mut self.places[leader].leads;
        *lead = (lead.0 + 1, lead.1 + 1);
        for at in &chosen {
            let held = &mut self.places[*at].replicas;
            *held = (held.0 + 1, held.1 + 1);
        }
        chosen.into_iter().map(|at| self.places[at].node).collect()
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
