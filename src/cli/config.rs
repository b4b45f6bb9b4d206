//! `callboard config`.

use serde_json::{Value, json};

use super::args::{ConfigArgs, ConfigCommand};
use super::error::CliError;
use super::output;
use super::progress::print_line;
use crate::config::{self, NodeConfig, Origin, keys};

/// Carries out one command.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault.
pub fn run(command: &ConfigCommand, json: bool) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check(args) => check(args, json),
        ConfigCommand::Show(args) => show(args, json),
    }
}

/// Reads the configuration that these arguments name.
///
/// # Errors
/// [`CliError::Config`] for a configuration at fault.
pub fn load(args: &ConfigArgs) -> Result<NodeConfig, CliError> {
    Ok(config::load(args.config.as_deref(), config::environment(), &args.set)?)
}

/// Prints the configuration in force.
fn check(args: &ConfigArgs, json: bool) -> Result<(), CliError> {
    let config = load(args)?;
    for warning in config.warnings() {
        print_line(&format!("warning: {warning}"));
    }
    if let Some(file) = &config.topics.file {
        config::topics_file::read(file)?;
    }
    if json {
        return output::print_json(&as_json(&config)?);
    }
    output::print(config.to_toml().trim_end())
}

/// Prints every key, its value, and where it comes from.
fn show(args: &ConfigArgs, json: bool) -> Result<(), CliError> {
    let (config, origins) = config::load_with_origins(args.config.as_deref(), config::environment(), &args.set)?;
    let values = as_json(&config)?;
    let entries = keys::all().into_iter().map(|key| {
        let value = values.pointer(&format!("/{}", key.path.replace('.', "/"))).cloned().unwrap_or(Value::Null);
        let origin = origins.get(&key.path).cloned().unwrap_or(Origin::BuiltIn);
        (key.path, value, origin)
    });
    if json {
        let entries = entries.map(|(key, value, origin)| {
            let place = (origin != Origin::BuiltIn).then(|| origin.to_string());
            json!({"key": key, "value": value, "source": source(&origin), "origin": place})
        });
        return output::print_json(&entries.collect());
    }
    let rows = entries.map(|(key, value, origin)| {
        let from = if origin == Origin::BuiltIn { "default".to_owned() } else { origin.to_string() };
        vec![key, text(&value), from]
    });
    output::print(&output::table(&["KEY", "VALUE", "FROM"], rows))
}

fn as_json(config: &NodeConfig) -> Result<Value, CliError> {
    serde_json::to_value(config).map_err(|error| CliError::Failed(error.to_string()))
}

/// The kind of source, for programs.
fn source(origin: &Origin) -> &'static str {
    match origin {
        Origin::BuiltIn => "default",
        Origin::File(..) => "file",
        Origin::Environment(_) => "environment",
        Origin::Set(_) => "set",
    }
}

/// A value as it would be given in the environment.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "(unset)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
