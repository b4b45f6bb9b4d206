//! `callboard node`.

use super::args::ConfigArgs;
use super::config;
use super::error::CliError;
use super::log_level;
use crate::actors::node::{self, NodeError};
use crate::config::NodeConfig;

/// Runs a node until it is stopped.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault, [`CliError::Failed`] when the node cannot start or go on.
pub fn run(args: &ConfigArgs) -> Result<(), CliError> {
    start(config::load(args)?)
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
