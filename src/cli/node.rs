//! `callboard node`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::args::ConfigArgs;
use super::config;
use super::error::CliError;
use crate::actors::node::{self, NodeError};
use crate::config::{LogFormat, LogSection, NodeConfig};

/// Runs a node until it is stopped.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault, [`CliError::Failed`] when the node cannot start or go on.
pub fn run(args: &ConfigArgs) -> Result<(), CliError> {
    start(config::load(args)?)
}

fn start(config: NodeConfig) -> Result<(), CliError> {
    start_log(&config)?;
    abort_on_panic();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    node::run(config).map_err(|error| match error {
        NodeError::Config(error) => CliError::Config(error),
        NodeError::TopicsFile(error) => CliError::TopicsFile(error),
        NodeError::Roles => CliError::Usage(error.to_string()),
        error => CliError::Failed(error.to_string()),
    })
}

fn start_log(config: &NodeConfig) -> Result<(), CliError> {
    let LogSection { level, format } = &config.log;
    let filter = EnvFilter::try_new(level).map_err(|error| {
        CliError::Usage(format!("log.level = {level:?}: {error}; try \"info\" or \"warn,callboard=debug\""))
    })?;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
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
