//! The leader of one partition: the shell around [`crate::engine::leader::LeaderEngine`].
//!
//! * **Is told**: produce, fetch, look-ups by sessions; what became of the log by its [`LogWriter`]; settings, disk space
//!   and the end by the broker.
//! * **Does**: asks the engine, stamps batches, hands them to the log writer, reads for consumers.
//! * **Remembers**: the engine's state, and the newest batches in the [`TailCache`].
//!
//! ```text
//!   Produce ─► engine ─ Append ─► tail cache, LogWriter ─ Written, Synced ─► engine ─ Produced ─► session
//!   Fetch ───► engine ─ Read ───► tail cache, or a cold read on a disk thread ───────────────────► session
//! ```
//!
//! Invariants: batches reach the log writer in the order of their offsets; nothing at or beyond the high watermark is
//! read; whoever asked is answered, at its deadline at the latest, or is gone.

mod actor;
mod keeping;
mod messages;
mod reads;
mod tail_cache;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::log_writer::LogWriter;

pub use actor::{PartitionLeader, PartitionLeaderSettings};
pub use keeping::Keeping;
pub use messages::*;
pub use reads::ReadBudget;
pub use tail_cache::{CacheBudget, TailCache};
