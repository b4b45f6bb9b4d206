//! A cluster of processes: started, killed, paused, stopped, started again, and never left behind.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::cli::local_cluster::{Builder, ClusterError, LocalCluster, Stopped};
use callboard::client::{Client, ClientConfig, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::types::NodeId;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{CALLBOARD, Process, command, directory, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
const NODE: NodeId = NodeId(1);

fn single(home: &Path) -> Builder {
    LocalCluster::builder(home).combined(1).program(CALLBOARD).set(["storage.min_free_bytes=0"])
}

fn is_there(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a number");
    test_kill_process(pid).is_ok()
}

async fn client(cluster: &LocalCluster) -> Client {
    Client::connect(ClientConfig::new(cluster.bootstrap())).await.expect("the node serves")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill_and_a_start_on_the_same_directory() {
    let home = directory();
    let mut cluster = single(home.path()).start().await.expect("a node");
    let before = client(&cluster).await;
    before.admin().create_topic("t", 1).await.expect("a topic");
    let producer = before.producer(ProducerConfig::default()).await.expect("a producer");
    producer.send(OutgoingRecord::to("t").value("kept")).await.expect("taken").await.expect("acknowledged");

    let pid = cluster.pid(NODE).expect("it runs");
    cluster.kill(NODE).await.expect("it ran");
    assert!(!is_there(pid) && !cluster.is_running(NODE));
    assert!(matches!(cluster.kill(NODE).await, Err(ClusterError::NotRunning(name)) if name == "node-1"));
    cluster.start(NODE).await.expect("the directory is good");
    assert!(matches!(cluster.start(NODE).await, Err(ClusterError::Running(_))));

    let mut consumer = client(&cluster).await.consumer(ConsumerConfig::default()).await.expect("a consumer");
    consumer.assign("t", None, StartAt::Earliest).await.expect("the topic is there");
    assert_eq!(consumer.recv().await.expect("a record").value.as_deref(), Some(b"kept".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_node_answers_when_it_goes_on_and_a_stopped_one_has_ended_well() {
    let home = directory();
    let mut cluster = single(home.path()).start().await.expect("a node");
    let client = client(&cluster).await;
    cluster.pause(NODE).expect("it runs");
    let admin = client.admin();
    let question = tokio::spawn(async move { admin.list_topics().await });
    assert!(cluster.is_running(NODE));
    cluster.resume(NODE).expect("it runs");
    assert_eq!(question.await.expect("no panic"), Ok(Vec::new()));

    cluster.pause(NODE).expect("it runs");
    let stopped = cluster.stop(NODE, PATIENCE).await.expect("there is such a node");
    assert!(matches!(stopped, Stopped::Ended(status) if status.success()), "{stopped:?}");
    assert_eq!(cluster.stop(NODE, PATIENCE).await.expect("there is such a node"), Stopped::WasNotRunning);
    let log = std::fs::read_to_string(home.path().join("node-1.log")).expect("a log");
    assert!(log.contains("ready: native protocol at") && log.contains("stopped cleanly"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why_and_nothing_is_left() {
    let home = directory();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let builder = single(home.path()).set(["limits.max_topics=none"]);
    let builder = builder.on_line(move |name, line| heard.lock().expect("no panic").push(format!("{name}: {line}")));
    let error = builder.start().await.expect_err("no such number").to_string();
    assert!(error.starts_with("node-1 ended before it was ready (exit status: 2); its last lines: error: "), "{error}");
    assert!(error.contains("limits.max_topics=none"), "{error}");
    let lines = lines.lock().expect("no panic");
    assert!(lines.len() == 1 && lines[0].starts_with("node-1: error: "), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_asked_for_is_told_once() {
    let home = directory();
    let mut cluster = single(home.path()).start().await.expect("a node");
    let pid = cluster.pid(NODE).expect("it runs");
    kill_process(Pid::from_raw(i32::try_from(pid).expect("small")).expect("not 0"), Signal::KILL).expect("it runs");
    let (id, status) = tokio::time::timeout(PATIENCE, cluster.next_end()).await.expect("it is told");
    assert_eq!((id, std::os::unix::process::ExitStatusExt::signal(&status)), (NODE, Some(9)));
    assert!(tokio::time::timeout(Duration::from_millis(50), cluster.next_end()).await.is_err(), "told twice");
    cluster.start(NODE).await.expect("the directory is good");
    let pid = cluster.pid(NODE).expect("it runs");
    drop(cluster);
    assert!(!is_there(pid), "a node outlived its cluster");
}

#[test]
fn a_node_stops_when_the_program_that_started_it_is_gone() {
    let home = directory();
    let data_dir = format!("node.data_dir={}", home.path().join("data").display());
    let mut node = command(CALLBOARD);
    node.args(["node", "--stop-with-parent", "--set", "listener.native.bind=127.0.0.1:0", "--set"]);
    node.args(["listener.http.bind=", "--set", "storage.min_free_bytes=0", "--set", &data_dir]);
    let mut node = Process::spawn(node, Stdio::piped());
    let stdin = node.stdin();
    wait_for("the node is ready", || node.stdout().starts_with("ready: ").then_some(()));
    assert_eq!(node.has_ended(), None);
    // What a parent's end does, however it came about: the kernel closes its end of the pipe.
    drop(stdin);
    let outcome = node.wait();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the program that started this node has ended"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stopped cleanly"), "{}", outcome.stderr);
}
