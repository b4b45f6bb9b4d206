//! The cluster's metadata: decides every change of it, has it agreed on, and tells the brokers.
//!
//! * **Is told**: create, alter and delete topics, hand out producer ids, add and remove controllers; by brokers, that they come, live, stop, and what became of
//!   their replicas; that a broker's connection is lost; where Raft stands.
//! * **Does**: asks [`crate::engine::controller`] which records the requests become, has Raft write them down, answers when they are
//!   applied, gives brokers the entries that they lack; fences who is silent, or gone; asks leaders to hand over.
//! * **Remembers**: whether it is in office, what waits for a decision, who waits for news; in office, leases and the rest of
//!   `Tenure`, and the block of producer ids in hand.
//!
//! ```text
//!   CreateTopics ─► waiting ─► round: engine::controller ─ records ─► Raft (synced, applied) ─► answers
//!        ▲                        one at a time                        openraft's tasks, on the same thread │
//!        │                                                                                                  ▼
//!   AskController ◄── Broker: registers, reports, proposes                            FollowMetadata ─► parked ─► news ─► Broker
//!   a renewal ─► waits for a majority's word ─► lease                                   every 100 ms: silent? ─► fenced
//! ```
//!
//! Invariants: nothing is answered or published before its records are decided and applied; it decides only in office: elected,
//! confirmed by a majority, and with everything applied that was decided before; what it remembers of its office ends with it, and
//! whoever waits then is sent to another; no lease runs on without a confirmation that came after its renewal. The actor has a thread of its
//! own, and so has Raft's disk work: its syncs delay nobody. A sole controller is its own majority.
//!
//! Reading order: `messages`, `deciding`, `rounds`, `actor`, `topics`, `asked`, `office`, `renewals`, `hints`, `following`, `forming`, `membership`.

mod actor;
mod asked;
mod deciding;
mod earlier_log;
mod following;
mod forming;
mod hints;
mod membership;
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
pub use forming::{Invitation, Occasion, Seat, TakeSeat, form, wait_for_invitation};
pub use membership::{ChangeControllers, DescribeControllers};
pub use messages::*;
pub use metadata_files::{MetadataError, MetadataFiles};
pub use partitions::{AddPartitions, ElectLeaders, Reassign};
pub use rehearsal::{KnownTopic, KnownTopics, Rehearsed, rehearse};
pub use settings::ControllerSettings;
pub use starting::{Nobody, Others, Starting, start_here, start_on};
