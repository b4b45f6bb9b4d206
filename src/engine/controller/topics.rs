//! Topics: created, given more partitions, altered, deleted; and producer ids.

use std::collections::BTreeMap;

use crate::protocol::messages::{AlterTopic, CreatedTopic, InitProducerReply, NewTopic};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{
    Mutant, NodeId, PartitionIndex, ProducerEpoch, ProducerId, TopicConfig, TopicConfigOverrides, TopicId, TopicName,
};

use super::{Decision, refuse};
use crate::engine::metadata::{BrokerImage, ClusterImage, MetadataRecord, PartitionImage, TopicImage};
use crate::engine::placement::{self, Candidate};

/// The names of topics that Callboard keeps for itself begin with this.
pub const INTERNAL_PREFIX: &str = "__";

/// How many producer ids are reserved by one record.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// The limits and defaults that decisions follow.
#[derive(Clone, Debug)]
pub struct ControllerPolicy {
    /// At most this many topics (`limits.max_topics`).
    pub max_topics: usize,
    /// At most this many partitions in all (`limits.max_partitions`).
    pub max_partitions: usize,
    /// At most this many partitions a topic (`limits.max_partitions_per_topic`).
    pub max_partitions_per_topic: u32,
    /// The number of partitions of a topic that asks for none (`topics.default_partitions`).
    pub default_partitions: u32,
    /// The replication factor of a topic that asks for none; `None` for min(3, live brokers).
    pub default_replication_factor: Option<u32>,
    /// The settings of topics that do not override them (`topic_defaults`).
    pub topic_defaults: TopicConfig,
}

fn legal_name(name: &str) -> Result<TopicName, ApiError> {
    TopicName::new(name).map_err(|e| ApiError::new(ErrorCode::InvalidTopicName, e.to_string()))
}

fn known_topic(image: &ClusterImage, name: &str) -> Result<TopicId, ApiError> {
    let name = legal_name(name)?;
    match image.topic_ids.get(&name) {
        Some(id) => Ok(*id),
        None => refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no topic '{name}': create it first")),
    }
}

/// The key that says how many replicas must be in sync.
const MINIMUM: &str = "min_insync_replicas";

/// The brokers that can take replicas, with what each has.
fn candidates(image: &ClusterImage) -> Vec<Candidate> {
    let mut load: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for (_, state) in image.partitions() {
        let replicas = meant(state);
        replicas.first().into_iter().for_each(|leader| load.entry(*leader).or_default().0 += 1);
        replicas.iter().for_each(|node| load.entry(*node).or_default().1 += 1);
    }
    let live = image.brokers.iter().filter(|(node, _)| image.may_lead(**node) || Mutant::PlacesOnTheDead.is_on());
    let candidate = |(node, broker): (&NodeId, &BrokerImage)| {
        let (leads, replicas) = load.get(node).copied().unwrap_or_default();
        Candidate { node: *node, rack: broker.registration.rack.clone(), leads, replicas }
    };
    live.map(candidate).collect()
}

/// The replicas that a partition has, or will have after a reassignment.
fn meant(state: &PartitionImage) -> &Vec<NodeId> {
    state.reassignment.as_ref().map_or(&state.replicas, |under_way| &under_way.to)
}

/// The fewest replicas that a partition of the topic has, now or after a reassignment.
fn fewest_replicas(topic: &TopicImage) -> usize {
    topic.partitions.iter().map(|state| state.replicas.len().min(meant(state).len())).min().unwrap_or(0)
}

fn check_minimum(effective: &TopicConfig, replicas: usize) -> Result<(), ApiError> {
    let minimum = effective.min_insync_replicas;
    if minimum as usize <= replicas {
        return Ok(());
    }
    refuse(ErrorCode::InvalidConfig, format!("{MINIMUM} {minimum} is more than the {replicas} replicas there are"))
}

fn resolve(overrides: &TopicConfigOverrides, defaults: &TopicConfig) -> Result<TopicConfig, ApiError> {
    overrides.resolve(defaults).map_err(|e| ApiError::new(ErrorCode::InvalidConfig, e.to_string()))
}

impl ControllerPolicy {
    /// Creates a topic under the identity `id`.
    ///
    /// # Errors
    /// [`ApiError`] names the limit, name, number or setting that stands against it.
    pub fn create_topic(
        &self,
        image: &ClusterImage,
        wanted: &NewTopic,
        id: TopicId,
    ) -> Result<Decision<CreatedTopic>, ApiError> {
        let name = legal_name(&wanted.name)?;
        if name.as_str().starts_with(INTERNAL_PREFIX) {
            let text = format!(
                "names that begin with '{INTERNAL_PREFIX}' are kept for internal topics: choose another than '{name}'"
            );
            return refuse(ErrorCode::InvalidTopicName, text);
        }
        if image.topic_ids.contains_key(&name) {
            return refuse(ErrorCode::TopicExists, format!("topic '{name}' exists"));
        }
        let partitions = wanted.partitions.unwrap_or(self.default_partitions);
        self.check_topics(image)?;
        self.check_partitions(image, (0, partitions))?;
        let live = candidates(image);
        let factor = wanted
            .replication_factor
            .or(self.default_replication_factor)
            .unwrap_or_else(|| u32::try_from(live.len().clamp(1, 3)).unwrap_or(3));
        let replicas = placement::place(&live, &[], partitions, factor)?;
        let config = self.settings_of_new_topic(&wanted.config, factor)?;
        let answer = CreatedTopic { id, name: name.clone(), partitions, replication_factor: factor };
        Ok(Decision { records: vec![MetadataRecord::TopicCreated { topic: id, name, replicas, config }], answer })
    }

    /// Gives a topic more partitions: `total` in all. They are placed as if they had come with the others.
    ///
    /// # Errors
    /// [`ApiError`] names the limit or number that stands against it.
    pub fn add_partitions(&self, image: &ClusterImage, name: &str, total: u32) -> Result<Decision<TopicId>, ApiError> {
        let topic = known_topic(image, name)?;
        let Some(current) = image.topics.get(&topic) else {
            return refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no topic '{name}'"));
        };
        let have = u32::try_from(current.partitions.len()).unwrap_or(u32::MAX);
        if total <= have {
            let text = format!("topic '{name}' has {have} partitions: it can have more, not fewer and not {total}");
            return refuse(ErrorCode::InvalidPartitions, text);
        }
        self.check_partitions(image, (have, total - have))?;
        let existing: Vec<_> = current.partitions.iter().map(|state| meant(state).clone()).collect();
        let factor = existing.first().map_or(1, Vec::len);
        let factor = u32::try_from(factor).unwrap_or(u32::MAX);
        let replicas = placement::place(&candidates(image), &existing, total - have, factor)?;
        let added = MetadataRecord::TopicPartitionsAdded { topic, first: PartitionIndex(have), replicas };
        Ok(Decision { records: vec![added], answer: topic })
    }

    fn check_topics(&self, image: &ClusterImage) -> Result<(), ApiError> {
        if image.topics.len() >= self.max_topics {
            let text = format!(
                "there are {} topics, limits.max_topics is {}: delete some or raise it",
                image.topics.len(),
                self.max_topics
            );
            return refuse(ErrorCode::LimitExceeded, text);
        }
        Ok(())
    }

    /// A topic that has so many partitions is to get so many more.
    fn check_partitions(&self, image: &ClusterImage, (have, more): (u32, u32)) -> Result<(), ApiError> {
        let (most, total) = (self.max_partitions_per_topic, u64::from(have) + u64::from(more));
        if more == 0 || total > u64::from(most) {
            let text = format!("a topic has 1 to {most} partitions (limits.max_partitions_per_topic), not {total}");
            return refuse(ErrorCode::InvalidPartitions, text);
        }
        let have = image.partition_count();
        if have + more as usize > self.max_partitions {
            let text = format!(
                "there are {have} partitions, {more} more would exceed limits.max_partitions, which is {}",
                self.max_partitions
            );
            return refuse(ErrorCode::LimitExceeded, text);
        }
        Ok(())
    }

    fn settings_of_new_topic(
        &self,
        wanted: &BTreeMap<String, String>,
        factor: u32,
    ) -> Result<TopicConfigOverrides, ApiError> {
        let mut config = TopicConfigOverrides(wanted.clone());
        let default = self.default_minimum(factor as usize);
        if default > 1 && !config.0.contains_key(MINIMUM) {
            // From here on it is the topic's own, so that all nodes mean the same, whatever their files say.
            config.0.insert(MINIMUM.to_owned(), default.to_string());
        }
        check_minimum(&resolve(&config, &self.topic_defaults)?, factor as usize)?;
        Ok(config)
    }

    /// The minimum of a topic that asks for none. Two copies of an acknowledged record are what a factor of three is chosen for.
    fn default_minimum(&self, factor: usize) -> u32 {
        self.topic_defaults.min_insync_replicas.max(if factor >= 3 { 2 } else { 1 })
    }

    /// Deletes a topic. What stays is a tombstone, with the brokers that hold files of it: each clears its own part (rule 17).
    ///
    /// # Errors
    /// [`ApiError`] when there is none of that name.
    pub fn delete_topic(&self, image: &ClusterImage, name: &str) -> Result<Decision<TopicId>, ApiError> {
        let topic = known_topic(image, name)?;
        Ok(Decision { records: vec![MetadataRecord::TopicDeleted { topic }], answer: topic })
    }

    /// Changes the settings of a topic: all that is asked for, or nothing.
    ///
    /// # Errors
    /// [`ApiError`] names the topic, key or value that is not right.
    pub fn alter_topic(&self, image: &ClusterImage, change: &AlterTopic) -> Result<Decision<TopicId>, ApiError> {
        let topic = known_topic(image, &change.name)?;
        let Some(current) = image.topics.get(&topic) else {
            return refuse(ErrorCode::UnknownTopicOrPartition, format!("there is no topic '{}'", change.name));
        };
        let mut config = current.config.clone();
        let replicas = fewest_replicas(current);
        for key in &change.reset {
            // Resolving an override of the key tells whether the key exists; its own default is always legal.
            let probe = self.topic_defaults.get(key).unwrap_or_default();
            resolve(&TopicConfigOverrides(BTreeMap::from([(key.clone(), probe)])), &self.topic_defaults)?;
            config.0.remove(key);
            if key == MINIMUM {
                config.0.insert(key.clone(), self.default_minimum(replicas).to_string());
            }
        }
        config.0.extend(change.set.clone());
        let effective = resolve(&config, &self.topic_defaults)?;
        if change.set.contains_key(MINIMUM) || change.reset.iter().any(|key| key == MINIMUM) {
            check_minimum(&effective, replicas)?;
        }
        let records = if config == current.config {
            Vec::new()
        } else {
            vec![MetadataRecord::TopicConfigChanged { topic, config }]
        };
        Ok(Decision { records, answer: topic })
    }

    /// Hands out a producer: a new id, or the next epoch of `current`. `block` holds the ids reserved and not handed out.
    ///
    /// # Errors
    /// [`ApiError`] for an id that was never handed out.
    pub fn init_producer(
        &self,
        image: &ClusterImage,
        block: &mut std::ops::Range<i64>,
        current: Option<(ProducerId, ProducerEpoch)>,
    ) -> Result<Decision<InitProducerReply>, ApiError> {
        if let Some((producer_id, epoch)) = current {
            if producer_id.0 < 0 || producer_id >= image.next_producer_id || epoch.0 < 0 {
                let text =
                    format!("producer id {producer_id} with epoch {epoch} was never handed out: ask for a new one");
                return refuse(ErrorCode::UnknownProducer, text);
            }
            if let Some(next) = epoch.0.checked_add(1) {
                let answer = InitProducerReply { producer_id, producer_epoch: ProducerEpoch(next) };
                return Ok(Decision { records: Vec::new(), answer });
            }
        }
        let mut records = Vec::new();
        if block.is_empty() {
            let start = image.next_producer_id.0;
            *block = start..start + PRODUCER_ID_BLOCK;
            records.push(MetadataRecord::ProducerIdsReserved { next: ProducerId(block.end) });
        }
        let producer_id = ProducerId(block.start);
        block.start += 1;
        Ok(Decision { records, answer: InitProducerReply { producer_id, producer_epoch: ProducerEpoch(0) } })
    }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
