//! `callboard-producer` and `callboard-consumer`, one option after the other.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::*;

/// Each record of `topic` as `--format json` shows it, the time left out.
fn records(node: &Node, topic: &str) -> Vec<Value> {
    let printed = node.consume(&["--topic", topic, "--exit-at-end", "--format", "json"]).quietly();
    let parse = |line: &str| {
        let mut record: Value = serde_json::from_str(line).expect("JSON");
        let timestamp = record.as_object_mut().expect("an object").remove("timestamp").expect("a time");
        assert!(timestamp.as_i64() > Some(1_700_000_000_000), "{timestamp}");
        record
    };
    let mut records: Vec<Value> = printed.lines().map(parse).collect();
    records.sort_by_key(|record| (record["partition"].as_u64(), record["offset"].as_u64()));
    records
}

#[test]
fn keys_headers_and_partitions_arrive_as_they_were_given() {
    let node = Node::start();
    node.create("t", 2);
    let to = ["--topic", "t", "--partition", "1"];
    let with = |input: &str, more: &[&str]| {
        let arguments: Vec<&str> = to.iter().chain(more).copied().collect();
        assert_eq!(node.produce(input.as_bytes(), &arguments).quietly(), "");
    };
    with("a\n", &["--key", "k", "--header", "h=1", "--header", "h=2=3"]);
    // What only the leader has acknowledged is committed by the time that the next, by all, is acknowledged.
    with("wörld\n\nlast", &["--acks", "1"]);
    with("user::b::c\nplain\n::empty key\n", &["--key-separator", "::"]);
    let record = |offset: u64, key: Value, value: &str, headers: Value| json!({"topic": "t", "partition": 1, "offset": offset, "key": key, "value": value, "headers": headers});
    let headers = json!([{"key": "h", "value": "1"}, {"key": "h", "value": "2=3"}]);
    assert_eq!(
        records(&node, "t"),
        [
            record(0, json!("k"), "a", headers),
            record(1, Value::Null, "wörld", json!([])),
            record(2, Value::Null, "", json!([])),
            record(3, Value::Null, "last", json!([])),
            record(4, json!("user"), "b::c", json!([])),
            record(5, Value::Null, "plain", json!([])),
            record(6, json!(""), "empty key", json!([])),
        ]
    );
    let read = |more: &[&str]| {
        let arguments: Vec<&str> = ["--topic", "t", "--exit-at-end"].iter().chain(more).copied().collect();
        node.consume(&arguments).quietly()
    };
    assert_eq!(read(&[]), "a\nwörld\n\nlast\nb::c\nplain\nempty key\n");
    assert_eq!(read(&["--format", "key=value"]), "k=a\nwörld\n\nlast\nuser=b::c\nplain\n=empty key\n");
    assert_eq!(read(&["--format", "key=value", "--key-separator", "\\t", "--count", "2"]), "k\ta\nwörld\n");
    assert_eq!(read(&["--delimiter", "|", "--no-final-newline"]), "a|wörld||last|b::c|plain|empty key");
    assert_eq!(read(&["--partition", "0"]), "");
}

#[test]
fn a_key_always_goes_to_the_same_partition_in_order() {
    let node = Node::start();
    node.create("t", 4);
    let input: String = (0..400).map(|n| format!("key{}:{n}\n", n % 20)).collect();
    node.produce(input.as_bytes(), &["--topic", "t", "--key-separator", ":"]).quietly();
    let mut of_key: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for record in records(&node, "t") {
        let text = |field: &str| record[field].as_str().expect("text").to_owned();
        of_key.entry(text("key")).or_default().push((record["partition"].as_u64().expect("a number"), text("value")));
    }
    assert_eq!(of_key.len(), 20);
    let mut partitions = std::collections::BTreeSet::new();
    for (key, found) in &of_key {
        let n: usize = key.strip_prefix("key").expect("as sent").parse().expect("a number");
        let partition = found[0].0;
        partitions.insert(partition);
        let expected: Vec<(u64, String)> = (0..20).map(|i| (partition, (n + 20 * i).to_string())).collect();
        assert_eq!(found, &expected);
    }
    assert_eq!(partitions.len(), 4, "20 keys use all partitions");
}

#[test]
fn each_acks_delivers() {
    let node = Node::start();
    for acks in ["0", "1", "all"] {
        node.create(acks, 1);
        let sent = node.produce(b"one\ntwo\n", &["--topic", acks, "--acks", acks, "--json"]);
        let mut summary = sent.json();
        assert!(summary.as_object_mut().expect("an object").remove("elapsed_ms").is_some_and(|ms| ms.is_u64()));
        let expected = json!({"delivered_records": 2, "delivered_bytes": 6, "failed_records": 0,
            "last_record_unterminated": false});
        assert_eq!((sent.code, summary, sent.stderr.as_str()), (0, expected, ""));
        // With acks 0 the producer may be gone before the records are there: the consumer waits for them.
        let read = node.consume(&["--topic", acks, "--from", "earliest", "--count", "2"]);
        assert_eq!(read.quietly(), "one\ntwo\n");
    }
}

#[test]
fn reading_starts_where_it_is_told() {
    let node = Node::start();
    node.create("t", 1);
    for n in 0..4 {
        node.produce(format!("record {n}\n").as_bytes(), &["--topic", "t"]).quietly();
    }
    let printed = node.consume(&["--topic", "t", "--exit-at-end", "--format", "json"]).quietly();
    let at: Vec<i64> = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["timestamp"].as_i64().expect("a time"))
        .collect();
    assert!(at[1] < at[2], "two programs one after the other: {at:?}");
    let moment = jiff::Timestamp::from_millisecond(at[2]).expect("in the calendar").to_string();
    let after_all = format!("@{}", at[3] + 1);
    let from = |place: &str| node.consume(&["--topic", "t", "--from", place, "--exit-at-end"]).quietly();
    let tail = |from: usize| (from..4).map(|n| format!("record {n}\n")).collect::<String>();
    assert_eq!(from("earliest"), tail(0));
    assert_eq!(from("0"), tail(0));
    assert_eq!(from("3"), tail(3));
    assert_eq!(from("4"), "");
    assert_eq!(from(&format!("@{}", at[2])), tail(2));
    assert_eq!(from(&moment), tail(2));
    assert_eq!(from(&after_all), "");
    assert_eq!(from("latest"), "");

    let expected = "error: --from 5 is beyond the end of partition 0 of topic 't', which is 4: start there or earlier, or name another partition with --partition";
    for more in [&["--exit-at-end"][..], &["--count", "1"], &["--partition", "0"]] {
        let arguments: Vec<&str> = ["--topic", "t", "--from", "5"].iter().chain(more).copied().collect();
        assert_eq!(node.consume(&arguments).refusal(), (1, expected));
    }
}

#[test]
fn what_retention_took_is_left_out_with_a_warning() {
    let home = directory();
    let node = Node::start_in(&home.path().join("data"), &["storage.retention_check_ms=20"]);
    let small = ["topic", "create", "t", "--config", "segment_bytes=65536", "--config", "retention_bytes=65536"];
    node.callboard(&small).quietly();
    let input: String = (0..3_000).map(|n| format!("{n:0100}\n")).collect();
    node.produce(input.as_bytes(), &["--topic", "t", "--batch-bytes", "4096"]).quietly();
    let start = wait_for("segments are deleted", || {
        let described = node.callboard(&["topic", "describe", "t", "--json"]).json();
        described[0]["partitions"][0]["log"]["log_start_offset"].as_u64().filter(|start| *start > 1_500)
    });
    let read = node.consume(&["--topic", "t", "--from", "0", "--exit-at-end"]);
    let first: u64 = lines(&read.stdout)[0].parse().expect("a number");
    assert!((read.code, first) >= (0, start), "{first} {start} {}", read.stderr);
    let expected: String = (first..3_000).map(|n| format!("{n:0100}\n")).collect();
    assert_eq!(read.stdout, expected);
    let warning = "warning: the offset cannot be read; reading goes on elsewhere topic=t partition=0 from=0 to=";
    assert_eq!(read.stderr, format!("{warning}{first}\n"));
}

#[test]
fn latest_shows_what_comes_from_now_on_and_count_ends_it() {
    let node = Node::start();
    node.create("t", 1);
    node.produce(b"before\n", &["--topic", "t"]).quietly();
    let mut consumer = node.spawn(CONSUMER, &["--topic", "t", "--count", "3"], Stdio::null());
    let mut sent = 0;
    wait_for("three records are read", || {
        sent += 1;
        node.produce(format!("after {sent}\n").as_bytes(), &["--topic", "t"]).quietly();
        consumer.has_ended()
    });
    let printed = consumer.wait().quietly();
    let numbers: Vec<u32> = printed
        .lines()
        .map(|line| line.strip_prefix("after ").expect("nothing from before").parse().expect("a number"))
        .collect();
    let first = numbers[0];
    assert_eq!(numbers, [first, first + 1, first + 2], "{printed}");
}

#[test]
fn records_are_sent_and_shown_as_they_come_and_ctrl_c_ends_both_ends_well() {
    let node = Node::start();
    node.create("t", 1);
    let mut producer = node.spawn(PRODUCER, &["--topic", "t", "--json"], Stdio::piped());
    let consumer = node.spawn(CONSUMER, &["--topic", "t", "--from", "earliest"], Stdio::null());
    let mut pipe = producer.stdin();
    for n in 1..=5 {
        writeln!(pipe, "line {n}").expect("the producer reads");
        let expected: String = (1..=n).map(|n| format!("line {n}\n")).collect();
        wait_for("the line is shown", || (consumer.stdout() == expected).then_some(()));
    }
    // The pipe stays open, with half a line in it that nobody finished.
    write!(pipe, "half").expect("the producer reads");
    producer.signal(Signal::INT);
    let produced = producer.wait();
    assert_eq!((produced.code, produced.stderr.as_str()), (0, ""));
    assert_eq!(produced.json()["delivered_records"], 5);
    consumer.signal(Signal::INT);
    assert_eq!(consumer.wait().quietly(), "line 1\nline 2\nline 3\nline 4\nline 5\n");
    drop(pipe);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_anything() {
    let node = Node::start();
    node.create("t", 1);
    let consumer = node.spawn(CONSUMER, &["--topic", "t", "--from", "earliest"], Stdio::null());
    node.produce(b"a\n", &["--topic", "t"]).quietly();
    wait_for("it reads", || (consumer.stdout() == "a\n").then_some(()));
    consumer.signal_twice();
    let outcome = consumer.wait();
    // The first signal may have ended it before the second was looked at.
    assert!([0, 130].contains(&outcome.code), "{outcome:?}");
}

#[test]
fn what_cannot_be_sent_or_read_is_one_line() {
    let node = Node::start();
    node.create("t", 3);
    let missing = "error: topic 'nope' does not exist: create it first (callboard topic create nope)";
    assert_eq!(node.produce(b"a\n", &["--topic", "nope"]).refusal(), (1, missing));
    assert_eq!(node.consume(&["--topic", "nope"]).refusal(), (1, missing));
    let partition = "error: topic 't' has no partition 9: it has 3, numbered from 0";
    assert_eq!(node.produce(b"a\n", &["--topic", "t", "--partition", "9"]).refusal(), (1, partition));
    assert_eq!(node.consume(&["--topic", "t", "--partition", "9"]).refusal(), (1, partition));
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "");

    // A record above the topic's limit fails alone, is counted, and the exit code tells.
    let huge = "x".repeat(5 << 20);
    let sent = node.produce(format!("a\n{huge}\nb\n").as_bytes(), &["--topic", "t", "--partition", "0"]);
    assert_eq!((sent.code, sent.stdout.as_str()), (1, ""), "{}", sent.stderr);
    assert!(lines(&sent.stderr)[0].starts_with("sent 2 records, 2 B, "), "{}", sent.stderr);
    assert!(sent.stderr.contains("\nerror: 1 record was not delivered: "), "{}", sent.stderr);
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "a\nb\n");

    let nowhere = node.consume(&["--topic", "t", "--exit-at-end", "--output", "/nowhere/out.txt"]);
    let expected = "error: cannot write /nowhere/out.txt: No such file or directory (os error 2); check the path, the rights and the free space";
    assert_eq!(nowhere.refusal(), (1, expected));
}

#[test]
fn a_missing_topic_can_be_created_on_the_way() {
    let node = Node::start();
    for _ in 0..2 {
        node.produce(b"a\n", &["--topic", "t", "--create-topic"]).quietly();
    }
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "a\na\n");
}

#[test]
fn produce_and_consume_are_the_same_programs() {
    let node = Node::start();
    node.create("t", 1);
    let mut producer =
        node.spawn(CALLBOARD, &["produce", "--topic", "t", "--key", "k", "--count", "2"], Stdio::piped());
    producer.stdin().write_all(b"a\nb\nc\n").expect("taken");
    producer.wait().quietly();
    let read = node.callboard(&["consume", "--topic", "t", "--exit-at-end", "--format", "key=value"]);
    assert_eq!(read.quietly(), "k=a\nk=b\n");
}
