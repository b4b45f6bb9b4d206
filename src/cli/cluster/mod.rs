//! `callboard cluster`.
//!
//! Reading order: this file, [`controllers`], [`decommission`].

pub mod args;
pub mod controllers;
pub mod decommission;

use std::time::Duration;

use serde_json::json;

use self::args::ClusterCommand;
use crate::cli::args::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::lag::{self, Logs};
use crate::cli::output::{self, counted, duration};
use crate::cli::progress::grouped;
use crate::protocol::messages::{BrokerDescription, ClusterTrouble, DescribeClusterReply, TroubledPartition};
use crate::types::NodeId;

/// Carries out one command.
///
/// # Errors
/// [`CliError`] when the cluster was not reached or did not answer.
pub async fn run(connect: &ConnectArgs, command: &ClusterCommand) -> Result<(), CliError> {
    let admin = crate::cli::connect(connect, "callboard").await?.admin();
    match command {
        ClusterCommand::Describe => {
            let cluster = admin.describe_cluster().await?;
            let logs = lag::logs_of(&admin, cluster.trouble.partitions.iter().filter_map(place_and_leader)).await;
            if connect.json {
                output::print_json(&as_json(&cluster, &logs))
            } else {
                output::print(&as_text(&cluster, &logs))
            }
        }
        ClusterCommand::Decommission(args) => decommission::run(&admin, args, connect.json).await,
        ClusterCommand::AddController(args) => controllers::add(&admin, args, connect.json).await,
        ClusterCommand::RemoveController(args) => controllers::remove(&admin, args, connect.json).await,
        ClusterCommand::ResetController(args) => controllers::reset(&admin, args, connect.json).await,
    }
}

/// Whom to ask how far its replicas are behind; nobody where none is.
fn place_and_leader(partition: &TroubledPartition) -> Option<(String, u32, NodeId)> {
    let leader = partition.leader.filter(|_| !partition.missing.is_empty())?;
    Some((partition.topic.to_string(), partition.partition.0, leader))
}

/// How many records the replica on `node` lacks, as far as its leader has told.
fn behind(partition: &TroubledPartition, node: NodeId, logs: &Logs) -> Option<u64> {
    logs.get(&(partition.topic.to_string(), partition.partition.0))?.behind(node)
}

fn as_json(cluster: &DescribeClusterReply, logs: &Logs) -> serde_json::Value {
    let brokers = cluster.brokers.iter().map(|broker| {
        json!({
            "node_id": broker.node_id, "host": broker.host, "port": broker.port, "rack": broker.rack,
            "fenced": broker.fenced, "stopping": broker.stopping, "registration_epoch": broker.registration_epoch,
            "leads": broker.leads, "replicas": broker.replicas, "software": broker.software, "lease_ms": broker.lease_ms,
        })
    });
    let trouble = &cluster.trouble;
    json!({
        "cluster_id": cluster.cluster_id.to_string(),
        "controller": cluster.controller,
        "controllers": cluster.controllers.iter().map(controllers::as_json).collect::<Vec<_>>(),
        "topics": cluster.topics,
        "partitions": cluster.partitions,
        "brokers": brokers.collect::<Vec<_>>(),
        "trouble": {
            "count": trouble.count,
            "without_leader": trouble.without_leader,
            "below_minimum": trouble.below_minimum,
            "under_replicated": trouble.under_replicated,
            "partitions": trouble.partitions.iter().map(|partition| partition_json(partition, logs)).collect::<Vec<_>>(),
        },
    })
}

fn partition_json(partition: &TroubledPartition, logs: &Logs) -> serde_json::Value {
    let missing = partition.missing.iter().map(|missing| {
        let behind = behind(partition, missing.node_id, logs);
        json!({"node_id": missing.node_id, "reason": missing.reason.name(), "behind": behind})
    });
    json!({
        "topic": partition.topic.to_string(),
        "topic_id": partition.topic_id.to_string(),
        "partition": partition.partition,
        "leader": partition.leader,
        "replicas": partition.replicas,
        "in_sync": partition.in_sync,
        "min_in_sync": partition.min_in_sync,
        "missing": missing.collect::<Vec<_>>(),
    })
}

fn as_text(cluster: &DescribeClusterReply, logs: &Logs) -> String {
    let controller = cluster.controller.map_or_else(|| "none known".to_owned(), |node| format!("node {node}"));
    let header = ["BROKER", "ADDRESS", "RACK", "STATE", "LEASE", "LEADS", "REPLICAS", "EPOCH", "SOFTWARE"];
    let controllers = match cluster.controllers.as_slice() {
        [] => "no controller decides: how they are is not known; see that a majority of them runs".to_owned(),
        controllers => controllers::as_table(controllers),
    };
    format!(
        "cluster {}\ncontroller: {controller}\n{} with {}\n\n{controllers}\n\n{}\n\n{}",
        cluster.cluster_id,
        counted(cluster.topics.into(), "topic"),
        counted(cluster.partitions.into(), "partition"),
        output::table(&header, cluster.brokers.iter().map(broker_row)),
        trouble_text(&cluster.trouble, logs),
    )
}

fn broker_row(broker: &BrokerDescription) -> Vec<String> {
    let state = match broker {
        BrokerDescription { fenced: true, .. } => "fenced",
        BrokerDescription { stopping: true, .. } => "stopping",
        _ => "up",
    };
    vec![
        broker.node_id.to_string(),
        format!("{}:{}", broker.host, broker.port),
        broker.rack.clone().unwrap_or_else(|| "-".to_owned()),
        state.to_owned(),
        broker.lease_ms.map_or_else(|| "-".to_owned(), |left| duration(Duration::from_millis(left))),
        broker.leads.to_string(),
        broker.replicas.to_string(),
        broker.registration_epoch.to_string(),
        broker.software.clone(),
    ]
}

fn trouble_text(trouble: &ClusterTrouble, logs: &Logs) -> String {
    if trouble.count == 0 {
        return "every replica is in sync".to_owned();
    }
    let header = ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN SYNC", "MINIMUM", "MISSING"];
    let mut text = format!(
        "{} not whole: {} without a leader, {} below min_insync_replicas, {} with a replica out of sync\n\n{}",
        counted(trouble.count.into(), "partition"),
        trouble.without_leader,
        trouble.below_minimum,
        trouble.under_replicated,
        output::table(&header, trouble.partitions.iter().map(|partition| partition_row(partition, logs)))
    );
    let listed = u32::try_from(trouble.partitions.len()).unwrap_or(u32::MAX);
    if listed < trouble.count {
        text.push_str(&format!("\nand {} more", trouble.count - listed));
    }
    text
}

fn partition_row(partition: &TroubledPartition, logs: &Logs) -> Vec<String> {
    let nodes = |nodes: &[NodeId]| {
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    };
    let missing = partition.missing.iter().map(|missing| {
        let behind = behind(partition, missing.node_id, logs);
        let behind = behind.map(|records| format!(", {} behind", grouped(records))).unwrap_or_default();
        format!("{} ({}{behind})", missing.node_id, missing.reason.name())
    });
    vec![
        partition.topic.to_string(),
        partition.partition.to_string(),
        partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
        nodes(&partition.replicas),
        nodes(&partition.in_sync),
        partition.min_in_sync.to_string(),
        missing.collect::<Vec<_>>().join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::{FollowerDescription, LogDescription, MissingReason, MissingReplica};
    use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};

    #[test]
    fn a_partition_in_trouble_says_who_is_missing_and_why() {
        let missing = [(2, MissingReason::Fenced), (3, MissingReason::CatchingUp)];
        let partition = TroubledPartition {
            topic_id: TopicId::random(),
            topic: TopicName::new("rides").expect("legal"),
            partition: PartitionIndex(4),
            leader: None,
            replicas: [1, 2, 3].map(NodeId).to_vec(),
            in_sync: vec![NodeId(1)],
            min_in_sync: 2,
            missing: missing.map(|(node, reason)| MissingReplica { node_id: NodeId(node), reason }).to_vec(),
        };
        let trouble = ClusterTrouble {
            count: 101,
            without_leader: 1,
            below_minimum: 1,
            under_replicated: 101,
            partitions: vec![partition],
        };
        let expected = "101 partitions not whole: 1 without a leader, 1 below min_insync_replicas, 101 with a replica out of sync\n\n\
            TOPIC  PARTITION  LEADER  REPLICAS  IN SYNC  MINIMUM  MISSING\n\
            rides  4          none    1,2,3     1        2        2 (fenced), 3 (catching-up, 1,234 behind)\n\
            and 100 more";
        let caught_up_to =
            |(node, end_offset)| FollowerDescription { node_id: NodeId(node), end_offset, caught_up_ms: None };
        let log = LogDescription {
            log_start_offset: Offset(0),
            high_watermark: Offset(2_000),
            durable_end_offset: Offset(2_000),
            log_end_offset: Offset(2_000),
            size_bytes: 1,
            segments: 1,
            leader_epoch: LeaderEpoch(0),
            damaged: Vec::new(),
            followers: [(2, None), (3, Some(Offset(766)))].map(caught_up_to).to_vec(),
        };
        let logs = Logs::from([(("rides".to_owned(), 4), log)]);
        assert_eq!(trouble_text(&trouble, &logs), expected);
        let json = partition_json(&trouble.partitions[0], &logs);
        assert_eq!((&json["missing"][0]["behind"], &json["missing"][1]["behind"]), (&json!(null), &json!(1_234)));
        assert_eq!(place_and_leader(&trouble.partitions[0]), None, "nobody leads it");
        let unknown = expected.replace(", 1,234 behind", "");
        assert_eq!(trouble_text(&trouble, &Logs::new()), unknown, "the leader has not answered");
    }
}
