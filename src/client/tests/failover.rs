//! Clusters of several brokers: leaders that go, followers that are read, brokers that are dead from the start.

use std::time::Duration;

use tokio::net::TcpListener;

use super::broker::{FakeBroker, Fault};
use super::{eventually, soon};
use crate::client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Delivery, OutgoingRecord, Producer, ProducerConfig, ReadFrom,
    StartAt,
};
use crate::protocol::ErrorCode;
use crate::types::{NodeId, Offset};

/// With timeouts that [`soon`] does not wait for: what only a timeout would end fails the test.
fn patient(address: impl AsRef<str>) -> ClientConfig {
    let forever = Duration::from_secs(3_600);
    ClientConfig::new(address)
        .connect_timeout(forever)
        .request_timeout(forever)
        .unknown_topic_wait(Duration::from_millis(50))
}

/// Two brokers with topic `rides`, the first of which leads; and a client that has asked the first.
async fn two(partitions: u32) -> (FakeBroker, FakeBroker, Client) {
    let first = FakeBroker::start().await;
    let second = first.start_beside(2, Some("west")).await;
    first.create("rides", partitions);
    let client = Client::connect(patient(first.address())).await.expect("connects");
    (first, second, client)
}

async fn send(producer: &Producer, value: String) -> Delivery {
    let record = OutgoingRecord::to("rides").partition(0).value(value);
    soon(producer.send(record)).await.expect("taken")
}

fn produced(number: u32) -> OutgoingRecord {
    OutgoingRecord::to("rides").partition(0).value(format!("value {number}"))
}

/// A consumer of all partitions from their start.
async fn consumer(client: &Client, read_from: ReadFrom) -> Consumer {
    let config = ConsumerConfig::default().max_wait(Duration::from_millis(50)).read_from(read_from);
    let mut consumer = client.consumer(config).await.expect("starts");
    consumer.assign("rides", None, StartAt::Earliest).await.expect("assigned");
    consumer
}

async fn fill(client: &Client, partitions: u32, records: u32) {
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    for partition in 0..partitions {
        for number in 0..records {
            let record = OutgoingRecord::to("rides").partition(partition).value(number.to_string());
            soon(producer.send(record).await.expect("taken")).await.expect("delivered");
        }
    }
}

async fn next(consumer: &mut Consumer) -> (u32, u64) {
    let record = soon(consumer.recv()).await.expect("a record");
    (record.partition, record.offset.0)
}

/// Who was asked since the last call.
fn asked(broker: &FakeBroker) -> Vec<NodeId> {
    let mut asked = std::mem::take(&mut broker.state().fetched_at);
    asked.sort_unstable();
    asked.dedup();
    asked
}

#[tokio::test]
async fn when_the_leader_closes_its_connections_each_record_arrives_once_at_the_next_one() {
    let (first, second, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    soon(send(&producer, "before".to_owned()).await).await.expect("delivered");
    // The last thing it does is to write what it does not answer any more.
    first.on_produce([Fault::DoAndHangUp]);
    let mut deliveries = Vec::new();
    for number in 0..50 {
        deliveries.push(producer.send(produced(number)).await.expect("taken"));
        if number == 0 {
            tokio::task::yield_now().await;
        }
    }
    eventually("it hung up", || first.state().produce_faults.is_empty()).await;
    second.take_over();
    first.die();
    for delivery in deliveries {
        soon(delivery).await.expect("delivered");
    }
    let expected: Vec<String> =
        ["before".to_owned()].into_iter().chain((0..50).map(|n| format!("value {n}"))).collect();
    assert_eq!(first.values(0), expected, "in order, each once");
}

#[tokio::test]
async fn a_leader_that_says_so_is_left_at_once() {
    let (first, second, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    soon(send(&producer, "before".to_owned()).await).await.expect("delivered");
    second.take_over();
    soon(send(&producer, "after".to_owned()).await).await.expect("delivered");
    assert_eq!(first.values(0), ["before", "after"]);
}

#[tokio::test]
async fn a_new_leader_is_found_soon_after_it_is_known_however_long_that_took() {
    let (first, second, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    soon(send(&producer, "before".to_owned()).await).await.expect("delivered");
    first.die();
    let delivery = send(&producer, "after".to_owned()).await;
    let asked_before = first.state().metadata_requests;
    eventually("who leads is asked again and again", || first.state().metadata_requests > asked_before + 4).await;
    second.take_over();
    soon(delivery).await.expect("delivered");
    assert!(first.state().metadata_requests < 100, "but with growing pauses");
    assert_eq!(first.values(0), ["before", "after"]);
}

#[tokio::test]
async fn errors_of_a_change_are_ridden_out_in_order() {
    let (first, _, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default().batch_bytes(40)).await.expect("starts");
    let codes = [
        ErrorCode::NotLeader,
        ErrorCode::UnknownLeaderEpoch,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::NotEnoughReplicas,
        ErrorCode::ShuttingDown,
        ErrorCode::StaleMetadata,
    ];
    first.on_produce(codes.map(Fault::Refuse));
    let mut deliveries = Vec::new();
    for number in 0..20 {
        deliveries.push(producer.send(produced(number)).await.expect("taken"));
    }
    for (number, delivery) in (0..).zip(deliveries) {
        assert_eq!(soon(delivery).await.expect("delivered").offset, Some(Offset(number)));
    }
}

#[tokio::test]
async fn dead_bootstrap_addresses_do_not_hold_up_the_start() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // Accepted by the kernel, and never served.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = FakeBroker::start().await;
    let list = format!("{refusing},{},{}", silent.local_addr().unwrap(), broker.address());
    soon(Client::connect(patient(list))).await.expect("connects");
}

#[tokio::test]
async fn the_addresses_of_earlier_replies_and_the_bootstrap_list_stay_good() {
    let (first, second, client) = two(1).await;
    // Of the three that it ever heard of only the one is left that no reply names any more.
    let address = first.state().brokers.remove(&second.node).expect("listed");
    client.fetch_metadata(Some(Vec::new())).await.expect("answered");
    first.die();
    assert_eq!(soon(client.admin().list_topics()).await.expect("by the other"), ["rides"]);
    first.state().brokers.insert(second.node, address);
    second.die();
    let third = first.start_beside(3, None).await;
    let unrelated = Client::connect(ClientConfig::new(format!("{},{}", second.address(), third.address()))).await;
    assert_eq!(soon(unrelated.expect("connects").admin().list_topics()).await.expect("answered"), ["rides"]);
}

#[tokio::test]
async fn a_consumer_goes_on_at_its_offset_with_the_new_leader() {
    let (first, second, client) = two(1).await;
    fill(&client, 1, 3).await;
    let mut consumer = consumer(&client, ReadFrom::Leader).await;
    assert_eq!([next(&mut consumer).await, next(&mut consumer).await], [(0, 0), (0, 1)]);
    second.take_over();
    first.die();
    fill(&client, 1, 2).await;
    for offset in 2..5 {
        assert_eq!(next(&mut consumer).await, (0, offset));
    }
    assert!(asked(&first).contains(&second.node));
}

#[tokio::test]
async fn any_replica_reads_from_a_follower_too_and_from_the_leader_when_that_dies() {
    let (first, second, client) = two(2).await;
    fill(&client, 2, 1).await;
    let mut consumer = consumer(&client, ReadFrom::Any).await;
    let mut seen = [next(&mut consumer).await, next(&mut consumer).await];
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (1, 0)]);
    assert_eq!(asked(&first), [first.node, second.node], "two partitions, two replicas of each: one from either");
    second.die();
    fill(&client, 2, 1).await;
    let mut seen = [next(&mut consumer).await, next(&mut consumer).await];
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (1, 1)]);
    asked(&first);
    eventually("it reads on", || !first.state().fetched_at.is_empty()).await;
    assert_eq!(asked(&first), [first.node]);
}

#[tokio::test]
async fn a_replica_that_fell_behind_is_left_when_that_is_known_and_taken_again_when_it_is_back() {
    let first = FakeBroker::start().await;
    let second = first.start_beside(2, Some("west")).await;
    first.create("rides", 1);
    let config = patient(first.address()).metadata_max_age(Duration::from_millis(20));
    let client = Client::connect(config).await.expect("connects");
    fill(&client, 1, 1).await;
    let mut consumer = consumer(&client, ReadFrom::Rack("west".into())).await;
    assert_eq!(next(&mut consumer).await, (0, 0));
    assert_eq!(asked(&first), [second.node], "the one in the rack, though the other leads");
    let reads_only_from = |node: NodeId| {
        let state = first.state();
        state.fetched_at.len() > 5 && state.fetched_at.iter().rev().take(3).all(|asked| *asked == node)
    };
    first.state().in_sync.retain(|node| *node != second.node);
    eventually("it reads from the leader", || reads_only_from(first.node)).await;
    asked(&first);
    first.state().in_sync.push(second.node);
    eventually("it is back", || reads_only_from(second.node)).await;
}

#[tokio::test]
async fn what_a_follower_does_not_have_is_asked_of_the_leader_before_it_counts_as_gone() {
    let (first, second, client) = two(1).await;
    fill(&client, 1, 3).await;
    first.state().starts.insert(second.node, Offset(2));
    let mut consumer = consumer(&client, ReadFrom::Rack("west".into())).await;
    for offset in 0..3 {
        assert_eq!(next(&mut consumer).await, (0, offset));
    }
    assert_eq!(asked(&first), [first.node, second.node]);
    // What nobody has is gone for real.
    first.state().topics.get_mut("rides").unwrap().1[0].start = Offset(2);
    let mut late = self::consumer(&client, ReadFrom::Rack("west".into())).await;
    soon(late.seek("rides", 0, StartAt::Offset(Offset(0)))).await.expect("found");
    assert_eq!(next(&mut late).await, (0, 2));
}

#[tokio::test]
async fn damage_at_a_follower_is_read_around_at_the_leader() {
    let (first, second, client) = two(1).await;
    fill(&client, 1, 1).await;
    first.on_fetch([Fault::Refuse(ErrorCode::DamagedLog)]);
    let mut consumer = consumer(&client, ReadFrom::Rack("west".into())).await;
    assert_eq!(next(&mut consumer).await, (0, 0));
    assert_eq!(asked(&first), [first.node, second.node]);
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_hold_up_questions_that_others_can_answer() {
    let (first, _second, client) = two(1).await;
    // It takes connections, and what comes on them it never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    first.state().brokers.get_mut(&first.node).unwrap().port = port;
    client.fetch_metadata(Some(Vec::new())).await.expect("answered");
    first.die();
    for _ in 0..4 {
        let names = soon(client.admin().list_topics()).await;
        assert_eq!(names.expect("answered"), ["rides"]);
    }
}

#[tokio::test]
async fn a_broker_that_leaves_a_fetch_unanswered_is_left_once_another_is_to_be_read() {
    for read_from in [ReadFrom::Leader, ReadFrom::Rack("west".into())] {
        let first = FakeBroker::start().await;
        let second = first.start_beside(2, Some("west")).await;
        first.create("rides", 1);
        let config = patient(first.address()).metadata_max_age(Duration::from_millis(20));
        let client = Client::connect(config).await.expect("connects");
        fill(&client, 1, 1).await;
        first.on_fetch([Fault::Ignore]);
        let mut consumer = consumer(&client, read_from.clone()).await;
        eventually("it waits", || !first.state().fetched_at.is_empty()).await;
        match read_from {
            ReadFrom::Leader => second.take_over(),
            _ => first.state().in_sync.retain(|node| *node != second.node),
        }
        assert_eq!(next(&mut consumer).await, (0, 0));
        assert_eq!(asked(&first), [first.node, second.node]);
    }
}

#[tokio::test]
async fn a_leader_that_leaves_batches_unanswered_is_left_once_another_leads() {
    let (first, second, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    soon(send(&producer, "before".to_owned()).await).await.expect("delivered");
    first.on_produce([Fault::Ignore, Fault::Ignore, Fault::Ignore]);
    let mut deliveries = Vec::new();
    for number in 0..3 {
        deliveries.push(producer.send(produced(number)).await.expect("taken"));
        eventually("it came", || first.state().produce_requests == 2 + number as usize).await;
    }
    let asked_before = first.state().metadata_requests;
    eventually("who leads is asked", || first.state().metadata_requests > asked_before + 2).await;
    assert!(deliveries.iter().all(|delivery| !delivery.is_done()), "it may be slow");
    second.take_over();
    for delivery in deliveries {
        soon(delivery).await.expect("delivered");
    }
    assert_eq!(first.values(0), ["before", "value 0", "value 1", "value 2"], "in order, each once");
}

#[tokio::test]
async fn a_leader_that_is_slow_is_waited_for_while_it_leads() {
    let (first, _second, client) = two(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    soon(send(&producer, "before".to_owned()).await).await.expect("delivered");
    first.on_produce([Fault::HoldAnswer]);
    let delivery = send(&producer, "slow".to_owned()).await;
    let asked_before = first.state().metadata_requests;
    eventually("who leads is asked", || first.state().metadata_requests > asked_before + 2).await;
    first.release();
    soon(delivery).await.expect("delivered");
    assert_eq!(first.values(0), ["before", "slow"]);
    assert_eq!(first.state().produce_requests, 2, "it was not sent again");
}
