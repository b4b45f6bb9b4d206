//! docs/metrics.md says what a running node serves: every metric with its kind and labels, and none besides.
#![allow(missing_docs, reason = "tests")]

#[path = "support/http.rs"]
mod http;

use std::collections::{BTreeMap, BTreeSet};

use callboard::client::{Client, ClientConfig, OutgoingRecord, ProducerConfig};
use callboard::http::catalogue::CATALOGUE;
use callboard::protocol::messages::NewTopic;
use callboard::testing::Node;

/// Kind and labels of each metric in the tables of the page.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = include_str!("../docs/metrics.md").lines().filter(|line| line.starts_with("| `"));
    let mut found = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("four cells: {row}") };
        assert!(meaning.len() > 20, "no meaning is given: {row}");
        let labels =
            labels.split(", ").filter(|label| !label.is_empty()).map(|label| label.trim_matches('`').to_owned());
        let metric = (kind.to_owned(), labels.collect());
        assert!(found.insert(name.trim_matches('`').to_owned(), metric).is_none(), "twice: {row}");
    }
    found
}

/// The labels of a sample as it was served; `le` belongs to every histogram and is not told of.
fn labels_of(sample: &str) -> BTreeSet<String> {
    let inside = sample.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    let names = inside.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
    names.filter(|name| name != "le").collect()
}

#[tokio::test]
async fn the_page_tells_of_every_metric_that_a_node_serves_with_kind_and_labels() {
    let node = Node::start_with(|config| config.listener.http.bind = Some("127.0.0.1:0".to_owned())).expect("a node");
    let client = Client::connect(ClientConfig::new(node.address())).await.expect("it answers");
    let topic =
        NewTopic { name: "t".to_owned(), partitions: Some(1), replication_factor: None, config: BTreeMap::new() };
    client.admin().create_topics(std::slice::from_ref(&topic), false).await.expect("created");
    // The second time it exists: an error to count.
    client.admin().create_topics(&[topic], false).await.expect("answered");
    let producer = client.producer(ProducerConfig::default()).await.expect("a producer");
    producer.send(OutgoingRecord::to("t").value("v")).await.expect("taken").await.expect("acknowledged");

    let served = http::Metrics::of(&node.http_address().expect("asked for"));
    let documented = documented();
    let told: Vec<_> = documented.keys().collect();
    assert_eq!(served.0.keys().collect::<Vec<_>>(), told, "left: served, right: on the page");
    for (name, family) in &served.0 {
        let (kind, labels) = &documented[name];
        assert_eq!(&family.kind, kind, "{name}");
        assert!(!family.help.is_empty() && !family.samples.is_empty(), "{name} has no sample after all this");
        for sample in family.samples.keys() {
            assert_eq!(&labels_of(sample), labels, "{sample}");
        }
    }
    assert_eq!(CATALOGUE.len(), served.0.len());
}
