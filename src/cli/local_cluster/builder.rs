//! What a cluster is to be, and its beginning.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{self, Detour, NodePlan, Shape};
use super::ports::Ports;
use super::{ClusterError, LocalCluster, LogFile, Node, OnNodeLine};

/// How long a node may take until it is ready, if nothing else is said: an election, and the recovery of a log of a few seconds.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What a cluster is to be. [`Builder::start`] makes it.
pub struct Builder {
    directory: PathBuf,
    shape: Shape,
    ports: Ports,
    settings: Vec<String>,
    program: Option<PathBuf>,
    on_line: Option<OnNodeLine>,
    patience: Duration,
    detour: Option<ToDetour>,
}

/// Puts something before the ports of a node.
type ToDetour = Box<dyn Fn(&NodePlan) -> io::Result<Detour> + Send>;

impl Builder {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            shape: Shape::Apart { controllers: 3, brokers: 4 },
            ports: Ports::Free,
            settings: Vec::new(),
            program: None,
            on_line: None,
            patience: START_PATIENCE,
            detour: None,
        }
    }

    /// So many controllers (1, 2, …) and so many brokers (11, 12, …), apart from each other. Without this there are 3 and 4.
    #[must_use]
    pub fn apart(mut self, controllers: u16, brokers: u16) -> Self {
        self.shape = Shape::Apart { controllers, brokers };
        self
    }

    /// So many nodes (1, 2, …) that are controller and broker each.
    #[must_use]
    pub fn combined(mut self, nodes: u16) -> Self {
        self.shape = Shape::Combined(nodes);
        self
    }

    /// Where the ports come from. Without this they are free ones.
    #[must_use]
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Sets keys on every node, as `--set` does: `section.key=value`.
    #[must_use]
    pub fn set(mut self, settings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.extend(settings.into_iter().map(Into::into));
        self
    }

    /// The program `callboard`. Without this it is the one that runs now.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Tells each line that a node writes.
    #[must_use]
    pub fn on_line(mut self, on_line: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.on_line = Some(Arc::new(on_line));
        self
    }

    /// Has others reach each node by a detour. `put_before` is told the node before any of them runs, and says where to connect.
    #[must_use]
    pub fn detour(mut self, put_before: impl Fn(&NodePlan) -> io::Result<Detour> + Send + 'static) -> Self {
        self.detour = Some(Box::new(put_before));
        self
    }

    /// How long a node may take until it is ready. Without this a minute.
    #[must_use]
    pub fn start_within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts all nodes at once and waits until each is ready.
    ///
    /// # Errors
    /// [`ClusterError`] when one did not become ready; all others are killed then.
    pub async fn start(self) -> Result<LocalCluster, ClusterError> {
        let mut cluster = self.prepare()?;
        for at in 0..cluster.nodes.len() {
            cluster.spawn(at, LogFile::New)?;
        }
        for node in &cluster.nodes {
            cluster.wait_until_ready(node).await?;
        }
        Ok(cluster)
    }

    /// Directory, ports and configuration files; nothing runs yet.
    fn prepare(self) -> Result<LocalCluster, ClusterError> {
        let program = self.program.map_or_else(std::env::current_exe, Ok).map_err(failed("the program's own path"))?;
        fs::create_dir_all(&self.directory).map_err(failed(&format!("create {}", self.directory.display())))?;
        // Nodes take a relative path from their working directory, which is this one; an absolute one holds everywhere.
        let directory = self.directory.canonicalize().map_err(failed(&self.directory.display().to_string()))?;
        let mut plans = plan::plan(self.shape, self.ports, &directory).map_err(failed("the plan of the cluster"))?;
        if let Some(put_before) = &self.detour {
            for node in &mut plans {
                node.detour = put_before(node).map_err(failed(&format!("the detour of {}", node.name)))?;
            }
        }
        for node in &plans {
            let path = directory.join(format!("{}.toml", node.name));
            let text = plan::configuration(node, &plans);
            fs::write(&path, text).map_err(failed(&format!("write {}", path.display())))?;
        }
        let nodes = plans.into_iter().map(|plan| Node { plan, process: None }).collect();
        Ok(LocalCluster {
            directory,
            program,
            settings: self.settings,
            nodes,
            on_line: self.on_line,
            patience: self.patience,
        })
    }
}

pub(super) fn failed(what: &str) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let what = what.to_owned();
    move |cause| ClusterError::Io { what, cause }
}
