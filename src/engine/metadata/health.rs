//! How the cluster is, as its metadata shows it.

use super::{ClusterImage, PartitionImage, TopicImage};
use crate::types::ClusterHealth;

impl ClusterImage {
    /// How the cluster is.
    #[must_use]
    pub fn health(&self) -> ClusterHealth {
        let mut health = ClusterHealth::default();
        for broker in self.brokers.values() {
            let counted = match (broker.fenced, broker.stopping) {
                (true, _) => &mut health.brokers_fenced,
                (false, true) => &mut health.brokers_stopping,
                (false, false) => &mut health.brokers_up,
            };
            *counted += 1;
        }
        for topic in self.topics.values() {
            for partition in &topic.partitions {
                health.without_leader += u64::from(partition.leader.is_none());
                health.below_minimum += u64::from(topic.is_below_minimum(partition));
                health.under_replicated += u64::from(partition.is_under_replicated());
            }
        }
        health
    }
}

impl TopicImage {
    /// Whether what is written to its `partition` cannot be acknowledged for want of replicas in sync.
    #[must_use]
    pub fn is_below_minimum(&self, partition: &PartitionImage) -> bool {
        partition.in_sync.len() < self.min_in_sync() as usize
    }
}

impl PartitionImage {
    /// Whether a replica is not in sync.
    #[must_use]
    pub fn is_under_replicated(&self) -> bool {
        self.in_sync.len() < self.replicas.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::controller::test_support::{Cluster, nodes};

    #[test]
    fn each_broker_has_one_state_and_a_partition_counts_wherever_it_fits() {
        let mut cluster = Cluster::with_partition(4, &nodes([1, 2, 3]), &[("min_insync_replicas", "2")]);
        let whole = ClusterHealth { brokers_up: 4, ..ClusterHealth::default() };
        assert_eq!(cluster.image.health(), whole);
        cluster.stopping(4);
        cluster.fenced(3);
        let health =
            ClusterHealth { brokers_up: 2, brokers_stopping: 1, brokers_fenced: 1, under_replicated: 1, ..whole };
        assert_eq!(cluster.image.health(), health);
        cluster.fenced(2);
        let health = ClusterHealth { brokers_up: 1, brokers_fenced: 2, below_minimum: 1, ..health };
        assert_eq!(cluster.image.health(), health);
        cluster.fenced(1);
        let health = ClusterHealth { brokers_up: 0, brokers_fenced: 3, without_leader: 1, ..health };
        assert_eq!(cluster.image.health(), health);
    }
}
