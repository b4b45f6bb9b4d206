//! Whoever watches over a node sees what happened, exactly, and is told when it cannot acknowledge and why.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use callboard::actors::node::{NodeError, RunningNode};
use callboard::config::NodeConfig;
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::Acks;
use callboard::storage::disk::VirtualDisk;
use callboard::storage::disk::virtual_disk::FaultyOperation;
use callboard::testing::Node;

use crate::support::http::{Metrics, ask, get};
use crate::support::*;

fn watched(change: impl FnOnce(&mut NodeConfig)) -> (Node, String) {
    let node = Node::start_with(|config| {
        config.listener.http.bind = Some("127.0.0.1:0".to_owned());
        change(config);
    })
    .unwrap();
    let http = node.http_address().expect("asked for");
    (node, http)
}

/// A node on a virtual disk that refuses appends below a mebibyte of free space.
fn on_virtual_disk(dir: &Directory, disk: &VirtualDisk) -> (RunningNode, String) {
    let mut config = NodeConfig::default();
    config.node.data_dir = dir.to_path_buf();
    config.listener.native.bind = "127.0.0.1:0".to_owned();
    config.listener.http.bind = Some("127.0.0.1:0".to_owned());
    config.storage.min_free_bytes = 1 << 20;
    let node = RunningNode::start_on(Arc::new(disk.clone()), config).unwrap();
    let http = node.ready().http.expect("asked for").to_string();
    (node, http)
}

#[tokio::test]
async fn what_was_produced_and_fetched_is_counted_exactly() {
    let (node, http) = watched(|config| config.limits.max_connections = 2);
    let client = connect(&node.address()).await;
    let topic = create(&client, "orders", 2, &[]).await;
    let before = Metrics::of(&http);
    let mut raw = RawClient::greeted(&node.address());
    let batches = [batch(&["a", "b"]), batch(&["c"]), batch(&["d", "e", "f"])];
    let bytes: usize = batches.iter().map(bytes::Bytes::len).sum();
    for batch in batches {
        raw.produce(topic, batch).expect("acknowledged");
    }
    assert_eq!(raw.fetch(topic, 0).unwrap().1.len(), 6);
    let nowhere = raw.ask_with(&produce(topic, 9, None, Acks::All), vec![batch(&["lost"])]).unwrap().0;
    let error = nowhere.partitions.into_iter().next().unwrap().into_result().unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
    let mut refused = RawClient::connect(&node.address());
    assert_eq!(refused.error().1.code, ErrorCode::LimitExceeded);
    refused.expect_closed();

    let metrics = Metrics::of(&http);
    for (family, expected) in [
        ("log_start_offset", [0, 0]),
        ("log_end_offset", [6, 0]),
        ("high_watermark", [6, 0]),
        ("size_bytes", [bytes, 0]),
        ("segments", [1, 0]),
        ("damaged_ranges", [0, 0]),
        ("write_queue_bytes", [0, 0]),
        ("records_in_total", [6, 0]),
        ("bytes_in_total", [bytes, 0]),
        ("records_out_total", [6, 0]),
        ("bytes_out_total", [bytes, 0]),
    ] {
        for (partition, expected) in expected.into_iter().enumerate() {
            let sample = format!("callboard_partition_{family}{{topic=\"orders\",partition=\"{partition}\"}}");
            assert_eq!(metrics.value(&sample), expected as f64, "{sample}");
        }
    }
    for (sample, expected) in [
        ("callboard_ready", 1),
        ("callboard_topics", 1),
        ("callboard_partitions{state=\"online\"}", 2),
        ("callboard_partitions{state=\"offline\"}", 0),
        ("callboard_partitions_led", 2),
        ("callboard_cluster_brokers{state=\"up\"}", 1),
        ("callboard_cluster_brokers{state=\"stopping\"}", 0),
        ("callboard_cluster_brokers{state=\"fenced\"}", 0),
        ("callboard_cluster_partitions{trouble=\"without_leader\"}", 0),
        ("callboard_cluster_partitions{trouble=\"below_minimum\"}", 0),
        ("callboard_cluster_partitions{trouble=\"under_replicated\"}", 0),
        ("callboard_connections{listener=\"native\"}", 2),
        ("callboard_connections_accepted_total{listener=\"native\"}", 2),
        ("callboard_connections_refused_total{listener=\"native\",reason=\"max_connections\"}", 1),
        ("callboard_connections_refused_total{listener=\"native\",reason=\"max_connections_per_address\"}", 0),
        ("callboard_connections{listener=\"http\"}", 1),
        ("callboard_connections_accepted_total{listener=\"http\"}", 2),
        ("callboard_requests_total{api=\"Produce\"}", 4),
        ("callboard_requests_total{api=\"Fetch\"}", 1),
        ("callboard_requests_total{api=\"CreateTopics\"}", 1),
        ("callboard_request_errors_total{api=\"Produce\",code=\"unknown-topic-or-partition\"}", 1),
        // Each batch was acknowledged before the next one was sent.
        ("callboard_log_write_batches_count", 3),
        ("callboard_log_write_batches_sum", 3),
        ("callboard_log_write_bytes_sum", bytes),
        ("callboard_log_sync_seconds_count", 3),
        ("callboard_log_sync_seconds_bucket{le=\"+Inf\"}", 3),
        ("callboard_memory_used_bytes{budget=\"requests\"}", 0),
        ("callboard_memory_limit_bytes{budget=\"requests\"}", 128 << 20),
        ("callboard_memory_limit_bytes{budget=\"tail_caches\"}", 64 << 20),
        ("callboard_disk_full", 0),
    ] {
        assert_eq!(metrics.value(sample), expected as f64, "{sample}");
    }
    assert_eq!(before.value("callboard_partition_records_in_total{topic=\"orders\",partition=\"0\"}"), 0.0);
    assert!(metrics.value("callboard_memory_used_bytes{budget=\"tail_caches\"}") >= bytes as f64);
    assert!(metrics.value("callboard_log_sync_seconds_sum") > 0.0);
    assert!(metrics.value("process_start_time_seconds") > 1.7e9);

    delete(&client, "orders").await;
    wait_until("a deleted topic is not told of", || {
        let metrics = Metrics::of(&http);
        !metrics.0.contains_key("callboard_partition_segments")
    });
}

#[tokio::test]
async fn records_that_were_not_in_memory_and_those_sent_without_asking_for_a_reply_are_counted_too() {
    let (node, http) = watched(|config| config.storage.tail_cache_partition_bytes = 16 << 10);
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let wide = "x".repeat(20 << 10);
    for n in 0..3 {
        raw.produce(topic, batch(&[&format!("{n}{wide}")])).unwrap();
    }
    assert_eq!(raw.fetch(topic, 0).unwrap().1.len(), 3, "from the disk");
    let value = |sample: &str| Metrics::of(&http).value(sample);
    assert_eq!(value("callboard_partition_records_out_total{topic=\"t\",partition=\"0\"}"), 3.0);
    raw.send(&produce(topic, 7, None, Acks::None), vec![batch(&["to nowhere"])]);
    raw.fetch(topic, 0).unwrap();
    let errors = "callboard_request_errors_total{api=\"Produce\",code=\"unknown-topic-or-partition\"}";
    assert_eq!(value(errors), 1.0, "nobody was told of it");
}

#[test]
fn a_node_with_a_full_disk_is_not_ready_and_says_why_until_there_is_space() {
    let (dir, disk) = (Directory::new(), VirtualDisk::new(1));
    let (node, http) = on_virtual_disk(&dir, &disk);
    assert_eq!((get(&http, "/ready").status, get(&http, "/ready").body.as_str()), (200, "ready\n"));
    disk.set_capacity(Some(64 << 10));
    wait_until("the node notices", || get(&http, "/ready").status == 503);
    let reasons = get(&http, "/ready").body;
    let expected = format!(
        "less than storage.min_free_bytes (1048576) is free under {}: delete topics, lower retention or add space\n",
        dir.display()
    );
    assert_eq!(reasons, expected);
    assert_eq!(get(&http, "/live").status, 200, "a restart would not help");
    let metrics = Metrics::of(&http);
    assert_eq!((metrics.value("callboard_ready"), metrics.value("callboard_disk_full")), (0.0, 1.0));
    assert!(metrics.value("callboard_disk_free_bytes") < 65_537.0);
    disk.set_capacity(None);
    wait_until("there is space again", || get(&http, "/ready").status == 200);
    node.stop().unwrap();
}

#[tokio::test]
async fn a_partition_that_failed_makes_the_node_not_ready_by_name_and_goes_with_its_topic() {
    let (dir, disk) = (Directory::new(), VirtualDisk::new(1));
    let (node, http) = on_virtual_disk(&dir, &disk);
    let client = connect(&node.ready().native.unwrap().to_string()).await;
    let topic = create(&client, "hit", 1, &[]).await;
    create(&client, "spared", 1, &[]).await;
    // Not just any log's: that of the metadata is synced once more when the topics are open.
    disk.fail_nth(FaultyOperation::Sync, 1, &format!("hit-{topic}-0/00000000000000000000.log"));
    let mut raw = RawClient::greeted(&node.ready().native.unwrap().to_string());
    raw.produce(topic, batch(&["lost"])).unwrap_err();
    let response = get(&http, "/ready");
    assert_eq!(response.status, 503);
    assert!(
        response.body.starts_with("partition hit-0 is offline: ") && response.body.lines().count() == 1,
        "{response:?}"
    );
    let metrics = Metrics::of(&http);
    assert_eq!(metrics.value("callboard_partitions{state=\"offline\"}"), 1.0);
    assert_eq!(metrics.value("callboard_partitions{state=\"online\"}"), 1.0);
    delete(&client, "hit").await;
    wait_until("what is deleted is not missed", || get(&http, "/ready").status == 200);
    // What failed could not be closed cleanly; whether that is said is another story's.
    let _ = node.stop();
}

#[test]
fn what_is_asked_wrongly_is_refused_and_nobody_holds_a_place_by_saying_half_a_request() {
    let (_node, http) = watched(|_| {});
    let nowhere = get(&http, "/metric");
    assert_eq!(
        (nowhere.status, nowhere.body.as_str()),
        (404, "there is /metrics, /live, /ready and /log-level here\n")
    );
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(ask(&http, "POST", path, "x").status, 405, "{path}");
        assert_eq!(ask(&http, "HEAD", path, "").status, 200, "{path}");
    }
    assert_eq!(ask(&http, "DELETE", "/log-level", "").status, 405);
    assert_eq!(get(&http, "/log-level").status, 404, "the log of this process is the test's");

    let mut half = TcpStream::connect(&http).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.write_all(b"GET /metrics HT").unwrap();
    let mut said = String::new();
    half.read_to_string(&mut said).expect("it is closed, in time");
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    let mut long = TcpStream::connect(&http).unwrap();
    long.set_read_timeout(Some(PATIENCE)).unwrap();
    // A head without an end: the node hangs up rather than keep it.
    let _ = long.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1 << 20)).as_bytes());
    let mut said = Vec::new();
    let _ = long.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/1.1 2"), "{said:?}");
    assert_eq!(get(&http, "/live").status, 200);
}

#[test]
fn a_port_in_use_stops_the_start_with_one_line_and_leaves_nothing_behind() {
    let dir = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Node::start_in(&dir, |config| config.listener.http.bind = Some(address.to_string())).unwrap_err();
    assert!(matches!(error, NodeError::BindHttp(_)), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "the HTTP listener cannot start: {address} is in use by another process: stop it (`ss -ltnp` shows which) or \
             choose another port; listener.http.bind sets its address, an empty one leaves it out"
        )
    );
    assert!(!dir.exists());
}
