//! Servers that a bench starts beside itself: a null server, or a node of its own. Each is a process, as a real one would be.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cli::error::CliError;

/// How long a server may take to close its files.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A server in a process of its own, which ends with this.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
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
        let own = [format!("node.data_dir={}", data_dir.display()), "listener.native.bind=127.0.0.1:0".to_owned()];
        let mut arguments = vec!["node".to_owned()];
        for setting in own.iter().chain(set) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        Self::start(&arguments).await
    }

    async fn start(arguments: &[String]) -> Result<Self, CliError> {
        let failed = |error| CliError::Failed(format!("cannot start callboard {}: {error}", arguments.join(" ")));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C is for the bench, which ends its servers once it has told what it knows.
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        if std::env::var_os("CALLBOARD__LOG__LEVEL").is_none() {
            command.env("CALLBOARD__LOG__LEVEL", "warn");
        }
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let mut server = Self { child, address: String::new() };
        let ready = tokio::task::spawn_blocking(move || {
            let lines = stdout.map(|stdout| BufReader::new(stdout).lines());
            lines.into_iter().flatten().map_while(Result::ok).find_map(|line| address_in(&line))
        });
        let ended = || CliError::Failed(format!("callboard {} ended before it was ready", arguments.join(" ")));
        server.address = ready.await.ok().flatten().ok_or_else(ended)?;
        Ok(server)
    }

    /// Ends it, and waits until its files are at rest.
    pub async fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.map(|pid| kill_process(pid, Signal::TERM));
        let deadline = Instant::now() + PATIENCE;
        while matches!(told, Some(Ok(()))) && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that has ended is none any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the line that says that a server is ready.
fn address_in(line: &str) -> Option<String> {
    Some(line.strip_prefix("ready: native protocol at ")?.split_once(',')?.0.to_owned())
}
