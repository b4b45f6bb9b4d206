//! Raft's storage under power loss, openraft's own suite over it, and small clusters in memory.
#![allow(missing_docs, reason = "tests")]

mod damage;
mod power_loss;
mod suite;
mod support;
