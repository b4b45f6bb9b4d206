//! Readers on a follower, in its rack: they see what is committed as soon as those on the leader do. Real processes.

use std::time::Instant;

use callboard::cli::local_cluster::LocalCluster;
use callboard::client::{
    Client, ClientConfig, Consumer, ConsumerConfig, OutgoingRecord, ProducerConfig, ReadFrom, StartAt,
};
use callboard::types::NodeId;

use crate::cluster::{partitions, replicated, until_in_sync};
use crate::support::http::Metrics;
use crate::support::*;

/// One controller and two brokers, of two racks, with a topic on both.
async fn cluster(directory: &Directory) -> (LocalCluster, Client) {
    let builder = LocalCluster::builder(&**directory).apart(1, 2).program(env!("CARGO_BIN_EXE_callboard"));
    let cluster = builder.set(["storage.min_free_bytes=0"]).start().await.expect("a cluster");
    let client = connect(&cluster.bootstrap()).await;
    client.admin().create_topics(&[replicated("rides", 1, 2)], false).await.unwrap().remove(0).expect("created");
    until_in_sync(&client, "rides", 2).await;
    (cluster, client)
}

/// A reader in the rack of the broker that follows, and who that is.
async fn nearby(cluster: &LocalCluster, client: &Client) -> (Consumer, NodeId) {
    let leader = partitions(client, "rides").await[0].leader.expect("it is led");
    let follower = cluster.nodes().find(|node| node.is_broker() && node.id != leader).expect("the other one");
    let apart = Client::connect(ClientConfig::new(cluster.bootstrap()).client_id("nearby")).await.expect("connected");
    let config = ConsumerConfig::default().read_from(ReadFrom::Rack(follower.rack.into()));
    (consumer(&apart, "rides", config, StartAt::Earliest).await, follower.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_on_a_follower_gets_one_record_without_a_second_one_behind_it() {
    let directory = Directory::new();
    let (cluster, client) = cluster(&directory).await;
    let (mut reader, follower) = nearby(&cluster, &client).await;
    for number in 0..20 {
        send_each(&client, "rides", values(number..number + 1)).await;
        assert_eq!(take(&mut reader, 1).await, numbered(number..number + 1));
    }
    let metrics = cluster.nodes().find(|node| node.id == follower).expect("it is there").ports.http;
    let read = Metrics::of(&format!("127.0.0.1:{metrics}")).value("callboard_requests_total{api=\"Fetch\"}");
    assert!(read >= 20.0, "{read} fetches came to the follower");
}

/// Prints how much later it is there than on the leader, and how long one round trip takes here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --test stories -- --ignored --nocapture measure_how_much_later"]
async fn measure_how_much_later_a_record_is_read_from_a_follower() {
    const ROUNDS: usize = 500;
    let directory = Directory::new();
    let (cluster, client) = cluster(&directory).await;
    let (mut near, _) = nearby(&cluster, &client).await;
    let other = connect(&cluster.bootstrap()).await;
    let mut far = consumer(&other, "rides", ConsumerConfig::default(), StartAt::Earliest).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("a producer");
    let (mut leader, mut follower, mut round_trip) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        client.admin().metadata(Some(&[])).await.expect("an answer");
        round_trip.push(began.elapsed());
        let began = Instant::now();
        let delivery = producer.send(OutgoingRecord::to("rides").value("x")).await.expect("taken");
        let at_leader = async { far.recv().await.map(|_| began.elapsed()) };
        let at_follower = async { near.recv().await.map(|_| began.elapsed()) };
        let (delivered, at_leader, at_follower) = tokio::join!(delivery, at_leader, at_follower);
        delivered.expect("acknowledged");
        leader.push(at_leader.expect("read"));
        follower.push(at_follower.expect("read"));
    }
    for (what, times) in [("round trip", &mut round_trip), ("leader", &mut leader), ("follower", &mut follower)] {
        times.sort_unstable();
        println!("{what}: p50 {:?}, p99 {:?}", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
}
