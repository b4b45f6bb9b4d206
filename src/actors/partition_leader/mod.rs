//! The leader of one partition: the shell around a [`Replica`](crate::replica::Replica) that leads.
//!
//! * **Is told**: produce, fetch, look-ups by sessions; what became of the log by its [`LogWriter`]; settings, disk space
//!   and the end by the broker.
//! * **Does**: asks the replica, hands its batches to the log writer, reads for consumers.
//! * **Remembers**: the replica's state, and the newest batches in the [`TailCache`].
//!
//! ```text
//!   Produce ─► replica ─ Append ─► tail cache, LogWriter ─ Written, Synced ─► replica ─ Produced ─► session
//!   Fetch ───► replica ─ Read ───► tail cache, or a cold read on a disk thread ───────────────────► session
//! ```
//!
//! Invariants: batches reach the log writer in the order of their offsets; nothing at or beyond the high watermark is
//! read; whoever asked is answered, at its deadline at the latest, or is gone.

mod actor;
mod keeping;
mod messages;
mod read_budget;
mod reads;
mod replicating;
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
