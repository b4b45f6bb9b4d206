//! What one node says of itself: its process, its disk, its replicas, its budgets.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::protocol::{Api, ApiError};
use crate::types::{NodeId, PartitionIndex, TimestampMs, TopicId, TopicName};

/// Asks the node that is connected to about itself. Cheap, and answered while the node is busy or its disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeNode {}

/// The answer to [`DescribeNode`]. What the operating system does not tell is nil.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeNodeReply {
    /// The node.
    pub node_id: NodeId,
    /// Its software, as in the answer to `Hello`.
    pub software: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// What its wall clock showed when it answered.
    pub wall_clock: TimestampMs,
    /// The host that clients are sent to.
    pub advertised_host: String,
    /// The port that clients are sent to.
    pub advertised_port: u16,
    /// The address it listens on, `ip:port`.
    pub bound: String,
    /// Its process.
    pub process: ProcessUsage,
    /// The machine, and the threads that work on it.
    pub machine: MachineDescription,
    /// The file system of the data directory.
    pub disk: DiskDescription,
    /// Its replicas, as far as something is wrong with them.
    pub replicas: ReplicasDescription,
    /// What its bounded resources hold.
    pub budgets: NodeBudgets,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// The process id.
    pub pid: u32,
    /// CPU time in its own code, in microseconds. The sum with [`Self::system_cpu_us`] is exact, the split to 10 ms.
    pub user_cpu_us: u64,
    /// CPU time in the kernel on its behalf, in microseconds.
    pub system_cpu_us: u64,
    /// Memory that is resident now, in bytes.
    pub resident_bytes: Option<u64>,
    /// The most memory that was ever resident, in bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_descriptors: Option<u64>,
    /// How many may be open; nil without a limit.
    pub descriptor_limit: Option<u64>,
    /// How far the process may raise that limit; nil without a limit.
    pub descriptor_hard_limit: Option<u64>,
}

/// The machine as the process sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDescription {
    /// CPUs that the process may run on.
    pub cpus: u32,
    /// Threads of sessions and partitions (`threads.core`).
    pub core_threads: u32,
    /// Threads in each of the two lanes of the disk pool (`threads.disk`).
    pub disk_threads: u32,
    /// The machine's memory in bytes.
    pub memory_bytes: Option<u64>,
    /// What the process's control group may use of it, in bytes; nil without a limit.
    pub memory_limit_bytes: Option<u64>,
}

/// The file system that the data directory lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDescription {
    /// Bytes that can still be written.
    pub free_bytes: Option<u64>,
    /// Bytes there are in all.
    pub total_bytes: Option<u64>,
    /// `storage.min_free_bytes`.
    pub min_free_bytes: u64,
    /// Why appends are refused for want of space; nil while they are accepted.
    pub refusing_appends: Option<ApiError>,
}

/// How many partitions [`ReplicasDescription::offline`] names at most: the reply stays small, whatever happened.
pub const MAX_LISTED_PARTITIONS: usize = 100;

/// The replicas of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasDescription {
    /// Replicas that take no appends: they could not be opened, or a write or sync of theirs failed. At most
    /// [`MAX_LISTED_PARTITIONS`].
    pub offline: Vec<OfflinePartition>,
    /// How many there are of them in all.
    pub offline_count: u32,
    /// How many replicas have damaged ranges. `DescribeLogs` tells the ranges.
    pub damaged_partitions: u32,
    /// How many damaged ranges they have in all.
    pub damaged_ranges: u32,
}

/// A replica that takes no appends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflinePartition {
    /// The topic.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why: what clients are told.
    pub cause: ApiError,
}

/// How much of something is in use, and how much may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// In use now.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

/// The bounded resources of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBudgets {
    /// Bytes of requests that are read and not yet answered (`limits.node_bytes_in_flight`).
    pub request_bytes: Usage,
    /// Bytes read from disk for consumers and not yet sent (bounded by the same key).
    pub read_bytes: Usage,
    /// Bytes of the newest records that are kept in memory (`storage.tail_cache_bytes`).
    pub tail_cache_bytes: Usage,
    /// Connections; the limit is the one in force, which is below `limits.max_connections` when descriptors are scarce.
    pub connections: Usage,
    /// `limits.max_connections`.
    pub configured_connections: u64,
    /// Connections that were refused since the start.
    pub refused_connections: u64,
    /// `storage.open_files`.
    pub open_files: u64,
}

impl Request for DescribeNode {
    const API: Api = Api::DescribeNode;
    /// Boxed: it is several times larger than any other reply, and all of them travel in the same messages.
    type Reply = Box<DescribeNodeReply>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;

    /// A reply with something in every place, written by hand from docs/protocol.md: changing it is changing the protocol.
    const GOLDEN: &[u8] = &[
        0x9c, // twelve fields
        7, 0xa3, b'c', b' ', b'1', 0xcd, 0x03, 0xe8, // node 7, "c 1", up for 1000 ms
        0xcf, 0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, // 1700000000000 on its clock
        0xa1, b'h', 0xcd, 0x25, 0xac, 0xa3, b'b', b':', b'1', // sends clients to h:9644, listens on "b:1"
        0x98, 9, 1, 2, 3, 4, 5, 6, 0xc0, // process: pid, CPU, memory, descriptors, no hard limit
        0x95, 2, 3, 4, 5, 0xc0, // machine: CPUs, threads, memory, no limit
        0x94, 1, 2, 3, 0x92, 43, 0xa1, b'f', // disk: free, total, least, disk-full "f"
        0x94, 0x91, // replicas: one listed
        0x94, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, // its topic
        0xa1, b't', 1, 0x92, 42, 0xa1, b'x', // "t", partition 1, storage-failed "x"
        2, 3, 4, // two offline, three damaged, four ranges
        0x97, 0x92, 1, 2, 0x92, 3, 4, 0x92, 5, 6, 0x92, 7, 8, 9, 10, 11, // budgets
    ];

    fn reply() -> DescribeNodeReply {
        let usage = |used, limit| Usage { used, limit };
        DescribeNodeReply {
            node_id: NodeId(7),
            software: "c 1".to_owned(),
            uptime_ms: 1_000,
            wall_clock: TimestampMs(1_700_000_000_000),
            advertised_host: "h".to_owned(),
            advertised_port: 9_644,
            bound: "b:1".to_owned(),
            process: ProcessUsage {
                pid: 9,
                user_cpu_us: 1,
                system_cpu_us: 2,
                resident_bytes: Some(3),
                peak_resident_bytes: Some(4),
                open_descriptors: Some(5),
                descriptor_limit: Some(6),
                descriptor_hard_limit: None,
            },
            machine: MachineDescription {
                cpus: 2,
                core_threads: 3,
                disk_threads: 4,
                memory_bytes: Some(5),
                memory_limit_bytes: None,
            },
            disk: DiskDescription {
                free_bytes: Some(1),
                total_bytes: Some(2),
                min_free_bytes: 3,
                refusing_appends: Some(ApiError::new(ErrorCode::DiskFull, "f")),
            },
            replicas: ReplicasDescription {
                offline: vec![OfflinePartition {
                    topic_id: TopicId(uuid::Uuid::from_u128(5)),
                    topic: TopicName::new("t").expect("legal"),
                    partition: PartitionIndex(1),
                    cause: ApiError::new(ErrorCode::StorageFailed, "x"),
                }],
                offline_count: 2,
                damaged_partitions: 3,
                damaged_ranges: 4,
            },
            budgets: NodeBudgets {
                request_bytes: usage(1, 2),
                read_bytes: usage(3, 4),
                tail_cache_bytes: usage(5, 6),
                connections: usage(7, 8),
                configured_connections: 9,
                refused_connections: 10,
                open_files: 11,
            },
        }
    }

    #[test]
    fn golden_bytes_of_a_node_that_describes_itself() {
        assert_eq!(rmp_serde::to_vec(&reply()).expect("encodes"), GOLDEN);
        assert_eq!(crate::protocol::frame::decode_body::<DescribeNodeReply>(GOLDEN), Ok(reply()));
        assert_eq!(rmp_serde::to_vec(&DescribeNode {}).expect("encodes"), [0x90]);
    }
}
