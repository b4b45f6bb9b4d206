//! One other node that has connected: what it may ask, and its answers.
//!
//! * **Is told**: decoded requests by its codec; that the node stops.
//! * **Does**: checks in the hello that both ends look for each other, answers pings, hands every other request to whoever serves it.
//! * **Remembers**: who is at the other end.
//!
//! ```text
//!   Listener ─► PeerServer ─ reads the hello, chooses the thread: control or data
//!                   │
//!                   ▼
//!   socket ◄─► Codec<BetweenNodes> ─ PeerIncoming ─► PeerSession ─ PeerCall ─► RaftDoor ─► Raft
//!                   ▲                                                  │
//!                   └──────────────── Reply ◄──── AnswerTo ◄───────────┘      whoever holds it answers, in any order
//! ```
//!
//! Invariants: nothing but `PeerHello` is answered before it; whoever is of another cluster, looks for another node or
//! directory, speaks another version or is a client is told so and the connection ends; each request has exactly one answer, also
//! when its service ends; Raft's messages are passed on only while both ends are known to be of one cluster.
//!
//! A kind of request that is added: a number in [`PeerApi`](crate::protocol::PeerApi), its messages beside the others, its name
//! in `dialect`, a recipient in [`PeerServices`], an arm in the session's `route`.

mod actor;
mod dialect;
mod door;
mod messages;
mod raft_door;
mod server;
#[cfg(test)]
mod tests;

pub use actor::{PeerSession, PeerSessionSettings};
pub use dialect::{BetweenNodes, PeerReplyBody, PeerRequestBody};
pub use door::{Door, OpenDoor};
pub use messages::{
    AnswerTo, ConnectionService, PeerCall, PeerContext, PeerGone, PeerIncoming, PeerServices, StartService,
};
pub use raft_door::{OpenRaftDoor, RaftDoor};
pub use server::{ChooseThread, PeerServer};
