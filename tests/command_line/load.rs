//! The load: several producers and several consumers, as an evaluation runs them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::*;

/// The numbers of each key, in the order of the file.
fn numbers(file: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(file).expect("a file a consumer").lines() {
        let (key, value) = line.split_once('=').expect("key=value");
        let value: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(keys(&value), ["n", "sent_us"], "{line}");
        assert!(value["sent_us"].as_u64() > Some(1_700_000_000_000_000), "{line}");
        found.entry(key.to_owned()).or_default().push(value["n"].as_u64().expect("a number"));
    }
    found
}

#[test]
fn every_consumer_has_every_record_with_values_that_rise_by_one_a_key() {
    let node = Node::start();
    node.create("load", 4);
    let home = directory();
    let output = home.path().join("out");
    let reading = [
        "--topic",
        "load",
        "--from",
        "earliest",
        "--consumers",
        "2",
        "--count",
        "150",
        "--format",
        "key=value",
        "--output",
        output.to_str().expect("text"),
    ];
    let consumers = node.spawn(CONSUMER, &reading, Stdio::null());
    let sending = ["--topic", "load", "--producers", "3", "--interval", "1ms", "--keys", "user", "--count", "50"];
    let sent = node.produce(b"", &sending);
    assert_eq!((sent.code, sent.stdout.as_str()), (0, ""), "{}", sent.stderr);
    assert!(sent.stderr.starts_with("sent 150 records, "), "{}", sent.stderr);
    assert!(!sent.stderr.contains('\r') && lines(&sent.stderr).len() == 1, "{}", sent.stderr);

    let read = consumers.wait();
    assert_eq!((read.code, read.stdout.as_str()), (0, ""), "{}", read.stderr);
    assert!(read.stderr.starts_with("read 300 records, "), "{}", read.stderr);
    assert!(read.stderr.contains(", latency p50 ") && read.stderr.contains(", max "), "{}", read.stderr);
    assert!(!read.stderr.contains('\r') && lines(&read.stderr).len() == 1, "{}", read.stderr);
    let expected: BTreeMap<String, Vec<u64>> =
        ["user1", "user2", "user3"].map(|key| (key.to_owned(), (1..=50).collect())).into();
    for file in ["consumer-1.txt", "consumer-2.txt"] {
        assert_eq!(numbers(&output.join(file)), expected, "{file}");
    }
    assert_eq!(std::fs::read_dir(&output).expect("the directory").count(), 2);
}

#[test]
fn programs_get_the_figures_of_a_load_as_json() {
    let node = Node::start();
    node.create("load", 1);
    let sending = ["--topic", "load", "--producers", "2", "--interval", "0ms", "--count", "1000", "--json"];
    let sent = node.produce(b"", &sending);
    assert_eq!((sent.code, sent.stderr.as_str()), (0, ""));
    let sent = sent.json();
    assert_eq!(
        keys(&sent),
        ["delivered_bytes", "delivered_records", "elapsed_ms", "failed_records", "last_record_unterminated"]
    );
    assert_eq!((&sent["delivered_records"], &sent["failed_records"]), (&2_000.into(), &0.into()));

    let home = directory();
    let output = home.path().to_str().expect("text");
    let reading = ["--topic", "load", "--consumers", "3", "--exit-at-end", "--output", output, "--json"];
    let read = node.consume(&reading);
    assert_eq!((read.code, read.stderr.as_str()), (0, ""));
    let read = read.json();
    assert_eq!(keys(&read), ["bytes", "elapsed_ms", "latency", "records"]);
    assert_eq!(keys(&read["latency"]), ["max_us", "p50_us", "p99_us", "records"]);
    assert_eq!((&read["records"], &read["latency"]["records"]), (&6_000.into(), &6_000.into()));
    assert!(read["latency"]["p50_us"].as_u64() > Some(0), "{read}");
}
