//! How a partition's directory is called, and which partition a directory's name stands for.

use uuid::Uuid;

use crate::types::{PartitionIndex, TopicId, TopicName, TopicPartition};

/// How much of the topic's name stands in the directory's: file names end at 255 bytes, and the id tells topics apart.
const TOPIC_NAME_BYTES: usize = 100;

/// The name of a partition's directory: the first 100 bytes of the topic's name, the topic's id, the partition.
#[must_use]
pub fn partition_dir_name(name: &TopicName, partition: TopicPartition) -> String {
    // Legal topic names are ASCII, so that any byte is a boundary.
    let name = name.as_str();
    let start = name.get(..TOPIC_NAME_BYTES).unwrap_or(name);
    format!("{start}-{}-{}", partition.topic, partition.partition)
}

/// The partition that a directory's name stands for; `None` for every other name.
#[must_use]
pub fn parse_partition_dir_name(directory: &str) -> Option<TopicPartition> {
    let (rest, index) = directory.rsplit_once('-')?;
    let (topic_name, id) = rest.rsplit_once('-')?;
    let partition = TopicPartition::new(TopicId(Uuid::try_parse(id).ok()?), PartitionIndex(index.parse().ok()?));
    let topic_name = TopicName::new(topic_name).ok()?;
    // Numbers and ids have other spellings too; only the one that is written counts.
    (partition_dir_name(&topic_name, partition) == directory).then_some(partition)
}
