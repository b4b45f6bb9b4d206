//! Raft's storage under power loss, openraft's own suite over it, and small clusters in memory.

mod suite;
mod support;
