//! A running node, or all brokers of its cluster: asks them, and hands what they say to the checks.

use std::collections::HashSet;

use super::checks::clock::ClockSample;
use super::checks::cluster::PartitionPlace;
use super::checks::reach::{Advertised, Reach};
use super::checks::resources::{DescriptorFacts, DiskFacts};
use super::checks::{clock, cluster, reach, replicas, resources, topics};
use super::code::Code;
use super::finding::Finding;
use super::probe::{PATIENCE, Reached, probe};
use super::report::Report;
use crate::cli::output::counted;
use crate::client::{Admin, ClientError};
use crate::protocol::messages::{BrokerAddress, DescribeNodeReply, TopicDescription};
use crate::types::{Clock, SystemClock, TopicConfig};

/// What is said of one broker.
struct BrokerFacts {
    described: DescribeNodeReply,
    clock: ClockSample,
}

/// Looks at the cluster that answers at one of `servers` (`host:port`, with commas between).
pub async fn examine(servers: &str) -> Report {
    let mut report = Report::default();
    let mut entry: Option<(Reached, &str)> = None;
    for address in servers.split(',') {
        match probe(address, PATIENCE).await {
            Ok(reached) if entry.is_none() => entry = Some((reached, address)),
            Ok(_) => {}
            Err(problem) => report.findings.extend(reach::reachable(address, &problem)),
        }
    }
    let Some((entry, address)) = entry else {
        report.checked.push(format!("whether a node answers at {servers} (no further: none does)"));
        return report;
    };
    report.checked.push(format!("the connection to {address}"));
    let admin = entry.client.admin();
    let brokers = match admin.metadata(Some(&[])).await {
        Ok(metadata) => metadata.brokers,
        Err(error) => {
            report.findings.push(not_checked("the cluster's brokers", &error));
            return report;
        }
    };
    let mut offline = HashSet::new();
    let mut damaged = false;
    for broker in &brokers {
        if let Some(described) = broker_findings(&entry, &admin, broker, &mut report).await {
            let listed = described.replicas.offline.iter();
            offline.extend(listed.map(|place| (place.topic.as_str().to_owned(), place.partition.0)));
            damaged |= described.replicas.damaged_ranges > 0;
        }
    }
    match admin.describe_cluster().await {
        Ok(described) => {
            report.findings.extend(cluster::examine(&described, &offline));
            report.checked.push(cluster::checked(&described));
        }
        Err(error) => report.findings.push(not_checked("the cluster", &error)),
    }
    topic_findings(&admin, &offline, damaged, &mut report).await;
    report
}

fn not_checked(about: &str, error: &ClientError) -> Finding {
    Finding::new(Code::NotChecked, about, error.to_string())
}

/// Looks at one broker, as far as it can be reached.
async fn broker_findings(
    entry: &Reached,
    admin: &Admin,
    broker: &BrokerAddress,
    report: &mut Report,
) -> Option<DescribeNodeReply> {
    let (node, host) = (broker.node_id, &broker.host);
    let address =
        if host.contains(':') { format!("[{host}]:{}", broker.port) } else { format!("{host}:{}", broker.port) };
    let reached = probe(&address, PATIENCE).await;
    let found = reached.as_ref().map_or_else(Reach::clone, Reached::to_reach);
    let is_entry = node == entry.node;
    let facts = Advertised {
        node,
        cluster: entry.client.cluster_id(),
        reached_at: is_entry.then_some(entry.ip),
        host: host.clone(),
        port: broker.port,
        reach: found,
    };
    let lost = reach::advertised(&facts);
    // Another node than the one that was named is reached over its advertised address only.
    let hopeless = lost.is_some() && !is_entry;
    report.findings.extend(lost);
    if hopeless {
        report.checked.push(format!("the advertised address of node {node} (no further: it is not reached)"));
        return None;
    }
    let about = format!("node {node}");
    match ask(admin, broker).await {
        Ok(facts) => {
            report.findings.extend(node_findings(&about, &facts));
            let node = &facts.described;
            let up = clock::shown(node.uptime_ms);
            report.checked.push(format!(
                "{about} ({}, up {up}): advertised address {address}, clock, disk, descriptors, memory, connections, replicas",
                node.software
            ));
            Some(facts.described)
        }
        Err(error) => {
            report.findings.push(not_checked(&about, &error));
            None
        }
    }
}

async fn ask(admin: &Admin, broker: &BrokerAddress) -> Result<BrokerFacts, ClientError> {
    let clock = SystemClock::start();
    let sent = clock.wall();
    let described = admin.describe_broker(broker.node_id).await?;
    let clock = ClockSample { sent, node: described.wall_clock, received: clock.wall() };
    Ok(BrokerFacts { described, clock })
}

/// All that a broker's own words give rise to.
fn node_findings(about: &str, facts: &BrokerFacts) -> Vec<Finding> {
    let DescribeNodeReply { node_id, bound, process, machine, disk, replicas, budgets, .. } = &facts.described;
    let mut findings: Vec<Finding> = clock::agree(about, &facts.clock).into_iter().collect();
    findings.extend(reach::bound_wide(about, bound));
    if let (Some(free_bytes), Some(total_bytes)) = (disk.free_bytes, disk.total_bytes) {
        let refusing = disk.refusing_appends.as_ref().map(|error| error.message.clone());
        let facts = DiskFacts { free_bytes, total_bytes, min_free_bytes: disk.min_free_bytes, refusing };
        findings.extend(resources::disk(about, &facts));
    } else {
        findings.push(Finding::new(Code::NotChecked, about, "the node cannot tell the free space of its disk"));
    }
    let descriptors = DescriptorFacts {
        open: process.open_descriptors,
        limit: process.descriptor_limit,
        connections_limit: budgets.connections.limit,
        configured_connections: budgets.configured_connections,
        open_files: budgets.open_files,
        refused: budgets.refused_connections,
    };
    findings.extend(resources::descriptors(about, &descriptors));
    let memory = [machine.memory_bytes, machine.memory_limit_bytes].into_iter().flatten().min();
    let pools = [
        ("requests (limits.node_bytes_in_flight)", budgets.request_bytes.limit),
        ("reads (limits.node_bytes_in_flight)", budgets.read_bytes.limit),
        ("tail caches (storage.tail_cache_bytes)", budgets.tail_cache_bytes.limit),
        ("replies from them (storage.tail_cache_bytes)", budgets.tail_cache_bytes.limit),
    ];
    findings.extend(resources::memory(about, &pools, memory));
    findings.extend(replicas::offline(*node_id, replicas));
    findings
}

/// Looks at all topics. Logs are asked about only when a node knows of damage: in a cluster without any, nothing is asked
/// of thousands of partitions.
async fn topic_findings(admin: &Admin, offline: &HashSet<PartitionPlace>, damaged: bool, report: &mut Report) {
    let described = match admin.describe_topics(None).await {
        Ok(described) => described,
        Err(error) => {
            report.findings.push(not_checked("the topics", &error));
            return;
        }
    };
    let topics: Vec<TopicDescription> = described.into_iter().filter_map(Result::ok).collect();
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    for topic in &topics {
        report.findings.extend(topics::settings(&format!("topic {}", topic.name), &settings_of(topic), None));
        if damaged {
            damage(admin, topic, offline, &mut report.findings).await;
        }
    }
    report.checked.push(format!(
        "{} with {}: settings, damage that was met so far",
        counted(topics.len() as u64, "topic"),
        counted(partitions as u64, "partition")
    ));
}

async fn damage(
    admin: &Admin,
    topic: &TopicDescription,
    offline: &HashSet<PartitionPlace>,
    findings: &mut Vec<Finding>,
) {
    let places = topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition.0));
    // Who is offline would only keep everybody waiting, and has been named.
    let places: Vec<_> = places.filter(|place| !offline.contains(place)).collect();
    if places.is_empty() {
        return;
    }
    match admin.describe_logs(&places).await {
        Ok(logs) => {
            for ((name, partition), log) in places.iter().zip(logs) {
                let described = topic.partitions.iter().find(|described| described.partition.0 == *partition);
                let has_copies = described.is_some_and(|described| described.replicas.len() > 1);
                findings.extend(log.ok().and_then(|log| replicas::damaged(name, *partition, has_copies, &log)));
            }
        }
        Err(error) => findings.push(not_checked(&format!("topic {}", topic.name), &error)),
    }
}

/// The settings in force. A setting of newer software is left out.
fn settings_of(topic: &TopicDescription) -> TopicConfig {
    let mut config = TopicConfig::default();
    for entry in &topic.config {
        // Unknown here means that this program is older than the node, which changes nothing about the others.
        let _ = config.set(&entry.key, &entry.value);
    }
    config
}
