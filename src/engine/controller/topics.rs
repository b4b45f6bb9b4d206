//! What the controller decides: the records that a request becomes, or why it is refused. Nothing is changed here; the
//! records change the image once the metadata log has them.

use std::collections::BTreeMap;

use crate::protocol::messages::{AlterTopic, CreatedTopic, InitProducerReply, NewTopic};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, ProducerEpoch, ProducerId, TopicConfig, TopicConfigOverrides, TopicId, TopicName,
};

use super::metadata::{BrokerRegistration, ClusterImage, MetadataRecord};
use super::placement;

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

/// What a request becomes: records for the metadata log, and the answer once they are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    /// To be appended together, in this order.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub answer: T,
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(code, message))
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
        self.check_limits(image, partitions)?;
        let live: Vec<NodeId> = image.brokers.keys().copied().filter(|node| image.is_live(*node)).collect();
        let factor = wanted
            .replication_factor
            .or(self.default_replication_factor)
            .unwrap_or_else(|| u32::try_from(live.len().clamp(1, 3)).unwrap_or(3));
        let replicas = placement::place(&live, partitions, factor, image.topics.len())?;
        let config = self.settings_of_new_topic(&wanted.config, factor)?;
        let answer = CreatedTopic { id, name: name.clone(), partitions, replication_factor: factor };
        Ok(Decision { records: vec![MetadataRecord::TopicCreated { topic: id, name, replicas, config }], answer })
    }

    fn check_limits(&self, image: &ClusterImage, partitions: u32) -> Result<(), ApiError> {
        let most = self.max_partitions_per_topic;
        if partitions == 0 || partitions > most {
            let text =
                format!("a topic has 1 to {most} partitions (limits.max_partitions_per_topic), not {partitions}");
            return refuse(ErrorCode::InvalidPartitions, text);
        }
        if image.topics.len() >= self.max_topics {
            let text = format!(
                "there are {} topics, limits.max_topics is {}: delete some or raise it",
                image.topics.len(),
                self.max_topics
            );
            return refuse(ErrorCode::LimitExceeded, text);
        }
        let have = image.partition_count();
        if have + partitions as usize > self.max_partitions {
            let text = format!(
                "there are {have} partitions, {partitions} more would exceed limits.max_partitions, which is {}",
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
        // Two copies of an acknowledged record are what a factor of three is chosen for.
        let minimum = "min_insync_replicas";
        if factor >= 3 && self.topic_defaults.min_insync_replicas < 2 && !config.0.contains_key(minimum) {
            config.0.insert(minimum.to_owned(), "2".to_owned());
        }
        let effective = resolve(&config, &self.topic_defaults)?;
        if effective.min_insync_replicas > factor {
            let text = format!(
                "min_insync_replicas {} is more than the {factor} replicas there are",
                effective.min_insync_replicas
            );
            return refuse(ErrorCode::InvalidConfig, text);
        }
        Ok(config)
    }

    /// Deletes a topic.
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
        for key in &change.reset {
            // Resolving an override of the key tells whether the key exists; its own default is always legal.
            let probe = self.topic_defaults.get(key).unwrap_or_default();
            resolve(&TopicConfigOverrides(BTreeMap::from([(key.clone(), probe)])), &self.topic_defaults)?;
            config.0.remove(key);
        }
        config.0.extend(change.set.clone());
        let effective = resolve(&config, &self.topic_defaults)?;
        let replicas = current.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(0);
        if change.set.contains_key("min_insync_replicas") && effective.min_insync_replicas as usize > replicas {
            let text = format!(
                "min_insync_replicas {} is more than the {replicas} replicas there are",
                effective.min_insync_replicas
            );
            return refuse(ErrorCode::InvalidConfig, text);
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

/// Registers a broker, unfences it, and elects it wherever nobody leads and it is in sync. Every election raises the
/// leader epoch, of the same broker too: no (epoch, offset) ever names two contents.
#[must_use]
pub fn register_broker(image: &ClusterImage, mut registration: BrokerRegistration) -> Decision<BrokerEpoch> {
    // Above every epoch that was ever given: the index of the log never goes back.
    let known = image.brokers.get(&registration.node).map_or(0, |broker| broker.registration.epoch.0);
    let epoch = BrokerEpoch(known.max(image.index).max(registration.epoch.0) + 1);
    registration.epoch = epoch;
    let node = registration.node;
    let mut records =
        vec![MetadataRecord::BrokerRegistered(registration), MetadataRecord::BrokerUnfenced { node, epoch }];
    for (partition, state) in image.partitions() {
        let led_so_far = state.leader == Some(node);
        if !led_so_far && (state.leader.is_some() || !state.in_sync.contains(&node)) {
            continue;
        }
        records.push(MetadataRecord::PartitionChanged {
            partition,
            leader: Some(node),
            leader_epoch: LeaderEpoch(state.leader_epoch.0 + 1),
            in_sync: state.in_sync.clone(),
            // Registering takes the leadership away first, which is a change of its own.
            expected_partition_epoch: state.partition_epoch + u32::from(led_so_far),
        });
    }
    Decision { records, answer: epoch }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
