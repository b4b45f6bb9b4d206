//! What the first node promises, told over real sockets and real files. One binary, so that there is one link.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "stories wait for real sockets and real files")]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod cluster;
mod controllers;
mod crash;
mod delete_records;
mod describe_node;
mod doctor_cluster;
mod doctor_running;
mod doctor_stopped;
mod durability;
mod identity;
mod limits;
mod metrics;
mod nearby;
mod newer_formats;
mod old_data_directory;
mod produce_consume;
mod retention;
mod scrub;
mod topics;
