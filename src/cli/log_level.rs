//! What the node logs: set up at the start, and changed while it runs.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::error::CliError;
use crate::config::keys::{self, Key};
use crate::config::{LogFormat, LogSection};
use crate::http::LogLevel;

/// What the HTTP library says of its own steps is nothing that a reader of the node's log needs. The consensus library says five times a
/// second that a member is lost, which the link to it says once; what ends Raft is said by the controller.
const QUIETER: &str = "actix_server=warn,actix_http=warn,openraft=off";

/// The log of this process.
pub struct ProcessLog {
    directives: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Starts to log on stderr, as the configuration says.
///
/// # Errors
/// [`CliError::Usage`] for directives that the log does not take.
pub fn start(LogSection { level, format }: &LogSection) -> Result<Arc<dyn LogLevel>, CliError> {
    let filter = filter(level).map_err(|error| CliError::Usage(format!("log.level = {level:?}: {error}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let log = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Ok(Arc::new(ProcessLog { directives: Mutex::new(level.clone()), handle }))
}

/// The filter of `directives`, which are held to what `log.level` takes.
fn filter(directives: &str) -> Result<EnvFilter, String> {
    let key = keys::all().into_iter().find(|key| key.path == "log.level");
    let legal = key.as_ref().map(Key::legal_values).unwrap_or_default();
    if !key.is_some_and(|key| key.allows(directives)) {
        return Err(format!("{directives:?} is not valid: give {legal}"));
    }
    let silent = directives.split(',').any(|directive| ["off", "error", "warn"].contains(&directive));
    let all = if silent { directives.to_owned() } else { format!("{QUIETER},{directives}") };
    EnvFilter::try_new(all).map_err(|error| format!("{directives:?}: {error}; give {legal}"))
}

impl LogLevel for ProcessLog {
    fn get(&self) -> String {
        self.directives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, directives: &str) -> Result<(), String> {
        let filter = filter(directives)?;
        // Held over both steps, so that what is told is what is in force.
        let mut current = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(filter).map_err(|error| format!("the log level could not be changed: {error}"))?;
        directives.clone_into(&mut current);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_held_to_what_the_configuration_takes() {
        assert_eq!(filter("info").expect("legal").to_string(), "actix_server=warn,actix_http=warn,openraft=off,info");
        assert_eq!(filter("off").expect("legal").to_string(), "off");
        let error = filter("inof").expect_err("misspelt");
        assert!(error.starts_with("\"inof\" is not valid: give off, error, warn"), "{error}");
    }
}
