//! Raft's storage under power loss, openraft's own suite over it, and small clusters in memory.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod beginning;
mod cluster;
mod damage;
mod machine;
mod network;
mod peers;
mod power_loss;
mod seeded;
mod suite;
mod support;
