//! `callboard node` and `callboard config`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::args::ConfigArgs;
use super::error::CliError;
use super::output;
use super::progress::print_line;
use crate::actors::node::{self, NodeError};
use crate::config::{self, LogFormat, LogSection, NodeConfig};

/// Runs a node until it is stopped.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault, [`CliError::Failed`] when the node cannot start or go on.
pub fn run(args: &ConfigArgs) -> Result<(), CliError> {
    start(load(args)?)
}

/// Prints the configuration in force.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault.
pub fn check_config(args: &ConfigArgs, json: bool) -> Result<(), CliError> {
    let config = load(args)?;
    for warning in config.warnings() {
        print_line(&format!("warning: {warning}"));
    }
    if let Some(file) = &config.topics.file {
        config::topics_file::read(file)?;
    }
    if json {
        let value = serde_json::to_value(&config).map_err(|error| CliError::Failed(error.to_string()))?;
        return output::print_json(&value);
    }
    output::print(config.to_toml().trim_end())
}

fn load(args: &ConfigArgs) -> Result<NodeConfig, CliError> {
    Ok(config::load(args.config.as_deref(), config::environment(), &args.set)?)
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
