//! One replica of one partition, leading or following: the shell around a [`Replica`](crate::replica::Replica).
//!
//! * **Is told**: what it is to be, the lease, disk space and the end by the broker; produce, fetch, look-ups by sessions; fetches
//!   of followers, and its own leader's answers, by whoever reaches other nodes; to look for damage by the broker; what became of the log by its [`LogWriter`].
//! * **Does**: asks the replica, hands its batches to the log writer, reads for consumers and followers, sends what it asks its leader
//!   and what the controller is to know.
//! * **Remembers**: the replica's state, and the newest batches in the [`TailCache`].
//!
//! ```text
//!   Produce ─► replica ─ Append ─► tail cache, LogWriter ─ Written, Synced ─► replica ─ Produced ─► session
//!   Fetch ───► replica ─ Read ───► tail cache, or a cold read on a disk thread ───────────────────► session
//!   Assign ──► replica ─ leads, or: FetchFromLeader ─► … ─► LeaderAnswered ─► replica ─ Append ─► tail cache, LogWriter
//! ```
//!
//! Invariants: batches reach the log writer in the order of their offsets; nothing at or beyond the high watermark is
//! read by a consumer; whoever asked is answered, at its deadline at the latest, or is gone. Both roles are one actor, because they
//! are one log with one writer, and change in place (ADR 23).

mod actor;
mod health;
mod keeping;
mod messages;
mod orders;
mod read_budget;
mod reads;
mod replicating;
mod scrubbing;
mod stopping;
mod tail_cache;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::log_writer::LogWriter;

pub use actor::{PartitionLeader, PartitionLeaderSettings};
pub use keeping::Keeping;
pub use messages::*;
pub use read_budget::ReadBudget;
pub use tail_cache::{CacheBudget, TailCache};
