//! Starting a node, serving its connections, and ending it: each in its order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::{mpsc, watch};

use super::declared::declare_topics;
use super::limits::{descriptors, net_limits};
use super::registration::registration;
use super::status::{Serving, Status, start_http};
use super::{How, NodeError, Ready};
use crate::actors::broker::{AwaitMetadata, Broker, BrokerSettings, BrokerView, StopBroker};
use crate::actors::codec::{CodecSettings, serve};
use crate::actors::controller::{self, CloseController, Controller, MetadataError, MetadataFiles};
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{CacheBudget, PartitionLeaderSettings, ReadBudget};
use crate::actors::session::{NodeFacts, Session, SessionSettings};
use crate::actors::threads::Threads;
use crate::config::{NodeConfig, Role};
use crate::engine::broker::{self as broker_engine, EndReason};
use crate::engine::controller::ControllerPolicy;
use crate::engine::metadata::{ClusterImage, LastStop};
use crate::engine::waiters::OwnerId;
use crate::http::{self, HttpServer, HttpSettings};
use crate::metrics::Metrics;
use crate::net::{ConnectionGate, Listener, NodeBudget};
use crate::raft::{ControllerNode, RaftWork};
use crate::replica;
use crate::storage::data_dir::{DataDir, DirectoryLock, lock_directory};
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::types::{BufferPool, Clock, IncarnationId, NodeId, SystemClock};

/// Of the bytes that requests may take, one in so many may be kept in free buffers: 32 MiB by default.
const BUFFERS_SHARE: usize = 4;
/// How often buffers that nobody needed are freed.
const BUFFERS_INTERVAL: Duration = Duration::from_secs(10);

/// How long connections get to take their last replies when the node stops.
const LAST_REPLIES: Duration = Duration::from_millis(200);

pub(super) struct Node {
    config: Arc<NodeConfig>,
    _lock: DirectoryLock,
    incarnation: IncarnationId,
    ended: watch::Receiver<Option<EndReason>>,
    controller: Addr<Controller>,
    controllers: Controllers,
    broker: Addr<Broker>,
    view: watch::Receiver<Arc<BrokerView>>,
    threads: Threads,
    listener: Listener,
    sessions: SessionSettings,
    codecs: CodecSettings,
    status: Arc<Status>,
    http: Option<HttpServer>,
    /// What the status may look at once the node is ready.
    serving: Option<Serving>,
}

impl Node {
    pub(super) async fn boot(disk: Arc<dyn Disk>, config: NodeConfig, (keeping, log): How) -> Result<Self, NodeError> {
        if !(config.node.roles.contains(&Role::Controller) && config.node.roles.contains(&Role::Broker)) {
            return Err(NodeError::Roles);
        }
        let config = Arc::new(config);
        let root = &config.node.data_dir;
        // Bound before anything is created: a port in use leaves no trace.
        let limits = net_limits(&config, descriptors().saturating_sub(http::server::MAX_CONNECTIONS));
        let connections = ConnectionGate::from_limits(&limits);
        let listener = Listener::bind(&config.listener.native.bind, connections.clone()).await?;
        let metrics = Arc::new(Metrics::default());
        let status = Arc::new(Status::new(root.clone(), Arc::clone(&metrics)));
        let http =
            start_http(&config, HttpSettings { metrics: Arc::clone(&metrics), status: Arc::clone(&status) as _, log })
                .await?;
        let lock = lock_directory(root)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        // The threads come up while the disk is waited for.
        let threads = Threads::start_aside(config.threads.core, config.threads.disk);
        let buffers = BufferPool::new(limits.node_bytes_in_flight / BUFFERS_SHARE);
        let files = FileCache::new(Arc::clone(&disk), config.storage.open_files).with_buffers(buffers.clone());
        let files = Arc::new(files);
        let opened = open_directory(&disk, &files, &config);
        let threads = threads.join().map_err(|_| NodeError::Ended)?;
        let (directory, last_stop, me, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                threads.stop();
                return Err(error);
            }
        };
        let cluster = directory.meta().cluster;
        let (view_sender, view) = watch::channel(Arc::new(BrokerView {
            partitions: 0,
            image: Arc::new(ClusterImage::empty(cluster)),
            replicas: std::collections::HashMap::new(),
        }));
        let controller = controller::start_on(&threads.control(), metadata, me, policy_of(&config)).await;
        let controller = match controller {
            Ok(controller) => controller,
            Err(error) => {
                threads.stop();
                return Err(error.into());
            }
        };
        let controllers = Controllers::alone(config.node.id, controller.clone());
        let partitions = PartitionLeaderSettings {
            node: config.node.id,
            storage: config.storage.clone(),
            placement: config.threads.log_writer,
            clock: Arc::clone(&clock),
            disk: threads.disk_pool(),
            cache: CacheBudget::new(config.storage.tail_cache_bytes),
            reads: ReadBudget::new(config.limits.node_bytes_in_flight),
            keeping,
            metrics: Arc::clone(&metrics),
        };
        let requests = NodeBudget::new(limits.node_bytes_in_flight);
        let serving = Serving {
            view: view.clone(),
            gate: connections.clone(),
            requests: requests.clone(),
            cache: partitions.cache.clone(),
            reads: partitions.reads.clone(),
        };
        let facts = NodeFacts {
            bound: local_address(&listener)?,
            directory: Arc::clone(&directory),
            disk: threads.disk_pool(),
            storage: config.storage.clone(),
            core_threads: threads.core().len(),
            disk_threads: config.threads.disk,
            requests: requests.clone(),
            reads: partitions.reads.clone(),
            cache: partitions.cache.clone(),
            connections,
        };
        let registration = registration(&config, (&directory, last_stop), local_address(&listener)?);
        let (incarnation, (ended_sender, ended)) = (registration.incarnation, watch::channel(None));
        let broker = Broker::new(BrokerSettings {
            registration,
            controllers: controllers.clone(),
            times: broker_engine::BrokerSettings::default(),
            directory,
            files,
            topic_defaults: config.topic_defaults.clone(),
            partitions,
            core: threads.core(),
            fetches: None,
            view: view_sender,
            ended: ended_sender,
        })
        .start();
        // A topic that exists must not be called unknown: sessions see what was known when this process registered.
        until_registered(&view, &ended, (config.node.id, incarnation), Counted::Anyhow).await?;
        let sessions = SessionSettings {
            node: config.node.id,
            limits: config.limits.clone(),
            topic_defaults: config.topic_defaults.clone(),
            clock,
            view: view.clone(),
            controllers: controllers.clone(),
            broker: broker.clone(),
            metrics: Arc::clone(&metrics),
            facts: Arc::new(facts),
        };
        let codecs = CodecSettings {
            requests_in_flight: config.limits.requests_in_flight_per_connection,
            node_budget: requests,
            buffers,
            limits,
            metrics,
        };
        let _lock = lock;
        Ok(Self {
            config,
            _lock,
            incarnation,
            ended,
            controller,
            controllers,
            broker,
            view,
            threads,
            listener,
            sessions,
            codecs,
            status,
            http,
            serving: Some(serving),
        })
    }

    /// Waits until this node can acknowledge whatever it is there for, and describes it.
    fn becoming_ready(&self) -> impl Future<Output = Result<Ready, NodeError>> + use<> {
        let (config, controllers, broker) = (Arc::clone(&self.config), self.controllers.clone(), self.broker.clone());
        let (view, native, ended) = (self.view.clone(), local_address(&self.listener), self.ended.clone());
        let (process, http) = ((config.node.id, self.incarnation), self.http.as_ref().map(HttpServer::address));
        async move {
            let index = until_registered(&view, &ended, process, Counted::On).await?;
            broker.send(AwaitMetadata { index }).await.map_err(|_| NodeError::Ended)?;
            let declared = declare_topics(&config, &controllers, &broker).await?;
            let image = Arc::clone(&view.borrow().image);
            Ok(Ready {
                native: native?,
                http,
                data_dir: config.node.data_dir.clone(),
                cluster: image.cluster_id.to_string(),
                topics: image.topics.len(),
                declared,
            })
        }
    }

    /// Serves connections until `stop`. They are accepted while replicas are still being opened: who asks for one of those
    /// is told to try again. `ready` is told when all are, and the declared topics exist.
    pub(super) async fn serve_until(
        mut self,
        ready: &std::sync::mpsc::SyncSender<Ready>,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<(), NodeError> {
        let owners = AtomicU64::new(0);
        let mut becoming_ready = Box::pin(self.becoming_ready());
        let mut is_ready = false;
        let mut tidying = tokio::time::interval(BUFFERS_INTERVAL);
        let mut ended = self.ended.clone();
        loop {
            let connection = tokio::select! {
                said = &mut becoming_ready, if !is_ready => {
                    is_ready = true;
                    let said = said?;
                    self.serving.take().into_iter().for_each(|serving| self.status.serves(serving));
                    // Whoever started the node may be gone.
                    let _ = ready.send(said);
                    continue;
                }
                connection = self.listener.accept() => connection,
                _ = tidying.tick() => {
                    self.codecs.buffers.release_unused();
                    continue;
                }
                _ = stop.recv() => break,
                // Nothing of it may be written any more: nothing is closed.
                Ok(_) = ended.wait_for(|ended| *ended == Some(EndReason::Superseded)) => {
                    self.status.stops();
                    self.threads.stop();
                    return Err(NodeError::Superseded);
                }
            };
            let owner = OwnerId(owners.fetch_add(1, Ordering::Relaxed));
            let (sessions, codecs) = (self.sessions.clone(), self.codecs.clone());
            let peer = connection.peer_addr;
            // The socket moves to the reactor of the thread that will serve it.
            let Ok(socket) = connection.stream.into_std() else { continue };
            let place = connection.permit;
            self.threads.next_session().spawn_fn(move || {
                let Ok(socket) = tokio::net::TcpStream::from_std(socket) else { return };
                let (read_half, write_half) = socket.into_split();
                serve(read_half, write_half, (owner, peer), &codecs, place, |codec| {
                    Session::create(|ctx| Session::new(ctx, sessions, codec, owner, peer))
                });
            });
        }
        self.shut_down().await
    }

    async fn shut_down(self) -> Result<(), NodeError> {
        let Self { controller, broker, threads, listener, status, http, .. } = self;
        status.stops();
        drop(listener);
        // The broker first: the controllers are told that it goes. A partition that is opened meanwhile is closed as it was.
        let mut problems = broker.send(StopBroker).await.unwrap_or_else(|error| vec![error.to_string()]);
        match controller.send(CloseController).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(problem),
            Err(error) => problems.push(error.to_string()),
        }
        // The replies to what was just written are on their way through codecs and sockets.
        tokio::time::sleep(LAST_REPLIES).await;
        threads.stop();
        drop(http);
        if problems.is_empty() { Ok(()) } else { Err(NodeError::Unclean(problems.join("; "))) }
    }
}

fn local_address(listener: &Listener) -> Result<SocketAddr, NodeError> {
    listener
        .local_addr()
        .map_err(|cause| NodeError::Io { what: "cannot tell the listener's address".to_owned(), cause })
}

fn policy_of(config: &NodeConfig) -> ControllerPolicy {
    ControllerPolicy {
        max_topics: config.limits.max_topics,
        max_partitions: config.limits.max_partitions,
        max_partitions_per_topic: config.limits.max_partitions_per_topic,
        default_partitions: config.topics.default_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        topic_defaults: config.topic_defaults.clone(),
    }
}

/// Opens the data directory, or creates it, and the metadata in it, which is kept by the member that goes with it.
fn open_directory(
    disk: &Arc<dyn Disk>,
    files: &Arc<FileCache>,
    config: &NodeConfig,
) -> Result<(Arc<DataDir>, LastStop, ControllerNode, MetadataFiles), NodeError> {
    let node = &config.node;
    let directory = DataDir::open(Arc::clone(disk), &node.data_dir, node.id, node.cluster_id)?;
    let last_stop = replica::last_stop(&directory)?;
    tracing::debug!(?last_stop, "the data directory is open");
    // The only controller of its cluster is reached by nobody.
    let me = ControllerNode { node: node.id, directory: directory.meta().directory, host: String::new(), port: 0 };
    let work = RaftWork::threads().map_err(MetadataError::from)?;
    let metadata = MetadataFiles::open(&directory, files, &me, &work)?;
    Ok((Arc::new(directory), last_stop, me, metadata))
}

/// What is to be known of a broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// That it is registered.
    Anyhow,
    /// That it is counted on, too.
    On,
}

/// Waits until the metadata that sessions see knows this process of the broker, and returns its index.
async fn until_registered(
    view: &watch::Receiver<Arc<BrokerView>>,
    ended: &watch::Receiver<Option<EndReason>>,
    (node, incarnation): (NodeId, IncarnationId),
    counted: Counted,
) -> Result<u64, NodeError> {
    let (mut view, mut ended) = (view.clone(), ended.clone());
    let is_there = |view: &Arc<BrokerView>| {
        let known = view.image.brokers.get(&node).filter(|known| known.registration.incarnation == incarnation);
        known.is_some_and(|known| counted == Counted::Anyhow || !known.fenced)
    };
    tokio::select! {
        seen = view.wait_for(is_there) => seen.map(|view| view.image.index).map_err(|_| NodeError::Ended),
        Ok(_) = ended.wait_for(Option::is_some) => Err(NodeError::Superseded),
    }
}
