//! A cluster of processes on this machine: started, hurt in every way that a machine can be, and never left behind.
//!
//! ```text
//!   Builder ─► plan: nodes, ports ─► NAME.toml ─► callboard node --config NAME.toml --set … --stop-with-parent
//!                                                     │ one ChildProcess a node
//!   LocalCluster ── kill, pause, resume, stop, start ─┤
//!                ◄─ "ready:", the end ────────────────┤ stdout
//!   NAME.log, on_line(name, line) ◄───────────────────┘ stderr
//! ```
//!
//! `callboard dev-cluster`, `callboard evaluate` and the tests that kill brokers use it. Everything lies in one directory: a node's
//! data in `NAME/`, its configuration in `NAME.toml`, its log since the cluster's start in `NAME.log`. A second start on the same
//! directory, with the same ports, goes on with the data.
//!
//! Reading order: [`plan`], [`ports`], [`child_process`], [`builder`], this file.

pub mod builder;
pub mod child_process;
pub mod error;
pub mod plan;
pub mod ports;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use rustix::process::Signal;

use crate::types::NodeId;
pub use builder::Builder;
use builder::failed;
use child_process::{ChildProcess, NotReady, OnLine, State};
pub use error::ClusterError;
use plan::NodePlan;

/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// Is told the name of a node and each line that it writes, on a thread of that node.
pub type OnNodeLine = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How a node was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ended when it was asked to.
    Ended(ExitStatus),
    /// It did not within the time given, and was killed.
    Killed,
    /// It did not run.
    WasNotRunning,
}

#[derive(Debug)]
struct Node {
    plan: NodePlan,
    /// None once it was killed or stopped, or its end was told.
    process: Option<ChildProcess>,
}

/// Whether a node's log begins anew.
enum LogFile {
    New,
    GoesOn,
}

/// A cluster that runs. All its processes are killed when this is dropped.
pub struct LocalCluster {
    directory: PathBuf,
    program: PathBuf,
    settings: Vec<String>,
    nodes: Vec<Node>,
    on_line: Option<OnNodeLine>,
    patience: Duration,
}

impl std::fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCluster").field("directory", &self.directory).field("nodes", &self.nodes).finish()
    }
}

impl LocalCluster {
    /// A cluster whose files are in `directory`, which is created if it is missing.
    #[must_use]
    pub fn builder(directory: impl Into<PathBuf>) -> Builder {
        Builder::new(directory.into())
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its nodes, whether they run or not, controllers first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &NodePlan> {
        self.nodes.iter().map(|node| &node.plan)
    }

    /// The numbers of its brokers, whether they run or not.
    #[must_use]
    pub fn brokers(&self) -> Vec<NodeId> {
        self.nodes().filter(|node| node.is_broker()).map(|node| node.id).collect()
    }

    /// What people call a node.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        self.at(id).map_or_else(|_| format!("node {id}"), |at| self.nodes[at].plan.name.clone())
    }

    /// The addresses of all brokers with commas between them, as clients take them.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.nodes().filter_map(NodePlan::address).collect::<Vec<_>>().join(",")
    }

    /// The number of a node's process, while it runs.
    #[must_use]
    pub fn pid(&self, id: NodeId) -> Option<u32> {
        self.running(id).ok().map(ChildProcess::pid)
    }

    /// Whether a node's process is there, paused or not.
    #[must_use]
    pub fn is_running(&self, id: NodeId) -> bool {
        self.running(id).is_ok()
    }

    /// Ends a node at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node or it does not run.
    pub async fn kill(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let at = self.at(id)?;
        let process = self.running(id)?;
        process.signal(Signal::KILL);
        if process.ended(KILL_PATIENCE).await.is_none() {
            return Err(ClusterError::Stuck(self.name(id)));
        }
        self.nodes[at].process = None;
        Ok(())
    }

    /// Freezes a node (SIGSTOP): it keeps its sockets and answers nothing.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node or it does not run.
    pub fn pause(&self, id: NodeId) -> Result<(), ClusterError> {
        self.running(id).map(|process| process.signal(Signal::STOP))
    }

    /// Lets a frozen node go on (SIGCONT).
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node or it does not run.
    pub fn resume(&self, id: NodeId) -> Result<(), ClusterError> {
        self.running(id).map(|process| process.signal(Signal::CONT))
    }

    /// Asks a node to stop (SIGTERM), waits until it has, and kills it when it has not within `patience`. May be dropped while it
    /// waits: the node stops all the same.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node, or not even killing helped.
    pub async fn stop(&mut self, id: NodeId, patience: Duration) -> Result<Stopped, ClusterError> {
        let at = self.at(id)?;
        let Ok(process) = self.running(id) else { return Ok(Stopped::WasNotRunning) };
        process.signal(Signal::TERM);
        // A frozen one would hear it only later.
        process.signal(Signal::CONT);
        let Some(status) = process.ended(patience).await else {
            self.kill(id).await?;
            return Ok(Stopped::Killed);
        };
        self.nodes[at].process = None;
        Ok(Stopped::Ended(status))
    }

    /// Ends all nodes at once.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
        }
    }

    /// Starts a node that does not run, on its old directory and ports, and waits until it is ready.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node, it runs, or it did not become ready: it may still run then.
    pub async fn start(&mut self, id: NodeId) -> Result<(), ClusterError> {
        self.start_without_waiting(id)?;
        self.ready(id).await
    }

    /// As [`LocalCluster::start`], but returns at once: for several that need each other.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node, it runs, or there cannot be a process.
    pub fn start_without_waiting(&mut self, id: NodeId) -> Result<(), ClusterError> {
        let at = self.at(id)?;
        if self.is_running(id) {
            return Err(ClusterError::Running(self.name(id)));
        }
        self.spawn(at, LogFile::GoesOn)
    }

    /// Waits until a node that was started is ready.
    ///
    /// # Errors
    /// [`ClusterError`] when there is no such node, or it did not become ready.
    pub async fn ready(&self, id: NodeId) -> Result<(), ClusterError> {
        self.wait_until_ready(&self.nodes[self.at(id)?]).await
    }

    /// Waits until a node ends that nobody ended, and tells how. Each end is told once. May be dropped while it waits.
    pub async fn next_end(&mut self) -> (NodeId, ExitStatus) {
        let processes = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.process.as_ref()?)));
        let ends: Vec<_> = processes.map(|(at, process)| Box::pin(process.gone().map(move |how| (at, how)))).collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        let ((at, status), _, _) = select_all(ends).await;
        self.nodes[at].process = None;
        (self.nodes[at].plan.id, status)
    }

    fn at(&self, id: NodeId) -> Result<usize, ClusterError> {
        self.nodes.iter().position(|node| node.plan.id == id).ok_or(ClusterError::NoSuchNode(id))
    }

    fn running(&self, id: NodeId) -> Result<&ChildProcess, ClusterError> {
        let node = &self.nodes[self.at(id)?];
        let process = node.process.as_ref().filter(|process| !matches!(process.state(), State::Ended(_)));
        process.ok_or_else(|| ClusterError::NotRunning(node.plan.name.clone()))
    }

    fn spawn(&mut self, at: usize, log: LogFile) -> Result<(), ClusterError> {
        let name = self.nodes[at].plan.name.clone();
        let path = self.directory.join(format!("{name}.log"));
        let log = match log {
            LogFile::New => File::create(&path),
            LogFile::GoesOn => OpenOptions::new().append(true).create(true).open(&path),
        };
        let log = log.map_err(failed(&format!("write {}", path.display())))?;
        let command = self.command(&name);
        let process =
            ChildProcess::spawn(command, self.on_line(name.clone(), log)).map_err(failed(&format!("start {name}")))?;
        self.nodes[at].process = Some(process);
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--config").arg(self.directory.join(format!("{name}.toml"))).arg("--stop-with-parent");
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        // What is set for one node of the user's would hold for all of these.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CALLBOARD__")) {
            command.env_remove(name);
        }
        command
    }

    fn on_line(&self, name: String, log: File) -> OnLine {
        let told = self.on_line.clone();
        Arc::new(move |line| {
            // The log is for later; the cluster goes on without.
            let _ = (&log).write_all(format!("{line}\n").as_bytes());
            if let Some(told) = &told {
                told(&name, line);
            }
        })
    }

    async fn wait_until_ready(&self, node: &Node) -> Result<(), ClusterError> {
        let name = node.plan.name.clone();
        let Some(process) = &node.process else { return Err(ClusterError::NotRunning(name)) };
        match process.ready(self.patience).await {
            Ok(_) => Ok(()),
            Err(NotReady::Ended(status)) => Err(ClusterError::Ended { name, status, last_lines: process.last_lines() }),
            Err(NotReady::Slow(after)) => Err(ClusterError::NotReady { name, after, last_lines: process.last_lines() }),
        }
    }
}
