//! What is wrong with the replicas: looked up when somebody asks, so that nothing has to be kept up to date.

use actix::{Handler, MailboxError, ResponseFuture};
use futures_util::future::join_all;

use super::actor::Broker;
use super::messages::{BrokerHealth, ExamineReplicas, Replica};
use crate::actors::partition_leader::{ExamineReplica, ReplicaHealth};
use crate::protocol::messages::{MAX_LISTED_PARTITIONS, OfflinePartition, ReplicasDescription};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{PartitionIndex, TopicId, TopicName};

/// A replica by name, to be sorted and told.
type Place = (TopicName, PartitionIndex, TopicId);

/// Puts together what the replicas are like. Lists the first offline ones by name.
fn summary(examined: Vec<(Place, ReplicaHealth)>) -> ReplicasDescription {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let damaged = examined.iter().filter(|(_, health)| health.damaged_ranges > 0);
    let (damaged_partitions, damaged_ranges) =
        damaged.fold((0, 0), |(partitions, ranges), (_, health)| (partitions + 1, ranges + health.damaged_ranges));
    let failed = examined.into_iter().filter_map(|(place, health)| Some((place, health.failure?)));
    let mut offline: Vec<(Place, ApiError)> = failed.collect();
    let offline_count = count(offline.len());
    offline.sort_by(|(one, _), (other, _)| one.cmp(other));
    offline.truncate(MAX_LISTED_PARTITIONS);
    let listed = |((topic, partition, topic_id), cause)| OfflinePartition { topic_id, topic, partition, cause };
    ReplicasDescription {
        offline: offline.into_iter().map(listed).collect(),
        offline_count,
        damaged_partitions: count(damaged_partitions),
        damaged_ranges: count(damaged_ranges),
    }
}

impl Handler<ExamineReplicas> for Broker {
    type Result = ResponseFuture<BrokerHealth>;
    fn handle(&mut self, _: ExamineReplicas, _: &mut Self::Context) -> Self::Result {
        let refusing_appends = self.disk_is_full.then(|| self.disk_full_error());
        let (mut examined, mut asked) = (Vec::new(), Vec::new());
        for (id, topic) in &self.replicas {
            for (number, replica) in (0..).zip(&topic.replicas) {
                let place = (topic.name.clone(), PartitionIndex(number), *id);
                match replica {
                    Replica::Leader(replica) | Replica::Follower(replica) => {
                        let answer = replica.send(ExamineReplica);
                        asked.push(async move { answer.await.map(|health| (place, health)) });
                    }
                    // It is being opened, which is nothing to report.
                    Replica::Offline(cause) if cause.code == ErrorCode::NotLeader => {}
                    Replica::Offline(cause) => {
                        let health = ReplicaHealth { failure: Some(cause.clone()), damaged_ranges: 0 };
                        examined.push((place, health));
                    }
                    Replica::Retired(_) | Replica::Elsewhere => {}
                }
            }
        }
        Box::pin(async move {
            // A leader that is gone by now belongs to a topic that was just deleted.
            examined.extend(join_all(asked).await.into_iter().filter_map(Result::<_, MailboxError>::ok));
            BrokerHealth { replicas: summary(examined), refusing_appends }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: u32, failure: Option<&str>, damaged_ranges: usize) -> (Place, ReplicaHealth) {
        let place = (TopicName::new("t").expect("legal"), PartitionIndex(number), TopicId(uuid::Uuid::nil()));
        let failure = failure.map(|text| ApiError::new(ErrorCode::StorageFailed, text));
        (place, ReplicaHealth { failure, damaged_ranges })
    }

    #[test]
    fn the_list_of_offline_partitions_is_bounded_and_sorted_and_all_are_counted() {
        let replicas = (0..300).rev().map(|number| replica(number, (number % 2 == 1).then_some("lost disk"), 0));
        let told = summary(replicas.collect());
        assert_eq!((told.offline.len(), told.offline_count), (MAX_LISTED_PARTITIONS, 150));
        assert_eq!((told.offline[0].partition, told.offline[99].partition), (PartitionIndex(1), PartitionIndex(199)));
        assert_eq!(told.offline[0].cause.message, "lost disk");
        assert_eq!((told.damaged_partitions, told.damaged_ranges), (0, 0));
    }

    #[test]
    fn damage_is_counted_by_partition_and_by_range_and_takes_nothing_offline() {
        let told = summary(vec![replica(0, None, 3), replica(1, None, 0), replica(2, Some("gone"), 2)]);
        assert_eq!((told.damaged_partitions, told.damaged_ranges, told.offline_count), (2, 5, 1));
    }
}
