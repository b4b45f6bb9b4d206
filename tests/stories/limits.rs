//! Nobody takes more than the limits allow, and those within them do not notice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{Acks, DescribeCluster, Fetch, Metadata};
use callboard::testing::Node;
use callboard::types::CorrelationId;

use crate::support::*;

fn refused_for(address: &str, key: &str) {
    let mut refused = RawClient::connect(address);
    let (id, error) = refused.error();
    assert_eq!((id, error.code), (CorrelationId(0), ErrorCode::LimitExceeded));
    assert!(error.message.contains(key), "{error}");
    refused.expect_closed();
}

#[test]
fn one_connection_too_many_is_told_so_and_has_its_place_once_another_goes() {
    type Set = fn(&mut callboard::config::LimitsSection);
    let limits: [(&str, Set); 2] = [
        ("limits.max_connections:", |limits| limits.max_connections = 3),
        ("limits.max_connections_per_address:", |limits| limits.max_connections_per_address = 3),
    ];
    for (key, set) in limits {
        let node = Node::start_with(|config| {
            set(&mut config.limits);
            config.limits.max_connections_per_address =
                config.limits.max_connections_per_address.min(config.limits.max_connections);
        })
        .unwrap();
        let address = node.address();
        let mut inside: Vec<_> = (0..3).map(|_| RawClient::greeted(&address)).collect();
        for _ in 0..5 {
            refused_for(&address, key.trim_end_matches(':'));
        }
        for client in &mut inside {
            client.ask(&DescribeCluster {}).expect("those inside are served");
        }
        drop(inside.pop());
        wait_until("a place is free", || {
            let mut next = RawClient::connect(&address);
            next.send(&hello("next"), Vec::new());
            next.frame().head.correlation_id != CorrelationId(0)
        });
    }
}

#[tokio::test]
async fn a_client_that_never_reads_its_replies_is_closed_and_others_do_not_notice() {
    let node = Node::start_with(|config| {
        config.topic_defaults.max_batch_bytes = 252 << 10;
        config.limits.write_queue_bytes = 256 << 10;
        config.limits.write_timeout_ms = 400;
        config.limits.fetch_max_bytes = 256 << 10;
    })
    .unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "large", 1, &[("flush", "os")]).await;
    let mut raw = RawClient::greeted(&node.address());
    for _ in 0..16 {
        raw.produce(topic, batch(&["x".repeat(250_000).as_str()])).unwrap();
    }
    let mut deaf = RawClient::greeted(&node.address());
    let asked = 200;
    for n in 0..asked {
        deaf.send(&fetch(topic, 0, n % 16), Vec::new());
    }
    let slowest = std::thread::spawn({
        let address = node.address();
        move || {
            let mut other = RawClient::greeted(&address);
            let mut slowest = Duration::ZERO;
            for n in 0..100 {
                let from = Instant::now();
                other.produce(topic, batch(&["y"])).expect("others write");
                other.fetch(topic, n % 16).expect("others read");
                slowest = slowest.max(from.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            slowest
        }
    })
    .join()
    .unwrap();
    assert!(slowest < Duration::from_secs(5), "somebody else waited {slowest:?}");
    // By now it has been closed; what reached the sockets' buffers before that can still be read.
    let mut answered = 0;
    loop {
        match deaf.hear_within(PATIENCE) {
            Heard::Frame(_) => answered += 1,
            Heard::Closed => break,
            Heard::Silence => panic!("the connection should have been closed"),
        }
    }
    assert!(answered < asked, "all {answered} replies were kept for a client that did not read them");
    serves_others(&node);
}

#[tokio::test]
async fn requests_beyond_those_in_flight_wait_until_one_is_answered() {
    let node = Node::start_with(|config| config.limits.requests_in_flight_per_connection = 4).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let parked: Vec<_> =
        (0..4).map(|_| raw.send(&Fetch { max_wait_ms: 60_000, ..fetch(topic, 0, 0) }, Vec::new())).collect();
    let behind = raw.send(&Metadata { topics: None }, Vec::new());
    raw.expect_silence(Duration::from_millis(150));
    serves_others(&node);
    send_each(&client, "t", values(0..1)).await;
    let mut answered: Vec<_> = (0..5).map(|_| raw.frame().head.correlation_id).collect();
    assert_ne!(answered[0], behind, "one of those before it made room");
    answered.sort_by_key(|id| id.0);
    assert_eq!(answered, [parked, vec![behind]].concat(), "each is answered once");
}

#[tokio::test]
async fn a_fetch_that_is_parked_holds_up_nothing_on_its_connection() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let parked = raw.send(&Fetch { max_wait_ms: 60_000, ..fetch(topic, 0, 0) }, Vec::new());
    for _ in 0..10 {
        raw.ask(&DescribeCluster {}).expect("answered while the fetch is parked");
    }
    raw.send(&produce(topic, 0, None, Acks::All), vec![batch(&["x"])]);
    let mut answered = [raw.frame().head.correlation_id, raw.frame().head.correlation_id];
    answered.sort_by_key(|id| id.0);
    assert_eq!(answered[0], parked);
}

#[tokio::test]
async fn a_node_with_little_room_for_requests_serves_many_clients_one_after_the_other() {
    let node = Node::start_with(|config| {
        config.limits.max_frame_bytes = 64 << 10;
        config.topic_defaults.max_batch_bytes = 48 << 10;
        config.limits.connection_bytes_in_flight = 64 << 10;
        config.limits.node_bytes_in_flight = 128 << 10;
        config.limits.write_queue_bytes = 64 << 10;
        config.limits.fetch_max_bytes = 64 << 10;
    })
    .unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[("flush", "os")]).await;
    let large: Bytes = batch(&["z".repeat(40_000).as_str()]);
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (address, large) = (node.address(), large.clone());
            std::thread::spawn(move || {
                let mut raw = RawClient::greeted(&address);
                let sent: Vec<_> =
                    (0..20).map(|_| raw.send(&produce(topic, 0, None, Acks::All), vec![large.clone()])).collect();
                let answered: Vec<_> = (0..20).map(|_| raw.frame().head.correlation_id).collect();
                assert_eq!(answered, sent);
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let log = client.admin().describe_logs(&[("t".to_owned(), 0)]).await.unwrap().remove(0).unwrap();
    assert_eq!(log.high_watermark.0, 160);
}

#[tokio::test]
async fn more_topics_or_partitions_than_allowed_are_refused_by_the_limits_name() {
    let node = Node::start_with(|config| {
        config.limits.max_topics = 3;
        config.limits.max_partitions = 6;
        config.limits.max_partitions_per_topic = 4;
    })
    .unwrap();
    let client = connect(&node.address()).await;
    let admin = client.admin();
    let refused = |name: &str, partitions| {
        let (admin, wanted) = (admin.clone(), new_topic(name, partitions, &[]));
        async move { admin.create_topics(&[wanted], false).await.unwrap().remove(0).unwrap_err() }
    };
    for partitions in [0, 5] {
        let error = refused("t", partitions).await;
        assert_eq!(error.code, ErrorCode::InvalidPartitions);
        assert!(error.message.contains("limits.max_partitions_per_topic"), "{error}");
    }
    create(&client, "a", 4, &[]).await;
    let error = refused("b", 3).await;
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    assert!(error.message.contains("limits.max_partitions,"), "{error}");
    create(&client, "b", 1, &[]).await;
    create(&client, "c", 1, &[]).await;
    let error = refused("d", 1).await;
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    assert!(error.message.contains("limits.max_topics"), "{error}");
    let many: Vec<_> = (0..3).map(|n| new_topic(&format!("many-{n}"), 1, &[])).collect();
    delete(&client, "c").await;
    let codes: Vec<_> = admin
        .create_topics(&many, false)
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.map(|_| ()).map_err(|e| e.code))
        .collect();
    assert_eq!(codes, [Ok(()), Err(ErrorCode::LimitExceeded), Err(ErrorCode::LimitExceeded)], "each on its own");
    let mut wrong_factor = new_topic("f", 1, &[]);
    wrong_factor.replication_factor = Some(2);
    delete(&client, "many-0").await;
    assert_eq!(
        code_of(admin.create_topics(&[wrong_factor], false).await.unwrap().remove(0)),
        ErrorCode::InvalidReplicationFactor
    );
}
