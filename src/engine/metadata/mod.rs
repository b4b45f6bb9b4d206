//! The cluster's metadata: the image, the records that change it, and `apply`, which is the same on every node.
//!
//! ```text
//!   request ──► controller (decides) ──► records ──► metadata log ──► apply ──► ClusterImage ──► brokers
//! ```
//!
//! `apply` tests each record's preconditions: a record that does not fit changes nothing and says so.

mod brokers;
mod health;
mod partition;
mod records;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{
    BrokerEpoch, ClusterId, IncarnationId, LeaderEpoch, Mutant, NodeId, PartitionIndex, ProducerId,
    TopicConfigOverrides, TopicId, TopicName, TopicPartition,
};

pub use partition::{PartitionChange, PartitionImage, Reassignment};
pub use records::{BrokerRegistration, DirectoryHistory, FEATURE_LEVEL, LastStop, MetadataRecord, PeerEndpoint};

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
    /// The index at which that registration was decided. Its process has opened its logs since, and synced what was there. One that
    /// was never counted on may have ended before, and what an earlier process wrote is no safer than it was.
    #[serde(default)]
    pub synced_from: u64,
    /// The processes before the registered one, the newest last, as far as a request of theirs may still be on its way.
    #[serde(default)]
    pub earlier: Vec<IncarnationId>,
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
    /// The brokers that have had their replicas of it on disk, but for those of `unopened`.
    pub opened: BTreeSet<NodeId>,
    /// Replicas that came to such a broker later, and have not been on its disk yet.
    #[serde(default)]
    pub unopened: BTreeSet<(PartitionIndex, NodeId)>,
    /// The index at which the setting `flush` was changed last; 0 when it never was.
    #[serde(default)]
    pub flush_changed_at: u64,
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
    /// The record holds only for the metadata that it was decided on.
    #[error("decided at index {expected}, but {found} records came before it: decide again")]
    DecidedElsewhere {
        /// The index that it was decided at.
        expected: u64,
        /// The index it met.
        found: u64,
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
    /// The topic has got or lost partitions since the record was decided.
    #[error("topic {topic} does not have {expected} partitions: decide again")]
    OtherPartitions {
        /// The topic.
        topic: TopicId,
        /// The partition that was to be the first new one.
        expected: PartitionIndex,
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
    #[error(
        "broker {node} cannot be in a set of partition {partition}: it holds no replica, is named twice, or leads without being in sync"
    )]
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
    /// The record elects a broker that is not to be counted on, or counts on one that is stopping.
    #[error("broker {node} is fenced or stopping: not elected, nor counted on")]
    NotLive {
        /// The broker.
        node: NodeId,
    },
    /// The record fences a broker that is fenced.
    #[error("broker {node} is fenced already: nothing is left to do")]
    FencedAlready {
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

    /// Whether that replica has been on the broker's disk: if its directory is missing there, it was lost.
    #[must_use]
    pub fn has_opened(&self, partition: PartitionIndex, node: NodeId) -> bool {
        self.opened.contains(&node) && !self.unopened.contains(&(partition, node))
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
            MetadataRecord::TopicPartitionsAdded { topic, first, replicas } => {
                self.add_partitions(*topic, *first, replicas)
            }
            MetadataRecord::TopicOpened { topic, node, partitions } => {
                self.open_topic(*topic, *node, partitions.as_deref())
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

    /// Applies the records of one decision: all of them, or, when one does not fit, none. The index moves by their number.
    ///
    /// # Errors
    /// The [`ApplyError`] of the first that does not fit; nothing but the index has changed then.
    pub fn apply_entry(&mut self, records: &[MetadataRecord]) -> Result<(), ApplyError> {
        if let [only] = records {
            return self.apply(only);
        }
        let mut after = self.clone();
        match records.iter().try_for_each(|record| after.apply(record)) {
            Ok(()) => *self = after,
            Err(error) if Mutant::AppliesHalfADecision.is_on() => {
                *self = after;
                return Err(error);
            }
            Err(error) => {
                self.index += records.len() as u64;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes on a newer image as a whole. One that is not newer would take back what was applied already: it is left aside.
    pub fn install(&mut self, newer: Self) -> bool {
        let is_newer = newer.cluster_id == self.cluster_id && newer.index > self.index;
        if is_newer {
            *self = newer;
        }
        is_newer
    }

    fn set_feature_level(&mut self, level: u16) -> Result<(), ApplyError> {
        if level > FEATURE_LEVEL {
            return Err(ApplyError::FeatureLevel { found: level });
        }
        self.feature_level = self.feature_level.max(level);
        Ok(())
    }

    fn change_partition(&mut self, change: &PartitionChange) -> Result<(), ApplyError> {
        let topic = change.partition.topic;
        let current = self.partition(change.partition).ok_or(ApplyError::UnknownTopic { topic })?;
        current.check(change, self)?;
        let (number, index) = (change.partition.partition, self.index);
        let image = self.topic_mut(topic)?;
        let Some(partition) = image.partitions.get_mut(number.0 as usize) else {
            return Err(ApplyError::UnknownTopic { topic });
        };
        let added = change.replicas.iter().flatten().filter(|node| !partition.replicas.contains(node));
        image.unopened.extend(added.filter(|node| image.opened.contains(node)).map(|node| (number, *node)));
        partition.take(change, index);
        image.unopened.retain(|(at, node)| *at != number || partition.replicas.contains(node));
        Ok(())
    }

    fn topic_mut(&mut self, topic: TopicId) -> Result<&mut TopicImage, ApplyError> {
        self.topics.get_mut(&topic).map(Arc::make_mut).ok_or(ApplyError::UnknownTopic { topic })
    }
}
