//! The only writer of one replica's files.
//!
//! * **Is told**: batches to append, snapshots to store, retention, checkpoints, the end.
//! * **Does**: has whatever its [`LogQueue`] says can be done now done here, or on a disk thread: all appends that wait as
//!   one vectored write; syncs by policy, one at a time, the next one covering all that came meanwhile.
//! * **Remembers**: the queue, with the log and the work not yet done, and which timers run.
//!
//! ```text
//!   Write ──┐                       write: here, or on a disk thread (see `placement`)
//!   Write ──┼─► LogQueue ── Pump ──►                                                     ──► LogEvent ──► leader
//!   Close  ─┘                       everything that may block: the log is lent to a disk thread and comes back
//! ```
//!
//! Invariants are the queue's: see [`crate::storage::queue`].

mod actor;
mod messages;
mod requests;
#[cfg(test)]
mod tests;
mod timers;

#[allow(unused_imports, reason = "named by the module page")]
use crate::storage::queue::LogQueue;

pub use actor::{LogWriter, LogWriterSettings};
pub use messages::*;
