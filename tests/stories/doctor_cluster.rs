//! `callboard doctor` and clusters: a running one, and the directories of nodes that are only broker or only controller.

use std::fs;
use std::path::{Path, PathBuf};

use callboard::cli::args::ConfigArgs;
use callboard::cli::doctor::args::DoctorArgs;
use callboard::cli::doctor::report::Report;
use callboard::cli::doctor::{running, stopped};
use callboard::cli::local_cluster::LocalCluster;
use callboard::types::{NodeId, TopicId};

use crate::cluster::{replicated, until_in_sync};
use crate::doctor_running::found;
use crate::durability::damage;
use crate::support::*;

/// Settings that every machine has room for, so that only what a story does is found.
const SMALL: [&str; 2] = ["limits.max_connections=100", "storage.min_free_bytes=0"];

/// Findings that are about the machine that runs the tests.
const OF_THE_MACHINE: [&str; 3] = ["disk-nearly-full", "data-dir-in-memory", "descriptors-nearly-used"];

/// Controllers and two brokers, with a topic `rides` of one partition on both.
async fn cluster(directory: &Directory, controllers: u16) -> (LocalCluster, TopicId) {
    let builder = LocalCluster::builder(&**directory).apart(controllers, 2).program(env!("CARGO_BIN_EXE_callboard"));
    let cluster = builder.set(SMALL).start().await.expect("a cluster");
    let client = connect(&cluster.bootstrap()).await;
    let created = client.admin().create_topics(&[replicated("rides", 1, 2)], false).await.unwrap().remove(0);
    send_each(&client, "rides", values(0..20)).await;
    until_in_sync(&client, "rides", 2).await;
    (cluster, created.expect("created").id)
}

/// Stops a node, and says where its files are.
async fn stop(cluster: &mut LocalCluster, node: NodeId) -> PathBuf {
    cluster.stop(node, PATIENCE).await.expect("it stops");
    cluster.directory().join(cluster.name(node))
}

/// Looks at a directory, with the node's own configuration or without one.
fn look(root: &Path, config: Option<PathBuf>) -> Report {
    let set = if config.is_some() { SMALL.map(str::to_owned).to_vec() } else { Vec::new() };
    let config = ConfigArgs { config, set };
    let arguments = DoctorArgs { data_dir: Some(root.to_owned()), skip_records: false, config };
    stopped::examine(&arguments, root).expect("nobody uses it")
}

fn config_of(cluster: &LocalCluster, node: NodeId) -> Option<PathBuf> {
    Some(cluster.directory().join(format!("{}.toml", cluster.name(node))))
}

/// The codes found, sorted, without those that are the machine's.
fn codes(report: &Report) -> Vec<&'static str> {
    let mut codes = crate::doctor_running::codes(report);
    codes.retain(|code| !OF_THE_MACHINE.contains(code));
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_a_broker_by_itself_is_whole_without_metadata_and_damage_in_it_is_found() {
    let directory = Directory::new();
    let (mut cluster, topic) = cluster(&directory, 1).await;
    let broker = cluster.brokers()[0];
    let data_dir = stop(&mut cluster, broker).await;
    let report = look(&data_dir, config_of(&cluster, broker));
    assert_eq!(codes(&report), [""; 0], "{}", report.to_text());
    let said = report.to_text();
    assert!(said.contains(&format!("whose it is (node {broker} of cluster ")), "{said}");
    assert!(said.contains(", stopped cleanly); no metadata (the controllers have it"), "{said}");
    assert!(said.contains("1 partition with ") && said.contains("all read and verified"), "{said}");

    // Nobody says that it is no controller.
    let report = look(&data_dir, None);
    assert_eq!(codes(&report), ["metadata-elsewhere"], "{}", report.to_text());

    damage(&partition_dirs(&data_dir, topic)[0], 4);
    let report = look(&data_dir, config_of(&cluster, broker));
    assert_eq!(codes(&report), ["records-damaged"], "{}", report.to_text());
    let finding = found(&report, "records-damaged");
    assert!(finding.about == "partition 0 of topic rides" && finding.seen.contains("(offset 4)"), "{finding:?}");
    assert!(finding.fix.starts_with("start the node") && finding.fix.contains("another replica"), "{finding:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_a_controller_by_itself_is_opened_on_a_copy_and_lost_votes_come_with_the_way_back() {
    let directory = Directory::new();
    let (mut cluster, _) = cluster(&directory, 3).await;
    let controller = NodeId(2);
    let data_dir = stop(&mut cluster, controller).await;
    for config in [config_of(&cluster, controller), None] {
        let report = look(&data_dir, config);
        assert_eq!(codes(&report), [""; 0], "{}", report.to_text());
        let said = report.to_text();
        assert!(
            said.contains("whose it is (node 2 of cluster ") && said.contains(", votes of a controller)"),
            "{said}"
        );
        assert!(said.contains(", as one of 3 controllers knew it"), "{said}");
    }

    let metadata = data_dir.join("__cluster_metadata");
    fs::remove_file(metadata.join("raft/voter")).unwrap();
    let report = look(&data_dir, config_of(&cluster, controller));
    assert_eq!(codes(&report), ["votes-lost"], "{}", report.to_text());
    let finding = found(&report, "votes-lost");
    assert!(finding.seen.contains("voter is gone"), "{finding:?}");
    assert!(finding.fix.contains("empty node.data_dir"), "{finding:?}");
    assert!(finding.fix.contains("callboard cluster reset-controller 2"), "{finding:?}");
    fs::remove_dir_all(&metadata).unwrap();
    assert_eq!(codes(&look(&data_dir, None)), ["votes-lost"], "it has held votes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_says_which_controller_and_which_broker_is_missing_and_what_is_not_whole_for_it() {
    let directory = Directory::new();
    let (mut cluster, _) = cluster(&directory, 3).await;
    let [stays, goes] = cluster.brokers()[..] else { panic!("two brokers") };
    let address = cluster.nodes().find(|node| node.id == stays).and_then(|node| node.address()).expect("a broker");
    let report = running::examine(&address).await;
    assert_eq!(codes(&report), [""; 0], "{}", report.to_text());
    assert!(report.to_text().contains("the cluster: 3 controllers, 2 brokers"), "{}", report.to_text());

    cluster.kill(NodeId(2)).await.expect("it ran");
    cluster.kill(goes).await.expect("it ran");
    let expected = ["broker-fenced", "controller-unreached", "partition-below-minimum"];
    wait_until_async("all that is missing is found", || async { codes(&running::examine(&address).await) == expected })
        .await;
    let report = running::examine(&address).await;
    let controller = found(&report, "controller-unreached");
    assert_eq!(controller.about, "controller 2");
    assert!(controller.seen.ends_with("2 of 3 are, which survive no further loss"), "{controller:?}");
    assert_eq!(found(&report, "broker-fenced").about, format!("broker {goes}"));
    let partition = found(&report, "partition-below-minimum");
    assert_eq!(partition.seen, format!("broker {stays} leads it, 1 of 2 replicas in sync, min_insync_replicas is 2"));
    assert!(partition.cause.contains(&format!("broker {goes} has stopped or is not heard of")), "{partition:?}");
}
