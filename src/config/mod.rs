//! What a node is told: one checked [`NodeConfig`], with every limit and every default in one place.
//!
//! ```text
//!   configs/single.toml (embedded) ─► --config FILE ─► CALLBOARD__SECTION__KEY ─► --set section.key=value
//!                                          │ later wins; unknown keys are errors that name their source
//!                                          ▼
//!                                 NodeConfig ─► checks ─► warnings
//! ```
//!
//! Reading order: [`sections`] (the keys), [`load`]. docs/configuration.md documents the same for operators.

mod check;
pub mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::TopicConfig;

pub use sections::{
    LimitsSection, Listeners, LogFormat, LogSection, LogWriterPlacement, NativeListener, NodeSection, Role,
    StorageSection, ThreadsSection, TopicsSection,
};

/// Everything that can be set on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Who the node is and where its data lives.
    pub node: NodeSection,
    /// Where clients reach it.
    pub listener: Listeners,
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
    #[error("cannot read {}: {reason}", path.display())]
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
}

/// Reads the configuration: the embedded default, then `file`, then `env` (other variables are ignored), then `sets`
/// (`section.key=value`). Later sources win.
///
/// # Errors
/// [`ConfigError`] names the source, the key and what is legal.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<NodeConfig, ConfigError> {
    let mut builder = config::Config::builder();
    if let Some(path) = file {
        builder = builder.add_source(config::File::from(path));
    }
    for (name, value) in env.filter(|(name, _)| name.starts_with("CALLBOARD__")) {
        let key = name["CALLBOARD__".len()..].replace("__", ".").to_lowercase();
        builder = builder.set_override(key, value).map_err(|error| malformed(&name, &error))?;
    }
    for set in sets {
        let (key, value) = set.split_once('=').unwrap_or((set, ""));
        builder = builder.set_override(key, value).map_err(|error| malformed(set, &error))?;
    }
    let origin = file.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
    let merged = builder.build().map_err(|error| malformed(&origin, &error))?;
    merged.try_deserialize().map_err(|error| malformed(&origin, &error))
}

fn malformed(origin: &str, error: &config::ConfigError) -> ConfigError {
    ConfigError::Malformed { origin: origin.to_owned(), reason: error.to_string() }
}
