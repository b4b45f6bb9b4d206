//! Why a local cluster is not as it was told to be.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::types::NodeId;

/// Why a local cluster, or one of its nodes, is not as it was told to be.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Something of the operating system.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        cause: io::Error,
    },
    /// A node ended while it started.
    #[error("{name} ended before it was ready ({status}); its last lines: {}", shown(last_lines))]
    Ended {
        /// The node.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        last_lines: Vec<String>,
    },
    /// A node takes too long to start.
    #[error("{name} was not ready within {} s; its last lines: {}", after.as_secs(), shown(last_lines))]
    NotReady {
        /// The node.
        name: String,
        /// How long it was waited for.
        after: Duration,
        /// What it said.
        last_lines: Vec<String>,
    },
    /// There is no such node.
    #[error("the cluster has no node {0}")]
    NoSuchNode(NodeId),
    /// A node that should run does not.
    #[error("{0} does not run: start it first")]
    NotRunning(String),
    /// A node that should not run does.
    #[error("{0} runs already: stop it first")]
    Running(String),
    /// A killed process is still there.
    #[error("{0} was killed and is still there: its disk may be stuck")]
    Stuck(String),
}

impl From<ClusterError> for CliError {
    fn from(error: ClusterError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn shown(lines: &[String]) -> String {
    if lines.is_empty() { "none".to_owned() } else { lines.join(" | ") }
}
