//! What answers the fetches of followers on another node: one for each data connection of it, on the thread of the connection's session.
//!
//! * **Is told**: `FetchReplicas` by the session; answers of partitions; that the connection is gone.
//! * **Does**: hands each fetch to the replica that is to lead here, gathers what is answered within a turn of the event loop, and
//!   sends it with the request that waits.
//! * **Remembers**: the newest fetch of each partition, asked or answered (`serving`); the request that waits.
//!
//! ```text
//!   PeerSession ─ PeerCall ─► fetches ─ FetchForFollower ─► PartitionLeader   (each parks there until there is news, or its deadline)
//!        ▲                                                        │
//!        └── AnswerTo ◄── the request that waits ◄── ready ◄──────┘ PartitionAnswer
//! ```
//!
//! A request is answered as soon as there is an answer to any fetch of the connection, at its deadline, and at once when the next one comes:
//! so an acknowledgement never waits behind a fetch that does, and one request waits at most.
//!
//! Invariants: each request has exactly one answer; a newer fetch of a partition takes the place of an older one, asked or answered, so that
//! what is ready and not sent is bounded by what the follower's node asked for, and its memory by the budgets of tail caches and cold
//! reads; what one connection does not take holds up no other one.
//!
//! Fetches that are parked when the connection ends stay with their partition until the follower's next fetch, or their deadline, takes
//! them out; their answers find nobody.

mod actor;
mod serving;

#[allow(unused_imports, reason = "named by the module page")]
use super::partition_leader::PartitionLeader;

pub use actor::{ReplicaServer, ReplicaServerSettings};
