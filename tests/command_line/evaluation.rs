//! The clients and the journal of `callboard evaluate`, on a node that is killed.

use std::sync::Arc;
use std::time::Duration;

use callboard::cli::evaluate::clients::{Journal, start_consumer, start_producer};
use callboard::cli::evaluate::history::Place;
use callboard::cli::evaluate::violation::Violation;
use callboard::cli::local_cluster::LocalCluster;
use callboard::client::{Client, ClientConfig, ReadFrom};
use callboard::types::{NodeId, Offset};

use crate::support::{CALLBOARD, directory, wait_for};

const NODE: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_secs(60);

fn acknowledged(journal: &Journal) -> u64 {
    journal.read().history.acknowledged_counts().values().sum()
}

fn wait_for_more(what: &str, journal: &Journal) {
    let before = acknowledged(journal);
    wait_for(what, || (acknowledged(journal) >= before + 20).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_accounted_for_though_the_node_and_clients_are_killed() {
    let home = directory();
    let builder = LocalCluster::builder(home.path()).combined(1).program(CALLBOARD).set(["storage.min_free_bytes=0"]);
    let mut cluster = builder.start().await.expect("a node");
    let address = cluster.bootstrap();
    let client = Client::connect(ClientConfig::new(&address)).await.expect("the node serves");
    client.admin().create_topic("t", 2).await.expect("a topic");
    let places = [0, 1].map(|partition| Place::new("t", partition));
    let journal = Arc::new(Journal::default());
    let mut producers = Vec::from([1, 2].map(|number| start_producer("producer", number, &address, &places, &journal)));
    let names = ["consumer-1", "consumer-2"];
    let consume = |name| start_consumer(name, ReadFrom::Leader, &address, &places, &journal);
    let mut consumers = Vec::from(names.map(consume));
    wait_for_more("records flow", &journal);

    cluster.kill(NODE).await.expect("it runs");
    cluster.start(NODE).await.expect("the directory is good");
    wait_for_more("records flow again", &journal);

    journal.read().history.reader_ended("consumer-1");
    consumers.remove(0).kill().await;
    producers.remove(0).kill().await;
    wait_for_more("those that are left go on", &journal);
    consumers.push(consume("consumer-3"));
    for producer in producers {
        assert!(producer.finish(PATIENCE).await, "a producer does not learn what became of its records");
    }
    wait_for("all is seen", || journal.read().history.behind().is_empty().then_some(()));
    for consumer in consumers {
        consumer.kill().await;
    }
    assert_eq!(journal.read().history.check(), Vec::new());

    // And it would have been noticed: somebody sees the first record once more.
    journal.read().history.saw("consumer-3", &places[0], Offset(u64::from(u32::MAX)), b"2:0");
    let found = journal.read().history.check();
    assert!(found.iter().any(|violation| matches!(violation, Violation::Twice { .. })), "{found:?}");
}
