//! `callboard doctor --data-dir`: each thing that can be wrong with the files of a stopped node, made so and found.

use std::fs;
use std::path::{Path, PathBuf};

use callboard::cli::args::ConfigArgs;
use callboard::cli::doctor::args::DoctorArgs;
use callboard::cli::doctor::code::Severity;
use callboard::cli::doctor::finding::Finding;
use callboard::cli::doctor::report::Report;
use callboard::cli::doctor::stopped;
use callboard::client::{OutgoingRecord, ProducerConfig};
use callboard::storage::atomic_file::write_atomically;
use callboard::storage::data_dir::FORMAT_VERSION;
use callboard::storage::disk::{Disk, RealDisk};
use callboard::testing::Node;
use callboard::types::TimestampMs;

use crate::durability::damage;
use crate::support::*;

/// Settings that every machine has room for, so that only what a story does is found.
const SMALL: [&str; 2] = ["limits.max_connections=100", "storage.min_free_bytes=0"];

/// Findings that are about the machine that runs the tests.
const OF_THE_MACHINE: [&str; 2] = ["disk-nearly-full", "data-dir-in-memory"];

fn arguments(root: &Path, sets: &[&str]) -> DoctorArgs {
    let set = sets.iter().map(|&set| set.to_owned()).collect();
    DoctorArgs { data_dir: Some(root.to_owned()), skip_records: false, config: ConfigArgs { config: None, set } }
}

/// Looks with a configuration that belongs to the directory, and these settings over it.
fn look_with(root: &Path, sets: &[&str]) -> Report {
    let data_dir = format!("node.data_dir={}", root.display());
    let sets: Vec<&str> = SMALL.iter().copied().chain([data_dir.as_str()]).chain(sets.iter().copied()).collect();
    stopped::examine(&arguments(root, &sets), root).expect("nobody uses it")
}

/// Looks without a configuration.
fn look(root: &Path) -> Report {
    stopped::examine(&arguments(root, &[]), root).expect("nobody uses it")
}

/// The codes found, sorted, without those that are the machine's.
fn codes(report: &Report) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.code.name()).collect();
    codes.retain(|code| !OF_THE_MACHINE.contains(code));
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The only finding of this kind.
#[track_caller]
fn found(report: &Report, code: &str) -> Finding {
    let mut of_kind = report.findings.iter().filter(|finding| finding.code.name() == code);
    let found = of_kind.next().unwrap_or_else(|| panic!("no {code} in {}", report.to_text()));
    assert_eq!(of_kind.next(), None, "more than one {code}");
    found.clone()
}

/// A directory in which topic `rides` has two partitions, and the directories of these.
async fn stopped_node() -> (Directory, Vec<PathBuf>) {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "rides", 2, &[("segment_bytes", "16384")]).await;
    send_each(&client, "rides", (0..60).map(|n| format!("{n:01000}"))).await;
    node.stop().unwrap();
    let partitions = partition_dirs(&dir, topic);
    (dir, partitions)
}

/// Every file with its content.
fn content(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(content(&path)) } else { found.push((path.clone(), fs::read(&path).unwrap())) }
    }
    found.sort();
    found
}

fn append(path: &Path, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content.extend_from_slice(bytes);
    fs::write(path, content).unwrap();
}

fn copy_partition(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_directory_that_was_stopped_cleanly_has_nothing_wrong_and_is_not_changed() {
    let (dir, _) = stopped_node().await;
    let before = content(&dir);
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), [""; 0], "{}", report.to_text());
    let said = report.to_text();
    assert!(
        said.contains("the metadata of 1 topic; 2 partitions with ") && said.contains("all read and verified"),
        "{said}"
    );
    assert_eq!(content(&dir), before);
    let node = Node::start_in(&dir, |_| {}).unwrap();
    assert_eq!(read_all(&connect(&node.address()).await, "rides").await.len(), 60);
}

#[tokio::test]
async fn damage_torn_tails_and_wrong_indexes_are_told_apart() {
    let (dir, partitions) = stopped_node().await;
    let last = segments(&partitions[0]).pop().unwrap();
    // The tail first: a write that was cut short, in a log that was not closed.
    append(&last, &[7; 100]);
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["torn-tail"], "{}", report.to_text());
    assert!(found(&report, "torn-tail").fix.contains("start the node"));

    damage(&partitions[0], 2);
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["records-damaged", "torn-tail"], "{}", report.to_text());
    let finding = found(&report, "records-damaged");
    assert_eq!((finding.about.as_str(), finding.severity()), ("partition 0 of topic rides", Severity::Error));
    assert!(finding.seen.contains("(offset 2)") && finding.fix.contains("backup"), "{finding:?}");
    let skipping = DoctorArgs { skip_records: true, ..arguments(&dir, &[]) };
    let report = stopped::examine(&skipping, &dir).unwrap();
    assert_eq!(codes(&report), [""; 0], "records are not read: {}", report.to_text());
    assert!(report.to_text().contains("--skip-records"));
}

#[tokio::test]
async fn what_is_bad_at_the_very_end_of_a_log_that_was_closed_is_damage_and_no_torn_tail() {
    let (dir, partitions) = stopped_node().await;
    damage(&partitions[0], 59);
    let report = look_with(&dir, &[]);
    // The time index names the record as well, unless one before it was sent in the same millisecond.
    let codes: Vec<_> = codes(&report).into_iter().filter(|code| *code != "index-damaged").collect();
    assert_eq!(codes, ["records-damaged"], "{}", report.to_text());
    assert!(found(&report, "records-damaged").seen.contains("(offset 59)"));
}

#[tokio::test]
async fn an_index_that_does_not_fit_is_a_note_that_says_what_to_remove() {
    let (dir, partitions) = stopped_node().await;
    let index = segments(&partitions[0])[0].with_extension("index");
    append(&index, &[0; 8]);
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["index-damaged"], "{}", report.to_text());
    let finding = found(&report, "index-damaged");
    assert!(finding.seen.contains(".index") && finding.fix.contains("remove"), "{finding:?}");
    fs::remove_file(&index).unwrap();
    fs::remove_file(index.with_extension("timeindex")).unwrap();
    drop(Node::start_in(&dir, |_| {}).unwrap());
    assert_eq!(codes(&look_with(&dir, &[])), [""; 0], "the fix works");
}

#[tokio::test]
async fn an_unclean_stop_is_told_with_what_the_next_start_verifies() {
    let (dir, _) = stopped_node().await;
    fs::remove_file(dir.join("clean-stop")).unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["unclean-stop"]);
    let finding = found(&report, "unclean-stop");
    assert!(finding.seen.contains("verifies 0 B"), "its partitions were closed: {finding:?}");
    assert!(finding.fix.contains("docs/durability.md"));
}

#[tokio::test]
async fn partitions_that_are_lost_foreign_unknown_or_put_aside_are_found() {
    let (dir, partitions) = stopped_node().await;
    let name = partitions[1].file_name().unwrap().to_string_lossy().into_owned();
    let stranger = dir.join(format!("strangers-{}-0", "0".repeat(31) + "7"));
    copy_partition(&partitions[0], &stranger);
    fs::remove_dir_all(&partitions[1]).unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["directory-unknown", "partition-foreign", "partition-lost"], "{}", report.to_text());
    let lost = found(&report, "partition-lost");
    assert!(lost.about == "partition 1 of topic rides" && lost.seen.contains(&name), "{lost:?}");
    assert!(lost.fix.contains("backup") && found(&report, "directory-unknown").fix.contains("quarantine/"));

    fs::remove_dir_all(&stranger).unwrap();
    copy_partition(&partitions[0], &partitions[1]);
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["partition-foreign"], "{}", report.to_text());
    assert!(found(&report, "partition-foreign").seen.contains("partition 0 of topic rides"));

    fs::remove_dir_all(&partitions[1]).unwrap();
    copy_partition(&partitions[0], &stranger);
    let node = Node::start_in(&dir, |_| {}).unwrap();
    wait_until("the stranger is put aside", || !stranger.exists());
    node.stop().unwrap();
    let report = look(&dir);
    assert_eq!(codes(&report), ["directory-quarantined", "partition-lost"], "{}", report.to_text());
    assert!(found(&report, "directory-quarantined").fix.contains("callboard log dump"));
}

#[tokio::test]
async fn remainders_and_things_that_do_not_belong_there_are_noted() {
    let (dir, partitions) = stopped_node().await;
    fs::write(dir.join("callboard.meta.tmp"), "half").unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["leftover-files"]);
    assert!(found(&report, "leftover-files").fix.contains("start the node"));
    fs::remove_file(dir.join("callboard.meta.tmp")).unwrap();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    fs::write(partitions[0].join("00000000000000000000.cut-5"), "aside").unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["directory-unknown", "tails-aside"], "{}", report.to_text());
    assert!(found(&report, "directory-unknown").about.ends_with("notes.txt"));
    assert!(found(&report, "tails-aside").fix.contains(".cut-"));
}

#[tokio::test]
async fn formats_of_a_newer_release_and_damaged_small_files_are_told_apart() {
    let (dir, partitions) = stopped_node().await;
    let meta = fs::read(dir.join("callboard.meta")).unwrap();
    write_atomically(&RealDisk, &dir.join("callboard.meta"), *b"CBdd", FORMAT_VERSION + 1, b"later").unwrap();
    let report = look(&dir);
    assert_eq!(codes(&report), ["newer-format"]);
    assert!(found(&report, "newer-format").fix.contains("newer"));
    fs::write(dir.join("callboard.meta"), "garbage").unwrap();
    let report = look(&dir);
    assert_eq!(codes(&report), ["identity-damaged"]);
    assert!(found(&report, "identity-damaged").fix.contains("callboard.meta"));
    fs::write(dir.join("callboard.meta"), meta).unwrap();
    assert_eq!(codes(&look(&dir)), [""; 0]);

    write_atomically(&RealDisk, &partitions[0].join("partition.meta"), *b"CBpm", 2, b"later").unwrap();
    fs::remove_file(partitions[1].join("partition.meta")).unwrap();
    let report = look(&dir);
    assert_eq!(codes(&report), ["newer-format", "partition-unreadable"], "{}", report.to_text());
    assert!(found(&report, "partition-unreadable").fix.contains("backup"));
}

#[tokio::test]
async fn metadata_that_cannot_be_read_is_found() {
    let (dir, _) = stopped_node().await;
    let voter = dir.join("__cluster_metadata/raft/voter");
    let whole = fs::read(&voter).unwrap();
    let mut content = whole.clone();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&voter, content).unwrap();
    let report = look(&dir);
    assert_eq!(codes(&report), ["metadata-damaged"], "{}", report.to_text());
    assert!(found(&report, "metadata-damaged").fix.contains("__cluster_metadata"));
    Node::start_in(&dir, |_| {}).expect_err("and so the node does not start");

    write_atomically(&RealDisk, &voter, *b"CBrv", 99, b"later").unwrap();
    assert_eq!(codes(&look(&dir)), ["newer-format", "unclean-stop"]);
    fs::write(&voter, whole).unwrap();
    let state = dir.join("__cluster_metadata/raft/log/partition.state");
    write_atomically(&RealDisk, &state, *b"CBps", 99, b"later").unwrap();
    assert_eq!(codes(&look(&dir)), ["newer-format", "unclean-stop"]);
    fs::remove_dir_all(dir.join("__cluster_metadata/raft/log")).unwrap();
    assert_eq!(codes(&look(&dir)), ["metadata-damaged", "unclean-stop"]);
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_the_directory_is_found() {
    let (dir, _) = stopped_node().await;
    let other = "00000000-0000-4000-8000-000000000009";
    let report = look_with(&dir, &["node.id=7", &format!("node.cluster_id={other}"), "node.data_dir=/elsewhere"]);
    assert_eq!(codes(&report), ["cluster-differs", "data-dir-differs", "node-differs"], "{}", report.to_text());
    assert!(found(&report, "node-differs").fix.contains("set node.id to 1"));
    let report = look_with(&dir, &["limits.max_conections=5"]);
    assert_eq!(codes(&report), ["config-invalid"]);
    assert!(found(&report, "config-invalid").seen.contains("did you mean limits.max_connections?"));
    let report = look_with(&dir, &["limits.max_frame_bytes=1000000"]);
    assert!(found(&report, "config-invalid").seen.contains("topic_defaults.max_batch_bytes"));
    let report = look_with(&dir, &["topics.file=/no/such/file.json"]);
    assert_eq!(codes(&report), ["topics-file-invalid"]);
    assert!(found(&report, "topics-file-invalid").fix.contains("topics.file"));
}

#[tokio::test]
async fn a_configuration_that_the_machine_has_no_room_for_is_found() {
    let (dir, _) = stopped_node().await;
    let report =
        look_with(&dir, &["storage.tail_cache_bytes=1099511627776", "storage.min_free_bytes=1125899906842624"]);
    assert_eq!(codes(&report), ["memory-exceeded", "min-free-exceeds-disk"], "{}", report.to_text());
    assert!(found(&report, "memory-exceeded").fix.contains("storage.tail_cache_bytes"));
    assert!(found(&report, "min-free-exceeds-disk").fix.contains("storage.min_free_bytes"));
    let total = RealDisk.total_bytes(&dir).unwrap();
    let report = look_with(&dir, &[&format!("storage.min_free_bytes={total}")]);
    assert_eq!(codes(&report), ["disk-full"], "{}", report.to_text());
    assert!(found(&report, "disk-full").fix.contains("callboard topic delete"));

    let most =
        ["limits.max_connections=1000000", "limits.max_connections_per_address=1000000", "storage.open_files=1000000"];
    let report = look_with(&dir, &most);
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let expected: &[&str] = if hard.is_some_and(|hard| hard < 2_001_024) { &["descriptors-few"] } else { &[] };
    assert_eq!(codes(&report), expected);
}

#[tokio::test]
async fn settings_of_topics_that_deserve_a_look_are_found_in_the_metadata() {
    let dir = Directory::new();
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    create(&client, "fast", 1, &[("flush", "os")]).await;
    create(&client, "short", 1, &[("retention_bytes", "20000"), ("segment_bytes", "30000")]).await;
    create(&client, "large", 1, &[("max_batch_bytes", "8000000")]).await;
    create(&client, "plain", 1, &[]).await;
    node.stop().unwrap();
    let report = look_with(&dir, &["limits.max_frame_bytes=5000000"]);
    let expected = ["batch-exceeds-frame", "flush-not-always", "retention-below-segment"];
    assert_eq!(codes(&report), expected, "{}", report.to_text());
    for (code, topic) in expected.iter().zip(["topic large", "topic fast", "topic short"]) {
        let finding = found(&report, code);
        assert!(finding.about == topic && finding.fix.contains("callboard topic alter"), "{finding:?}");
    }
    let report = look_with(&dir, &["listener.native.bind=[::1]:0", "log.level=trace", "topic_defaults.flush=os"]);
    let notes: Vec<_> = codes(&report);
    assert_eq!(notes, ["flush-not-always", "log-level-costly", "retention-below-segment"], "{}", report.to_text());
    let wide = ["listener.native.bind=0.0.0.0:9644", "listener.native.advertise=broker-1:9644"];
    assert!(found(&look_with(&dir, &wide), "bind-wide").fix.contains("listener.native.bind"));
}

#[test]
fn directories_that_are_missing_new_or_something_else_are_told_apart() {
    let home = Directory::new();
    assert_eq!(codes(&look(&home)), ["directory-missing"]);
    assert!(found(&look(&home), "directory-missing").fix.contains("node.data_dir"));
    assert!(!home.exists(), "looking creates nothing");
    fs::create_dir(&*home).unwrap();
    assert_eq!(codes(&look(&home)), ["directory-new"]);
    fs::write(home.join("photo.jpg"), "").unwrap();
    let report = look(&home);
    assert_eq!(codes(&report), ["not-a-data-directory"]);
    let finding = found(&report, "not-a-data-directory");
    assert!(finding.seen.contains("photo.jpg") && finding.fix.contains("node.data_dir"), "{finding:?}");
}

#[tokio::test]
async fn files_that_their_owner_cannot_use_or_another_user_owns_are_found() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let (dir, partitions) = stopped_node().await;
    let segment = segments(&partitions[0])[0].clone();
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o400)).unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["file-mode"]);
    let finding = found(&report, "file-mode");
    assert!(finding.about.ends_with(".log") && finding.fix.contains("chmod"), "{finding:?}");
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o600)).unwrap();
    // Only root may give files away.
    if chown(&segment, Some(12_345), None).is_ok() {
        let report = look_with(&dir, &[]);
        assert_eq!(codes(&report), ["file-owner"]);
        assert!(found(&report, "file-owner").fix.contains("chown"));
    }
}

#[tokio::test]
async fn records_from_the_future_are_found() {
    let (dir, _) = stopped_node().await;
    let node = Node::start_in(&dir, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    // The year 2286.
    let late = OutgoingRecord::to("rides").partition(1).value("early").timestamp(TimestampMs(9_999_999_999_999));
    producer.send(late).await.unwrap().await.unwrap();
    producer.close().await.unwrap();
    node.stop().unwrap();
    let report = look_with(&dir, &[]);
    assert_eq!(codes(&report), ["future-timestamps"], "{}", report.to_text());
    let finding = found(&report, "future-timestamps");
    assert!(finding.about == "partition 1 of topic rides" && finding.fix.contains("timestamp_type"), "{finding:?}");
}

#[test]
fn a_directory_in_memory_is_found() {
    // What is tmpfs on Linux; elsewhere there is nothing to find.
    let shared_memory = Path::new("/dev/shm");
    let Ok(home) = tempfile::tempdir_in(shared_memory) else { return };
    let report = look(home.path());
    let code = "data-dir-in-memory";
    let is_memory = fs::read_to_string("/proc/mounts").unwrap_or_default().contains(" /dev/shm tmpfs ");
    assert_eq!(report.findings.iter().any(|finding| finding.code.name() == code), is_memory);
    if is_memory {
        assert!(found(&report, code).fix.contains("node.data_dir"));
    }
}

#[test]
fn a_directory_that_a_node_uses_is_refused_with_where_to_look_instead() {
    let node = Node::start().unwrap();
    let root = node.data_dir();
    let refused = stopped::examine(&arguments(root, &[]), root).expect_err("in use");
    assert_eq!(refused.exit_code(), 2);
    let text = refused.to_string();
    assert!(text.contains("--server") && text.contains(&format!("(pid {})", std::process::id())), "{text}");
}
