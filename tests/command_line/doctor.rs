//! `callboard doctor` as a shell meets it: exit codes, the last line, JSON, and a node that was killed.

use serde_json::Value;

use crate::support::*;

fn doctor(arguments: &[&str]) -> Outcome {
    let arguments: Vec<&str> = ["doctor"].iter().chain(arguments).copied().collect();
    run_with(command(CALLBOARD), &arguments, b"")
}

/// The codes in a JSON report.
fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["code"].as_str().expect("a code")).collect()
}

#[test]
fn a_running_node_is_looked_at_and_its_directory_refused() {
    let node = Node::start();
    node.create("rides", 2);
    let healthy = node.callboard(&["doctor"]);
    assert_eq!(healthy.code, 0, "{healthy:?}");
    let last = healthy.stdout.lines().last().expect("a last line");
    assert!(last.starts_with(&format!("checked the connection to {}; node 1 (callboard ", node.address)), "{last}");
    assert!(last.contains("1 topic with 2 partitions"), "{last}");
    let report = node.callboard(&["doctor", "--json"]).json();
    assert_eq!((report["healthy"].as_bool(), report["errors"].as_u64()), (Some(true), Some(0)), "{report}");
    assert_eq!(keys(&report), ["checked", "errors", "findings", "healthy", "not_listed", "notes", "warnings"]);

    let data_dir = node.data_dir.to_str().expect("text");
    let refused = doctor(&["--data-dir", data_dir]);
    let (code, line) = refused.refusal();
    assert_eq!(code, 2);
    assert!(
        line.starts_with("error: data directory ") && line.contains("'callboard doctor --server HOST:PORT'"),
        "{line}"
    );
}

#[test]
fn a_node_that_is_not_there_is_a_finding_and_exit_code_1() {
    let outcome = doctor(&["--server", "127.0.0.1:1", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (1, "error: 1 error, 0 warnings, 0 notes\n"));
    let report = outcome.json();
    assert_eq!((report["healthy"].as_bool(), codes(&report)), (Some(false), vec!["connection-refused"]));
    for key in ["about", "seen", "cause", "fix"] {
        assert!(report["findings"][0][key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {report}");
    }
    assert_eq!(doctor(&["--config", "node.toml"]).refusal().0, 2, "a configuration goes with a directory");
}

#[test]
fn a_node_that_was_killed_leaves_a_directory_that_says_what_is_to_be_verified() {
    let home = directory();
    let data_dir = home.path().join("data");
    let node = Node::start_in(&data_dir, &["storage.checkpoint_interval_ms=86400000"]);
    node.create("rides", 1);
    node.produce(b"one\ntwo\n", &["--topic", "rides"]).quietly();
    // A process that is dropped is killed.
    drop(node);
    let path = data_dir.to_str().expect("text");
    let outcome = doctor(&["--data-dir", path, "--json"]);
    let report = outcome.json();
    assert!(codes(&report).contains(&"unclean-stop"), "{report}");
    assert_eq!(
        (outcome.code, report["errors"].as_u64()),
        (0, Some(0)),
        "what recovers by itself is no error: {report}"
    );
    let findings = report["findings"].as_array().expect("a list");
    let stop = findings.iter().find(|finding| finding["code"] == "unclean-stop").expect("found");
    let seen = stop["seen"].as_str().expect("text");
    assert!(seen.contains("verifies ") && !seen.contains("verifies 0 B"), "{seen}");

    let node = Node::start_in(&data_dir, &[]);
    assert_eq!(node.stop(rustix::process::Signal::TERM).code, 0);
    let report = doctor(&["--data-dir", path, "--json"]).json();
    assert!(!codes(&report).contains(&"unclean-stop"), "the fix works: {report}");
}
