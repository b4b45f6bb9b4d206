//! The broker of a node: what it is to the controllers, and its replicas.
//!
//! * **Is told**: to stop; by controllers, answers and the metadata; what its replicas have to report; by disk threads, what they have
//!   opened, deleted and seen.
//! * **Does**: runs the [`BrokerEngine`](crate::engine::broker::BrokerEngine), which registers, renews the lease, reports and proposes;
//!   opens and creates logs on disk threads, starts a [`PartitionLeader`] for each on one of the core threads, tells each whether it leads
//!   or follows, deletes what was deleted, watches the free space, ticks retention, has each looked through for damage by and by.
//! * **Remembers**: the engine, its replicas and what each was told, and metadata that it has not worked off yet.
//!
//! ```text
//!   Controllers ◄─ Ask ─────────── engine ─ Open, SetLease, HandOver, Close, … ─► replicas, disk threads
//!        │                          ▲  ▲                                               │
//!        ├─ ControllerAnswered ─────┘  └──── opened, lost, proposals, damage, closed ◄─┘
//!        └─ MetadataArrived ─► engine, topics here, parts ─► BrokerView ─► sessions
//!                                                   └──► AwaitMetadata is answered
//! ```
//!
//! Invariants: the newest metadata is worked off as a whole, by what differs from the image before, and waits a moment for replicas that
//! are being opened: whoever waits for index N is answered when every replica that N calls for is open or known to be offline. Nothing
//! leads or follows before the registration is on disk and in the metadata here. Files are deleted only on a tombstone; what nobody
//! knows is put aside, never removed.
//!
//! Reading order: `actor`, `commands`, `following`, `opening`, `parts`, `housekeeping`, `scrubbing`, `stopping`.

mod actor;
mod commands;
mod following;
mod health;
mod housekeeping;
mod messages;
mod opening;
mod parts;
mod scrubbing;
mod stopping;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::partition_leader::PartitionLeader;

pub use actor::{Broker, BrokerSettings};
pub use messages::{AwaitMetadata, BrokerHealth, BrokerView, ExamineReplicas, Replica, StopBroker};
