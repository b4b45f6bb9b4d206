//! The node: reads nothing, decides nothing, wires everything and ends it in order.
//!
//! ```text
//!   start   ports bound ─► HTTP beside: alive, not ready ─► lock and open the data directory ─► Raft ─► Controller
//!           ─► Broker registers ─► connections are accepted ─► its replicas are open ─► declared topics ─► ready
//!   stop    listener ─► partitions (what was accepted is written, synced and answered) ─► connections ─► metadata
//!           ─► clean-stop marker ─► threads ─► HTTP
//! ```

mod boot;
mod declared;
mod limits;
mod opening;
mod peers;
mod registration;
mod serving;
mod status;
#[cfg(test)]
mod tests;

pub use limits::DESCRIPTORS_OF_ACTIVE_SEGMENTS;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::controller::MetadataError;
use super::partition_leader::Keeping;
use crate::config::topics_file::TopicsFileError;
use crate::config::{ConfigError, NodeConfig};
use crate::http::LogLevel;
use crate::net::{BindError, Listener};
use crate::protocol::ApiError;
use crate::storage::data_dir::DataDirError;
use crate::storage::disk::{Disk, RealDisk};
use boot::Node;

/// Why a node did not start, or did not stop as it should. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The HTTP listener.
    #[error("the HTTP listener cannot start: {0}; listener.http.bind sets its address, an empty one leaves it out")]
    BindHttp(BindError),
    /// The metadata.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The topics file.
    #[error(transparent)]
    TopicsFile(#[from] TopicsFileError),
    /// A declared topic could not be created.
    #[error("topic '{name}' of {} could not be created: {cause}", file.display())]
    DeclaredTopic {
        /// The topic.
        name: String,
        /// The topics file.
        file: PathBuf,
        /// Why not.
        cause: ApiError,
    },
    /// An operation of the operating system.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It was told to stop.
    #[error("the node was stopped before it was ready")]
    StoppedEarly,
    /// Another process of the same broker has registered.
    #[error(
        "a newer process of this broker has registered: this one ends, and writes nothing more; see that only one runs"
    )]
    Superseded,
    /// The node's own threads are gone.
    #[error("the node ended unexpectedly: see its log")]
    Ended,
    /// Something could not be closed: the next start recovers it.
    #[error("the node stopped, but not cleanly: {0}; the next start recovers from its log")]
    Unclean(String),
}

/// What a node says about itself once it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where the native protocol is served, on a broker.
    pub native: Option<SocketAddr>,
    /// Where other nodes reach it, if they do.
    pub peer: Option<String>,
    /// Where metrics and probes are served, if they are.
    pub http: Option<SocketAddr>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The metadata at that moment.
    pub cluster: String,
    /// How many topics there are.
    pub topics: usize,
    /// What the topics file changed, in words.
    pub declared: Vec<String>,
}

/// What becomes of appended batches, and how to change what the process logs, where that is the node's to change.
type How = (Keeping, Option<Arc<dyn LogLevel>>);

/// A node that runs on threads of its own.
#[derive(Debug)]
pub struct RunningNode {
    ready: Ready,
    stop: mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<Result<(), NodeError>>,
}

impl RunningNode {
    /// Starts a node and returns once it serves. Blocks meanwhile.
    ///
    /// # Errors
    /// [`NodeError`] says what stands against it.
    pub fn start(config: NodeConfig) -> Result<Self, NodeError> {
        Self::launch(Arc::new(RealDisk), config, (Keeping::Log, None), mpsc::channel(1))
    }

    /// Like [`RunningNode::start`], on another disk than the operating system's.
    ///
    /// # Errors
    /// As [`RunningNode::start`].
    pub fn start_on(disk: Arc<dyn Disk>, config: NodeConfig) -> Result<Self, NodeError> {
        Self::launch(disk, config, (Keeping::Log, None), mpsc::channel(1))
    }

    /// Like [`RunningNode::start`], but nothing that producers send is stored: see [`Keeping::Nothing`]. For measuring what
    /// the rest of a node costs.
    ///
    /// # Errors
    /// As [`RunningNode::start`].
    pub fn start_null(config: NodeConfig) -> Result<Self, NodeError> {
        Self::launch(Arc::new(RealDisk), config, (Keeping::Nothing, None), mpsc::channel(1))
    }

    fn launch(
        disk: Arc<dyn Disk>,
        config: NodeConfig,
        how: How,
        (stop, stop_requests): (mpsc::Sender<()>, mpsc::Receiver<()>),
    ) -> Result<Self, NodeError> {
        config.validate()?;
        let (ready_sender, ready) = std::sync::mpsc::sync_channel(1);
        let (ended_sender, ended) = oneshot::channel();
        let run = move || {
            let result = actix::System::new().block_on(live(disk, config, how, &ready_sender, stop_requests));
            // Whoever started the node may be gone.
            let _ = ended_sender.send(());
            result
        };
        let thread = std::thread::Builder::new()
            .name("node".to_owned())
            .spawn(run)
            .map_err(|cause| NodeError::Io { what: "cannot start the node's thread".to_owned(), cause })?;
        match ready.recv() {
            Ok(ready) => Ok(Self { ready, stop, ended, thread }),
            Err(_) => Err(result_of(thread).err().unwrap_or(NodeError::StoppedEarly)),
        }
    }

    /// What it said when it was ready.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Waits until the node has ended by itself, which is an error, or `signal` has come, which stops it.
    ///
    /// # Errors
    /// [`NodeError`] when it did not stop cleanly.
    pub async fn run_until(self, signal: impl Future<Output = ()>) -> Result<(), NodeError> {
        let Self { stop, mut ended, thread, .. } = self;
        tokio::select! {
            _ = &mut ended => return result_of(thread).and(Err(NodeError::Ended)),
            () = signal => {}
        }
        // The node may have ended meanwhile; its result says so.
        let _ = stop.send(()).await;
        let _ = ended.await;
        result_of(thread)
    }

    /// Waits until the node has ended: it was told to stop, or could not go on.
    async fn run(self) -> Result<(), NodeError> {
        // Its result says how.
        let _ = self.ended.await;
        result_of(self.thread)
    }

    /// Stops the node. Blocks until it has stopped.
    ///
    /// # Errors
    /// [`NodeError`] when it did not stop cleanly.
    pub fn stop(self) -> Result<(), NodeError> {
        // As above.
        let _ = self.stop.try_send(());
        result_of(self.thread)
    }
}

fn local_address(listener: &Listener) -> Result<SocketAddr, NodeError> {
    listener
        .local_addr()
        .map_err(|cause| NodeError::Io { what: "cannot tell the listener's address".to_owned(), cause })
}

fn result_of(thread: JoinHandle<Result<(), NodeError>>) -> Result<(), NodeError> {
    thread.join().unwrap_or(Err(NodeError::Ended))
}

async fn live(
    disk: Arc<dyn Disk>,
    config: NodeConfig,
    how: How,
    ready: &std::sync::mpsc::SyncSender<Ready>,
    mut stop: mpsc::Receiver<()>,
) -> Result<(), NodeError> {
    let node = tokio::select! {
        node = Node::boot(disk, config, how) => node?,
        // It may wait for other nodes for as long as they take.
        _ = stop.recv() => return Err(NodeError::StoppedEarly),
    };
    node.serve_until(ready, &mut stop).await
}

/// Runs a node until it is told to stop by SIGTERM or Ctrl-C. A second signal ends the process at once. `log` is how to
/// change what the process logs, for the HTTP listener.
///
/// # Errors
/// [`NodeError`] when it could not start, or did not stop cleanly.
pub fn run(config: NodeConfig, log: Arc<dyn LogLevel>) -> Result<(), NodeError> {
    let io = |what: &str, cause| NodeError::Io { what: what.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| io("cannot start the runtime", cause))?;
    runtime.block_on(async move {
        let mut signals = Signals::listen().map_err(|cause| io("cannot listen for signals", cause))?;
        let (stop, stopping) = oneshot::channel();
        let second_signal = async move {
            signals.next().await;
            tracing::info!("stopping: what was accepted is being written; a second signal ends the process at once");
            // A node that could not start has ended already.
            let _ = stop.send(());
            signals.next().await;
        };
        tokio::select! {
            result = serve_until(config, log, stopping) => result,
            () = second_signal => std::process::exit(130),
        }
    })
}

/// Starts a node and runs it until `stopping`. A signal that comes during the start stops the node after it: a start that
/// is torn apart would have to be recovered from.
async fn serve_until(
    config: NodeConfig,
    log: Arc<dyn LogLevel>,
    stopping: oneshot::Receiver<()>,
) -> Result<(), NodeError> {
    let (stop, stop_requests) = mpsc::channel(1);
    let told = stop.clone();
    tokio::spawn(async move {
        // The sender lives as long as the process listens for signals.
        if stopping.await.is_ok() {
            // The node may have ended by itself.
            let _ = told.send(()).await;
        }
    });
    let how = (Keeping::Log, Some(log));
    let launch = move || RunningNode::launch(Arc::new(RealDisk), config, how, (stop, stop_requests));
    let node = match tokio::task::spawn_blocking(launch).await.unwrap_or(Err(NodeError::Ended)) {
        Err(error @ NodeError::StoppedEarly) => {
            tracing::info!("{error}");
            return Ok(());
        }
        node => node?,
    };
    let Ready { native, peer, http, data_dir, cluster, topics, declared } = node.ready();
    say(declared.iter().map(String::as_str));
    let topics = if *topics == 1 { "1 topic".to_owned() } else { format!("{topics} topics") };
    let native = native.map_or_else(String::new, |native| format!("native protocol at {native}, "));
    let peer = peer.as_ref().map_or_else(String::new, |peer| format!("other nodes at {peer}, "));
    let http = http.map_or_else(String::new, |http| format!("HTTP at {http}, "));
    let data = data_dir.display();
    let ready = format!("ready: {native}{peer}{http}data in {data}, cluster {cluster}, {topics}");
    say([ready.as_str()]);
    node.run().await?;
    tracing::info!("stopped cleanly: the next start reads no record data");
    Ok(())
}

/// Prints lines on stdout. Whoever started the node may not listen: that is no reason to stop.
fn say<'a>(lines: impl IntoIterator<Item = &'a str>) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            tracing::debug!(%error, line, "nobody reads the node's output");
        }
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
