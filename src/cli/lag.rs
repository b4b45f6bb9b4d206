//! How far replicas are behind their leaders: asked of the leaders, who alone know it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::client::Admin;
use crate::protocol::messages::{LogDescription, PartitionMetadata, TopicDescription};
use crate::types::NodeId;

/// How long a leader has to answer. What is not known then is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// What leaders told, by topic and partition.
pub type Logs = BTreeMap<(String, u32), LogDescription>;

/// The logs of partitions given as (topic, number, leader), of those whose leaders answer soon.
pub async fn logs_of(admin: &Admin, partitions: impl IntoIterator<Item = (String, u32, NodeId)>) -> Logs {
    let mut by_leader: BTreeMap<NodeId, Vec<(String, u32)>> = BTreeMap::new();
    for (topic, number, leader) in partitions {
        by_leader.entry(leader).or_default().push((topic, number));
    }
    let answers = by_leader.into_values().map(|places| async move {
        let logs = timeout(PATIENCE, admin.describe_logs(&places)).await;
        let logs = logs.ok().and_then(Result::ok).unwrap_or_default();
        places.into_iter().zip(logs).filter_map(|(place, log)| Some((place, log.ok()?))).collect::<Vec<_>>()
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// How many records the replicas lack that are not in sync, of those that `counts` names: those of a replica that nothing is known of are
/// all that there are.
pub async fn lacking<'a>(
    admin: &Admin,
    partitions: impl Iterator<Item = (&'a TopicDescription, &'a PartitionMetadata)> + Clone,
    counts: impl Fn(NodeId) -> bool,
) -> u64 {
    let is_led = partitions.clone().filter_map(|(topic, partition)| {
        partition.leader.map(|leader| (topic.name.to_string(), partition.partition.0, leader))
    });
    let logs = logs_of(admin, is_led).await;
    let of_partition = |(topic, partition): (&TopicDescription, &PartitionMetadata)| {
        let log = logs.get(&(topic.name.to_string(), partition.partition.0));
        log.map_or(0, |log| lacking_of(log, partition, &counts))
    };
    partitions.map(of_partition).sum()
}

fn lacking_of(log: &LogDescription, partition: &PartitionMetadata, counts: impl Fn(NodeId) -> bool) -> u64 {
    let all = log.log_end_offset.distance_from(log.log_start_offset);
    let missing = partition.replicas.iter().filter(|node| counts(**node) && !partition.in_sync.contains(node));
    missing.map(|node| log.behind(*node).unwrap_or(all)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::FollowerDescription;
    use crate::types::{LeaderEpoch, Offset, PartitionIndex};

    fn log(followers: &[(u32, Option<u64>)]) -> LogDescription {
        let follower = |(node, end): &(u32, Option<u64>)| FollowerDescription {
            node_id: NodeId(*node),
            end_offset: end.map(Offset),
            caught_up_ms: None,
        };
        LogDescription {
            log_start_offset: Offset(100),
            high_watermark: Offset(1_000),
            durable_end_offset: Offset(1_000),
            log_end_offset: Offset(1_000),
            size_bytes: 0,
            segments: 1,
            leader_epoch: LeaderEpoch(0),
            damaged: Vec::new(),
            followers: followers.iter().map(follower).collect(),
        }
    }

    #[test]
    fn a_replica_lacks_what_the_leader_holds_beyond_its_end() {
        let log = log(&[(2, Some(990)), (3, None), (4, Some(7)), (5, Some(1_001))]);
        let behind = [2, 3, 4, 5, 6].map(|node| log.behind(NodeId(node)));
        assert_eq!(behind, [Some(10), None, Some(900), Some(0), None]);
    }

    #[test]
    fn those_that_are_not_in_sync_and_count_lack_together_what_each_lacks() {
        let partition = PartitionMetadata {
            partition: PartitionIndex(0),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(0),
            replicas: [1, 2, 3, 4, 5].map(NodeId).to_vec(),
            in_sync: [1, 2].map(NodeId).to_vec(),
        };
        let log = log(&[(2, Some(500)), (3, Some(990)), (4, None), (5, Some(999))]);
        assert_eq!(lacking_of(&log, &partition, |node| node != NodeId(5)), 10 + 900);
    }
}
