//! What a newer release wrote is not guessed at: a node that cannot read a file says which, and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard::actors::controller::MetadataLog;
use callboard::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord};
use callboard::protocol::ErrorCode;
use callboard::storage::atomic_file::{read_checked, write_atomically};
use callboard::storage::data_dir::{DataDir, FORMAT_VERSION};
use callboard::storage::disk::{Disk, RealDisk};
use callboard::storage::file_cache::FileCache;
use callboard::testing::Node;
use callboard::types::{NodeId, TimestampMs};

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

/// The metadata log of a directory that no node uses.
fn metadata_log(dir: &Path) -> (MetadataLog, ClusterImage) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let directory = DataDir::open(Arc::clone(&disk), dir, NodeId(1), None).unwrap();
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 16));
    MetadataLog::open(disk, files, &directory.metadata_dir(), directory.meta().cluster).unwrap()
}

#[test]
fn metadata_records_of_newer_software_are_refused_from_the_log_and_from_a_snapshot() {
    let found = FEATURE_LEVEL + 1;
    let expected =
        format!("the metadata has feature level {found}, this software knows {FEATURE_LEVEL}: upgrade this node");
    let dir = copied(GENERATION, "clean");
    let (mut log, _) = metadata_log(&dir);
    log.append(&[MetadataRecord::FeatureLevel { level: found }], TimestampMs(1)).unwrap();
    drop(log);
    assert_eq!(refusal(&dir), expected);

    let dir = copied(GENERATION, "clean");
    let (mut log, mut image) = metadata_log(&dir);
    // As newer software would close it: the level stands in the snapshot, and its record is gone from the log.
    image.feature_level = found;
    image.index += 1;
    log.append(&[MetadataRecord::FeatureLevel { level: found }], TimestampMs(1)).unwrap();
    log.close(&image).unwrap();
    assert_eq!(refusal(&dir), expected);
}

#[test]
fn metadata_of_an_older_level_is_raised_once_so_that_older_software_does_not_misread_what_follows() {
    let dir = copied(GENERATION, "killed");
    let (log, image) = metadata_log(&dir);
    assert_eq!(image.feature_level, FEATURE_LEVEL);
    log.close(&image).unwrap();
    let (_, again) = metadata_log(&dir);
    assert_eq!(again, image, "nothing more is written");
}
