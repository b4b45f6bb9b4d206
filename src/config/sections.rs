//! The tables of the configuration: each key with its type, unit, meaning and default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::keys::host_and_port;
use crate::types::{ClusterId, NodeId};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What a node does for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Votes on and keeps the cluster's metadata.
    Controller,
    /// Keeps partitions and serves clients.
    Broker,
}

/// `[node]`: who the node is and where its data lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// The node's number, unique in its cluster.
    pub id: NodeId,
    /// What the node does; at least one role.
    pub roles: Vec<Role>,
    /// Where everything that the node keeps is stored. Relative to the working directory.
    pub data_dir: PathBuf,
    /// The cluster that the data directory must belong to; none: whichever it belongs to, a new one for a new directory.
    pub cluster_id: Option<ClusterId>,
    /// Where the node stands, so that replicas can be spread; none: not told.
    pub rack: Option<String>,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            id: NodeId(1),
            roles: vec![Role::Controller, Role::Broker],
            data_dir: PathBuf::from("./data"),
            cluster_id: None,
            rack: None,
        }
    }
}

/// `[listener.*]`: one table a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// The native MessagePack protocol.
    pub native: NativeListener,
    /// Other nodes.
    pub peer: PeerListener,
    /// Metrics and probes.
    pub http: HttpListener,
}

/// `[listener.native]`: where clients of the native protocol connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NativeListener {
    /// The address and port to listen on, `host:port`. Port 0 takes a free one.
    pub bind: String,
    /// The `host:port` that clients are told to connect to; none: the bound address.
    pub advertise: Option<String>,
}

impl Default for NativeListener {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9644".to_owned(), advertise: None }
    }
}

/// `[listener.peer]`: where other nodes of the cluster connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerListener {
    /// The address and port to listen on, `host:port`; none: no other node can reach this one. Port 0 takes a free one.
    pub bind: Option<String>,
    /// The `host:port` that other nodes are told to connect to; none: the bound address.
    pub advertise: Option<String>,
}

/// `[listener.http]`: where metrics, probes and the log level are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpListener {
    /// The address and port to listen on, `host:port`; none: there is no HTTP listener. Port 0 takes a free one.
    pub bind: Option<String>,
}

impl Default for HttpListener {
    fn default() -> Self {
        Self { bind: Some("127.0.0.1:9645".to_owned()) }
    }
}

/// A controller of the cluster and where other nodes reach it: `ID@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ControllerAddress {
    /// The node.
    pub node: NodeId,
    /// A name or an address, an IPv6 address in brackets.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl std::str::FromStr for ControllerAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('@').and_then(|(node, address)| {
            let (host, port) = host_and_port(address).filter(|(_, port)| *port != 0)?;
            Some(Self { node: NodeId(node.parse().ok()?), host: host.to_owned(), port })
        });
        parsed.ok_or_else(|| format!("{text:?} is not of the form ID@HOST:PORT, such as 1@127.0.0.1:9646"))
    }
}

impl TryFrom<String> for ControllerAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ControllerAddress> for String {
    fn from(ControllerAddress { node, host, port }: ControllerAddress) -> Self {
        format!("{node}@{host}:{port}")
    }
}

/// `[cluster]`: which nodes decide, and how long a broker may be silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// The controllers, the same on each node; none: this node is the only one. The first one forms a new cluster.
    pub controllers: Option<Vec<ControllerAddress>>,
    /// A broker that no controller hears for so many milliseconds leads no more.
    pub lease_ms: u64,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { controllers: None, lease_ms: 5_000 }
    }
}

/// Which thread carries out the writes of a partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogWriterPlacement {
    /// The core thread of the partition: fewer wake-ups, less CPU.
    #[default]
    Core,
    /// A disk thread: a write that the kernel throttles holds up nothing else.
    Disk,
}

/// `[threads]`: how the node's work is spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThreadsSection {
    /// Threads of sessions and partitions; 0 for one for every two CPUs. At most 1024.
    pub core: usize,
    /// Threads that sync files; as many again read what is not cached and work in the background. 1 to 1024.
    pub disk: usize,
    /// See [`LogWriterPlacement`].
    pub log_writer: LogWriterPlacement,
}

impl Default for ThreadsSection {
    fn default() -> Self {
        Self { core: 0, disk: 2, log_writer: LogWriterPlacement::Core }
    }
}

/// `[limits]`: what clients may use at most. A refusal names the limit, the value and the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// The largest frame taken, in bytes after the length prefix.
    pub max_frame_bytes: u32,
    /// The largest frame taken before a connection's `Hello`, in bytes.
    pub max_frame_bytes_before_hello: u32,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
    /// Bytes of requests of one connection that are read and not yet answered.
    pub connection_bytes_in_flight: usize,
    /// Bytes of requests of all connections that are read and not yet answered.
    pub node_bytes_in_flight: usize,
    /// A connection that sends nothing for so many milliseconds, and waits for nothing, is closed.
    pub idle_timeout_ms: u64,
    /// A frame that has begun must be complete within so many milliseconds.
    pub partial_frame_timeout_ms: u64,
    /// Bytes of replies that may wait for one connection to read them.
    pub write_queue_bytes: usize,
    /// A connection that takes no byte of its replies for so many milliseconds is closed.
    pub write_timeout_ms: u64,
    /// Requests of one connection that are not yet answered.
    pub requests_in_flight_per_connection: usize,
    /// Topics in the cluster.
    pub max_topics: usize,
    /// Partitions in the cluster.
    pub max_partitions: usize,
    /// Partitions of one topic.
    pub max_partitions_per_topic: u32,
    /// Bytes of record batches in one fetch reply. The first batch is sent even when it alone is larger.
    pub fetch_max_bytes: u32,
    /// The longest that a fetch or produce request may ask to wait, in milliseconds.
    pub max_wait_ms: u32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_frame_bytes: 16 << 20,
            max_frame_bytes_before_hello: 16 << 10,
            max_connections: 20_000,
            max_connections_per_address: 10_000,
            connection_bytes_in_flight: 16 * MIB,
            node_bytes_in_flight: 128 * MIB,
            idle_timeout_ms: 600_000,
            partial_frame_timeout_ms: 30_000,
            write_queue_bytes: 16 * MIB,
            write_timeout_ms: 30_000,
            requests_in_flight_per_connection: 256,
            max_topics: 10_000,
            max_partitions: 20_000,
            max_partitions_per_topic: 1_000,
            fetch_max_bytes: 16 << 20,
            max_wait_ms: 60_000,
        }
    }
}

/// `[storage]`: caches, descriptors and background work of the logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// Bytes of the newest records kept in memory, all partitions together.
    pub tail_cache_bytes: usize,
    /// Bytes of the newest records kept in memory for one partition.
    pub tail_cache_partition_bytes: usize,
    /// Segment and index files kept open at a time.
    pub open_files: usize,
    /// Appends are refused while the file system of the data directory has fewer free bytes than this.
    pub min_free_bytes: u64,
    /// Milliseconds between looks for segments past their retention.
    pub retention_check_ms: u64,
    /// Milliseconds between notes of what is synced, from which recovery starts.
    pub checkpoint_interval_ms: u64,
    /// Bytes of waiting appends that are written at once.
    pub append_group_bytes: usize,
    /// An idempotent producer that appended nothing for so many milliseconds is forgotten.
    pub producer_expiry_ms: u64,
    /// Bytes a second that the background scrub reads at most; 0: there is none.
    pub scrub_bytes_per_second: u64,
    /// Milliseconds from the beginning of a round of the background scrub to that of the next one. A week, as Ceph's
    /// `osd_deep_scrub_interval`: once in the life of a record under the default retention.
    pub scrub_interval_ms: u64,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            tail_cache_bytes: 64 * MIB,
            tail_cache_partition_bytes: 4 * MIB,
            open_files: 4 * KIB,
            min_free_bytes: 256 << 20,
            retention_check_ms: 30_000,
            checkpoint_interval_ms: 1_000,
            append_group_bytes: MIB,
            producer_expiry_ms: 86_400_000,
            scrub_bytes_per_second: 16 << 20,
            scrub_interval_ms: 604_800_000,
        }
    }
}

/// `[topics]`: how topics are created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsSection {
    /// Partitions of a topic that does not say how many.
    pub default_partitions: u32,
    /// Replicas of a topic that does not say how many; none: the smaller of 3 and the number of brokers.
    pub default_replication_factor: Option<u32>,
    /// A JSON file of topics that are created at the start when they are missing.
    pub file: Option<PathBuf>,
}

impl Default for TopicsSection {
    fn default() -> Self {
        Self { default_partitions: 1, default_replication_factor: None, file: None }
    }
}

/// The form of the node's own log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`: what the node says about itself, on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or directives as `tracing-subscriber` takes them,
    /// such as `info,callboard::storage=debug`.
    pub level: String,
    /// See [`LogFormat`].
    pub format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
