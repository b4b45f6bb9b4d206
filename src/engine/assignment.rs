//! What the metadata asks a broker to do with a partition.

use super::follower::Following;
use super::leader::Leadership;
use super::metadata::ClusterImage;
use crate::types::{BrokerEpoch, Mutant, NodeId, TopicPartition};

/// The part of one broker in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// Lead it.
    Lead(Leadership),
    /// Follow its leader, or wait for one.
    Follow(Following),
    /// Hold no replica of it.
    None,
}

impl Assignment {
    /// What `image` asks of `node`, which is registered under `broker_epoch`. An image that does not know this registration yet
    /// asks for nothing that only this registration may do: what an earlier one led, nobody leads.
    #[must_use]
    pub fn of(image: &ClusterImage, node: NodeId, broker_epoch: BrokerEpoch, partition: TopicPartition) -> Self {
        let Some(state) = image.partition(partition).filter(|state| state.replicas.contains(&node)) else {
            return Self::None;
        };
        let is_current = image.brokers.get(&node).is_some_and(|broker| broker.registration.epoch == broker_epoch);
        match Leadership::in_image(image, partition) {
            Some(leadership) if is_current && state.leader == Some(node) => Self::Lead(leadership),
            _ => Self::Follow(Following {
                leader: state.leader.filter(|leader| *leader != node),
                leader_epoch: state.leader_epoch,
                broker_epoch,
                is_member: state.is_member(node),
                unclean_epoch: state.unclean_epoch,
            }),
        }
    }
}

/// What is to become of a partition's files on a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The partition exists.
    Keep,
    /// Its topic was deleted: there is a tombstone of that id.
    Remove,
    /// Nobody knows it: it is put aside, where a person may look at it (rule 17).
    PutAside,
}

impl Fate {
    /// What `image` says of the files of `partition`. Ask only an image that knows the broker's own registration: an older one
    /// may not know yet what the broker was asked to hold.
    #[must_use]
    pub fn of(image: &ClusterImage, partition: TopicPartition) -> Self {
        if image.partition(partition).is_some() {
            Self::Keep
        } else if image.tombstones.contains(&partition.topic) || Mutant::RemovesWhatNobodyKnows.is_on() {
            Self::Remove
        } else {
            Self::PutAside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::controller::test_support::{Cluster, P0, nodes};
    use crate::engine::metadata::MetadataRecord;

    #[test]
    fn rule_17_files_are_removed_on_a_tombstone_only_and_put_aside_when_nobody_knows_them() {
        let mut cluster = Cluster::with_partition(1, &nodes([1]), &[]);
        let other = TopicPartition::new(P0.topic, crate::types::PartitionIndex(7));
        assert_eq!(Fate::of(&cluster.image, P0), Fate::Keep);
        assert_eq!(Fate::of(&cluster.image, other), Fate::PutAside, "the topic has no such partition");
        cluster.image.apply(&MetadataRecord::TopicDeleted { topic: P0.topic }).expect("it exists");
        assert_eq!([Fate::of(&cluster.image, P0), Fate::of(&cluster.image, other)], [Fate::Remove, Fate::Remove]);
        cluster.image.apply(&MetadataRecord::TombstoneCleared { topic: P0.topic, node: None }).expect("there is one");
        assert_eq!(Fate::of(&cluster.image, P0), Fate::PutAside, "whoever comes with it now was not asked before");
    }
}
