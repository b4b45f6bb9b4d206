//! What a node counts about itself: plain atomics that actors touch once a batch, group or connection, and that are read
//! when somebody asks.
//!
//! ```text
//!   PartitionLeader ─ appended, read, moved ──┐
//!   LogWriter ─ queued, wrote, synced ────────┼─► PartitionMetrics, LogMetrics ◄─┐
//!   Codec, Session ─ asked, failed ───────────┼─► RequestMetrics               ◄─┼─ http: a scrape reads them all
//!   Broker ─ free space, the scrub ───────────┼─► DiskMetrics, ScrubMetrics    ◄─┤
//!   Controller ─ Raft, leases ────────────────┴─► ControllerMetrics            ◄─┘
//! ```
//!
//! On the way of a record nothing here locks, looks anything up or allocates: whoever counts was handed the very counter
//! when it started, and a count is one relaxed addition. Partitions enter and leave the registry when their leader starts and
//! ends; that takes a lock. How the figures are called and shown is [`crate::http`]'s.
//!
//! Reading order: [`instruments`], [`partitions`], [`requests`].

pub mod instruments;
pub mod partitions;
pub mod requests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use instruments::{Counter, Gauge, Histogram};
pub use partitions::{LogFiles, LogMetrics, PartitionHandle, PartitionMetrics, Partitions};
pub use requests::RequestMetrics;

use crate::types::NodeId;

/// Everything that a node counts. One for each node, shared.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The partitions led here.
    pub partitions: Partitions,
    /// Requests of clients.
    pub requests: RequestMetrics,
    /// Connections to the HTTP listener. Those of other listeners are counted where they are limited.
    pub http: ConnectionMetrics,
    /// The disk of the data directory.
    pub disk: DiskMetrics,
    /// The background scrub.
    pub scrub: ScrubMetrics,
    /// The controller, on a node that is one.
    pub controller: ControllerMetrics,
}

/// Connections to one listener.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// Open now.
    pub open: Gauge,
    /// Accepted so far.
    pub accepted: Counter,
}

/// What the background scrub has done since the node started.
#[derive(Debug, Default)]
pub struct ScrubMetrics {
    /// Bytes that it has read.
    pub bytes: Counter,
    /// Damaged ranges that nobody knew of.
    pub damage_found: Counter,
    /// Rounds through all replicas that were ended.
    pub rounds: Counter,
    /// When the newest one ended, in milliseconds since 1970; 0 before that.
    pub last_round_ended_ms: Gauge,
}

/// A controller, as it last saw itself and the others.
#[derive(Debug, Default)]
pub struct ControllerMetrics {
    /// 1 while it decides.
    pub active: Gauge,
    /// 1 while it knows of a leader.
    pub has_leader: Gauge,
    /// Controllers that vote.
    pub voters: Gauge,
    /// Controllers without a vote.
    pub learners: Gauge,
    /// The term of Raft that it is in.
    pub term: Gauge,
    /// The newest entry of its log.
    pub last_index: Gauge,
    /// The newest entry that it has applied.
    pub applied_index: Gauge,
    leases: Mutex<Vec<(NodeId, Duration)>>,
}

impl ControllerMetrics {
    /// The brokers that are counted on, and for how long without another sign of life. None are while it does not decide.
    pub fn set_leases(&self, leases: Vec<(NodeId, Duration)>) {
        // A plain assignment leaves nothing half done.
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = leases;
    }

    /// What was said last.
    #[must_use]
    pub fn leases(&self) -> Vec<(NodeId, Duration)> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The disk of the data directory, as it was last looked at.
#[derive(Debug, Default)]
pub struct DiskMetrics {
    /// Free bytes.
    pub free_bytes: Gauge,
    refusing: Mutex<Option<String>>,
}

impl DiskMetrics {
    /// Appends are refused from now on for this cause; `None`: they are accepted.
    pub fn refuse(&self, cause: Option<String>) {
        // A plain assignment leaves nothing half done.
        *self.refusing.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// Why appends are refused, if they are.
    #[must_use]
    pub fn refusing(&self) -> Option<String> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
