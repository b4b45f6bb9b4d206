//! The replicas of one broker: follows the metadata, and starts, configures and ends them accordingly.
//!
//! * **Is told**: its registration and lease; what the controller committed; what its replicas have to report; to stop.
//! * **Does**: opens and creates logs on disk threads, starts a [`PartitionLeader`] for each on one of the core threads, tells each
//!   whether it leads or follows, deletes what was deleted, watches the free space, ticks retention.
//! * **Remembers**: its replicas, and metadata that it has not worked off yet.
//!
//! ```text
//!   MetadataCommitted ─► what differs ─► open, configure, delete (disk threads) ─► BrokerView ─► sessions
//!                                                                      └──► AwaitMetadata is answered
//! ```
//!
//! Invariants: one image is worked off at a time, by what differs from the one before, and those that come meanwhile by the newest of
//! them: a view with index N is published only when every replica that N calls for is open or known to be offline. Files are deleted only on a tombstone; what nobody knows is
//! put aside, never removed.

mod actor;
mod health;
mod housekeeping;
mod messages;
mod opening;
mod parts;
#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "named by the module page")]
use super::partition_leader::PartitionLeader;

pub use actor::{Broker, BrokerSettings};
pub use messages::{
    AwaitMetadata, BrokerHealth, BrokerView, ExamineReplicas, LeaseRenewed, Registered, Replica, StopReplicas,
};
