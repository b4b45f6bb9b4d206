//! Brokers that are not who they say: a second one with the same id, a new directory under a known id, a directory under another id.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use callboard::cli::local_cluster::LocalCluster;
use callboard::cli::local_cluster::child_process::ChildProcess;
use callboard::types::NodeId;

use crate::cluster::{free_ports, partitions, replicated, until_in_sync};
use crate::support::*;

/// The second broker of a cluster with brokers apart.
const BROKER: NodeId = NodeId(12);

pub type Lines = Arc<Mutex<Vec<String>>>;

/// Another process with the configuration of `node`, on another directory and other ports.
pub fn other_process(
    cluster: &LocalCluster,
    node: NodeId,
    data_dir: &Path,
    settings: &[&str],
) -> (ChildProcess, Lines) {
    let config = cluster.directory().join(format!("{}.toml", cluster.name(node)));
    let ports = free_ports(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
    command.arg("node").arg("--config").arg(config).arg("--stop-with-parent");
    let places = [
        format!("node.data_dir={}", data_dir.display()),
        format!("listener.native.bind=127.0.0.1:{}", ports[0]),
        format!("listener.peer.bind=127.0.0.1:{}", ports[1]),
        "listener.http.bind=127.0.0.1:0".to_owned(),
        "storage.min_free_bytes=0".to_owned(),
    ];
    for setting in places.iter().map(String::as_str).chain(settings.iter().copied()) {
        command.args(["--set", setting]);
    }
    let lines = Lines::default();
    let heard = Arc::clone(&lines);
    let process = ChildProcess::spawn(command, Arc::new(move |line| heard.lock().unwrap().push(line.to_owned())));
    (process.expect("a process"), lines)
}

pub fn said(lines: &Lines, text: &str) -> bool {
    lines.lock().unwrap().iter().any(|line| line.contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_of_an_id_is_refused_with_a_line_and_begins_anew_when_the_first_is_gone() {
    let directory = Directory::new();
    let builder = LocalCluster::builder(&*directory).apart(1, 3).program(env!("CARGO_BIN_EXE_callboard"));
    let mut cluster = builder.set(["storage.min_free_bytes=0"]).start().await.expect("a cluster");
    let client = connect(&cluster.bootstrap()).await;
    let created = client.admin().create_topics(&[replicated("rides", 1, 3)], false).await.unwrap().remove(0);
    let topic = created.expect("created").id;
    send_each(&client, "rides", values(0..20)).await;
    until_in_sync(&client, "rides", 3).await;
    let before = partitions(&client, "rides").await;

    let other = Directory::new();
    let (process, lines) = other_process(&cluster, BROKER, &other, &[]);
    wait_until("it is told why it is not registered", || said(&lines, "runs on another data directory"));
    assert!(said(&lines, "give this node another node.id"), "and what to do: {:?}", lines.lock().unwrap());
    send_each(&client, "rides", values(20..25)).await;
    assert_eq!(partitions(&client, "rides").await, before, "the first one goes on");

    cluster.kill(BROKER).await.expect("it ran");
    process.ready(PATIENCE).await.expect("it is accepted when the other is gone");
    until_in_sync(&client, "rides", 3).await;
    assert!(!partition_dirs(&other, topic).is_empty(), "what the other had is fetched");
    send_each(&client, "rides", values(25..30)).await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..30));
    drop(process);

    // A directory knows whose it is.
    let (process, lines) = other_process(&cluster, BROKER, &other, &["node.id=19"]);
    let status = process.ended(PATIENCE).await.expect("it ends");
    assert!(!status.success() && said(&lines, "belongs to node 12"), "{:?}", lines.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_of_another_cluster_is_refused_with_a_line_and_its_files_stay() {
    let [ours, theirs] = [Directory::new(), Directory::new()];
    let start = |directory: &Directory| {
        let builder = LocalCluster::builder(&**directory).apart(1, 1).program(env!("CARGO_BIN_EXE_callboard"));
        builder.set(["storage.min_free_bytes=0"]).start()
    };
    let mut cluster = start(&ours).await.expect("a cluster");
    let broker = cluster.brokers()[0];
    let client = connect(&cluster.bootstrap()).await;
    let topic = create(&client, "rides", 1, &[]).await;
    send_each(&client, "rides", values(0..5)).await;
    cluster.stop(broker, PATIENCE).await.expect("it stops");
    let data_dir = ours.join(cluster.name(broker));

    // Another cluster's configuration on this one's directory.
    let other = start(&theirs).await.expect("another cluster");
    let settings = ["node.id=19"];
    let (process, lines) = other_process(&other, broker, &data_dir, &settings);
    let status = process.ended(PATIENCE).await.expect("it ends");
    assert!(!status.success() && said(&lines, "belongs to node"), "{:?}", lines.lock().unwrap());
    let (process, lines) = other_process(&other, broker, &data_dir, &[]);
    wait_until("it says which cluster it is of", || {
        said(&lines, "correct the address that leads from one to the other")
    });
    assert_eq!(connect(&other.bootstrap()).await.admin().describe_cluster().await.unwrap().brokers.len(), 1);
    drop(process);
    assert!(!partition_dirs(&data_dir, topic).is_empty(), "nothing of it was touched");
    cluster.start(broker).await.expect("it starts");
    let client = connect(&cluster.bootstrap()).await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..5));
}
