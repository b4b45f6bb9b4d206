//! How a command fails: one line, and an exit code for scripts.

use std::io;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::config::topics_file::TopicsFileError;
use crate::protocol::ApiError;

/// Why a command ended without doing all it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// What was typed cannot be carried out as it stands.
    #[error("{0}")]
    Usage(String),
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A topics file is at fault.
    #[error(transparent)]
    TopicsFile(#[from] TopicsFileError),
    /// The client library gave up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cluster refused one item.
    #[error("{what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// The refusal.
        error: ApiError,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {reason}; check the path, the rights and the free space")]
    Output {
        /// The file, or `standard output`.
        path: String,
        /// What the operating system says.
        reason: String,
    },
    /// The reader of stdout went away. Not a failure: `| head` has seen enough.
    #[error("standard output was closed")]
    OutputClosed,
}

impl CliError {
    /// What the process returns.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage(_) | Self::Config(_) | Self::TopicsFile(_) => 2,
            Self::Client(ClientError::InvalidConfig { .. }) => 2,
            Self::Client(ClientError::Unreachable { .. }) => 3,
            Self::Failed(_) | Self::Client(_) | Self::Refused { .. } | Self::Output { .. } => 1,
        }
    }

    /// A failed write to `path`.
    #[must_use]
    pub fn writing(path: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Output { path: path.to_owned(), reason: error.to_string() }
        }
    }
}
