//! Servers that a bench starts beside itself: a null server, or a node of its own. Each is a process, as a real one would be.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::error::CliError;
use crate::cli::local_cluster::child_process::ChildProcess;
use crate::cli::progress::print_line;

/// How long a server may take to open or close its files.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own, which ends with this.
#[derive(Debug)]
pub struct ServerProcess {
    process: ChildProcess,
    /// Where it listens.
    pub address: String,
}

impl ServerProcess {
    /// `callboard bench null` on a free port.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn null() -> Result<Self, CliError> {
        Self::start(&["bench", "null", "--listen", "127.0.0.1:0", "--with-parent"].map(str::to_owned)).await
    }

    /// `callboard node` on a free port, with its data in `data_dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn node(data_dir: &Path, set: &[String]) -> Result<Self, CliError> {
        let (native, http) = ("listener.native.bind=127.0.0.1:0".to_owned(), "listener.http.bind=".to_owned());
        let own = [format!("node.data_dir={}", data_dir.display()), native, http];
        let mut arguments = ["node", "--stop-with-parent"].map(str::to_owned).to_vec();
        for setting in own.iter().chain(set) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        Self::start(&arguments).await
    }

    async fn start(arguments: &[String]) -> Result<Self, CliError> {
        let failed = |error| CliError::Failed(format!("cannot start callboard {}: {error}", arguments.join(" ")));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(arguments);
        if std::env::var_os("CALLBOARD__LOG__LEVEL").is_none() {
            command.env("CALLBOARD__LOG__LEVEL", "warn");
        }
        let complaints = |line: &str| {
            if address_in(line).is_none() {
                print_line(line);
            }
        };
        let process = ChildProcess::spawn(command, Arc::new(complaints)).map_err(failed)?;
        let address = process.ready(PATIENCE).await.ok().and_then(|line| address_in(&line));
        let ended = || CliError::Failed(format!("callboard {} ended before it was ready", arguments.join(" ")));
        Ok(Self { address: address.ok_or_else(ended)?, process })
    }

    /// Ends it, and waits until its files are at rest.
    pub async fn stop(self) {
        self.process.signal(Signal::TERM);
        // One that takes longer is killed now: its directory goes away with it.
        let _ = self.process.ended(PATIENCE).await;
    }
}

/// The address in the line that says that a server is ready.
fn address_in(line: &str) -> Option<String> {
    Some(line.strip_prefix("ready: native protocol at ")?.split_once(',')?.0.to_owned())
}
