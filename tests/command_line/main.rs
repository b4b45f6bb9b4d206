//! The programs as a shell meets them: real processes, real sockets, real files. Whole outputs are compared where people
//! or scripts read them.
#![allow(missing_docs, reason = "tests")]

mod administration;
mod backup;
mod bench;
mod doctor;
mod evaluation;
mod example;
mod files;
mod help;
mod http;
mod load;
mod local_cluster;
mod log;
mod node;
mod packaging;
mod records;
mod support;
mod trimming;
mod without_a_cluster;
