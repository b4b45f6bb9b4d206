//! `callboard log`: a partition's files that a real node wrote, read without it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::*;

fn log(arguments: &[&str]) -> Outcome {
    let arguments: Vec<&str> = ["log"].iter().chain(arguments).copied().collect();
    run_with(command(CALLBOARD), &arguments, b"")
}

#[test]
fn a_partition_is_read_while_the_node_runs_and_after_it_stopped() {
    let node = Node::start();
    node.create("t", 2);
    let id = node.callboard(&["topic", "list", "--json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    let cluster = node.callboard(&["cluster", "describe", "--json"]).json();
    let cluster = cluster["cluster_id"].as_str().expect("an id").to_owned();
    let to = ["--topic", "t", "--partition", "1"];
    node.produce(
        b"k:one\nplain\n",
        &[&to[..], &["--key-separator", ":", "--header", "h=1", "--linger", "1s"]].concat(),
    )
    .quietly();
    node.produce(b"three\n", &[&to[..], &["--compression", "zstd"]].concat()).quietly();
    let directories = node.partitions("t");
    let (empty, full) = (directories[0].to_str().expect("text"), directories[1].to_str().expect("text"));

    let running = log(&["verify", full]).quietly();
    let head = |partition: u32| format!("topic t (id {id}), partition {partition}, cluster {cluster}\n");
    let size =
        node.callboard(&["topic", "describe", "t", "--json"]).json()[0]["partitions"][1]["log"]["size_bytes"].clone();
    let expected = format!(
        "{}1 segment, 2 batches, 3 records, {size} B; offsets 0 up to but not 3\neverything is as it should be\n",
        head(1)
    );
    assert_eq!(running, expected);
    assert_eq!(
        log(&["verify", empty]).quietly(),
        format!("{}0 segments, 0 batches, 0 records, 0 B; offsets none\neverything is as it should be\n", head(0))
    );
    assert_eq!(log(&["dump", empty]).quietly(), "");

    let kept = node.data_dir.clone();
    let home = node.stop_and_keep(Signal::TERM);
    assert!(kept.join("clean-stop").exists());
    assert_eq!(log(&["verify", full]).quietly(), expected);
    let report = log(&["verify", full, "--json"]).json();
    let expected = json!({"good": true, "topic": "t", "topic_id": id, "partition": 1, "segments": 1, "batches": 2,
        "records": 3, "bytes": size, "start_offset": 0, "end_offset": 3, "problems": [], "index_problems": [],
        "unlisted_problems": 0});
    assert_eq!(report, expected);

    let dumped = log(&["dump", full, "--records", "--json"]).quietly();
    let batches: Vec<Value> = dumped.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        keys(&batches[0]),
        [
            "base_offset",
            "base_sequence",
            "bytes",
            "compression",
            "control",
            "file",
            "last_offset",
            "leader_epoch",
            "max_timestamp",
            "position",
            "producer_epoch",
            "producer_id",
            "record_count",
            "records"
        ]
    );
    assert_eq!((&batches[0]["compression"], &batches[1]["compression"]), (&"none".into(), &"zstd".into()));
    let time = &batches[0]["records"][0]["timestamp"];
    let headers = json!([{"key": "h", "value": "1"}]);
    let expected = json!({"offset": 0, "timestamp": time, "key": "k", "value": "one", "headers": headers});
    assert_eq!(batches[0]["records"][0], expected);
    assert_eq!(batches[1]["records"][0]["value"], "three");

    let dumped = log(&["dump", full, "--records"]).quietly();
    let found = lines(&dumped);
    assert!(found[0].starts_with("00000000000000000000.log@0  offsets 0 to 1  2 records  "), "{dumped}");
    assert!(found[1].starts_with("  0  20") && found[1].ends_with("Z  \"k\"  \"one\""), "{dumped}");
    assert!(found[2].starts_with("  1  20") && found[2].ends_with("Z  null  \"plain\""), "{dumped}");
    assert!(found[3].contains("  offset 2  1 record  ") && found[3].contains("  zstd  epoch 0  "), "{dumped}");
    assert_eq!(found.len(), 5, "{dumped}");
    assert_eq!(lines(&log(&["dump", full]).quietly()), [found[0], found[3]]);
    drop(home);
}

#[test]
fn a_flipped_byte_is_found_and_told_with_its_offset() {
    let node = Node::start();
    node.create("t", 1);
    for n in 0..3 {
        node.produce(format!("record {n}\n").as_bytes(), &["--topic", "t"]).quietly();
    }
    let directory = node.partitions("t").remove(0);
    let home = node.stop_and_keep(Signal::TERM);
    let segment = directory.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(8).position(|window| window == b"record 1").expect("not compressed");
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");

    let path = directory.to_str().expect("text");
    let position = bytes.len() / 3;
    let outcome = log(&["verify", path]);
    let problem = format!("00000000000000000000.log at byte {position} (offset 1): ");
    let shown = lines(&outcome.stdout);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(shown.iter().any(|line| line.starts_with(&format!("PROBLEM {problem}"))), "{outcome:?}");
    assert!(outcome.stderr.starts_with(&format!("error: 1 problem in {path}: {problem}")), "{outcome:?}");
    let report = log(&["verify", path, "--json"]);
    assert_eq!((report.code, &report.json()["good"]), (1, &false.into()));
    assert_eq!(report.json()["problems"][0]["offset"], 1);

    let dumped = log(&["dump", path, "--records"]);
    assert_eq!(dumped.code, 1);
    assert!(dumped.stdout.contains("\"record 0\"") && dumped.stdout.contains("\"record 2\""), "{dumped:?}");
    assert!(!dumped.stdout.contains("ecord 1\""), "{dumped:?}");
    drop(home);
}

#[test]
fn a_wrong_path_is_told_apart_from_a_damaged_log() {
    let home = directory();
    let path = |name: &str| home.path().join(name).display().to_string();
    std::fs::create_dir(path("empty")).expect("a new directory");
    let file = write(home.path(), "file", "text");
    for command in ["dump", "verify"] {
        let missing = path("missing");
        let expected = format!("error: cannot read {missing}: No such file or directory (os error 2); check the path");
        assert_eq!(log(&[command, &missing]).refusal(), (2, expected.as_str()));
        let expected = format!("error: cannot read {file}: Not a directory (os error 20); check the path");
        assert_eq!(log(&[command, &file]).refusal(), (2, expected.as_str()));
        let empty = path("empty");
        let outcome = log(&[command, &empty]);
        let (code, line) = outcome.refusal();
        assert_eq!(code, 2);
        assert!(
            line.starts_with(&format!("error: {empty} holds no segment file: give the directory of one partition"))
        );
    }
}
