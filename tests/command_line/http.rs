//! `callboard node` as those see it who watch over it: the ready line, the probes, and a log that can be made to say more.

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::*;

#[path = "../support/http.rs"]
mod client;

use client::{ask, get};

/// The directory comes first, so that it goes last.
fn watched(settings: &[&str]) -> (TempDir, Node, String) {
    let home = directory();
    let settings: Vec<&str> = [&["listener.http.bind=127.0.0.1:0"], settings].concat();
    let node = Node::start_in(&home.path().join("data"), &settings);
    let ready = node.stdout();
    let http = ready
        .split_once(", HTTP at ")
        .expect("the ready line tells")
        .1
        .split_once(", data in ")
        .expect("and goes on")
        .0;
    let http = http.to_owned();
    (home, node, http)
}

#[test]
fn the_ready_line_tells_where_metrics_and_probes_are() {
    let (_home, node, http) = watched(&[]);
    assert_eq!(get(&http, "/ready").body, "ready\n");
    assert!(get(&http, "/metrics").body.contains("\ncallboard_ready 1\n"));
    let ready = node.stdout();
    let expected =
        format!("ready: native protocol at {}, HTTP at {http}, data in {}, ", node.address, node.data_dir.display());
    assert!(ready.starts_with(&expected), "{ready}");
    let data_dir = node.data_dir.clone();
    let stopped = node.stop(Signal::TERM);
    assert_eq!((stopped.code, lines(&stopped.stderr).len()), (0, 2), "nothing of the HTTP library: {}", stopped.stderr);
    assert!(data_dir.join("clean-stop").exists());
}

#[test]
fn the_log_level_changes_while_the_node_runs_and_lines_carry_the_ids_of_connection_and_request() {
    let (_home, node, http) = watched(&["log.format=json"]);
    node.create("orders", 1);
    assert_eq!(get(&http, "/log-level").body, "info\n");
    assert_eq!(node.log(), "", "nothing but information is logged, and there is none");

    let wrong = ask(&http, "PUT", "/log-level", "loud");
    assert_eq!((wrong.status, lines(&wrong.body).len()), (400, 1));
    assert!(wrong.body.starts_with("\"loud\" is not valid: give off, error, warn, info"), "{}", wrong.body);
    assert_eq!(ask(&http, "PUT", "/log-level", &"x".repeat(2_000)).status, 413);
    assert_eq!(get(&http, "/log-level").body, "info\n");

    let more = "info,callboard::request=trace";
    let changed = ask(&http, "PUT", "/log-level", &format!("{more}\n"));
    assert_eq!((changed.status, changed.body), (200, format!("{more}\n")));
    node.produce(b"a\nb\n", &["--topic", "orders"]).quietly();
    let log = node.log();
    let entries: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert_eq!(entries[0]["fields"]["directives"], more, "{log}");
    let produce = entries.iter().find(|entry| entry["fields"]["api"] == "Produce").expect("a line for the request");
    assert_eq!(produce["target"], "callboard::request");
    let (connection, correlation) = (&produce["span"]["connection"], &produce["span"]["correlation"]);
    assert!(connection.is_u64() && correlation.is_u64(), "{produce}");
    let of_connection = |entry: &&serde_json::Value| entry["span"]["connection"] == *connection;
    let ids: Vec<&serde_json::Value> =
        entries.iter().filter(of_connection).map(|entry| &entry["span"]["correlation"]).collect();
    assert!(
        ids.len() > 1 && ids.iter().filter(|id| **id == correlation).count() == 1,
        "each request has its own: {log}"
    );

    assert_eq!(ask(&http, "PUT", "/log-level", "warn").body, "warn\n");
    let before = node.log();
    node.produce(b"c\n", &["--topic", "orders"]).quietly();
    assert_eq!(node.log(), before, "back to silence, at once");
    assert_eq!(node.stop(Signal::TERM).code, 0);
}

#[test]
fn text_lines_carry_the_ids_too() {
    let (_home, node, http) = watched(&["log.level=warn,callboard::request=trace"]);
    node.create("orders", 1);
    let log = node.log();
    let asked = log.lines().find(|line| line.contains("api=CreateTopics")).expect("a line for the request");
    assert!(asked.contains("request{connection=") && asked.contains(" correlation="), "{asked}");
    assert_eq!(get(&http, "/log-level").body, "warn,callboard::request=trace\n");
    assert_eq!(node.stop(Signal::TERM).code, 0);
}
