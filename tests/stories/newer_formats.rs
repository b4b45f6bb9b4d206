//! What a newer release wrote is not guessed at: a node that cannot read a file says which, and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord};
use callboard::protocol::ErrorCode;
use callboard::raft::{
    Decision, LogFiles, LogId, RaftPlace, SnapshotFiles, SnapshotMeta, TypeConfig, encode_image, newest_image, owner,
};
use callboard::storage::atomic_file::{read_checked, write_atomically};
use callboard::storage::data_dir::FORMAT_VERSION;
use callboard::storage::disk::{Disk, RealDisk};
use callboard::storage::file_cache::FileCache;
use callboard::testing::Node;
use openraft::{Entry, EntryPayload};

use super::old_data_directory::copied;
use crate::support::*;

const GENERATION: &str = "data-dir-v1";

/// The newest version of a small file's format that this release reads.
fn supported(path: &Path) -> u16 {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("partition.state") => 2,
        Some("callboard.meta") => FORMAT_VERSION,
        _ => 1,
    }
}

/// Rewrites one of the small files as a release with the next version of its format would.
fn of_the_next_version(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let magic = *bytes.first_chunk::<4>().unwrap();
    let (_, payload) = read_checked(&RealDisk, path, magic, u16::MAX).unwrap().unwrap();
    write_atomically(&RealDisk, path, magic, supported(path) + 1, &payload).unwrap();
}

/// The one line with which a node refuses the directory.
fn refusal(dir: &Path) -> String {
    match Node::start_in(dir, |_| {}) {
        Ok(_) => panic!("a node runs on {}", dir.display()),
        Err(error) => error.to_string(),
    }
}

fn newer(path: &Path) -> String {
    let (supported, found) = (supported(path), supported(path) + 1);
    format!(
        "{} has format version {found}, this release reads up to {supported}: install the release that wrote it, or a \
         newer one",
        path.display()
    )
}

/// The file with this ending in a partition's directory.
fn file_with(partition: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().unwrap().ends_with(ending)).max().expect("a file of that kind")
}

#[test]
fn a_directory_or_metadata_of_a_newer_format_is_refused_in_one_line() {
    for (file, prefix) in [
        ("callboard.meta", ""),
        ("__cluster_metadata/snapshot", "the metadata snapshot: "),
        ("__cluster_metadata/log/partition.meta", "the metadata log: "),
        ("__cluster_metadata/log/partition.state", "the metadata log: "),
        ("__cluster_metadata/log/leader-epochs", "the metadata log: "),
    ] {
        let dir = copied(GENERATION, "clean");
        let path = dir.join(file);
        of_the_next_version(&path);
        let before = fs::read(&path).unwrap();
        assert_eq!(refusal(&dir), format!("{prefix}{}", newer(&path)));
        assert_eq!(fs::read(&path).unwrap(), before, "it is left as it is");
    }
}

#[tokio::test]
async fn a_partition_of_a_newer_format_is_offline_with_the_reason_and_the_others_serve() {
    for ending in ["partition.meta", "partition.state", "leader-epochs", ".snapshot"] {
        let dir = copied(GENERATION, "clean");
        let node = Node::start_in(&dir, |_| {}).unwrap();
        let client = connect(&node.address()).await;
        let topics = client.admin().describe_topics(Some(&["packed".to_owned()])).await.unwrap();
        let topic = topics.into_iter().next().unwrap().unwrap().id;
        node.stop().unwrap();
        let path = file_with(&partition_dirs(&dir, topic)[0], ending);
        of_the_next_version(&path);

        let node = Node::start_in(&dir, |_| {}).unwrap();
        let client = connect(&node.address()).await;
        let error = RawClient::greeted(&node.address()).fetch(topic, 0).expect_err("offline");
        assert_eq!(error.code, ErrorCode::StorageFailed);
        assert!(error.message.contains(&newer(&path)), "{error}");
        assert!(!read_all(&client, "relaxed").await.is_empty(), "the others serve");
        node.stop().unwrap();
    }
}

#[test]
fn the_controllers_files_of_a_newer_format_are_refused_in_one_line() {
    let dir = copied(GENERATION, "clean");
    Node::start_in(&dir, |_| {}).unwrap().stop().unwrap();
    for (file, prefix) in [
        ("raft/voter", "the Raft storage: "),
        ("raft/log/partition.meta", "the Raft log: "),
        ("raft/log/partition.state", "the Raft log: "),
        ("raft/snapshot", "the Raft storage: "),
    ] {
        let path = dir.join("__cluster_metadata").join(file);
        let before = fs::read(&path).unwrap();
        of_the_next_version(&path);
        assert_eq!(refusal(&dir), format!("{prefix}{}", newer(&path)));
        fs::write(&path, before).unwrap();
    }
    Node::start_in(&dir, |_| {}).unwrap().stop().unwrap();
}

/// The controller's files in a directory that no node uses.
fn raft_place(dir: &Path) -> RaftPlace {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 16));
    let dir = dir.join("__cluster_metadata/raft");
    let identity = owner(&*disk, &dir).unwrap().expect("there is one");
    RaftPlace { disk, files, dir, identity, segment_bytes: RaftPlace::SEGMENT_BYTES }
}

/// A directory that this release has written.
fn of_this_release(name: &str) -> (Directory, RaftPlace) {
    let dir = copied(GENERATION, name);
    Node::start_in(&dir, |_| {}).unwrap().stop().unwrap();
    let place = raft_place(&dir);
    (dir, place)
}

#[test]
fn metadata_records_of_newer_software_are_refused_from_the_log_and_from_a_snapshot() {
    let found = FEATURE_LEVEL + 1;
    let expected =
        format!("the metadata has feature level {found}, this software knows {FEATURE_LEVEL}: upgrade this node");
    let (dir, place) = of_this_release("clean");
    let mut log = LogFiles::open(&place).unwrap();
    let last = log.state().last.expect("entries");
    let records = vec![MetadataRecord::FeatureLevel { level: found }];
    let (log_id, payload) = (LogId { index: last.index + 1, ..last }, EntryPayload::Normal(Decision { records }));
    log.append::<TypeConfig>(vec![Entry { log_id, payload }]).unwrap();
    drop(log);
    assert_eq!(refusal(&dir), expected);
    assert_eq!(refusal(&dir), expected, "and again");

    let (dir, place) = of_this_release("clean");
    // As newer software would leave it: the level stands in the snapshot, and its record is gone from the log.
    let last = LogFiles::open(&place).unwrap().state().last;
    let image = ClusterImage { feature_level: found, ..newest_image(&place).unwrap().image };
    let mut snapshots = SnapshotFiles::open(&place).unwrap().0;
    let meta = SnapshotMeta { last_log_id: last, ..snapshots.current().expect("one").clone() };
    snapshots.save(&meta, encode_image(&image).unwrap()).unwrap();
    assert_eq!(refusal(&dir), expected);
}

#[test]
fn metadata_of_an_older_level_is_raised_so_that_older_software_does_not_misread_what_follows() {
    let (_dir, place) = of_this_release("killed");
    assert_eq!(newest_image(&place).unwrap().image.feature_level, FEATURE_LEVEL);
}
