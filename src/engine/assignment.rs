//! What the metadata asks a broker to do with a partition.

use super::follower::Following;
use super::leader::Leadership;
use super::metadata::ClusterImage;
use crate::types::{BrokerEpoch, NodeId, TopicPartition};

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
