//! Callboard: a distributed commit log made of actors.
pub mod actors;
pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod fuzz;
pub mod net;
pub mod protocol;
pub mod storage;
pub mod types;
pub mod testing;
