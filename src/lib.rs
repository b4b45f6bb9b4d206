//! Callboard: a distributed commit log made of actors.
//!
//! Producers append records to topics, topics are split into partitions, partitions are kept on disk, consumers read them in
//! order and at their own pace. This page is the map of the crate; ARCHITECTURE.md tells the life of a record.
//!
//! ```text
//!   client: Producer, Consumer, Admin ◄── cli ◄── bin
//!      │ ▲  frames of the protocol, over TCP
//!      ▼ │
//!   net: Listener, Reader, Writer
//!      │ ▲
//!      ▼ │                                            decides:
//!   actors: Codec ── Session ─┬─► PartitionLeader ──── engine::leader
//!                             │     │    ▲
//!                             │     ▼    │ started by
//!                             │  LogWriter  Broker ◄─┐
//!                             │     │                │ the image
//!                             └─────┼──────► Controller ─ engine::controller, engine::metadata
//!                                   ▼                ▼
//!   storage:                       Log              raft: openraft over a Log
//! ```
//!
//! **Data flow.** A frame becomes a typed request in the codec; the session checks who asks and what was sent; the partition's
//! leader asks its engine, which assigns offsets; the log writer turns all that waits into one write and one sync; the high
//! watermark moves, and what waits for it is answered. Batches ([`types::record_batch`]) are passed along as the producer encoded
//! them, from its buffer to the disk and to consumers.
//!
//! **Who may import whom**: `bin → cli, client, actors → {raft, replica} → {engine, net, storage} → protocol → types`. tests/layout.rs
//! checks it.
//!
//! **Reading order**
//! 1. [`types`]: the vocabulary, and the record batch.
//! 2. [`protocol`]: what can be asked, and what can go wrong.
//! 3. [`engine`]: what is decided; start with [`engine::leader`].
//! 4. [`storage`]: what is kept; start with [`storage::disk`], whose virtual twin loses power on command.
//! 5. [`replica`]: one replica of a partition, between its engine and its log; [`raft`]: how several controllers agree.
//! 6. [`net`] and [`actors`]: who talks to whom; [`actors::node`] wires it.
//! 7. [`client`]: the other side of the wire. Start here to write a program: examples/ride_driver.rs is a whole one.
//! 8. [`metrics`] and [`http`]: what a node tells those who watch over it.
//! 9. [`config`] and [`cli`]: how a person gets at all of this. [`testing`] runs a node inside a test.

pub mod actors;
pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod fuzz;
pub mod http;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod raft;
pub mod replica;
pub mod storage;
pub mod testing;
pub mod types;
