//! Backup and restore of a data directory, as docs/operations.md describes them, done for real.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::*;

/// The commands of the page, as an administrator would type them.
fn shell(script: &str) -> Outcome {
    let mut sh = command("sh");
    sh.args(["-e", "-c", script]);
    Process::spawn(sh, Stdio::null()).wait()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn lines_of(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn a_copy_of_a_stopped_node_is_restored_with_every_record_and_without_a_scan() {
    let home = directory();
    let (data, archive) = (home.path().join("data"), home.path().join("backup.tar"));
    let node = Node::start_in(&data, &[]);
    node.create("orders", 2);
    node.produce(lines_of(0..300).as_bytes(), &["--topic", "orders", "--partition", "1"]).quietly();
    let cluster = node.callboard(&["cluster", "describe", "--json"]).json()["cluster_id"].clone();
    assert_eq!(node.stop(Signal::TERM).code, 0);
    shell(&format!("tar -cf {} -C {} data", text(&archive), text(home.path()))).quietly();

    // Life goes on after the backup, then the disk is lost.
    let node = Node::start_in(&data, &[]);
    node.produce(lines_of(300..400).as_bytes(), &["--topic", "orders", "--partition", "1"]).quietly();
    assert_eq!(node.stop(Signal::TERM).code, 0);
    std::fs::remove_dir_all(&data).expect("lost");
    shell(&format!("tar -xf {} -C {}", text(&archive), text(home.path()))).quietly();

    let node = Node::start_in(&data, &["log.level=callboard=debug"]);
    let log = node.log();
    let opened: Vec<&str> = log.lines().filter(|line| line.contains(": opened ")).collect();
    assert!(opened.len() == 2 && opened.iter().all(|line| line.contains("clean=true scanned_bytes=0")), "{log}");
    assert_eq!(node.callboard(&["cluster", "describe", "--json"]).json()["cluster_id"], cluster, "the same cluster");
    assert_eq!(node.consume(&["--topic", "orders", "--exit-at-end"]).quietly(), lines_of(0..300));
    node.produce(b"new\n", &["--topic", "orders", "--partition", "1"]).quietly();
    let end = node.consume(&["--topic", "orders", "--partition", "1", "--from", "300", "--exit-at-end"]).quietly();
    assert_eq!(end, "new\n", "offsets go on after what was restored");
    for partition in node.partitions("orders") {
        callboard_verifies(&partition);
    }
    assert_eq!(node.stop(Signal::TERM).code, 0);
}

fn callboard_verifies(partition: &Path) {
    let outcome = run_with(command(CALLBOARD), &["log", "verify", text(partition)], b"");
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn a_copy_belongs_to_the_node_that_it_was_taken_from() {
    let home = directory();
    let (data, copy) = (home.path().join("data"), home.path().join("copy"));
    let node = Node::start_in(&data, &["node.id=4"]);
    node.create("t", 1);
    assert_eq!(node.stop(Signal::TERM).code, 0);
    shell(&format!("cp -r {} {}", text(&data), text(&copy))).quietly();
    let refused = run_with(node_command(&copy, &["node.id=5"]), &[], b"");
    let expected = format!(
        "error: data directory {} belongs to node 4, this is node 5: set node.id to 4, or node.data_dir to another directory",
        copy.display()
    );
    assert_eq!(refused.refusal(), (1, expected.as_str()));
    // Another place, another machine: the identity goes with the directory.
    let node = Node::start_in(&copy, &["node.id=4"]);
    assert_eq!(node.callboard(&["topic", "list"]).quietly(), "TOPIC  PARTITIONS\nt      1\n");
    assert_eq!(node.stop(Signal::TERM).code, 0);
}
