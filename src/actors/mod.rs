//! The actors: shells around the engines and the logs, and the node that wires them.
//!
//! ```text
//!   clients ─► Codec ─► Session ─► PartitionLeader ─► LogWriter ─► segments
//!                          │              ▲
//!                          │            Broker   (starts and ends the replicas)
//!                          │              │ asks, follows the metadata
//!                          │              ▼
//!                          └───────► Controllers ─► Controller ─► Raft
//!                                         └───────► Peer ─► the controller of another node
//!
//!   other nodes ─► Codec ─► PeerSession ─► Controller, Raft
//!   other nodes ◄─ Peer ◄──────────────── Raft
//!
//!   PartitionLeader (follows) ─► ReplicaFetcher ─► Peer ══► PeerSession ─► ReplicaServer ─► PartitionLeader (leads)
//! ```
//!
//! One folder an actor: `mod.rs` says what it is told, does and remembers; `messages.rs` what it receives; `actor.rs` how
//! it handles it. Reading order: [`node`], [`session`], [`partition_leader`], [`log_writer`], [`broker`], [`controllers`], [`controller`];
//! between nodes [`peer`], [`peer_session`], [`replica_fetcher`], [`replica_server`].

pub mod broker;
pub mod codec;
pub mod controller;
pub mod controllers;
pub mod log_writer;
pub mod machine;
pub mod node;
pub mod partition_leader;
pub mod peer;
pub mod peer_session;
pub mod replica_fetcher;
pub mod replica_server;
pub mod send;
pub mod session;
pub mod spans;
#[cfg(test)]
mod test_support;
pub mod threads;
