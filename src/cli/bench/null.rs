//! `callboard bench null`: the node's own sockets, codecs, sessions and partition leaders, on a log that nothing is written
//! to. What it acknowledges was parsed and its checksum verified; only the newest records are kept, in memory, for a
//! consumer that keeps up.

use std::path::PathBuf;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::args::NullBench;
use crate::actors::node::RunningNode;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::stop::Stop;
use crate::config::NodeConfig;

/// A directory that goes away with the server: topics have empty logs in it, and the metadata.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the temporary directory's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// When it cannot start.
pub fn run(args: &NullBench) -> Result<(), CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("the null server: {error}"));
    if args.with_parent {
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| failed(&error))?;
    }
    let scratch = Scratch(std::env::temp_dir().join(format!("callboard-null-{}", uuid::Uuid::new_v4().as_simple())));
    let mut config = NodeConfig::default();
    config.node.data_dir.clone_from(&scratch.0);
    config.listener.native.bind.clone_from(&args.listen);
    config.listener.http.bind = None;
    config.storage.min_free_bytes = 0;
    config.threads.core = args.core_threads;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let stop = Stop::on_signals()?;
        let start = tokio::task::spawn_blocking(move || RunningNode::start_null(config));
        let node = start.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let native = node.ready().native.map(|native| native.to_string()).unwrap_or_default();
        output::print(&format!("ready: native protocol at {native}, nothing is stored"))?;
        node.run_until(stop.wait()).await.map_err(|error| failed(&error))
    })
}
