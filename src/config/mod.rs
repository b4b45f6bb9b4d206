//! What a node is told: one checked [`NodeConfig`], with every limit and every default in one place.
//!
//! ```text
//!   configs/single.toml (embedded) ─► --config FILE ─► CALLBOARD__SECTION__KEY ─► --set section.key=value
//!                                          │ later wins; unknown keys are errors that name their source
//!                                          ▼
//!                                 NodeConfig ─► checks ─► warnings
//! ```
//!
//! Reading order: [`sections`] (the shape), [`keys`] (what each key takes), [`load`], [`topics_file`]. docs/configuration.md documents the same for operators.

mod check;
pub mod keys;
mod load;
pub mod sections;
pub mod topics_file;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::TopicConfig;

pub use check::FRAME_HEAD_BYTES;
pub use load::{EMBEDDED, Origin, environment, load, load_with_origins};
pub use sections::{
    ClusterSection, ControllerAddress, HttpListener, LimitsSection, Listeners, LogFormat, LogSection,
    LogWriterPlacement, NativeListener, NodeSection, PeerListener, Role, StorageSection, ThreadsSection, TopicsSection,
};

/// Everything that can be set on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Who the node is and where its data lives.
    pub node: NodeSection,
    /// Where clients and other nodes reach it.
    pub listener: Listeners,
    /// Which nodes decide.
    pub cluster: ClusterSection,
    /// How its work is spread over threads.
    pub threads: ThreadsSection,
    /// What clients may use at most.
    pub limits: LimitsSection,
    /// Caches, descriptors and background work of the logs.
    pub storage: StorageSection,
    /// How topics are created.
    pub topics: TopicsSection,
    /// The settings of topics that do not override them.
    pub topic_defaults: TopicConfig,
    /// What the node says about itself.
    pub log: LogSection,
}

/// Why there is no usable configuration. Each is one line that says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {}: {reason}; check the path", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// A source does not have the form of its kind.
    #[error("{origin}: {reason}")]
    Malformed {
        /// The file, environment variable or `--set`.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such key.
    #[error("{}there is no {key}{}", prefix(origin), nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_else(|| "; docs/configuration.md lists every key".to_owned()))]
    UnknownKey {
        /// The file and line or the `--set`; none when `key` says it already.
        origin: Option<String>,
        /// The key or environment variable given.
        key: String,
        /// The known one that looks most like it.
        nearest: Option<String>,
    },
    /// A value that the key does not take.
    #[error("{}{key} = {value} is not valid: give {values}", prefix(origin))]
    InvalidValue {
        /// The file and line, environment variable or `--set`.
        origin: Option<String>,
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What is legal.
        values: String,
    },
    /// Values that are legal each and do not fit each other.
    #[error("{text}")]
    Contradiction {
        /// Both keys, both values, and what to change.
        text: String,
    },
}

fn prefix(origin: &Option<String>) -> String {
    origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default()
}

impl ConfigError {
    fn invalid(origin: Option<String>, key: &keys::Key, value: String) -> Self {
        Self::InvalidValue { origin, key: key.path.clone(), value, values: key.legal_values() }
    }
}
