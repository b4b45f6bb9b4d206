//! What the actors decide: plain state machines without actix, async, clocks, randomness or I/O.
//!
//! ```text
//!   message ──► actor ──event, now──► engine ──Output──► actor carries out the commands
//!                                       │
//!                 leader      one partition's leader: what is appended, what is committed, who waits
//!                 follower    one partition's follower: what it asks for, what it cuts, what may be read from it
//!                 metadata    the cluster's image, its records, and `apply`
//!                 controller  which records a request, a lease or a loss becomes
//!                 broker      how a broker registers, holds its lease, tells of its replicas, and stops
//!                 scrub_rounds  when a broker looks through which replica for damage
//!                 catch_up_budget  how fast a broker fetches for replicas of a topic that are not in sync
//! ```
//!
//! Reading order: [`cursors`], [`waiters`], [`producer_state`], [`damage`], [`replication`], [`leader`], [`follower`]; then [`metadata`], [`placement`], [`controller`], [`broker`], [`scrub_rounds`], [`catch_up_budget`].

pub mod assignment;
pub mod broker;
pub mod catch_up_budget;
pub mod controller;
pub mod cursors;
pub mod damage;
pub mod follower;
pub mod leader;
pub mod metadata;
pub mod placement;
pub mod producer_state;
pub mod replication;
pub mod scrub_rounds;
pub mod waiters;
