//! The Python client of docs/protocol.md talks to a real node: that page, the client and the node agree. Needs `python3`.
#![allow(missing_docs, reason = "tests")]

use std::process::Command;

use callboard::client::{Client, ClientConfig, ConsumerConfig, StartAt};
use callboard::testing::Node;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/mini_client.py");

/// Whether `python3` runs here; says so when it does not.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: there is no python3");
    }
    found
}

/// What the client printed on stdout and stderr.
async fn run(address: String, topic: &'static str) -> (String, String) {
    let client = move || Command::new("python3").args([PROGRAM, &address, topic]).output();
    let client = tokio::task::spawn_blocking(client);
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), client).await;
    let output = output.expect("in time").expect("joins").expect("python3 runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_python_client_of_the_protocol_page_produces_and_fetches() {
    if !has_python() {
        return;
    }
    let node = Node::start().expect("a node");
    let client = Client::connect(ClientConfig::new(node.address())).await.expect("the node answers");
    client.admin().create_topic("hello", 1).await.expect("created");
    for round in 0..3 {
        let (at, next, end) = (2 * round, 2 * round + 1, 2 * round + 2);
        let expected = format!(
            "node 1 callboard {software} speaks protocol 1\ntopic hello has 1 partition(s)\nappended at offset {at}\n\
             {at} b'greeting' b'hello'\n{next} None b'from python'\nhigh watermark {end}\n",
            software = env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(run(node.address(), "hello").await, (expected, String::new()));
    }
    // What Python wrote, Rust reads.
    let mut consumer = client.consumer(ConsumerConfig::default()).await.expect("a consumer");
    consumer.assign("hello", None, StartAt::Earliest).await.expect("assigned");
    for n in 0..6 {
        let record = consumer.recv().await.expect("a record");
        let expected = if n % 2 == 0 { (Some(&b"greeting"[..]), &b"hello"[..]) } else { (None, &b"from python"[..]) };
        assert_eq!(
            (record.offset.0, record.key.as_deref(), record.value.as_deref()),
            (n, expected.0, Some(expected.1))
        );
    }
}

#[tokio::test]
async fn the_python_client_shows_what_the_node_answers_to_an_unknown_topic() {
    if !has_python() {
        return;
    }
    let node = Node::start().expect("a node");
    let (printed, error) = run(node.address(), "nope").await;
    assert_eq!(printed, format!("node 1 callboard {} speaks protocol 1\n", env!("CARGO_PKG_VERSION")));
    assert!(error.trim_end().ends_with("there is no topic 'nope': create it first"), "{error}");
}

#[test]
fn without_an_address_the_python_client_asks_where_a_node_listens_by_default() {
    let program = std::fs::read_to_string(PROGRAM).expect("the client is there");
    let default = callboard::config::NodeConfig::default().listener.native.bind;
    assert_eq!(program.matches(&default).count(), 2, "in its text and in its code: {default}");
}
