//! `callboard node` and `callboard config`.

use super::args::ConfigArgs;
use super::error::CliError;
use super::log_level;
use super::output;
use super::progress::print_line;
use crate::actors::node::{self, NodeError};
use crate::config::{self, NodeConfig};

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
    let log = log_level::start(&config.log)?;
    abort_on_panic();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    node::run(config, log).map_err(|error| match error {
        NodeError::Config(error) => CliError::Config(error),
        NodeError::TopicsFile(error) => CliError::TopicsFile(error),
        NodeError::Roles => CliError::Usage(error.to_string()),
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
