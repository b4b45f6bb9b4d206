//! The bench, each subcommand for a fraction of a second against a real node. That it counts is checked, never how fast.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::*;

/// Runs `callboard bench` with these words and `--json`, in an empty directory that must be empty again afterwards.
fn bench(node: &Node, words: &str) -> Value {
    let home = directory();
    let outcome = bench_in(node, words, home.path());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{words}");
    assert_eq!(std::fs::read_dir(home.path()).expect("it stays").count(), 0, "{words}");
    outcome.json()
}

fn bench_in(node: &Node, words: &str, home: &Path) -> Outcome {
    let mut command = command(CALLBOARD);
    command.env("CALLBOARD_SERVER", &node.address).current_dir(home);
    let words: Vec<&str> = ["bench"].into_iter().chain(words.split(' ')).chain(["--json"]).collect();
    run_with(command, &words, b"")
}

fn topics(node: &Node) -> Value {
    node.callboard(&["topic", "list", "--json"]).json()
}

#[test]
fn produce_sends_exactly_what_it_was_told_and_leaves_no_topic_behind() {
    let node = Node::start();
    let told =
        bench(&node, "produce --record-size 100 --records 1001 --producers 3 --partitions 2 --connections 2 --runs 2");
    assert_eq!(keys(&told), ["bench", "ratios", "runs", "settings", "summary"]);
    let runs = told["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), 2);
    for run in runs {
        let figures = &run["node"];
        assert_eq!((&figures["records"], &figures["bytes"]), (&1_001.into(), &100_100.into()), "{told}");
        assert_eq!(figures["complete"], true);
        assert!(figures["acknowledged"]["p99_us"].as_f64() >= figures["acknowledged"]["p50_us"].as_f64(), "{told}");
        assert!(figures["node"]["peak_bytes"].as_u64() > Some(1 << 20), "{told}");
        assert!(figures["bench"]["cpu_seconds"].as_f64() > Some(0.0), "{told}");
    }
    let median = &told["summary"]["node"]["records_per_second"]["median"];
    assert!(median.as_f64() > Some(0.0), "{told}");
    assert_eq!(topics(&node), Value::Array(Vec::new()));
}

#[test]
fn every_way_to_acknowledge_flush_and_compress_counts_the_same() {
    let node = Node::start();
    for words in [
        "--acks 0 --flush os",
        "--acks 1 --flush interval --compression lz4",
        "--acks all --flush always --compression zstd --batches-in-flight 1 --threads 2",
        "--batch-size 4KiB --linger 1ms --rate 20000",
    ] {
        let told = bench(&node, &format!("produce --record-size 64 --records 500 {words}"));
        assert_eq!(told["runs"][0]["node"]["records"], 500, "{words}: {told}");
    }
}

#[test]
fn a_limit_and_a_null_server_stand_beside_a_run_with_their_ratios() {
    let node = Node::start();
    let told = bench(&node, "produce --records 2000 --beside limit,null");
    let run = &told["runs"][0];
    assert_eq!(keys(run), ["limit", "node", "null", "ratios"]);
    assert_eq!((&run["node"]["records"], &run["null"]["records"]), (&2_000.into(), &2_000.into()));
    // Whole chunks, of which these bytes need eight.
    assert_eq!(run["limit"]["bytes"], 8 * (256 << 10));
    let ratio = run["node"]["records_per_second"].as_f64().expect("a rate")
        / run["null"]["records_per_second"].as_f64().expect("a rate");
    let told_ratio = told["ratios"]["null"]["records_per_second"]["median"].as_f64().expect("a ratio");
    assert!((told_ratio / ratio - 1.0).abs() < 1e-9, "{told}");
    assert!(told["ratios"]["limit"]["megabytes_per_second"]["median"].as_f64() > Some(0.0), "{told}");
}

#[test]
fn consume_reads_and_verifies_everything_as_often_as_it_was_told() {
    let node = Node::start();
    let told = bench(
        &node,
        "consume --record-size 200 --records 3000 --producers 5 --partitions 4 --consumers 3 --beside limit",
    );
    assert_eq!(told["runs"][0]["node"]["records"], 3_000, "{told}");
    let told = bench(
        &node,
        "consume --record-size 200 --records 700 --partitions 2 --producers 2 --consumers 3 --fan-out --passes 2",
    );
    assert_eq!(told["runs"][0]["node"]["records"], 700 * 3 * 2, "{told}");
    let cold = format!("consume --records 700 --fetch-size 64KiB --beside limit --cold {}", node.data_dir.display());
    let told = bench(&node, &cold);
    assert_eq!((&told["runs"][0]["node"]["records"], &told["settings"]["cold"]), (&700.into(), &true.into()), "{told}");
    assert_eq!(topics(&node), Value::Array(Vec::new()));
}

#[test]
fn latencies_are_those_of_every_record_one_at_a_time_and_at_a_rate() {
    let node = Node::start();
    let told = bench(&node, "latency --records 200 --flush os --beside limit --in-flight 2");
    let run = &told["runs"][0];
    assert_eq!((&run["node"]["acknowledged"]["count"], &run["node"]["records"]), (&200.into(), &200.into()), "{told}");
    assert!(run["limit"]["acknowledged"]["p50_us"].as_f64() > Some(0.0), "{told}");

    let words =
        "latency --rate 2000 --duration 250ms --warm-up 50ms --producers 2 --partitions 2 --consumers 2 --flush os";
    let told = bench(&node, &format!("{words} --beside null"));
    let run = &told["runs"][0];
    for who in ["node", "null"] {
        // 2,000 a second for a quarter of a second: none is left out because another was late.
        let counts = [&run[who]["records"], &run[who]["acknowledged"]["count"], &run[who]["end_to_end"]["count"]];
        assert_eq!(counts, [500, 500, 500], "{who}: {told}");
    }
}

#[test]
fn the_limits_of_a_machine_need_no_node_and_leave_no_file() {
    let node = Node::start();
    for words in ["", " --sync --connections 3 --files 2", " --loopback --write-size 64KiB", " --read"] {
        let told = bench(&node, &format!("limit --bytes 3MiB{words}"));
        assert_eq!(
            told["runs"][0]["limit"]["bytes"].as_u64().map(|bytes| bytes >= 3 << 20),
            Some(true),
            "{words}: {told}"
        );
    }
    for words in ["--ping-pong", "--sync-latency --record-size 4KiB"] {
        let told = bench(&node, &format!("limit --rounds 50 {words}"));
        assert_eq!(told["runs"][0]["limit"]["acknowledged"]["count"], 50, "{words}: {told}");
    }
}

#[test]
fn a_topic_that_exists_is_used_and_stays() {
    let node = Node::start();
    node.create("mine", 2);
    for _ in 0..2 {
        let told = bench(&node, "consume --topic mine --records 100 --producers 2");
        assert_eq!(told["runs"][0]["node"]["records"], 100, "what was there before does not count: {told}");
    }
    let read = node.consume(&["--topic", "mine", "--exit-at-end", "--json", "--output", "/dev/null"]);
    assert_eq!(read.json()["records"], 200);
    bench(&node, "produce --records 10 --keep");
    assert_eq!(topics(&node).as_array().map(Vec::len), Some(2), "the kept one and mine");
}

#[test]
fn ctrl_c_prints_what_was_measured_and_cleans_up() {
    let node = Node::start();
    let home = directory();
    let mut command = command(CALLBOARD);
    command.env("CALLBOARD_SERVER", &node.address).current_dir(home.path());
    command.args(["bench", "produce", "--duration", "1h", "--rate", "1000", "--beside", "limit,null", "--json"]);
    let running = Process::spawn(command, Stdio::null());
    wait_for("the bench has a topic that records go to", || {
        let described = node.callboard(&["topic", "describe", "--json"]).json();
        described[0]["partitions"][0]["log"]["log_end_offset"].as_u64().filter(|end| *end > 50)
    });
    running.signal(Signal::INT);
    let outcome = running.wait();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    let told = outcome.json();
    assert_eq!(told["runs"][0]["node"]["complete"], false);
    assert!(told["runs"][0]["node"]["records"].as_u64() > Some(50), "{told}");
    assert_eq!(topics(&node), Value::Array(Vec::new()));
    assert_eq!(std::fs::read_dir(home.path()).expect("it stays").count(), 0);
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let node = Node::start();
    let home = directory();
    let refused = |words: &str| {
        let outcome = bench_in(&node, words, home.path());
        let (code, line) = outcome.refusal();
        (code, line.to_owned())
    };
    let (code, line) = refused("consume --consumers 2 --records 10");
    assert!(code == 2 && line.contains("2 consumers cannot share 1 partitions"), "{line}");
    let (code, line) = refused("consume --records 10 --beside null");
    assert!(code == 2 && line.contains("a null server keeps nothing to read back"), "{line}");
    let (code, line) = refused("produce --topic missing --records 1");
    assert!(code == 1 && line.contains("topic 'missing' cannot be used"), "{line}");
    let (code, line) = refused("consume --records 10 --cold nowhere");
    assert!(code == 1 && line.contains("give the node's node.data_dir"), "{line}");
    let (code, line) = refused("gates --only nonsense");
    assert!(code == 2 && line.contains("--only matches no gate"), "{line}");
    assert_eq!(topics(&node), Value::Array(Vec::new()), "a bench that failed leaves no topic either");
}

#[test]
fn the_gates_start_their_own_servers_and_print_a_table_of_ratios() {
    let home = directory();
    let mut command = command(CALLBOARD);
    command.current_dir(home.path());
    let words = [
        "bench",
        "gates",
        "--runs",
        "1",
        "--bytes",
        "1MiB",
        "--duration",
        "100ms",
        "--set",
        "storage.min_free_bytes=0",
    ];
    let outcome = run_with(command, &words, b"");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let table = outcome.stdout;
    assert!(table.starts_with("| gate (1 run interleaved) | ratio, median |"), "{table}");
    let gates: Vec<&str> = table.lines().skip(2).take_while(|line| !line.is_empty()).collect();
    assert_eq!(gates.len(), 12, "{table}");
    assert!(!table.contains("not measured"), "{table}");
    assert!(table.contains("`callboard bench produce --acks 1 --flush os"), "{table}");
    assert_eq!(std::fs::read_dir(home.path()).expect("it stays").count(), 0);
}
