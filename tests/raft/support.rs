//! What the tests share: a member's place on a virtual disk, and entries.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::{CommittedLeaderId, Entry, EntryPayload, SnapshotPolicy};

use callboard::engine::metadata::MetadataRecord;
use callboard::raft::{ControllerNode, Decision, LogId, RaftId, RaftIdentity, RaftPlace, TypeConfig};
use callboard::storage::disk::{Disk, VirtualDisk};
use callboard::storage::file_cache::FileCache;
use callboard::types::{ClusterId, DirectoryId, NodeId, ProducerId};

/// How the small clusters of these tests run Raft: with snapshots of many chunks after a few entries. Times in milliseconds.
pub fn raft_config(heartbeat: u64, election: Range<u64>, snapshot_timeout: u64) -> Arc<openraft::Config> {
    let config = openraft::Config {
        heartbeat_interval: heartbeat,
        election_timeout_min: election.start,
        election_timeout_max: election.end,
        install_snapshot_timeout: snapshot_timeout,
        // Small, so that a snapshot takes many chunks.
        snapshot_max_chunk_size: 100,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(20),
        max_in_snapshot_log_to_keep: 5,
        // What is under way to a member is not purged: few entries, so that the log does not wait for one that is cut off.
        max_payload_entries: 10,
        replication_lag_threshold: 10,
        purge_batch_size: 1,
        ..openraft::Config::default()
    };
    Arc::new(config.validate().unwrap())
}

pub const DIR: &str = "/raft";

/// The place of member `id` on its disk.
pub fn place(disk: &Arc<VirtualDisk>, id: u64) -> RaftPlace {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    RaftPlace {
        files: Arc::new(FileCache::new(Arc::clone(&disk), 4)),
        disk,
        dir: PathBuf::from(DIR),
        identity: RaftIdentity { cluster: cluster(), directory: directory(id), id: RaftId(id) },
        segment_bytes: RaftPlace::SEGMENT_BYTES,
    }
}

/// The same with a log whose segments hold two or three entries.
pub fn place_of_small_segments(disk: &Arc<VirtualDisk>, id: u64) -> RaftPlace {
    RaftPlace { segment_bytes: 400, ..place(disk, id) }
}

pub fn cluster() -> ClusterId {
    ClusterId(uuid::Uuid::from_u128(99))
}

pub fn directory(id: u64) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(u128::from(id) + 1_000))
}

pub fn node(id: u64) -> ControllerNode {
    let node = NodeId(u32::try_from(id).unwrap());
    ControllerNode { node, directory: directory(id), host: format!("controller-{id}"), port: 9_644 }
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, RaftId(1)), index)
}

/// A decision that can be told from others by its number. It fits an image only after lower ones.
pub fn reserve(number: u64) -> Decision {
    Decision { records: vec![MetadataRecord::ProducerIdsReserved { next: ProducerId(i64::try_from(number).unwrap()) }] }
}

pub fn entry(term: u64, index: u64) -> Entry<TypeConfig> {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(reserve(term * 1_000 + index)) }
}

pub fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry<TypeConfig>> {
    indexes.map(|index| entry(term, index)).collect()
}
