//! The replicas of one broker: registers with the controllers, follows their metadata, and starts, configures and ends the replicas.
//!
//! * **Is told**: what controllers answer and have decided; what its replicas have to report; to stop.
//! * **Does**: what [`BrokerEngine`] wants done: asks controllers, keeps its epoch, opens and creates logs on disk threads, starts a
//!   [`PartitionLeader`] for each on one of the core threads, tells each whether it leads or follows, and until when it may answer;
//!   deletes what was deleted, watches the free space, ticks retention.
//! * **Remembers**: the engine, its replicas, and metadata that it has not worked off yet.
//!
//! ```text
//!   Controllers::follow ─► what differs ─► the engine, parts, deletions ─► Open ─► disk threads ─► BrokerView ─► sessions
//!                                                                                     └──► AwaitMetadata is answered
//!   Controllers::ask ◄─ requests ─ engine ◄─ answers, what became of replicas, proposals, time
//! ```
//!
//! Invariants: one image is worked off at a time, by what differs from the one before, and those that come meanwhile by the newest of
//! them: a view with index N is published only when every replica that N calls for is open or known to be offline. No replica has a part
//! before the metadata knows this registration. Files are deleted only on a tombstone; what nobody knows is put aside, never removed.
//!
//! Reading order: `actor` (following the metadata), `engine`, `opening`, `parts`, `stopping`, `housekeeping`, `health`.

mod actor;
mod engine;
mod health;
mod housekeeping;
mod messages;
mod opening;
mod parts;
mod stopping;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::partition_leader::PartitionLeader;
#[allow(unused_imports, reason = "named by the module page")]
use crate::engine::broker::BrokerEngine;

pub use actor::{Broker, BrokerSettings};
pub use messages::{
    AwaitCountedOn, AwaitEnd, AwaitMetadata, BrokerHealth, BrokerView, ExamineReplicas, Replica, StopBroker,
};
