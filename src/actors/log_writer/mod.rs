//! The only writer of one replica's files.
//!
//! * **Is told**: batches to append, snapshots to store, retention, checkpoints, the end.
//! * **Does**: turns all appends that are waiting into one vectored write; syncs by policy, one sync at a time, the next
//!   one covering all that came meanwhile.
//! * **Remembers**: the log, the work not yet done, whether a sync is under way.
//!
//! ```text
//!   Append ─┐                       write: here, or on a disk thread (see `placement`)
//!   Append ─┼─► work queue ─ Pump ─►                                                     ──► LogEvent ──► leader
//!   Close  ─┘                       everything that may block: the log is lent to a disk thread and comes back
//! ```
//!
//! Invariants: work is done in the order of its arrival; while the log is lent, work waits; at most one sync is in
//! flight; after a failed write or sync nothing is appended any more.

mod actor;
mod beside;
mod messages;
mod requests;
#[cfg(test)]
mod tests;
mod timers;

pub use actor::{LogWriter, LogWriterSettings};
pub use messages::*;
