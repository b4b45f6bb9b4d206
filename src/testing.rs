//! A node inside the process, for tests, examples and documentation: it has a data directory and a port of its own, and
//! both are gone when it is dropped.
//!
//! ```text
//!   test ─► testing::Node ─► actors::node::RunningNode ─► threads, a port, a directory
//! ```
//!
//! ```
//! let node = callboard::testing::Node::start()?;
//! println!("clients connect to {}", node.address());
//! # Ok::<(), callboard::actors::node::NodeError>(())
//! ```

use std::path::{Path, PathBuf};

use crate::actors::node::{NodeError, RunningNode};
use crate::config::NodeConfig;

/// A running node.
#[derive(Debug)]
pub struct Node {
    running: Option<RunningNode>,
    data_dir: PathBuf,
    keep: bool,
}

impl Node {
    /// Starts a node with the default config, a new data directory and a free port.
    ///
    /// # Errors
    /// [`NodeError`] says what stands against it.
    pub fn start() -> Result<Self, NodeError> {
        Self::start_with(|_| {})
    }

    /// Like [`Node::start`], with changes to the config.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Result<Self, NodeError> {
        let data_dir = std::env::temp_dir().join(format!("callboard-{}", uuid::Uuid::new_v4().as_simple()));
        Self::launch(data_dir, false, change)
    }

    /// Starts a node on a data directory that outlives it.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_in(data_dir: &Path, change: impl FnOnce(&mut NodeConfig)) -> Result<Self, NodeError> {
        Self::launch(data_dir.to_owned(), true, change)
    }

    fn launch(data_dir: PathBuf, keep: bool, change: impl FnOnce(&mut NodeConfig)) -> Result<Self, NodeError> {
        let mut config = NodeConfig::default();
        config.node.data_dir.clone_from(&data_dir);
        config.listener.native.bind = "127.0.0.1:0".to_owned();
        config.listener.http.bind = None;
        config.storage.min_free_bytes = 0;
        change(&mut config);
        Ok(Self { running: Some(RunningNode::start(config)?), data_dir, keep })
    }

    /// Where clients connect: `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.running.as_ref().and_then(|node| node.ready().native).map(|native| native.to_string()).unwrap_or_default()
    }

    /// Where metrics and probes are, if the change of the config asked for them: `host:port`.
    #[must_use]
    pub fn http_address(&self) -> Option<String> {
        self.running.as_ref()?.ready().http.map(|http| http.to_string())
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the node and waits until it has.
    ///
    /// # Errors
    /// [`NodeError`] when it did not stop cleanly.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.running.take().map_or(Ok(()), RunningNode::stop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(node) = self.running.take() {
            // Nobody is left to tell; a test that cares calls `stop`.
            let _ = node.stop();
        }
        if !self.keep {
            // A directory that cannot be removed is the temporary directory's to clean up.
            let _ = std::fs::remove_dir_all(&self.data_dir);
        }
    }
}
