//! The cluster's metadata: decides every change of it, has it agreed on, and tells the brokers.
//!
//! * **Is told**: create, alter and delete topics, hand out producer ids, register brokers; where Raft stands.
//! * **Does**: asks [`crate::engine::controller`] which records the requests become, has Raft write them down, answers when they are
//!   applied, publishes the image.
//! * **Remembers**: whether it is in office, what waits for a decision, the block of producer ids in hand, who subscribed.
//!
//! ```text
//!   CreateTopics ─► waiting ─► round: engine::controller ─ records ─► Raft (synced, applied) ─► answers, MetadataCommitted ─► Broker
//!                                 one at a time                        openraft's tasks, on the same thread
//! ```
//!
//! Invariants: nothing is answered or published before its records are decided and applied; it decides only in office: elected,
//! confirmed by a majority, and with everything applied that was decided before. The actor has a thread of its own, and so has
//! Raft's disk work: its syncs delay nobody. A sole controller is its own majority.

mod actor;
mod asked;
mod brokers;
mod deciding;
mod earlier_log;
mod following;
mod forming;
mod hints;
mod messages;
mod metadata_files;
mod office;
mod partitions;
mod peers;
mod rehearsal;
mod renewals;
mod rounds;
mod settings;
mod starting;
#[cfg(test)]
mod tests;
mod topics;

pub use actor::Controller;
pub use earlier_log::MetadataLogError;
pub use forming::{Invitation, Seat, TakeSeat, form, wait_for_invitation};
pub use messages::*;
pub use metadata_files::{MetadataError, MetadataFiles};
pub use partitions::{AddPartitions, Reassign};
pub use rehearsal::{KnownTopic, KnownTopics, rehearse};
pub use settings::ControllerSettings;
pub use starting::{Nobody, Starting, start_here, start_on};
