//! What the replicas of this node that follow ask of their leaders on other nodes: one for the node, on the thread of its data links.
//!
//! * **Is told**: the fetches of replicas that follow; what came of its requests.
//! * **Does**: puts the fetches of many partitions into one request to the leader that they share, splits and verifies what comes back,
//!   and passes each answer to the replica that waits for it.
//! * **Remembers**: for each leader the fetches that are not sent, those that are not answered, and who is far behind (`lane`); for each
//!   throttled topic what may still be fetched.
//!
//! ```text
//!   PartitionLeader ─ FetchFromLeader ─► lane of the leader ─ newest of each partition, once a turn ─► PeerHandle::ask ─► leader
//!     (follows)    ◄─ LeaderAnswered ─── checksums, room ◄──── answers to fetches of this and earlier requests ◄────────── node
//! ```
//!
//! Up to two requests are under way to a leader: one waits there for news, a second one brings acknowledgements and makes the leader
//! answer the first. A fetch outlives its request: it stays at the leader until it is answered. Therefore a request is under way
//! whenever a fetch is not answered, and when one fails, so do all the fetches that went with it or before it: each follower is told,
//! and asks again, after a pause that all fetches to that leader share.
//!
//! Who catches up does not hold up who is live: of the partitions whose last answer was full, at most `lane::MAX_CATCHING_UP` are asked
//! for at a time, in turn, and without waiting; one of which nothing is known yet asks for little at first. Where the topic has a
//! `catch_up_bytes_per_second` and the replica is not in sync, its fetch waits for its share of that as well (`throttle`), holding no
//! turn, and asks for no more than the share. One that has come to the end of the leader's log waits no longer.
//!
//! Invariants: a fetch that was replaced by a newer one of its partition is not sent; no answer is passed on twice; records with
//! a wrong checksum are passed to nobody; a frame's room is taken until its batches are written.
//!
//! What it costs to be idle: a fetch is renewed every [`MAX_WAIT`], so 1,000 idle partitions make 250 fetches a second. All fetches of a connection
//! end at the same moments at the leader, so they share requests. At about 10 µs a fetch on each node, four messages between actors, two steps
//! of engines and two codings among them, that is 0.25% of a CPU. Measured (`measure_what_idle_partitions_cost`, a debug build, both nodes in one
//! process): 70 ms of CPU in 16 s, 0.2% for each node, in 4 requests with 1,000 fetches each. Renewing each every 500 ms would be eight times that.

mod actor;
mod damage;
mod lane;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
mod throttle;
pub(super) mod wire;

use std::time::Duration;

pub use actor::{ReplicaFetcher, ReplicaFetcherSettings};

/// How long a leader lets requests and fetches wait for news. Far below the 10 s without a fetch after which it takes a follower for one that
/// lags; longer is cheaper, see above.
pub const MAX_WAIT: Duration = Duration::from_secs(4);

/// When a follower asks again that heard nothing: later than the leader lets it wait. It is the last resort: a connection that breaks is noticed,
/// and then the follower is told. A fetch that waits longer for a budget is replaced by the one that is asked then, in its place.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(6);
