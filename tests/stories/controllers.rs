//! Controllers that come, go, and come back without their directory, while records flow. Real processes.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use callboard::cli::local_cluster::LocalCluster;
use callboard::client::Client;
use callboard::protocol::messages::{ControllerDescription, ControllerRole};
use callboard::types::NodeId;

use crate::cluster::{free_ports, replicated, until_in_sync};
use crate::identity::{Lines, other_process, said};
use crate::support::*;

/// Three controllers and two brokers, and what they say.
async fn cluster(directory: &Directory) -> (LocalCluster, Lines) {
    let lines = Lines::default();
    let heard = Arc::clone(&lines);
    let builder = LocalCluster::builder(&**directory).apart(3, 2).program(env!("CARGO_BIN_EXE_callboard"));
    let builder = builder.on_line(move |name, line| heard.lock().unwrap().push(format!("{name} {line}")));
    (builder.set(["storage.min_free_bytes=0"]).start().await.expect("a cluster"), lines)
}

/// Runs a command: its exit code, and all that it says.
fn command(cluster: &LocalCluster, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
    command.arg("cluster").args(arguments).args(["--server", &cluster.bootstrap()]);
    let output = command.output().expect("it runs");
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn refused(cluster: &LocalCluster, arguments: &[&str], why: &str) {
    let (code, said) = command(cluster, arguments);
    assert!(code == Some(1) && said.contains(why), "{arguments:?}: {said}");
}

fn done(cluster: &LocalCluster, arguments: &[&str]) -> String {
    let (code, said) = command(cluster, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

async fn controllers(client: &Client) -> Vec<ControllerDescription> {
    client.admin().describe_cluster().await.expect("a node answers").controllers
}

/// Waits until one decides, and says which.
async fn active(client: &Client) -> NodeId {
    let leader = |known: &[ControllerDescription]| {
        known.iter().find(|one| one.role == ControllerRole::Leader).map(|one| one.node_id)
    };
    wait_until_async("a controller decides", || async { leader(&controllers(client).await).is_some() }).await;
    leader(&controllers(client).await).expect("it still does")
}

/// Sends one record after the other until it is told to stop, and says how many: none may fail.
fn send_on(client: &Client, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (client, stop) = (client.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            send_each(&client, "rides", values(sent..sent + 1)).await;
            sent += 1;
        }
        sent
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_are_added_and_removed_until_none_of_the_first_is_left_and_nobody_who_writes_notices() {
    let directory = Directory::new();
    let (mut cluster, said_by) = cluster(&directory).await;
    let client = connect(&cluster.bootstrap()).await;
    client.admin().create_topics(&[replicated("rides", 1, 2)], false).await.unwrap().remove(0).expect("created");
    until_in_sync(&client, "rides", 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sending = send_on(&client, &stop);

    refused(&cluster, &["remove-controller", "9"], "is no controller: they are 1, 2, 3");
    refused(&cluster, &["reset-controller", "2"], "nothing is lost");
    cluster.kill(NodeId(2)).await.expect("it ran");
    active(&client).await;
    refused(&cluster, &["remove-controller", "3"], "start the others first");
    done(&cluster, &["remove-controller", "2"]);

    // The new one knows of the others and of itself.
    let port = free_ports(1)[0];
    let added = format!("7@127.0.0.1:{port}");
    refused(&cluster, &["add-controller", &added], "did not become a controller");
    let listed =
        cluster.nodes().filter(|node| node.is_controller()).map(|node| format!("{}@{}", node.id, node.peer_address()));
    let listed = listed.chain([added.clone()]).collect::<Vec<_>>().join(",");
    let other = Directory::new();
    let settings = [
        "node.id=7".to_owned(),
        format!("cluster.controllers={listed}"),
        format!("listener.peer.bind=127.0.0.1:{port}"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let (process, lines) = other_process(&cluster, NodeId(2), &other, &settings);
    wait_until("it is a controller", || command(&cluster, &["add-controller", &added]).0 == Some(0));
    process.ready(PATIENCE).await.expect("it is ready");
    let known = controllers(&client).await;
    let voters: Vec<_> =
        known.iter().map(|one| (one.node_id, one.role != ControllerRole::Learner, &one.trouble)).collect();
    let voter = |node| (NodeId(node), true, &None);
    assert_eq!(voters, [voter(1), voter(3), voter(7)]);
    assert!(done(&cluster, &["add-controller", &added]).contains("now name it"), "twice is once");

    // The one that decides goes first.
    for _ in 0..2 {
        let leader = active(&client).await;
        let going = if leader == NodeId(7) { controllers(&client).await[0].node_id } else { leader };
        done(&cluster, &["remove-controller", &going.to_string()]);
        cluster.kill(going).await.expect("it ran");
    }
    assert_eq!(active(&client).await, NodeId(7));
    refused(&cluster, &["remove-controller", "7"], "the last controller");
    create(&client, "fares", 1, &[]).await;

    stop.store(true, Ordering::Relaxed);
    let sent = sending.await.expect("no record failed");
    assert_eq!(read_all(&client, "rides").await, numbered(0..sent));

    // One that was removed while it was away says so, and does not disturb.
    cluster.start_without_waiting(NodeId(3)).expect("it starts");
    wait_until("it says that it is none any more", || said(&said_by, "no controller of its cluster any more"));
    assert_eq!(active(&client).await, NodeId(7));
    assert!(!said(&lines, "no controller of its cluster any more"));
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_directory_was_lost_waits_and_comes_back_as_another_member() {
    let directory = Directory::new();
    let (mut cluster, _) = cluster(&directory).await;
    let client = connect(&cluster.bootstrap()).await;
    client.admin().create_topics(&[replicated("rides", 1, 2)], false).await.unwrap().remove(0).expect("created");
    send_each(&client, "rides", values(0..5)).await;
    // The first one that is listed, too, which would form a new cluster.
    for node in [NodeId(1), NodeId(2)] {
        active(&client).await;
        let before =
            controllers(&client).await.into_iter().find(|one| one.node_id == node).expect("a controller").directory;
        cluster.kill(node).await.expect("it ran");
        std::fs::remove_dir_all(directory.join(cluster.name(node))).expect("it was there");
        cluster.start_without_waiting(node).expect("it starts");
        wait_until("it is taken back", || command(&cluster, &["reset-controller", &node.to_string()]).0 == Some(0));
        cluster.ready(node).await.expect("it is ready");
        let known = controllers(&client).await;
        assert_eq!(known.len(), 3, "{known:?}");
        let now = known.iter().find(|one| one.node_id == node).expect("a controller");
        assert!(now.directory != before && now.role != ControllerRole::Learner, "{now:?}");
    }
    // The two that came back are a majority.
    cluster.kill(NodeId(3)).await.expect("it ran");
    active(&client).await;
    create(&client, "fares", 1, &[]).await;
    send_each(&client, "rides", values(5..10)).await;
    // As they are, they start again.
    for node in [NodeId(1), NodeId(2)] {
        cluster.kill(node).await.expect("it ran");
    }
    for node in [NodeId(1), NodeId(2)] {
        cluster.start_without_waiting(node).expect("it starts");
    }
    create(&client, "tips", 1, &[]).await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..10));
}
