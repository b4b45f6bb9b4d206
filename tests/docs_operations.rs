//! docs/operations.md knows every error: each code, and each message that a node, its partitions and its clients can give.
//! A new variant does not compile until it stands here, and this fails until the page has it.
#![allow(missing_docs, reason = "tests")]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use callboard::actors::controller::{MetadataError, MetadataLogError};
use callboard::actors::node::NodeError;
use callboard::cli::error::CliError;
use callboard::client::ClientError;
use callboard::config::ConfigError;
use callboard::config::topics_file::{self, TopicsFileError};
use callboard::engine::metadata::ApplyError;
use callboard::net::BindError;
use callboard::protocol::{ApiError, ErrorCode};
use callboard::raft::{RaftId, RaftIdentity, RaftStorageError};
use callboard::storage::LogError;
use callboard::storage::atomic_file::AtomicFileError;
use callboard::storage::data_dir::DataDirError;
use callboard::types::record_batch::BatchError;
use callboard::types::{ClusterId, DirectoryId, LeaderEpoch, NodeId, Offset};

const PAGE: &str = include_str!("../docs/operations.md");

/// The first cells of the rows of the table in the section under this heading.
fn first_cells(heading: &str) -> Vec<&'static str> {
    let section = PAGE.split(&format!("\n### {heading}\n")).nth(1).expect("the section").split("\n#").next();
    let rows = section.expect("text").lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').nth(1).expect("a cell").trim().trim_matches('`')).collect()
}

/// Whether the message holds the parts of the phrase, which `…` stands between, in their order.
fn fits(phrase: &str, message: &str) -> bool {
    let mut rest = message;
    phrase.split('…').map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Each message has a row in one of the sections, and each row of the first section a message.
fn compare(headings: &[&str], messages: &[String]) {
    let phrases: Vec<&str> = headings.iter().flat_map(|heading| first_cells(heading)).collect();
    for message in messages {
        assert!(phrases.iter().any(|phrase| fits(phrase, message)), "docs/operations.md lacks: {message}");
    }
    for phrase in first_cells(headings[0]) {
        assert!(messages.iter().any(|message| fits(phrase, message)), "no error says: {phrase}");
    }
}

fn io_error() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "open /data: permission denied (os error 13)")
}

fn path() -> PathBuf {
    PathBuf::from("/data/x")
}

fn api_error() -> ApiError {
    ApiError::new(ErrorCode::Unknown, "no")
}

fn texts<E: std::fmt::Display>(errors: impl IntoIterator<Item = E>) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

fn file_errors() -> Vec<AtomicFileError> {
    let all = vec![
        AtomicFileError::Io(io_error()),
        AtomicFileError::Damaged { path: path(), reason: "its checksum is wrong".to_owned() },
        AtomicFileError::ForeignMagic { path: path(), found: "ELF".to_owned(), expected: "CBdd".to_owned() },
        AtomicFileError::NewerVersion { path: path(), found: 2, supported: 1 },
    ];
    for error in &all {
        match error {
            AtomicFileError::Io(_)
            | AtomicFileError::Damaged { .. }
            | AtomicFileError::ForeignMagic { .. }
            | AtomicFileError::NewerVersion { .. } => {}
        }
    }
    all
}

fn data_dir_errors() -> Vec<DataDirError> {
    let (root, cluster) = (path(), ClusterId(uuid::Uuid::from_u128(1)));
    let mut all: Vec<_> = file_errors().into_iter().map(DataDirError::File).collect();
    all.extend([
        DataDirError::Io(io_error()),
        DataDirError::OtherCluster { root: root.clone(), found: cluster, expected: cluster },
        DataDirError::OtherNode { root: root.clone(), found: NodeId(1), expected: NodeId(2) },
        DataDirError::NotEmpty { root: root.clone(), entry: "holiday.jpg".to_owned() },
        DataDirError::InUse { root, owner: " (pid 7)".to_owned() },
    ]);
    for error in &all {
        match error {
            DataDirError::Io(_)
            | DataDirError::File(_)
            | DataDirError::OtherCluster { .. }
            | DataDirError::OtherNode { .. }
            | DataDirError::NotEmpty { .. }
            | DataDirError::InUse { .. } => {}
        }
    }
    all
}

fn config_errors() -> Vec<ConfigError> {
    // Contradictions and mistakes of form have many texts: these are the real ones.
    let load = |set: &str| callboard::config::load(None, std::iter::empty(), &[set.to_owned()]).expect_err(set);
    let all = vec![
        ConfigError::Unreadable { path: path(), reason: "no such file".to_owned() },
        ConfigError::Malformed { origin: "x".to_owned(), reason: "not valid TOML at line 1: no".to_owned() },
        load("limits.max_topic=1"),
        load("limits.max_topics=0"),
        load("limits.node_bytes_in_flight=65536"),
        load("node.roles=broker"),
        load("cluster.controllers=1@db-1:9646"),
    ];
    for error in &all {
        match error {
            ConfigError::Unreadable { .. }
            | ConfigError::Malformed { .. }
            | ConfigError::UnknownKey { .. }
            | ConfigError::InvalidValue { .. }
            | ConfigError::Contradiction { .. } => {}
        }
    }
    all
}

fn topics_file_errors() -> Vec<TopicsFileError> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("topics.json");
    std::fs::write(&file, "[{\"name\": \"a/b\"}]").expect("a small file");
    let all = vec![
        topics_file::read(&file).expect_err("wrong"),
        topics_file::read(&home.path().join("none")).expect_err("none"),
    ];
    for error in &all {
        match error {
            TopicsFileError::Unreadable { .. } | TopicsFileError::Invalid { .. } => {}
        }
    }
    all
}

fn bind_errors() -> Vec<BindError> {
    let address = "127.0.0.1:9644".parse().expect("an address");
    let all = vec![
        BindError::NotResolvable { address: "nowhere:1".to_owned(), cause: io_error() },
        BindError::InUse { address },
        BindError::NotPermitted { address },
        BindError::NotHere { address },
        BindError::Failed { address, cause: io_error() },
    ];
    for error in &all {
        match error {
            BindError::NotResolvable { .. }
            | BindError::InUse { .. }
            | BindError::NotPermitted { .. }
            | BindError::NotHere { .. }
            | BindError::Failed { .. } => {}
        }
    }
    all
}

fn earlier_metadata_errors() -> Vec<MetadataLogError> {
    let mut all: Vec<_> = file_errors().into_iter().map(MetadataLogError::Snapshot).collect();
    let record = callboard::types::record_batch::RecordError::TooLarge { records: 1, bytes: 1 };
    all.extend([
        MetadataLogError::Log(LogError::SyncOutstanding),
        MetadataLogError::Io(io_error()),
        MetadataLogError::Records(record),
        MetadataLogError::Undecodable { index: 1, reason: "no".to_owned() },
        MetadataLogError::Gap { expected: 2, found: 1 },
        MetadataLogError::Apply(ApplyError::FeatureLevel { found: 2 }),
    ]);
    for error in &all {
        match error {
            MetadataLogError::Log(_)
            | MetadataLogError::Snapshot(_)
            | MetadataLogError::Io(_)
            | MetadataLogError::Records(_)
            | MetadataLogError::Undecodable { .. }
            | MetadataLogError::Gap { .. }
            | MetadataLogError::Apply(_) => {}
        }
    }
    all
}

fn raft_errors() -> Vec<RaftStorageError> {
    let (cluster, directory) = (ClusterId(uuid::Uuid::nil()), DirectoryId(uuid::Uuid::nil()));
    let identity = RaftIdentity { cluster, directory, id: RaftId(1) };
    let (index, reason) = (1, "no".to_owned());
    let mut all: Vec<_> = file_errors().into_iter().map(RaftStorageError::File).collect();
    all.extend([
        RaftStorageError::Io(io_error()),
        RaftStorageError::Log(LogError::SyncOutstanding),
        RaftStorageError::Missing { path: path() },
        RaftStorageError::Exists { path: path() },
        RaftStorageError::LostFile { path: path() },
        RaftStorageError::Foreign { path: path(), found: identity, expected: identity },
        RaftStorageError::LostEntries { index, reason: reason.clone() },
        RaftStorageError::Entry { index, reason: reason.clone() },
        RaftStorageError::Snapshot { reason },
        RaftStorageError::NotContiguous { expected: 2, found: 1 },
        RaftStorageError::Newer(ApplyError::FeatureLevel { found: 2 }),
        RaftStorageError::ThreadEnded,
    ]);
    for error in &all {
        match error {
            RaftStorageError::Io(_)
            | RaftStorageError::Log(_)
            | RaftStorageError::File(_)
            | RaftStorageError::Missing { .. }
            | RaftStorageError::Exists { .. }
            | RaftStorageError::LostFile { .. }
            | RaftStorageError::Foreign { .. }
            | RaftStorageError::LostEntries { .. }
            | RaftStorageError::Entry { .. }
            | RaftStorageError::Snapshot { .. }
            | RaftStorageError::NotContiguous { .. }
            | RaftStorageError::Newer(_)
            | RaftStorageError::ThreadEnded => {}
        }
    }
    all
}

fn metadata_errors() -> Vec<MetadataError> {
    let mut all: Vec<_> = earlier_metadata_errors().into_iter().map(MetadataError::Earlier).collect();
    all.extend(raft_errors().into_iter().map(MetadataError::Raft));
    all.extend(data_dir_errors().into_iter().map(MetadataError::Directory));
    all.extend([
        MetadataError::Io(io_error()),
        MetadataError::Forming("node 2 at db-2:9646: no".to_owned()),
        MetadataError::Stopped("Raft has stopped: why".to_owned()),
    ]);
    for error in &all {
        match error {
            MetadataError::Raft(_)
            | MetadataError::Earlier(_)
            | MetadataError::Directory(_)
            | MetadataError::Io(_)
            | MetadataError::Forming(_)
            | MetadataError::Stopped(_) => {}
        }
    }
    all
}

fn node_errors() -> Vec<NodeError> {
    let mut all: Vec<NodeError> = config_errors().into_iter().map(NodeError::Config).collect();
    all.extend(data_dir_errors().into_iter().map(NodeError::DataDir));
    all.extend(bind_errors().into_iter().map(NodeError::Bind));
    all.extend(bind_errors().into_iter().map(NodeError::BindHttp));
    all.extend(metadata_errors().into_iter().map(NodeError::Metadata));
    all.extend(topics_file_errors().into_iter().map(NodeError::TopicsFile));
    all.extend([
        NodeError::DeclaredTopic { name: "a".to_owned(), file: path(), cause: api_error() },
        NodeError::Superseded,
        NodeError::StoppedEarly,
        NodeError::Io { what: "cannot start the node's thread".to_owned(), cause: io_error() },
        NodeError::Ended,
        NodeError::Unclean("disk".to_owned()),
    ]);
    for error in &all {
        match error {
            NodeError::Config(_)
            | NodeError::DataDir(_)
            | NodeError::Bind(_)
            | NodeError::BindHttp(_)
            | NodeError::Metadata(_)
            | NodeError::TopicsFile(_)
            | NodeError::DeclaredTopic { .. }
            | NodeError::Superseded
            | NodeError::StoppedEarly
            | NodeError::Io { .. }
            | NodeError::Ended
            | NodeError::Unclean(_) => {}
        }
    }
    all
}

fn log_errors() -> Vec<LogError> {
    let (offset, epoch) = (Offset(1), LeaderEpoch(1));
    let mut all: Vec<_> = file_errors().into_iter().map(LogError::DamagedMeta).collect();
    all.extend([
        LogError::OffsetOutOfRange { requested: offset, log_start: offset, end: offset },
        LogError::Damaged { from: offset, next_valid: None },
        LogError::Failed { cause: Arc::from("input/output error") },
        LogError::DiskFull { cause: io::ErrorKind::StorageFull.into() },
        LogError::NoDescriptor { cause: io_error() },
        LogError::Io(io_error()),
        LogError::NotContiguous { expected: offset, found: offset },
        LogError::EpochWentBack { last: epoch, found: epoch },
        LogError::BelowHighWatermark { end: offset, high_watermark: offset },
        LogError::InvalidBatch { base_offset: offset, cause: BatchError::Truncated { have: 1, need: 2 } },
        LogError::WrongPartition { path: path(), found: "a".to_owned(), expected: "b".to_owned() },
        LogError::AlreadyExists { path: path() },
        LogError::LostPartition { path: path() },
        LogError::MissingPartition { path: path() },
        LogError::ProducersNotKept { before: offset },
        LogError::SyncOutstanding,
    ]);
    for error in &all {
        match error {
            LogError::OffsetOutOfRange { .. }
            | LogError::Damaged { .. }
            | LogError::Failed { .. }
            | LogError::DiskFull { .. }
            | LogError::NoDescriptor { .. }
            | LogError::Io(_)
            | LogError::NotContiguous { .. }
            | LogError::EpochWentBack { .. }
            | LogError::BelowHighWatermark { .. }
            | LogError::InvalidBatch { .. }
            | LogError::WrongPartition { .. }
            | LogError::AlreadyExists { .. }
            | LogError::LostPartition { .. }
            | LogError::MissingPartition { .. }
            | LogError::DamagedMeta(_)
            | LogError::ProducersNotKept { .. }
            | LogError::SyncOutstanding => {}
        }
    }
    all
}

fn client_errors() -> Vec<ClientError> {
    let (topic, address) = ("t".to_owned(), "a:1".to_owned());
    let (partition, offset, after) = (0, Offset(1), Duration::from_secs(1));
    let all = vec![
        ClientError::Unreachable { tried: vec![(address.clone(), "refused".to_owned())] },
        ClientError::Disconnected { address: address.clone(), cause: "reset".to_owned() },
        ClientError::RequestTimedOut { address: address.clone(), after },
        ClientError::Busy { address: address.clone(), limit: 1 },
        ClientError::Protocol { address, reason: "no".to_owned() },
        ClientError::UnknownTopic { topic: topic.clone() },
        ClientError::TopicDeleted { topic: topic.clone(), recreated: true },
        ClientError::UnknownPartition { topic: topic.clone(), partition, partitions: 1 },
        ClientError::NoLeader { topic: topic.clone(), partition },
        ClientError::NotAssigned { topic: topic.clone(), partition },
        ClientError::RecordTooLarge { bytes: 2, limit: 1, setting: "batch_bytes" },
        ClientError::DeliveryTimedOut { topic: topic.clone(), partition, after, last_error: None },
        ClientError::OutcomeUnknown { topic: topic.clone(), partition, cause: "gone".to_owned() },
        ClientError::Encode { topic: topic.clone(), reason: "too large".to_owned() },
        ClientError::OffsetOutOfRange {
            topic: topic.clone(),
            partition,
            offset,
            log_start_offset: offset,
            end_offset: offset,
        },
        ClientError::Damaged { topic, partition, offset, reason: "checksum".to_owned() },
        ClientError::InvalidConfig { setting: "linger", reason: "too long" },
        ClientError::NothingAssigned,
        ClientError::Closed { what: "producer" },
    ];
    for error in &all {
        match error {
            // `Refused` carries an error code, and those have a table of their own.
            ClientError::Refused { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Disconnected { .. }
            | ClientError::RequestTimedOut { .. }
            | ClientError::Busy { .. }
            | ClientError::Protocol { .. }
            | ClientError::UnknownTopic { .. }
            | ClientError::TopicDeleted { .. }
            | ClientError::UnknownPartition { .. }
            | ClientError::NoLeader { .. }
            | ClientError::NotAssigned { .. }
            | ClientError::RecordTooLarge { .. }
            | ClientError::DeliveryTimedOut { .. }
            | ClientError::OutcomeUnknown { .. }
            | ClientError::Encode { .. }
            | ClientError::OffsetOutOfRange { .. }
            | ClientError::Damaged { .. }
            | ClientError::InvalidConfig { .. }
            | ClientError::NothingAssigned
            | ClientError::Closed { .. } => {}
        }
    }
    all
}

const START: &str = "The node does not start";

#[test]
fn every_error_code_is_explained_in_the_order_of_the_protocol() {
    let names: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(first_cells("Error codes"), names);
}

#[test]
fn every_reason_not_to_start_is_on_the_page() {
    compare(&[START], &texts(node_errors()));
}

#[test]
fn every_reason_of_a_partition_to_be_offline_is_on_the_page() {
    compare(&["A partition is offline", START], &texts(log_errors()));
}

#[test]
fn every_error_of_commands_and_clients_is_on_the_page() {
    let mut messages = texts(client_errors());
    messages.push(CliError::Output { path: "x".to_owned(), reason: "no space".to_owned() }.to_string());
    compare(&["Commands and clients"], &messages);
}

#[test]
fn every_row_says_what_happened_and_what_to_do() {
    for row in PAGE.split("## When something is wrong").nth(1).expect("the part").lines().filter(|l| l.starts_with('|'))
    {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| cell.len() > 2), "{row}");
    }
}
