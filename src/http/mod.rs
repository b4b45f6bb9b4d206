//! The HTTP listener, for those who watch over a node: metrics, whether it lives, whether it can acknowledge, how much it logs.
//!
//! ```text
//!   scraper ─ GET /metrics ────┐
//!   probes ── GET /live, /ready ├─► server: a thread of its own ─┬─► exposition ─► catalogue ─► Metrics, NodeStatus, /proc
//!   operator ─ /log-level ─────┘    (actix-web, bounded)         ├─► NodeStatus: reasons why not ready
//!                                                                └─► LogLevel (from this machine only)
//! ```
//!
//! It stands beside the node: it starts on its own thread while the node still opens its partitions, shares nothing with the
//! path of a record but atomics, and when it fails the node goes on. Nothing here changes data; nothing here authenticates
//! anybody, which is why it listens on this machine only unless told otherwise.
//!
//! Reading order: [`server`], [`catalogue`], [`exposition`], [`process`]. docs/metrics.md tells what each figure means.

pub mod catalogue;
pub mod exposition;
pub mod process;
pub mod server;

use crate::types::ClusterHealth;
pub use server::{HttpServer, HttpSettings};

/// What the node knows about itself and does not count: asked for at each scrape and probe.
pub trait NodeStatus: Send + Sync + 'static {
    /// Why this node cannot acknowledge records now, one line each; empty when it can.
    fn not_ready(&self) -> Vec<String>;
    /// How things stand.
    fn sample(&self) -> NodeSample;
}

/// How things stand with a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSample {
    /// Topics of the cluster.
    pub topics: u64,
    /// Partitions here that take records.
    pub partitions_online: u64,
    /// Partitions here that could not be opened or have failed.
    pub partitions_offline: u64,
    /// Partitions that this node leads.
    pub partitions_led: u64,
    /// The cluster, as the metadata here shows it.
    pub cluster: ClusterHealth,
    /// Connections of the native protocol.
    pub native: ListenerSample,
    /// Memory with a limit.
    pub budgets: Vec<BudgetSample>,
}

/// The connections of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSample {
    /// Open now.
    pub open: u64,
    /// Let in so far.
    pub accepted: u64,
    /// Refused so far, because there were `limits.max_connections`.
    pub refused_by_node_limit: u64,
    /// Refused so far, because their address had `limits.max_connections_per_address`.
    pub refused_by_address_limit: u64,
}

/// Memory with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSample {
    /// What it is for.
    pub name: &'static str,
    /// Bytes taken.
    pub used_bytes: u64,
    /// Bytes that may be taken.
    pub limit_bytes: u64,
}

/// What the process logs, and how to change it while it runs. Directives are those of `log.level`.
pub trait LogLevel: Send + Sync + 'static {
    /// The directives in force.
    fn get(&self) -> String;
    /// Puts others in force.
    ///
    /// # Errors
    /// A line that says what is legal.
    fn set(&self, directives: &str) -> Result<(), String>;
}
