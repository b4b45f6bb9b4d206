//! The cluster's metadata: decides every change of it, writes it down, and tells the brokers.
//!
//! * **Is told**: create, alter and delete topics, hand out producer ids, register brokers.
//! * **Does**: asks [`crate::engine::controller`] which records a request becomes, appends them to the metadata log with
//!   a sync, applies them to the image, publishes both.
//! * **Remembers**: the image, the block of producer ids in hand, who subscribed.
//!
//! ```text
//!   CreateTopics ─► engine::controller ─ records ─► MetadataLog (synced) ─► apply ─► answer, MetadataCommitted ─► Broker
//! ```
//!
//! Invariants: nothing is answered or published before its records are on disk; the image is exactly what the log gives.
//! The actor has a thread of its own, so its syncs delay nobody. With one controller the log is its own quorum; Raft
//! takes its place without changing the records, the image or the decisions.

mod actor;
mod messages;
mod metadata_log;
mod rehearsal;
#[cfg(test)]
mod tests;

pub use actor::Controller;
pub use messages::*;
pub use metadata_log::{MetadataLog, MetadataLogError};
pub use rehearsal::{KnownTopic, KnownTopics, rehearse};
