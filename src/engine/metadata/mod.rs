//! The cluster's metadata: the image, the records that change it, and `apply`, which is the same on every node.
//!
//! ```text
//!   request ──► controller (decides) ──► records ──► metadata log ──► apply ──► ClusterImage ──► brokers
//! ```
//!
//! `apply` tests each record's preconditions: a record that does not fit changes nothing and says so.

mod partition;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{
    BrokerEpoch, ClusterId, LeaderEpoch, NodeId, PartitionIndex, ProducerId, TopicConfigOverrides, TopicId, TopicName,
    TopicPartition,
};

pub use partition::{PartitionChange, PartitionImage, Reassignment};
pub use records::{BrokerRegistration, DirectoryHistory, FEATURE_LEVEL, LastStop, MetadataRecord};

/// A broker in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerImage {
    /// How it registered last.
    pub registration: BrokerRegistration,
    /// Whether it is not to be counted on.
    pub fenced: bool,
    /// Whether it is about to stop: it is not elected any more, and hands over what it leads.
    #[serde(default)]
    pub stopping: bool,
    /// The newest registration under which it was counted on. Its data directory holds that number, or one above it, unless it
    /// is not the directory that it was.
    #[serde(default)]
    pub unfenced_epoch: BrokerEpoch,
}

/// A topic in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its settings.
    pub config: TopicConfigOverrides,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionImage>,
    /// The brokers that have had all their replicas of it on disk.
    pub opened: BTreeSet<NodeId>,
}

/// The whole metadata at one index of the metadata log. Cheap to clone: topics are shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterImage {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// See [`FEATURE_LEVEL`].
    pub feature_level: u16,
    /// How many records have been applied.
    pub index: u64,
    /// Every broker that registered.
    pub brokers: BTreeMap<NodeId, BrokerImage>,
    /// Every topic.
    pub topics: BTreeMap<TopicId, Arc<TopicImage>>,
    /// The same by name.
    pub topic_ids: BTreeMap<TopicName, TopicId>,
    /// Deleted topics whose files may still lie on a broker.
    pub tombstones: BTreeSet<TopicId>,
    /// On which brokers they may.
    #[serde(default)]
    pub tombstone_holders: BTreeMap<TopicId, BTreeSet<NodeId>>,
    /// The first producer id that has not been handed out.
    pub next_producer_id: ProducerId,
}

/// A record did not fit the image, which is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The log was written by newer software.
    #[error("the metadata has feature level {found}, this software knows {FEATURE_LEVEL}: upgrade this node")]
    FeatureLevel {
        /// The level found.
        found: u16,
    },
    /// The record names a broker registration that is not current.
    #[error("broker {node} is not registered with epoch {epoch}")]
    StaleBroker {
        /// The broker.
        node: NodeId,
        /// The epoch in the record.
        epoch: BrokerEpoch,
    },
    /// The name or id is taken.
    #[error("topic {name} ({topic}) exists, or its id was used before")]
    TopicExists {
        /// The name.
        name: TopicName,
        /// The id.
        topic: TopicId,
    },
    /// The record names a topic or partition that does not exist.
    #[error("there is no topic {topic}, or it has no such partition")]
    UnknownTopic {
        /// The id.
        topic: TopicId,
    },
    /// The partition changed since the record was decided, or the record would take an epoch back.
    #[error("partition {partition} is not at partition epoch {expected}, or leader epoch {leader_epoch} is too low")]
    StalePartition {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that the record expects.
        expected: u32,
        /// The leader epoch in the record.
        leader_epoch: LeaderEpoch,
    },
    /// The record counts on a replica that there is not, or twice, or lets one lead that is not in sync.
    #[error("broker {node} cannot be in a set of partition {partition}: it holds no replica, is named twice, or leads without being in sync")]
    NotAReplica {
        /// The partition.
        partition: TopicPartition,
        /// The broker.
        node: NodeId,
    },
    /// The record elects a broker that may lack what is committed.
    #[error("broker {node} is no member of partition {partition} and may lack committed records: not elected")]
    NotAMember {
        /// The partition.
        partition: TopicPartition,
        /// The broker.
        node: NodeId,
    },
    /// The record elects a broker that is not to be counted on.
    #[error("broker {node} is fenced or stopping: not elected")]
    NotLive {
        /// The broker.
        node: NodeId,
    },
    /// The record would hand out ids again.
    #[error("producer ids below {next} were handed out already")]
    ProducerIdsGoBack {
        /// The id in the record.
        next: ProducerId,
    },
}

impl TopicImage {
    /// How many replicas must be in sync for records to be committed. What a node's configuration says counts when the topic
    /// is created; from then on it is the topic's own, so that all nodes mean the same.
    #[must_use]
    pub fn min_in_sync(&self) -> u32 {
        self.config.0.get("min_insync_replicas").and_then(|value| value.parse().ok()).unwrap_or(1)
    }
}

impl ClusterImage {
    /// The image before the first record.
    #[must_use]
    pub fn empty(cluster_id: ClusterId) -> Self {
        Self {
            cluster_id,
            feature_level: 0,
            index: 0,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            topic_ids: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            tombstone_holders: BTreeMap::new(),
            next_producer_id: ProducerId(0),
        }
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic_by_name(&self, name: &TopicName) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The partition, if it exists.
    #[must_use]
    pub fn partition(&self, partition: TopicPartition) -> Option<&PartitionImage> {
        self.topics.get(&partition.topic)?.partitions.get(partition.partition.0 as usize)
    }

    /// Every partition with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &PartitionImage)> {
        self.topics.iter().flat_map(|(id, topic)| {
            (0..).zip(&topic.partitions).map(|(n, image)| (TopicPartition::new(*id, PartitionIndex(n)), image))
        })
    }

    /// How many partitions there are in all.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// Whether the broker is registered and not fenced.
    #[must_use]
    pub fn is_live(&self, node: NodeId) -> bool {
        self.brokers.get(&node).is_some_and(|broker| !broker.fenced)
    }

    /// Whether the broker is registered under `epoch`.
    #[must_use]
    pub fn is_registered(&self, node: NodeId, epoch: BrokerEpoch) -> bool {
        self.brokers.get(&node).is_some_and(|broker| broker.registration.epoch == epoch)
    }

    /// Whether the broker may be elected.
    #[must_use]
    pub fn may_lead(&self, node: NodeId) -> bool {
        self.brokers.get(&node).is_some_and(|broker| !broker.fenced && !broker.stopping)
    }

    /// The broker's current registration.
    #[must_use]
    pub fn epoch_of(&self, node: NodeId) -> Option<BrokerEpoch> {
        self.brokers.get(&node).map(|broker| broker.registration.epoch)
    }

    /// Applies the next record of the metadata log. The index moves in any case: every node counts the same records.
    ///
    /// # Errors
    /// [`ApplyError`] when a precondition does not hold; nothing but the index has changed then.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        self.index += 1;
        match record {
            MetadataRecord::FeatureLevel { level } => self.set_feature_level(*level),
            MetadataRecord::BrokerRegistered(registration) => self.register(registration),
            MetadataRecord::BrokerUnfenced { node, epoch } => self.unfence(*node, *epoch),
            MetadataRecord::BrokerFenced { node, epoch } => self.fence(*node, *epoch),
            MetadataRecord::BrokerStopping { node, epoch } => {
                self.broker_mut(*node, *epoch)?.stopping = true;
                Ok(())
            }
            MetadataRecord::TopicCreated { topic, name, replicas, config } => {
                self.create_topic(*topic, name, replicas, config)
            }
            MetadataRecord::TopicOpened { topic, node } => {
                self.topic_mut(*topic)?.opened.insert(*node);
                Ok(())
            }
            MetadataRecord::TopicConfigChanged { topic, config } => self.configure_topic(*topic, config),
            MetadataRecord::TopicDeleted { topic } => self.delete_topic(*topic),
            MetadataRecord::TombstoneCleared { topic, node } => self.clear_tombstone(*topic, *node),
            MetadataRecord::PartitionChanged(change) => self.change_partition(change),
            MetadataRecord::ProducerIdsReserved { next } => {
                if *next <= self.next_producer_id {
                    return Err(ApplyError::ProducerIdsGoBack { next: *next });
                }
                self.next_producer_id = *next;
                Ok(())
            }
        }
    }

    fn set_feature_level(&mut self, level: u16) -> Result<(), ApplyError> {
        if level > FEATURE_LEVEL {
            return Err(ApplyError::FeatureLevel { found: level });
        }
        self.feature_level = self.feature_level.max(level);
        Ok(())
    }

    fn register(&mut self, registration: &BrokerRegistration) -> Result<(), ApplyError> {
        let (node, epoch) = (registration.node, registration.epoch);
        if self.brokers.get(&node).is_some_and(|known| known.registration.epoch >= epoch) {
            return Err(ApplyError::StaleBroker { node, epoch });
        }
        let unfenced_epoch = self.brokers.get(&node).map_or(BrokerEpoch(0), |known| known.unfenced_epoch);
        let (registration, fenced, stopping) = (registration.clone(), true, false);
        self.brokers.insert(node, BrokerImage { registration, fenced, stopping, unfenced_epoch });
        // A new incarnation may have lost what the old one had only in memory: it leads again only by an election.
        self.end_leaderships(node);
        Ok(())
    }

    fn end_leaderships(&mut self, node: NodeId) {
        for topic in self.topics.values_mut() {
            if topic.partitions.iter().any(|partition| partition.leader == Some(node)) {
                let led = Arc::make_mut(topic).partitions.iter_mut().filter(|p| p.leader == Some(node));
                led.for_each(PartitionImage::end_leadership);
            }
        }
    }

    fn broker_mut(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<&mut BrokerImage, ApplyError> {
        match self.brokers.get_mut(&node) {
            Some(broker) if broker.registration.epoch == epoch => Ok(broker),
            _ => Err(ApplyError::StaleBroker { node, epoch }),
        }
    }

    fn unfence(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<(), ApplyError> {
        let broker = self.broker_mut(node, epoch)?;
        broker.fenced = false;
        broker.unfenced_epoch = epoch;
        Ok(())
    }

    fn fence(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<(), ApplyError> {
        self.broker_mut(node, epoch)?.fenced = true;
        self.end_leaderships(node);
        Ok(())
    }

    fn create_topic(
        &mut self,
        topic: TopicId,
        name: &TopicName,
        replicas: &[Vec<NodeId>],
        config: &TopicConfigOverrides,
    ) -> Result<(), ApplyError> {
        let taken =
            self.topic_ids.contains_key(name) || self.topics.contains_key(&topic) || self.tombstones.contains(&topic);
        if taken {
            return Err(ApplyError::TopicExists { name: name.clone(), topic });
        }
        let partitions = replicas.iter().map(|replicas| {
            let leader = replicas.iter().copied().find(|node| self.may_lead(*node));
            PartitionImage::new(replicas.clone(), leader)
        });
        let image = TopicImage {
            id: topic,
            name: name.clone(),
            config: config.clone(),
            partitions: partitions.collect(),
            opened: BTreeSet::new(),
        };
        self.topic_ids.insert(name.clone(), topic);
        self.topics.insert(topic, Arc::new(image));
        Ok(())
    }

    fn configure_topic(&mut self, topic: TopicId, config: &TopicConfigOverrides) -> Result<(), ApplyError> {
        let image = self.topic_mut(topic)?;
        let minimum = image.min_in_sync();
        image.config = config.clone();
        if image.min_in_sync() != minimum {
            // Whoever is eligible is so because fewer than the minimum were in sync; under another minimum more may be
            // committed than it has.
            for partition in &mut image.partitions {
                partition.eligible.clear();
                partition.partition_epoch += 1;
            }
        }
        Ok(())
    }

    fn delete_topic(&mut self, topic: TopicId) -> Result<(), ApplyError> {
        let removed = self.topics.remove(&topic).ok_or(ApplyError::UnknownTopic { topic })?;
        self.topic_ids.remove(&removed.name);
        self.tombstones.insert(topic);
        let holders = removed.partitions.iter().flat_map(|partition| &partition.replicas);
        self.tombstone_holders.insert(topic, holders.copied().collect());
        Ok(())
    }

    fn clear_tombstone(&mut self, topic: TopicId, node: Option<NodeId>) -> Result<(), ApplyError> {
        if !self.tombstones.contains(&topic) {
            return Err(ApplyError::UnknownTopic { topic });
        }
        if let (Some(node), Some(holders)) = (node, self.tombstone_holders.get_mut(&topic)) {
            holders.remove(&node);
            if !holders.is_empty() {
                return Ok(());
            }
        }
        self.tombstone_holders.remove(&topic);
        self.tombstones.remove(&topic);
        Ok(())
    }

    fn change_partition(&mut self, change: &PartitionChange) -> Result<(), ApplyError> {
        let topic = change.partition.topic;
        let current = self.partition(change.partition).ok_or(ApplyError::UnknownTopic { topic })?;
        current.check(change, self)?;
        let number = change.partition.partition.0 as usize;
        self.topic_mut(topic)?.partitions[number].take(change);
        Ok(())
    }

    fn topic_mut(&mut self, topic: TopicId) -> Result<&mut TopicImage, ApplyError> {
        self.topics.get_mut(&topic).map(Arc::make_mut).ok_or(ApplyError::UnknownTopic { topic })
    }
}
