//! What the cluster has said of itself: its brokers, its topics, and who leads what. No I/O.
//!
//! ```text
//!   MetadataReply ─► take ─┬─ brokers: the live ones, and the addresses of all that were ever named
//!                          └─ topics:  never back to an older leader epoch
//! ```
//!
//! A reply comes from whichever broker answered, and that one may be behind. What a partition's leader epoch says is a matter
//! of order: of two descriptions the one with the higher epoch is the later one, in whatever order they arrive.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::ClientError;
use crate::protocol::messages::{BrokerAddress, MetadataReply, PartitionMetadata, TopicMetadata};
use crate::types::{NodeId, TopicId};

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Known {
    brokers: BTreeMap<NodeId, KnownBroker>,
    controller: Option<NodeId>,
    topics: HashMap<String, Arc<Topic>>,
}

/// A broker that some reply named.
#[derive(Clone, Debug)]
pub(super) struct KnownBroker {
    pub address: String,
    pub rack: Option<String>,
    /// The newest reply named it. One that is not may be back before anybody says so.
    pub is_live: bool,
}

/// A topic as the cluster last described it.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    /// By number.
    pub partitions: Vec<PartitionMetadata>,
    pub learned: Instant,
}

impl Known {
    /// Takes over what a broker said. Returns whether any topic in it is described otherwise than before.
    pub fn take(&mut self, reply: &MetadataReply, now: Instant) -> bool {
        self.controller = reply.controller;
        if !reply.brokers.is_empty() {
            self.brokers.values_mut().for_each(|broker| broker.is_live = false);
            self.brokers.extend(reply.brokers.iter().map(|broker| (broker.node_id, KnownBroker::of(broker))));
        }
        let mut is_news = false;
        for entry in &reply.topics {
            let before = self.topics.get(&entry.name);
            match &entry.topic.value {
                Some(told) => {
                    let topic = Topic::merged(before.map(AsRef::as_ref), &entry.name, told, now);
                    is_news |= before.is_none_or(|b| b.id != topic.id || b.partitions != topic.partitions);
                    self.topics.insert(entry.name.clone(), Arc::new(topic));
                }
                None => drop(self.topics.remove(&entry.name)),
            }
        }
        is_news
    }

    /// Every broker that was ever named.
    pub fn brokers(&self) -> &BTreeMap<NodeId, KnownBroker> {
        &self.brokers
    }

    /// The active controller, if that is a broker, too, and so takes clients' requests.
    pub fn controller(&self) -> Option<NodeId> {
        self.controller.filter(|node| self.brokers.get(node).is_some_and(|broker| broker.is_live))
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }
}

impl KnownBroker {
    fn of(broker: &BrokerAddress) -> Self {
        let BrokerAddress { host, port, rack, .. } = broker;
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { address, rack: rack.clone(), is_live: true }
    }
}

impl Topic {
    /// What was told, but for partitions of which something newer is known.
    fn merged(known: Option<&Self>, name: &str, told: &TopicMetadata, now: Instant) -> Self {
        let mut partitions = told.partitions.clone();
        partitions.sort_unstable_by_key(|partition| partition.partition);
        for before in known.filter(|known| known.id == told.id).into_iter().flat_map(|known| &known.partitions) {
            match partitions.binary_search_by_key(&before.partition, |partition| partition.partition) {
                Ok(at) if partitions[at].leader_epoch < before.leader_epoch => partitions[at] = before.clone(),
                Ok(_) => {}
                // Topics never lose partitions: whoever does not know of it is behind.
                Err(at) => partitions.insert(at, before.clone()),
            }
        }
        Self { name: name.into(), id: told.id, partitions, learned: now }
    }

    /// The partition with this number.
    pub fn partition(&self, number: u32) -> Result<&PartitionMetadata, ClientError> {
        let found = self.partitions.iter().find(|partition| partition.partition.0 == number);
        found.ok_or_else(|| ClientError::UnknownPartition {
            topic: self.name.to_string(),
            partition: number,
            partitions: u32::try_from(self.partitions.len()).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::TopicEntry;
    use crate::types::{ClusterId, LeaderEpoch, PartitionIndex, TopicName};

    const RIDES: TopicId = TopicId(uuid::Uuid::from_u128(5));

    fn led_by(leader: u32, epoch: u32) -> PartitionMetadata {
        PartitionMetadata {
            partition: PartitionIndex(0),
            leader: Some(NodeId(leader)),
            leader_epoch: LeaderEpoch(epoch),
            replicas: vec![NodeId(1), NodeId(2)],
            in_sync: vec![NodeId(1), NodeId(2)],
        }
    }

    fn reply(brokers: &[u32], id: TopicId, partitions: Vec<PartitionMetadata>) -> MetadataReply {
        let broker = |node: &u32| BrokerAddress {
            node_id: NodeId(*node),
            host: "h".into(),
            port: 9_000 + *node as u16,
            rack: Some(format!("rack {node}")),
        };
        let name = TopicName::new("rides").expect("legal");
        MetadataReply {
            cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
            controller: Some(NodeId(1)),
            brokers: brokers.iter().map(broker).collect(),
            topics: vec![TopicEntry { name: "rides".into(), topic: Ok(TopicMetadata { id, name, partitions }).into() }],
        }
    }

    fn leader(known: &Known) -> Option<u32> {
        known.topic("rides").expect("known").partition(0).expect("there").leader.map(|node| node.0)
    }

    #[test]
    fn a_broker_that_is_behind_does_not_take_an_election_back() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert!(known.take(&reply(&[1, 2], RIDES, vec![led_by(1, 4)]), now));
        assert!(known.take(&reply(&[2], RIDES, vec![led_by(2, 5)]), now));
        assert!(!known.take(&reply(&[1, 2], RIDES, vec![led_by(1, 4)]), now), "that is no news");
        assert_eq!(leader(&known), Some(2));
        assert!(!known.take(&reply(&[1, 2], RIDES, vec![]), now), "nor does a partition go away");
        assert_eq!(leader(&known), Some(2));
        assert!(known.take(&reply(&[1, 2], RIDES, vec![led_by(1, 6)]), now));
        assert_eq!(leader(&known), Some(1));
    }

    #[test]
    fn another_topic_of_the_same_name_begins_with_its_own_epochs() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.take(&reply(&[1, 2], RIDES, vec![led_by(1, 4)]), now);
        assert!(known.take(&reply(&[1, 2], TopicId(uuid::Uuid::from_u128(6)), vec![led_by(2, 0)]), now));
        assert_eq!(leader(&known), Some(2));
    }

    #[test]
    fn the_address_of_a_broker_that_is_not_named_any_more_is_kept() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.take(&reply(&[1, 2], RIDES, vec![]), now);
        assert_eq!(known.controller(), Some(NodeId(1)));
        known.take(&reply(&[2], RIDES, vec![]), now);
        let seen: Vec<_> = known.brokers().values().map(|broker| (broker.address.as_str(), broker.is_live)).collect();
        assert_eq!(seen, [("h:9001", false), ("h:9002", true)]);
        assert_eq!(known.controller(), None, "it cannot be asked as a broker");
    }
}
