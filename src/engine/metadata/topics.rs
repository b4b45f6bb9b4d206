//! What records do to the topics of the image.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ApplyError, ClusterImage, PartitionImage, TopicImage};
use crate::types::{Mutant, NodeId, PartitionIndex, TopicConfigOverrides, TopicId, TopicName};

/// The setting that says when records are on disk.
const FLUSH: &str = "flush";

impl ClusterImage {
    pub(super) fn create_topic(
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
        let partitions = replicas.iter().map(|replicas| self.new_partition(replicas));
        let image = TopicImage {
            id: topic,
            name: name.clone(),
            config: config.clone(),
            partitions: partitions.collect(),
            opened: BTreeSet::new(),
            unopened: BTreeSet::new(),
            flush_changed_at: 0,
        };
        self.topic_ids.insert(name.clone(), topic);
        self.topics.insert(topic, Arc::new(image));
        Ok(())
    }

    /// All replicas are empty, and so in sync, but for those of brokers that were fenced since they were chosen: these come
    /// in as any other does.
    fn new_partition(&self, replicas: &[NodeId]) -> PartitionImage {
        let leader = replicas.iter().copied().find(|node| self.may_lead(*node));
        let mut partition = PartitionImage::new(replicas.to_vec(), leader);
        if leader.is_some() {
            partition.in_sync.retain(|node| self.is_live(*node));
        }
        partition
    }

    pub(super) fn add_partitions(
        &mut self,
        topic: TopicId,
        first: PartitionIndex,
        replicas: &[Vec<NodeId>],
    ) -> Result<(), ApplyError> {
        let new: Vec<_> = replicas.iter().map(|replicas| self.new_partition(replicas)).collect();
        let image = self.topic_mut(topic)?;
        if image.partitions.len() != first.0 as usize {
            return Err(ApplyError::OtherPartitions { topic, expected: first });
        }
        for (number, partition) in (first.0..).zip(new) {
            let opened = partition.replicas.iter().filter(|node| image.opened.contains(node));
            image.unopened.extend(opened.map(|node| (PartitionIndex(number), *node)));
            image.partitions.push(partition);
        }
        Ok(())
    }

    pub(super) fn open_topic(
        &mut self,
        topic: TopicId,
        node: NodeId,
        partitions: Option<&[PartitionIndex]>,
    ) -> Result<(), ApplyError> {
        let image = self.topic_mut(topic)?;
        let is_new = image.opened.insert(node);
        let is_listed = |number: PartitionIndex| partitions.is_none_or(|listed| listed.contains(&number));
        for (number, partition) in (0..).map(PartitionIndex).zip(&image.partitions) {
            if is_listed(number) {
                image.unopened.remove(&(number, node));
            } else if is_new && partition.replicas.contains(&node) {
                image.unopened.insert((number, node));
            }
        }
        Ok(())
    }

    pub(super) fn configure_topic(&mut self, topic: TopicId, config: &TopicConfigOverrides) -> Result<(), ApplyError> {
        let index = self.index;
        let image = self.topic_mut(topic)?;
        let minimum = image.min_in_sync();
        if image.config.0.get(FLUSH) != config.0.get(FLUSH) {
            image.flush_changed_at = index;
        }
        image.config = config.clone();
        if image.min_in_sync() != minimum {
            // Whoever is eligible is so because fewer than the minimum were in sync; under another minimum more may be
            // committed than it has. Where nobody is in sync nothing is: whoever is elected is the first that learns of the new
            // minimum, and clearing the set there would leave nobody to elect.
            for partition in &mut image.partitions {
                if !partition.in_sync.is_empty() && !Mutant::KeepsTheEligibleUnderANewMinimum.is_on() {
                    partition.eligible.clear();
                }
                partition.partition_epoch += 1;
            }
        }
        Ok(())
    }

    pub(super) fn delete_topic(&mut self, topic: TopicId) -> Result<(), ApplyError> {
        let removed = self.topics.remove(&topic).ok_or(ApplyError::UnknownTopic { topic })?;
        self.topic_ids.remove(&removed.name);
        self.tombstones.insert(topic);
        // Whoever held a replica before a reassignment may have its files still.
        let holders = removed.partitions.iter().flat_map(|partition| &partition.replicas).chain(&removed.opened);
        self.tombstone_holders.insert(topic, holders.copied().collect());
        Ok(())
    }

    /// Whether files of that deleted topic may still lie on the broker.
    #[must_use]
    pub fn holds_tombstone(&self, topic: TopicId, node: NodeId) -> bool {
        // Logs of a single node do not say who holds them.
        let is_holder = self.tombstone_holders.get(&topic).is_none_or(|holders| holders.contains(&node));
        self.tombstones.contains(&topic) && is_holder
    }

    pub(super) fn clear_tombstone(&mut self, topic: TopicId, node: Option<NodeId>) -> Result<(), ApplyError> {
        if !self.tombstones.contains(&topic) {
            return Err(ApplyError::UnknownTopic { topic });
        }
        let is_whole = node.is_none() || Mutant::ForgetsTombstonesTooEarly.is_on();
        if let (Some(node), Some(holders)) = (node.filter(|_| !is_whole), self.tombstone_holders.get_mut(&topic)) {
            holders.remove(&node);
            if !holders.is_empty() {
                return Ok(());
            }
        }
        self.tombstone_holders.remove(&topic);
        self.tombstones.remove(&topic);
        Ok(())
    }
}
