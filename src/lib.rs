//! Callboard: a distributed commit log made of actors.
pub mod config;
pub mod engine;
pub mod protocol;
pub mod storage;
pub mod types;
