//! `callboard topic trim` and `callboard topic offsets`.

use serde_json::json;

use crate::support::*;

/// A topic with these lines in partition 0.
fn filled(node: &Node, topic: &str, partitions: u32, lines: usize) {
    node.create(topic, partitions);
    let input: String = (0..lines).map(|n| format!("line {n}\n")).collect();
    node.produce(input.as_bytes(), &["--topic", topic, "--partition", "0"]).quietly();
}

#[test]
fn a_topic_is_trimmed_to_an_offset_to_a_time_and_to_nothing() {
    let node = Node::start();
    filled(&node, "t", 2, 10);
    let trim = |arguments: &[&str]| node.callboard(&[&["topic", "trim", "t", "--yes"], arguments].concat());
    assert_eq!(
        trim(&["--partition", "0", "--before-offset", "4"]).quietly(),
        "PARTITION  START BEFORE  START  DELETED\n\
         0          0             4      4\n"
    );
    let left = node.consume(&["--topic", "t", "--exit-at-end"]).quietly();
    assert_eq!(left, "line 4\nline 5\nline 6\nline 7\nline 8\nline 9\n");

    assert_eq!(
        trim(&["--before-time", "1999-12-31T23:59:59Z"]).quietly(),
        "PARTITION  START BEFORE  START  DELETED\n\
         0          4             4      0\n\
         1          0             0      0\n"
    );
    // No record is that new: all there are are older.
    let trimmed = trim(&["--before-time", "2999-01-01T00:00:00Z", "--json"]).json();
    let expected = json!([
        {"partition": 0, "log_start_offset_before": 4, "log_start_offset": 10, "deleted_offsets": 6, "error": null},
        {"partition": 1, "log_start_offset_before": 0, "log_start_offset": 0, "deleted_offsets": 0, "error": null},
    ]);
    assert_eq!(trimmed, expected);
    node.produce(b"a\nb\n", &["--topic", "t", "--partition", "0"]).quietly();
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "a\nb\n");
    assert_eq!(
        trim(&["--all", "--partition", "0", "-p", "0"]).quietly(),
        "PARTITION  START BEFORE  START  DELETED\n\
         0          10            12     2\n"
    );
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "");
}

#[test]
fn a_trim_that_makes_no_sense_is_refused_in_one_line_and_deletes_nothing() {
    let node = Node::start();
    filled(&node, "t", 2, 3);
    for (arguments, code, expected) in [
        (&["t", "--all"][..], 2, "what is trimmed is gone for good: confirm with --yes"),
        (
            &["t", "--before-offset", "2", "--yes"],
            2,
            "topic 't' has 2 partitions, each with offsets of its own: name those meant with --partition, or give --before-time",
        ),
        (&["x", "--all", "--yes"], 1, "topic 'x' cannot be used: there is no topic 'x': create it first"),
        (&["t", "--partition", "5", "--all", "--yes"], 1, "topic 't' has no partition 5: it has 2, numbered from 0"),
    ] {
        let outcome = node.callboard(&[&["topic", "trim"], arguments].concat());
        assert_eq!(outcome.refusal(), (code, format!("error: {expected}").as_str()), "{arguments:?}");
    }
    let beyond = node.callboard(&["topic", "trim", "t", "-p", "0", "-p", "1", "--before-offset", "2", "--yes"]);
    let expected = "error: partition 1 of topic 't' was not trimmed: offset 2 is beyond what is committed, 0 to 0 (exclusive): \
                    delete before one of these, or up to 0\n";
    assert_eq!((beyond.code, beyond.stderr.as_str()), (1, expected));
    assert_eq!(
        beyond.stdout,
        "PARTITION  START BEFORE  START  DELETED\n\
         0          0             2      2\n\
         1          0             -      -\n"
    );
}

#[test]
fn offsets_are_shown_by_place_and_by_time() {
    let node = Node::start();
    filled(&node, "t", 2, 5);
    node.callboard(&["topic", "trim", "t", "--partition", "0", "--before-offset", "1", "--yes"]).quietly();
    let offsets = |arguments: &[&str]| node.callboard(&[&["topic", "offsets", "t"], arguments].concat());
    assert_eq!(
        offsets(&[]).quietly(),
        "PARTITION  EARLIEST  LATEST\n\
         0          1         5\n\
         1          0         0\n"
    );
    let expected = json!([{"partition": 1, "earliest": 0, "latest": 0, "error": null}]);
    assert_eq!(offsets(&["--partition", "1", "--json"]).json(), expected);
    assert_eq!(
        offsets(&["--at", "latest"]).quietly(),
        "PARTITION  OFFSET  TIMESTAMP  EPOCH\n\
         0          5       -          0\n\
         1          0       -          0\n"
    );
    let newest = offsets(&["--at", "max-timestamp", "--partition", "0", "--json"]).json();
    let timestamp = newest[0]["timestamp"].as_u64().expect("a timestamp");
    let at = format!("@{timestamp}");
    let by_time = offsets(&["--at", &at, "--partition", "0", "--json"]).json();
    assert_eq!(by_time[0]["timestamp"], newest[0]["timestamp"]);
    assert!(by_time[0]["offset"].as_u64() <= newest[0]["offset"].as_u64(), "{by_time} {newest}");
    // What is printed can be given again.
    let table = offsets(&["--at", &at, "--partition", "0"]).quietly();
    let printed = table.lines().nth(1).and_then(|row| row.split_whitespace().nth(2)).expect("a time");
    assert_eq!(offsets(&["--at", printed, "--partition", "0", "--json"]).json(), by_time);
    let future = offsets(&["--at", "2999-01-01T00:00:00Z", "--partition", "0", "--json"]).json();
    let expected = json!([{"partition": 0, "offset": null, "timestamp": null, "leader_epoch": 0, "error": null}]);
    assert_eq!(future, expected);
    let unknown = node.callboard(&["topic", "offsets", "x"]);
    assert_eq!(unknown.refusal(), (1, "error: topic 'x' cannot be used: there is no topic 'x': create it first"));
}
