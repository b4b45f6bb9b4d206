//! `callboard doctor --server`: each thing that can be wrong with a running node, made so and found.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use callboard::cli::doctor::checks::reach::Reach;
use callboard::cli::doctor::code::Severity;
use callboard::cli::doctor::finding::Finding;
use callboard::cli::doctor::probe::probe;
use callboard::cli::doctor::report::Report;
use callboard::cli::doctor::running;
use callboard::client::{Client, ClientConfig};
use callboard::protocol::Api;
use callboard::protocol::frame::{Frame, FrameCodec, OutFrame, decode_reply, encode_reply};
use callboard::protocol::messages::{DescribeCluster, DescribeNode, DescribeTopics, Hello, Metadata, Request};
use callboard::storage::disk::{Disk, RealDisk};
use callboard::testing::Node;
use futures_util::{SinkExt, StreamExt};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::durability::damage;
use crate::support::*;

/// Findings that are about the machine that runs the tests.
const OF_THE_MACHINE: [&str; 2] = ["disk-nearly-full", "descriptors-nearly-used"];

/// A node with limits that every machine has room for, so that only what a story does is found.
fn small(config: &mut callboard::config::NodeConfig) {
    config.limits.max_connections = 100;
}

pub fn codes(report: &Report) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.code.name()).collect();
    codes.retain(|code| !OF_THE_MACHINE.contains(code));
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[track_caller]
pub fn found(report: &Report, code: &str) -> Finding {
    let mut of_kind = report.findings.iter().filter(|finding| finding.code.name() == code);
    let found = of_kind.next().unwrap_or_else(|| panic!("no {code} in {}", report.to_text()));
    assert_eq!(of_kind.next(), None, "more than one {code}");
    found.clone()
}

/// A port that nobody listens on: bound and given back.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A server that reads a little and says this to everyone, until the test ends.
fn peer_that_says(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // A client that hangs up first is no concern of this peer's.
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

/// The frame again as it came.
fn again<R: Request>(frame: &Frame) -> OutFrame {
    encode_reply::<R>(frame.head, decode_reply::<R>(frame), Vec::new())
}

/// The node's reply, with its clock set by this much.
fn with_clock_set(frame: &Frame, by_ms: i64) -> OutFrame {
    match Api::from_number(frame.head.api) {
        Some(Api::Hello) => again::<Hello>(frame),
        Some(Api::Metadata) => again::<Metadata>(frame),
        Some(Api::DescribeTopics) => again::<DescribeTopics>(frame),
        Some(Api::DescribeCluster) => again::<DescribeCluster>(frame),
        Some(Api::DescribeNode) => {
            let mut node = decode_reply::<DescribeNode>(frame).expect("described");
            node.wall_clock.0 += by_ms;
            encode_reply::<DescribeNode>(frame.head, Ok(node), Vec::new())
        }
        other => panic!("{other:?} is not asked"),
    }
}

/// A peer that is the node at `node`, except that its clock is set by this much.
async fn peer_with_clock_set(node: String, by_ms: i64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&node).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let answering = async {
                    let mut frames = FramedRead::new(from_server, FrameCodec::for_replies(64 << 20));
                    let mut replies = FramedWrite::new(to_client, FrameCodec::for_replies(64 << 20));
                    while let Some(Ok(frame)) = frames.next().await {
                        if replies.send(with_clock_set(&frame, by_ms)).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! { _ = tokio::io::copy(&mut from_client, &mut to_server) => {}, () = answering => {} }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_clock_that_is_off_is_found_with_its_direction() {
    let node = Node::start_with(small).unwrap();
    for (by_ms, direction) in [(7_200_000, "ahead of"), (-7_200_000, "behind")] {
        let report = running::examine(&peer_with_clock_set(node.address(), by_ms).await).await;
        assert_eq!(codes(&report), ["clock-off"], "{}", report.to_text());
        let finding = found(&report, "clock-off");
        assert!(finding.seen.contains(direction) && finding.fix.contains("NTP"), "{finding:?}");
    }
}

#[tokio::test]
async fn a_healthy_node_has_nothing_wrong_and_the_report_says_what_was_checked() {
    let node = Node::start_with(small).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "rides", 3, &[]).await;
    send_all(&client, "rides", values(0..10)).await;
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), [""; 0], "{}", report.to_text());
    let said = report.to_text();
    assert!(said.contains("node 1 (callboard ") && said.contains("1 topic with 3 partitions"), "{said}");
    assert!(said.contains("clock, disk, descriptors, memory, connections, replicas"), "{said}");
    assert!(said.contains("the cluster: 1 controller, 1 broker, leaders and replicas of all partitions"), "{said}");
}

#[tokio::test]
async fn what_is_not_a_node_is_told_by_what_answers() {
    let refused = running::examine(&nobody()).await;
    assert_eq!(codes(&refused), ["connection-refused"]);
    assert!(found(&refused, "connection-refused").fix.contains("listener.native.bind"));
    assert!(refused.to_text().contains("no further"));
    let unknown = running::examine("no-such-host.invalid:9644").await;
    assert_eq!(codes(&unknown), ["name-unresolved"], "{}", unknown.to_text());
    let http = peer_that_says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let http = running::examine(&http).await;
    assert_eq!(codes(&http), ["http-port"], "{}", http.to_text());
    assert!(found(&http, "http-port").fix.contains("listener.native.bind"));
    let other = running::examine(&peer_that_says(b"SSH-2.0-OpenSSH_9.6\r\n")).await;
    assert_eq!(codes(&other), ["other-protocol"], "{}", other.to_text());
}

#[tokio::test]
async fn a_peer_that_takes_connections_and_says_nothing_is_told_from_one_that_refuses() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let patience = Duration::from_millis(300);
    let reach = probe(&address, patience).await.err();
    assert_eq!(reach, Some(Reach::Silent(300)));

    let node = Node::start_with(|config| {
        config.limits.max_connections = 1;
        config.limits.max_connections_per_address = 1;
    })
    .unwrap();
    let _inside = RawClient::greeted(&node.address());
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["hello-refused"], "{}", report.to_text());
    let finding = found(&report, "hello-refused");
    assert!(finding.seen.contains("limits.max_connections") && finding.fix.contains("limits.max_connections"));
}

#[tokio::test]
async fn a_server_that_is_down_is_named_beside_one_that_answers() {
    let node = Node::start_with(small).unwrap();
    let (up, down) = (node.address(), nobody());
    let report = running::examine(&format!("{down},{up}")).await;
    assert_eq!(codes(&report), ["connection-refused"], "{}", report.to_text());
    assert_eq!(found(&report, "connection-refused").about, down);
    assert!(report.to_text().contains("node 1 (callboard "), "the other is looked at");
}

#[tokio::test]
async fn an_advertised_address_that_leads_nowhere_or_to_another_node_is_found() {
    let nowhere = nobody();
    let node = Node::start_with(|config| {
        small(config);
        config.listener.native.advertise = Some(nowhere.clone());
    })
    .unwrap();
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["advertised-unreachable"], "{}", report.to_text());
    let finding = found(&report, "advertised-unreachable");
    assert!(finding.seen.contains(&nowhere) && finding.fix.contains("listener.native.advertise"), "{finding:?}");

    let other = Node::start_with(small).unwrap();
    let node = Node::start_with(|config| {
        small(config);
        config.listener.native.advertise = Some(other.address());
    })
    .unwrap();
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["advertised-elsewhere"], "{}", report.to_text());
}

#[tokio::test]
async fn a_node_that_listens_beyond_its_machine_is_found() {
    let node = Node::start_with(|config| {
        small(config);
        config.listener.native.bind = "0.0.0.0:0".to_owned();
        config.listener.native.advertise = Some("127.0.0.1:1".to_owned());
    })
    .unwrap();
    let report = running::examine(&node.address().replace("0.0.0.0", "127.0.0.1")).await;
    assert_eq!(codes(&report), ["advertised-unreachable", "bind-wide"], "{}", report.to_text());
    assert_eq!(found(&report, "bind-wide").severity(), Severity::Warning);
}

#[tokio::test]
async fn a_full_disk_is_found_with_what_frees_space() {
    let node = Node::start_with(|config| {
        small(config);
        config.storage.min_free_bytes = RealDisk.total_bytes(&std::env::temp_dir()).unwrap();
    })
    .unwrap();
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["disk-full"], "{}", report.to_text());
    assert!(found(&report, "disk-full").fix.contains("retention_bytes"));
    let node = Node::start_with(|config| {
        small(config);
        config.storage.min_free_bytes = 1 << 50;
    })
    .unwrap();
    assert_eq!(codes(&running::examine(&node.address()).await), ["min-free-exceeds-disk"]);
}

#[tokio::test]
async fn budgets_and_connections_beyond_what_there_is_are_found() {
    let node = Node::start_with(|config| {
        config.limits.max_connections = 1_000_000;
        config.storage.tail_cache_bytes = 1 << 40;
    })
    .unwrap();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let few = hard.is_some_and(|hard| hard < 1_005_120);
    let expected: &[&str] = if few { &["descriptors-few", "memory-exceeded"] } else { &["memory-exceeded"] };
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), expected, "{}", report.to_text());
    assert!(found(&report, "memory-exceeded").fix.contains("storage.tail_cache_bytes"));
    if few {
        assert!(found(&report, "descriptors-few").fix.contains("limits.max_connections"));
    }
}

#[tokio::test]
async fn connections_that_were_refused_are_found_later() {
    let node = Node::start_with(|config| {
        config.limits.max_connections = 8;
        config.limits.max_connections_per_address = 8;
    })
    .unwrap();
    let inside: Vec<_> = (0..8).map(|_| RawClient::greeted(&node.address())).collect();
    RawClient::connect(&node.address()).error();
    drop(inside);
    wait_until_async("there is room again", || async {
        let Ok(client) = Client::connect(ClientConfig::new(node.address())).await else { return false };
        client.admin().describe_node().await.is_ok_and(|node| node.budgets.connections.used <= 2)
    })
    .await;
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["connections-refused"], "{}", report.to_text());
    assert!(found(&report, "connections-refused").fix.contains("limits.max_connections_per_address"));
}

#[tokio::test]
async fn partitions_that_are_offline_or_damaged_are_found_with_cause_and_place() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, small).unwrap();
    let client = connect(&node.address()).await;
    let lost = create(&client, "lost", 1, &[]).await;
    let damaged = create(&client, "damaged", 1, &[]).await;
    send_each(&client, "damaged", values(0..10)).await;
    node.stop().unwrap();
    std::fs::remove_dir_all(&partition_dirs(&dir, lost)[0]).unwrap();
    damage(&partition_dirs(&dir, damaged)[0], 4);
    let node = Node::start_in(&dir, small).unwrap();
    // Damage is found when it is read.
    RawClient::greeted(&node.address()).fetch(damaged, 4).expect_err("damaged");
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["partition-offline", "records-damaged"], "{}", report.to_text());
    let offline = found(&report, "partition-offline");
    assert!(offline.about == "partition 0 of topic lost" && offline.cause.contains("put it back"), "{offline:?}");
    let damage = found(&report, "records-damaged");
    assert_eq!(damage.about, "partition 0 of topic damaged");
    assert!(damage.seen.contains("offsets 4 up to but not 5") && damage.fix.contains("backup"), "{damage:?}");
}

#[tokio::test]
async fn settings_of_topics_that_deserve_a_look_are_found() {
    let node = Node::start_with(small).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "fast", 1, &[("flush", "interval")]).await;
    create(&client, "short", 1, &[("retention_bytes", "20000"), ("segment_bytes", "30000")]).await;
    let report = running::examine(&node.address()).await;
    assert_eq!(codes(&report), ["flush-not-always", "retention-below-segment"], "{}", report.to_text());
    let note = found(&report, "flush-not-always");
    assert!(note.severity() == Severity::Note && note.about == "topic fast" && note.fix.contains("flush=always"));
    assert_eq!(report.count(Severity::Error), 0);
}
