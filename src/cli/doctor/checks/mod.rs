//! The checks: plain functions from what was seen to findings. They ask nobody, so that each situation is a value in a
//! test, and a cluster is these functions once for each node.

pub mod clock;
pub mod cluster;
pub mod config;
pub mod directory;
pub mod partition;
pub mod reach;
pub mod replicas;
pub mod resources;
pub mod topics;
