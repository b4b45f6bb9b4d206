//! The programs as a shell meets them: real processes, real sockets, real files. Whole outputs are compared where people
//! or scripts read them.
#![allow(missing_docs, reason = "tests")]

mod administration;
mod doctor;
mod example;
mod files;
mod load;
mod log;
mod node;
mod records;
mod support;
mod without_a_cluster;
