//! The cluster as the metadata here shows it: brokers, and the partitions that are not as they should be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::actor::Session;
use crate::actors::codec::{Held, ReplyBody, RequestPermit};
use crate::actors::controller;
use crate::engine::metadata::{BrokerImage, ClusterImage, PartitionImage, TopicImage};
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{
    BrokerDescription, ChangeControllers, ChangeControllersReply, ClusterTrouble, DescribeClusterReply, MissingReason,
    MissingReplica, TroubledPartition,
};
use crate::types::{NodeId, Operation, PartitionIndex};

/// How many partitions are listed. All are counted; who has more of them in trouble needs no longer list.
const MOST_LISTED: usize = 100;

impl Session {
    /// What the metadata says is known here; how the controllers are, and the leases, only the one that decides knows.
    pub(super) fn describe_cluster(&mut self, head: FrameHead, permit: RequestPermit) {
        if let Err(denied) = self.allow(Operation::DescribeCluster) {
            return self.send(head, Err(denied), Vec::new(), Held { permit: Some(permit), room: None });
        }
        let (controllers, image) = (self.settings.controllers.clone(), Arc::clone(&self.view().image));
        self.reply_later(head, permit, async move {
            // Without a majority nobody can say: the rest is worth knowing all the more.
            let told = controllers.describe_controllers().await.unwrap_or_default();
            Ok(ReplyBody::DescribeCluster(DescribeClusterReply {
                cluster_id: image.cluster_id,
                controller: controllers.decides(),
                controllers: told.controllers,
                brokers: brokers(&image, &told.leases),
                topics: count(image.topics.len()),
                partitions: count(image.partition_count()),
                trouble: trouble(&image),
            }))
        });
    }

    pub(super) fn change_controllers(&mut self, head: FrameHead, request: ChangeControllers, permit: RequestPermit) {
        if let Err(denied) = self.allow(Operation::AlterCluster) {
            return self.send(head, Err(denied), Vec::new(), Held { permit: Some(permit), room: None });
        }
        let controllers = self.settings.controllers.clone();
        self.reply_later(head, permit, async move {
            let controllers = controllers.change_controllers(controller::ChangeControllers(request)).await?;
            Ok(ReplyBody::ChangeControllers(ChangeControllersReply { controllers }))
        });
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn brokers(image: &ClusterImage, leases: &[(NodeId, u64)]) -> Vec<BrokerDescription> {
    let mut loads: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
    for (_, partition) in image.partitions() {
        partition.leader.into_iter().for_each(|node| loads.entry(node).or_default().0 += 1);
        partition.replicas.iter().for_each(|node| loads.entry(*node).or_default().1 += 1);
    }
    let describe = |(node, broker): (&NodeId, &BrokerImage)| {
        let (leads, replicas) = loads.get(node).copied().unwrap_or_default();
        let registration = &broker.registration;
        BrokerDescription {
            node_id: *node,
            host: registration.host.clone(),
            port: registration.port,
            rack: registration.rack.clone(),
            fenced: broker.fenced,
            leads,
            replicas,
            software: registration.software.clone(),
            registration_epoch: registration.epoch,
            stopping: broker.stopping,
            lease_ms: leases.iter().find(|(of, _)| of == node).map(|(_, left)| *left),
        }
    };
    image.brokers.iter().map(describe).collect()
}

/// How bad it is for a partition, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    WithoutLeader,
    BelowMinimum,
    UnderReplicated,
}

fn severity(topic: &TopicImage, partition: &PartitionImage) -> Option<Severity> {
    if partition.leader.is_none() {
        Some(Severity::WithoutLeader)
    } else if topic.is_below_minimum(partition) {
        Some(Severity::BelowMinimum)
    } else {
        partition.is_under_replicated().then_some(Severity::UnderReplicated)
    }
}

fn trouble(image: &ClusterImage) -> ClusterTrouble {
    let mut trouble = ClusterTrouble::default();
    let mut found: Vec<(Severity, &TopicImage, PartitionIndex, &PartitionImage)> = Vec::new();
    for topic in image.topic_ids.values().filter_map(|id| image.topics.get(id)) {
        for (number, partition) in (0..).map(PartitionIndex).zip(&topic.partitions) {
            let Some(severity) = severity(topic, partition) else { continue };
            trouble.count += 1;
            trouble.without_leader += u32::from(partition.leader.is_none());
            trouble.below_minimum += u32::from(topic.is_below_minimum(partition));
            trouble.under_replicated += u32::from(partition.is_under_replicated());
            found.push((severity, topic, number, partition));
        }
    }
    // Stable: within each severity they stay in the order of their names.
    found.sort_by_key(|(severity, ..)| *severity);
    let listed = found.into_iter().take(MOST_LISTED);
    trouble.partitions =
        listed.map(|(_, topic, number, partition)| troubled(image, topic, number, partition)).collect();
    trouble
}

fn troubled(
    image: &ClusterImage,
    topic: &TopicImage,
    number: PartitionIndex,
    partition: &PartitionImage,
) -> TroubledPartition {
    let missing = partition.replicas.iter().filter(|node| !partition.in_sync.contains(node));
    TroubledPartition {
        topic_id: topic.id,
        topic: topic.name.clone(),
        partition: number,
        leader: partition.leader,
        replicas: partition.replicas.clone(),
        in_sync: partition.in_sync.clone(),
        min_in_sync: topic.min_in_sync(),
        missing: missing.map(|node| MissingReplica { node_id: *node, reason: reason(image, *node) }).collect(),
    }
}

fn reason(image: &ClusterImage, node: NodeId) -> MissingReason {
    match image.brokers.get(&node) {
        None => MissingReason::NotRegistered,
        Some(broker) if broker.fenced => MissingReason::Fenced,
        Some(broker) if broker.stopping => MissingReason::Stopping,
        Some(_) => MissingReason::CatchingUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, TopicConfigOverrides, TopicId, TopicName};

    /// A partition on brokers 1, 2, 3.
    fn partition(leader: Option<u32>, in_sync: &[u32]) -> PartitionImage {
        let mut partition = PartitionImage::new([1, 2, 3].map(NodeId).to_vec(), leader.map(NodeId));
        partition.in_sync = in_sync.iter().copied().map(NodeId).collect();
        partition
    }

    fn image(topics: Vec<(&str, Vec<PartitionImage>)>) -> ClusterImage {
        let mut image = ClusterImage::empty(ClusterId(uuid::Uuid::from_u128(1)));
        for (name, partitions) in topics {
            let (id, name) = (TopicId::random(), TopicName::new(name).expect("legal"));
            let config = TopicConfigOverrides([("min_insync_replicas".to_owned(), "2".to_owned())].into());
            let (opened, unopened) = (Default::default(), Default::default());
            let topic =
                TopicImage { id, name: name.clone(), config, partitions, opened, unopened, flush_changed_at: 0 };
            image.topics.insert(id, Arc::new(topic));
            image.topic_ids.insert(name, id);
        }
        image
    }

    #[test]
    fn partitions_in_trouble_are_counted_by_what_ails_them_and_listed_with_the_worst_first() {
        let whole = || partition(Some(1), &[1, 2, 3]);
        let image = image(vec![
            ("a", vec![whole(), partition(Some(1), &[1, 2])]),
            ("b", vec![partition(Some(1), &[1]), whole()]),
            ("c", vec![partition(None, &[3])]),
        ]);
        let trouble = trouble(&image);
        let counts = (trouble.count, trouble.without_leader, trouble.below_minimum, trouble.under_replicated);
        assert_eq!(counts, (3, 1, 2, 3));
        let listed: Vec<_> = trouble.partitions.iter().map(|p| (p.topic.as_str(), p.partition.0)).collect();
        assert_eq!(listed, [("c", 0), ("b", 0), ("a", 1)]);
        let missing = |node| MissingReplica { node_id: NodeId(node), reason: MissingReason::NotRegistered };
        assert_eq!(trouble.partitions[0].missing, [missing(1), missing(2)]);
        assert_eq!(trouble.partitions[0].min_in_sync, 2);
    }

    #[test]
    fn a_hundred_are_listed_and_all_are_counted() {
        let image = image(vec![("t", (0..150).map(|_| partition(Some(1), &[1, 2])).collect())]);
        let trouble = trouble(&image);
        assert_eq!((trouble.count, trouble.partitions.len()), (150, 100));
        assert_eq!(trouble.partitions[99].partition, PartitionIndex(99));
    }
}
