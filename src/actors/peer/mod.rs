//! The link to one other node: one connection that is kept, and found again when it breaks.
//!
//! * **Is told**: requests with their deadlines; where the other node is to be found; by its connection, frames and its end.
//! * **Does**: dials, says `PeerHello`, checks who answered, matches replies by correlation id in whatever order they come, fails what
//!   is late or was under way when the connection broke, dials again after a pause that grows.
//! * **Remembers**: who waits for which reply, as data; what it said in the log.
//!
//! ```text
//!            ask                    ┌─────── Dialing ◄──────── pause over, or moved ─────┐
//!   caller ──────► PeerHandle ─ Ask ─►  Peer    │ hello, and it is the right one          │
//!      ▲         (room in flight)   │           ▼                                        │
//!      └── oneshot: Answer, ────────┤       Connected ── lost: PeerEvent, all fail ──► Pausing
//!          or PeerError             └───────────┬─────────────────────────────────────────┘
//!                                               │ one task a connection: reader (byte permits), writer (bounded)
//!                                               ▼
//!                                       PeerSession of the other node
//! ```
//!
//! A node has two links to each other one, control and data, so that a fetch that is parked or a large reply never delays a vote:
//! each on its own socket, and on its own thread. [`PeerLinks`] makes and shares them; [`RaftOverPeers`] is openraft's transport.
//!
//! Invariants: each request has exactly one answer, at its deadline at the latest; a reply that comes later is dropped and the
//! connection stays; nothing is sent before the other end is known to be the one that was looked for; what is under way is bounded
//! in number and bytes; a connection on which nothing was heard for a while is asked, then given up.
//!
//! Reading order: `identity`, [`PeerError`], `messages`, `connection`, `actor`, [`PeerHandle`], [`PeerLinks`], `raft_wire`,
//! [`RaftOverPeers`].

mod actor;
mod announced;
mod backoff;
mod connection;
mod error;
mod handle;
mod identity;
mod links;
mod messages;
mod outstanding;
pub(super) mod raft_wire;
mod reach;
#[cfg(test)]
mod tests;
mod transport;

pub use actor::{Peer, PeerSettings, PeerTimes};
pub use connection::{Dial, Dialing, ReadHalf, TcpDial, WriteHalf};
pub use error::PeerError;
pub use handle::{Answer, MAX_IN_FLIGHT, PeerHandle};
pub use identity::{Expected, Identity, Myself, OwnCluster, PeerAddress, PeerTarget, SOFTWARE};
pub use links::{LinkSettings, PeerLinks};
pub use messages::{PeerChange, PeerEvent, Reach};
pub use raft_wire::MAX_APPEND_BYTES;
pub use reach::reach;
pub use transport::RaftOverPeers;
