//! One client of the native protocol: what it may ask, and its answers.
//!
//! * **Is told**: decoded requests by its [`Codec`], answers by partition leaders.
//! * **Does**: checks rights, finds the replica, verifies checksums, gathers the answers of several partitions into one
//!   reply, in whatever order they come.
//! * **Remembers**: requests that are not answered yet, as data.
//!
//! ```text
//!   Codec ─ ClientRequest ─► Session ─ Produce, Fetch, … ─► PartitionLeader
//!     ▲                       │   ▲ └─ CreateTopics, … ───► Controller, then Broker (until it is applied here)
//!     └──────── Reply ────────┘   └─── PartitionAnswer
//! ```
//!
//! Invariants: nothing but `Hello` is answered before `Hello`; each request has exactly one reply (a produce request with
//! acks = 0 none); the replies of fetches in work stay within `limits.write_queue_bytes`.

mod actor;
mod admin;
mod cluster;
mod fetch;
mod gather;
mod hello;
mod node;
mod partitions;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::codec::Codec;

pub use actor::{Session, SessionSettings};
pub use node::NodeFacts;
