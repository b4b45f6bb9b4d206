//! The cluster's metadata: the image, the records that change it, and `apply`, which is the same on every node.
//!
//! ```text
//!   request ──► controller (decides) ──► records ──► metadata log ──► apply ──► ClusterImage ──► brokers
//! ```
//!
//! `apply` tests each record's preconditions: a record that does not fit changes nothing and says so.

mod batch;
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

pub use records::{BrokerRegistration, FEATURE_LEVEL, MetadataRecord};

/// A broker in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerImage {
    /// How it registered last.
    pub registration: BrokerRegistration,
    /// Whether it is not to be counted on.
    pub fenced: bool,
}

/// A partition in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Who holds a replica, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Who leads; `None` while nobody does.
    pub leader: Option<NodeId>,
    /// The epoch of the newest election.
    pub leader_epoch: LeaderEpoch,
    /// The committed in-sync set.
    pub in_sync: Vec<NodeId>,
    /// Raised by every change of the partition.
    pub partition_epoch: u32,
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
    /// The record would hand out ids again.
    #[error("producer ids below {next} were handed out already")]
    ProducerIdsGoBack {
        /// The id in the record.
        next: ProducerId,
    },
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
            MetadataRecord::TopicCreated { topic, name, replicas, config } => {
                self.create_topic(*topic, name, replicas, config)
            }
            MetadataRecord::TopicOpened { topic, node } => {
                self.topic_mut(*topic)?.opened.insert(*node);
                Ok(())
            }
            MetadataRecord::TopicConfigChanged { topic, config } => {
                self.topic_mut(*topic)?.config = config.clone();
                Ok(())
            }
            MetadataRecord::TopicDeleted { topic } => {
                let removed = self.topics.remove(topic).ok_or(ApplyError::UnknownTopic { topic: *topic })?;
                self.topic_ids.remove(&removed.name);
                self.tombstones.insert(*topic);
                Ok(())
            }
            MetadataRecord::TombstoneCleared { topic } => {
                if self.tombstones.remove(topic) {
                    Ok(())
                } else {
                    Err(ApplyError::UnknownTopic { topic: *topic })
                }
            }
            MetadataRecord::PartitionChanged { partition, leader, leader_epoch, in_sync, expected_partition_epoch } => {
                self.change_partition(*partition, *leader, *leader_epoch, in_sync, *expected_partition_epoch)
            }
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
        self.brokers.insert(node, BrokerImage { registration: registration.clone(), fenced: true });
        // A new incarnation may have lost what the old one had only in memory: it leads again only by an election.
        for topic in self.topics.values_mut() {
            if topic.partitions.iter().any(|partition| partition.leader == Some(node)) {
                let led = Arc::make_mut(topic).partitions.iter_mut().filter(|p| p.leader == Some(node));
                for partition in led {
                    partition.leader = None;
                    partition.partition_epoch += 1;
                }
            }
        }
        Ok(())
    }

    fn unfence(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<(), ApplyError> {
        match self.brokers.get_mut(&node) {
            Some(broker) if broker.registration.epoch == epoch => {
                broker.fenced = false;
                Ok(())
            }
            _ => Err(ApplyError::StaleBroker { node, epoch }),
        }
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
        let partitions = replicas.iter().map(|replicas| PartitionImage {
            replicas: replicas.clone(),
            leader: replicas.first().copied(),
            leader_epoch: LeaderEpoch(0),
            in_sync: replicas.clone(),
            partition_epoch: 0,
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

    fn change_partition(
        &mut self,
        partition: TopicPartition,
        leader: Option<NodeId>,
        leader_epoch: LeaderEpoch,
        in_sync: &[NodeId],
        expected: u32,
    ) -> Result<(), ApplyError> {
        let topic = partition.topic;
        let image = self
            .topic_mut(topic)?
            .partitions
            .get_mut(partition.partition.0 as usize)
            .ok_or(ApplyError::UnknownTopic { topic })?;
        let election = leader.is_some() && leader != image.leader;
        let epoch_fits = if election { leader_epoch > image.leader_epoch } else { leader_epoch >= image.leader_epoch };
        if image.partition_epoch != expected || !epoch_fits {
            return Err(ApplyError::StalePartition { partition, expected, leader_epoch });
        }
        image.leader = leader;
        image.leader_epoch = leader_epoch;
        image.in_sync = in_sync.to_vec();
        image.partition_epoch += 1;
        Ok(())
    }

    fn topic_mut(&mut self, topic: TopicId) -> Result<&mut TopicImage, ApplyError> {
        self.topics.get_mut(&topic).map(Arc::make_mut).ok_or(ApplyError::UnknownTopic { topic })
    }
}
