//! `callboard cluster decommission`: everything that a broker holds goes to the others.
//!
//! It is the administrator's own reassignment, planned here: the broker's part in each partition goes to the one of the others that has the
//! fewest replicas. Topics that are created meanwhile may come to the broker, too, so it is looked again until it holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::args::DecommissionArgs;
use crate::cli::error::CliError;
use crate::cli::lag;
use crate::cli::output::{self, counted};
use crate::cli::progress::{Bulletin, grouped};
use crate::client::Admin;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{DescribeClusterReply, PartitionMove, TopicDescription};
use crate::types::{NodeId, PartitionIndex};

/// How often it is looked how far the moves are.
const LOOK: Duration = Duration::from_millis(500);
/// Moves in one request.
const MOVES_A_REQUEST: usize = 1_000;

/// A partition, by its topic's name.
type Place = (String, PartitionIndex);

/// Moves everything away from the broker, and waits until that is done.
pub(super) async fn run(admin: &Admin, args: &DecommissionArgs, json: bool) -> Result<(), CliError> {
    let broker = NodeId(args.broker);
    let mut asked = BTreeSet::new();
    let mut bulletin = Bulletin::start();
    let mut moved = Vec::new();
    loop {
        let cluster = admin.describe_cluster().await?;
        let Some(known) = cluster.brokers.iter().find(|known| known.node_id == broker) else {
            return Err(CliError::Failed(format!("there is no broker {broker}: see callboard cluster describe")));
        };
        let topics: Vec<_> = admin.describe_topics(None).await?.into_iter().flatten().collect();
        // Topics that this client may not see count, too.
        let held = held_by(&topics, broker).max(known.replicas as usize);
        let moves = plan(&cluster, &topics, broker, &asked)?;
        if args.dry_run {
            return tell_plan(&moves, json);
        }
        if held == 0 {
            return tell_done(broker, &moved, json);
        }
        for moves in moves.chunks(MOVES_A_REQUEST) {
            for (wanted, answer) in moves.iter().zip(admin.reassign_partitions(moves).await?) {
                let place = (wanted.topic.clone(), wanted.partition);
                // Deleted meanwhile.
                if answer.as_ref().is_err_and(|error| error.code == ErrorCode::UnknownTopicOrPartition) {
                    continue;
                }
                let what = format!("partition {} of topic '{}' stays on broker {broker}", place.1, place.0);
                answer.map_err(|error| CliError::Refused { what, error })?;
                asked.insert(place);
                moved.push(wanted.clone());
            }
        }
        let partitions =
            topics.iter().flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
        let moving = partitions.filter(|(_, partition)| partition.replicas.contains(&broker));
        let lack = lag::lacking(admin, moving, |node| node != broker).await;
        let held_count = counted(held as u64, "replica");
        bulletin.tell(
            held as u64,
            format!("broker {broker} holds {held_count}; records that the new ones lack: {}", grouped(lack)),
        );
        sleep(LOOK).await;
    }
}

fn held_by(topics: &[TopicDescription], broker: NodeId) -> usize {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    partitions.filter(|partition| partition.replicas.contains(&broker)).count()
}

/// Where each replica of `broker` goes that is not of `asked`.
fn plan(
    cluster: &DescribeClusterReply,
    topics: &[TopicDescription],
    broker: NodeId,
    asked: &BTreeSet<Place>,
) -> Result<Vec<PartitionMove>, CliError> {
    let others = cluster.brokers.iter().filter(|other| other.node_id != broker && !other.fenced && !other.stopping);
    let racks: BTreeMap<NodeId, Option<&str>> =
        cluster.brokers.iter().map(|broker| (broker.node_id, broker.rack.as_deref())).collect();
    let mut replicas: BTreeMap<NodeId, u32> = others.map(|other| (other.node_id, other.replicas)).collect();
    let mut moves = Vec::new();
    for topic in topics {
        for partition in topic.partitions.iter().filter(|partition| partition.replicas.contains(&broker)) {
            let place = (topic.name.to_string(), partition.partition);
            if asked.contains(&place) {
                continue;
            }
            let rack_of = |node: &NodeId| racks.get(node).copied().flatten();
            let taken: BTreeSet<_> =
                partition.replicas.iter().filter(|node| **node != broker).filter_map(rack_of).collect();
            let may_take = replicas.iter().filter(|(node, _)| !partition.replicas.contains(node));
            let shares_rack = |node: &NodeId| rack_of(node).is_some_and(|rack| taken.contains(rack));
            let Some(to) = may_take.min_by_key(|(node, held)| (shares_rack(node), **held)).map(|(node, _)| *node)
            else {
                let (topic, number) = place;
                return Err(CliError::Failed(format!(
                    "partition {number} of topic '{topic}' has {}, and no other broker is up to take the one of broker {broker}: start \
                     another broker first",
                    counted(partition.replicas.len() as u64, "replica")
                )));
            };
            *replicas.entry(to).or_default() += 1;
            let in_its_place = |node: &NodeId| if *node == broker { to } else { *node };
            let targets = partition.replicas.iter().map(in_its_place).collect();
            moves.push(PartitionMove { topic: place.0, partition: place.1, replicas: Some(targets) });
        }
    }
    Ok(moves)
}

fn tell_plan(moves: &[PartitionMove], json: bool) -> Result<(), CliError> {
    if json {
        return output::print_json(&moves.iter().map(as_json).collect());
    }
    if moves.is_empty() {
        return output::print("it holds nothing");
    }
    let rows = moves.iter().map(|wanted| vec![wanted.topic.clone(), wanted.partition.to_string(), targets(wanted)]);
    output::print(&output::table(&["TOPIC", "PARTITION", "REPLICAS THEN"], rows))
}

fn tell_done(broker: NodeId, moved: &[PartitionMove], json: bool) -> Result<(), CliError> {
    if json {
        return output::print_json(&json!({
            "broker": broker,
            "moved": moved.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    let count = counted(moved.len() as u64, "replica");
    output::print(&format!(
        "broker {broker} holds nothing any more ({count} moved): stop it, and do not start it again"
    ))
}

fn as_json(wanted: &PartitionMove) -> serde_json::Value {
    json!({"topic": wanted.topic, "partition": wanted.partition, "replicas": wanted.replicas})
}

fn targets(wanted: &PartitionMove) -> String {
    let names = wanted.replicas.iter().flatten().map(ToString::to_string);
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::{BrokerDescription, ClusterTrouble, PartitionMetadata};
    use crate::types::{BrokerEpoch, ClusterId, LeaderEpoch, TopicId, TopicName};

    fn broker(node: u32, rack: &str, replicas: u32) -> BrokerDescription {
        BrokerDescription {
            node_id: NodeId(node),
            host: "localhost".to_owned(),
            port: 9_644,
            rack: Some(rack.to_owned()),
            fenced: false,
            leads: 0,
            replicas,
            software: String::new(),
            registration_epoch: BrokerEpoch(1),
            stopping: false,
            lease_ms: None,
        }
    }

    fn cluster(brokers: Vec<BrokerDescription>) -> DescribeClusterReply {
        let (cluster_id, trouble) = (ClusterId(uuid::Uuid::nil()), ClusterTrouble::default());
        let controllers = Vec::new();
        DescribeClusterReply { cluster_id, controller: None, controllers, brokers, topics: 1, partitions: 1, trouble }
    }

    fn topic(replicas: &[&[u32]]) -> TopicDescription {
        let partition = |(number, replicas): (u32, &&[u32])| PartitionMetadata {
            partition: PartitionIndex(number),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            replicas: replicas.iter().copied().map(NodeId).collect(),
            in_sync: Vec::new(),
        };
        TopicDescription {
            id: TopicId::random(),
            name: TopicName::new("rides").expect("legal"),
            config: Vec::new(),
            partitions: (0..).zip(replicas).map(partition).collect(),
            eligible: Vec::new(),
        }
    }

    fn planned(brokers: Vec<BrokerDescription>, replicas: &[&[u32]]) -> Vec<(u32, Vec<u32>)> {
        let moves = plan(&cluster(brokers), &[topic(replicas)], NodeId(4), &BTreeSet::new()).expect("possible");
        let of = |wanted: PartitionMove| {
            (wanted.partition.0, wanted.replicas.expect("a move").into_iter().map(|node| node.0).collect())
        };
        moves.into_iter().map(of).collect()
    }

    #[test]
    fn what_a_broker_holds_goes_in_its_place_to_whoever_has_the_fewest() {
        let brokers = [(1, 5), (2, 3), (3, 4), (4, 9)].map(|(node, replicas)| broker(node, "a", replicas)).to_vec();
        let moves = planned(brokers, &[&[4, 1], &[1, 2], &[1, 4], &[2, 4]]);
        assert_eq!(moves, [(0, vec![2, 1]), (2, vec![1, 2]), (3, vec![2, 3])]);
    }

    #[test]
    fn another_rack_counts_more_than_fewer_replicas() {
        let brokers = vec![broker(1, "a", 1), broker(2, "a", 0), broker(3, "b", 9), broker(4, "b", 1)];
        assert_eq!(planned(brokers.clone(), &[&[1, 4]]), [(0, vec![1, 3])]);
        assert_eq!(planned(brokers, &[&[3, 1, 4]]), [(0, vec![3, 1, 2])], "where no rack is left, any");
    }

    #[test]
    fn fenced_and_stopping_brokers_take_nothing_and_what_is_under_way_is_not_asked_twice() {
        let fenced = BrokerDescription { fenced: true, ..broker(2, "a", 0) };
        let stopping = BrokerDescription { stopping: true, ..broker(3, "a", 0) };
        let cluster = cluster(vec![broker(1, "a", 1), fenced, stopping, broker(4, "a", 1)]);
        let refused = plan(&cluster, &[topic(&[&[1, 4]])], NodeId(4), &BTreeSet::new()).expect_err("nobody is left");
        assert!(refused.to_string().contains("partition 0 of topic 'rides' has 2 replicas"), "{refused}");
        let asked = BTreeSet::from([("rides".to_owned(), PartitionIndex(0))]);
        let moves = plan(&cluster, &[topic(&[&[1, 4], &[4]])], NodeId(4), &asked).expect("possible");
        assert_eq!(moves.len(), 1);
        assert_eq!(moves[0].replicas, Some(vec![NodeId(1)]));
    }
}
