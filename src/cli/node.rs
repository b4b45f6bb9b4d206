//! `callboard node`.

use std::io;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::args::NodeArgs;
use super::config;
use super::error::CliError;
use super::log_level;
use crate::actors::node::{self, NodeError};
use crate::config::NodeConfig;

/// How long a node whose parent is gone may take to stop: one that waits for other nodes to start would wait for ever.
const ALONE: Duration = Duration::from_secs(30);

/// Runs a node until it is stopped.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault, [`CliError::Failed`] when the node cannot start or go on.
pub fn run(args: &NodeArgs) -> Result<(), CliError> {
    let config = config::load(&args.config)?;
    if args.stop_with_parent {
        stop_with_parent()?;
    }
    start(config)
}

/// Stops this node when standard input ends. A signal on the parent's death would come when the parent's thread ends, and
/// never for a parent that has gone before it was asked for.
fn stop_with_parent() -> Result<(), CliError> {
    let watch = || {
        // Nobody writes; whatever comes of reading, the parent is no longer there.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::info!("stopping: the program that started this node has ended");
        let _ = kill_process(getpid(), Signal::TERM);
        let (_open, never) = sync_channel::<()>(1);
        let _ = never.recv_timeout(ALONE);
        tracing::error!("not stopped within {} s: the process ends at once", ALONE.as_secs());
        let _ = kill_process(getpid(), Signal::TERM);
    };
    let thread = std::thread::Builder::new().name("parent".to_owned()).spawn(watch);
    thread.map(drop).map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))
}

fn start(config: NodeConfig) -> Result<(), CliError> {
    let log = log_level::start(&config.log)?;
    abort_on_panic();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    node::run(config, log).map_err(|error| match error {
        NodeError::Config(error) => CliError::Config(error),
        NodeError::TopicsFile(error) => CliError::TopicsFile(error),
        error => CliError::Failed(error.to_string()),
    })
}

/// An actor that panicked may have left its state half changed, and nobody would restart it: recovering from disk is the
/// path that is tested.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
