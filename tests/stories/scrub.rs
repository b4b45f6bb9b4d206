//! Damage that nobody reads is found by the background scrub, and mended where another replica has the records.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use callboard::cli::local_cluster::LocalCluster;
use callboard::config::NodeConfig;
use callboard::protocol::ErrorCode;
use callboard::testing::Node;
use callboard::types::{NodeId, TopicId};

use crate::cluster::{partitions, replicated, until_in_sync};
use crate::durability::damage;
use crate::support::http::Metrics;
use crate::support::*;

/// Records of a thousand bytes, fifteen of which make a segment.
const SEGMENT: (&str, &str) = ("segment_bytes", "16384");
/// Ten rounds a second. Little is kept in memory, where nothing is damaged.
const INTERVAL_MS: u64 = 100;
const CACHE_BYTES: usize = 16 << 10;

const FOUND: &str = "callboard_scrub_damage_found_total";

fn wide(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, format!("{n:01000}"))).collect()
}

fn wide_values() -> impl Iterator<Item = String> {
    wide(0..40).into_iter().map(|(_, value)| value)
}

/// The segment files of a partition with what is in them.
fn content(partition: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    segments(partition).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap_or_default())).collect()
}

/// Three processes, each controller and broker, and what they say.
struct Cluster {
    nodes: LocalCluster,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    async fn start(directory: &Path) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let builder = LocalCluster::builder(directory).combined(3).program(env!("CARGO_BIN_EXE_callboard"));
        let builder = builder.set(["storage.min_free_bytes=0".to_owned()]).set([
            format!("storage.scrub_interval_ms={INTERVAL_MS}"),
            format!("storage.tail_cache_partition_bytes={CACHE_BYTES}"),
        ]);
        let builder = builder.on_line(move |name, line| heard.lock().unwrap().push(format!("{name}: {line}")));
        Self { nodes: builder.start().await.expect("three nodes"), lines }
    }

    /// Where a node keeps partition 0.
    fn partition(&self, node: NodeId, topic: TopicId) -> PathBuf {
        let plan = self.nodes.nodes().find(|plan| plan.id == node).expect("there is such a node");
        partition_dirs(&plan.data_dir, topic).remove(0)
    }

    fn found(&self, node: NodeId) -> f64 {
        let plan = self.nodes.nodes().find(|plan| plan.id == node).expect("there is such a node");
        Metrics::of(&format!("127.0.0.1:{}", plan.ports.http)).value(FOUND)
    }

    /// How many lines a node has said with this in them.
    fn said(&self, node: NodeId, text: &str) -> usize {
        let (name, lines) = (self.nodes.name(node), self.lines.lock().unwrap());
        lines.iter().filter(|line| line.starts_with(&name) && line.contains(text)).count()
    }

    /// Flips a bit of the record at `offset` on that node, and waits until that is found, and all bytes are as they were.
    fn flip_and_wait(&self, node: NodeId, topic: TopicId, offset: u64) {
        let partition = self.partition(node, topic);
        let (whole, found) = (content(&partition), self.found(node));
        let (told, mended) = (self.said(node, "not served"), self.said(node, "whole again"));
        damage(&partition, offset);
        wait_until(&format!("damage at {offset} on node {node} is found"), || self.found(node) > found);
        wait_until("a line names it", || self.said(node, "not served") > told);
        wait_until(&format!("all bytes on node {node} are as they were"), || content(&partition) == whole);
        wait_until("a line says so", || self.said(node, "whole again") > mended);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_nobody_reads_is_found_by_the_scrub_and_mended_from_another_replica() {
    let directory = Directory::new();
    let cluster = Cluster::start(&directory).await;
    let client = connect(&cluster.nodes.bootstrap()).await;
    let mut rides = replicated("rides", 1, 3);
    rides.config.insert(SEGMENT.0.to_owned(), SEGMENT.1.to_owned());
    let topic = client.admin().create_topics(&[rides], false).await.unwrap().remove(0).expect("created").id;
    send_each(&client, "rides", wide_values()).await;
    until_in_sync(&client, "rides", 3).await;
    // In a segment that was closed, and in the one that is appended to.
    for offset in [20, 38] {
        let partition = partitions(&client, "rides").await.remove(0);
        let leader = partition.leader.expect("somebody leads");
        let follower = *partition.in_sync.iter().find(|node| **node != leader).expect("three are in sync");
        for node in [follower, leader] {
            cluster.flip_and_wait(node, topic, offset);
            until_in_sync(&client, "rides", 3).await;
        }
    }
    assert_eq!(read_all(&client, "rides").await, wide(0..40));
    send_each(&client, "rides", ["after".to_owned()]).await;
    // Wherever each has cut its segments.
    let held = |node| content(&cluster.partition(NodeId(node), topic)).into_iter().flat_map(|(_, bytes)| bytes);
    wait_until("all hold the same bytes", || held(1).eq(held(2)) && held(1).eq(held(3)));
}

#[tokio::test]
async fn without_another_replica_damage_is_found_said_once_and_served_to_nobody() {
    let node = Node::start_with(|config: &mut NodeConfig| {
        config.listener.http.bind = Some("127.0.0.1:0".to_owned());
        config.storage.scrub_interval_ms = INTERVAL_MS;
        config.storage.tail_cache_partition_bytes = CACHE_BYTES;
    });
    let node = node.unwrap();
    let told = |sample: &str| Metrics::of(&node.http_address().expect("asked for")).value(sample);
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[SEGMENT]).await;
    send_each(&client, "t", wide_values()).await;
    damage(&partition_dirs(node.data_dir(), topic)[0], 20);
    wait_until("the damage is found", || told(FOUND) > 0.0);
    let described = client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).unwrap();
    assert_eq!(described.damaged.iter().map(|(from, to)| (from.0, to.0)).collect::<Vec<_>>(), [(20, 21)]);
    assert_eq!(told("callboard_partition_damaged_ranges{topic=\"t\",partition=\"0\"}"), 1.0);
    let rounds = told("callboard_scrub_rounds_total");
    wait_until("it goes on", || told("callboard_scrub_rounds_total") > rounds + 1.0);
    assert_eq!(told(FOUND), 1.0, "that is no news any more");
    assert!(told("callboard_scrub_bytes_total") > 40_000.0);
    assert!(told("callboard_scrub_last_round_seconds") > 1.7e9);

    let mut raw = RawClient::greeted(&node.address());
    assert_eq!(raw.fetch(topic, 20).unwrap_err().code, ErrorCode::DamagedLog);
    assert_eq!(raw.fetch(topic, 21).unwrap().1.first(), wide(21..22).first(), "what lies around it is served");
    node.stop().unwrap();
}
