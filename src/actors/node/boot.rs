//! Starting a node, serving its connections, and ending it: each in its order.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::declared::{declare_in_cluster, declare_topics};
use super::limits::{descriptors, net_limits};
use super::opening::{self, Opened, OpenedMetadata};
use super::peers::{self, PeerSide};
use super::serving::{BrokerSide, Shared};
use super::status::{Serving, Status, start_http};
use super::{How, NodeError, Ready, local_address};
use crate::actors::broker::{AwaitMetadata, BrokerView, StopBroker};
use crate::actors::controller::{self, CloseController, Controller, ControllerSettings, Others, Starting};
use crate::actors::controllers::Controllers;
use crate::actors::peer::{Myself, OwnCluster, PeerTarget, RaftOverPeers};
use crate::actors::peer_session::OpenDoor;
use crate::actors::send::post;
use crate::actors::threads::Threads;
use crate::config::{NodeConfig, Role};
use crate::engine::broker::EndReason;
use crate::engine::controller::{ControllerPolicy, Leases};
use crate::engine::metadata::ClusterImage;
use crate::http::{self, HttpServer, HttpSettings};
use crate::metrics::Metrics;
use crate::net::{Connection, ConnectionGate, Listener, NetLimits};
use crate::storage::data_dir::{DataDir, DirectoryLock, lock_directory};
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::types::{BufferPool, ClusterId, DirectoryId, SystemClock};

/// Of the bytes that requests may take, one in so many may be kept in free buffers: 32 MiB by default.
const BUFFERS_SHARE: usize = 4;
/// How often buffers that nobody needed are freed.
const BUFFERS_INTERVAL: Duration = Duration::from_secs(10);
/// How long connections get to take their last replies when the node stops.
const LAST_REPLIES: Duration = Duration::from_millis(200);

/// Of a lease, one in so many is what two clocks may drift apart meanwhile.
const DRIFT_SHARE: u32 = 50;

/// A node, all of whose parts are started.
pub(super) struct Node {
    shared: Shared,
    _lock: DirectoryLock,
    threads: Threads,
    peers: Option<PeerSide>,
    controller: Option<Addr<Controller>>,
    broker: Option<BrokerSide>,
    cluster: ClusterId,
    status: Arc<Status>,
    http: Option<HttpServer>,
    /// What the status may look at once the node is ready.
    serving: Option<Serving>,
}

impl Node {
    pub(super) async fn boot(disk: Arc<dyn Disk>, config: NodeConfig, (keeping, log): How) -> Result<Self, NodeError> {
        let config = Arc::new(config);
        let root = &config.node.data_dir;
        // Bound before anything is created: a port in use leaves no trace.
        let limits = net_limits(&config, descriptors().saturating_sub(http::server::MAX_CONNECTIONS));
        let native = match config.node.roles.contains(&Role::Broker) {
            true => Some(Listener::bind(&config.listener.native.bind, ConnectionGate::from_limits(&limits)).await?),
            false => None,
        };
        let others = peers::bind(&config).await?;
        let metrics = Arc::new(Metrics::default());
        let status = Arc::new(Status::new(root.clone(), Arc::clone(&metrics)));
        let http_settings = HttpSettings { metrics: Arc::clone(&metrics), status: Arc::clone(&status) as _, log };
        let http = start_http(&config, http_settings).await?;
        let _lock = lock_directory(root)?;
        // The threads come up while the disk is waited for.
        let threads = Threads::start_aside(config.threads.core, config.threads.disk);
        let buffers = BufferPool::new(limits.node_bytes_in_flight / BUFFERS_SHARE);
        let files = FileCache::new(Arc::clone(&disk), config.storage.open_files).with_buffers(buffers.clone());
        let clock = Arc::new(SystemClock::start());
        let shared = Shared { config, clock, metrics, files: Arc::new(files), buffers, keeping };
        let before_threads = BeforeThreads::look(&disk, &shared, others);
        let threads = threads.join().map_err(|_| NodeError::Ended)?;
        let native = native.map(|native| (native, limits));
        let parts = match before_threads {
            Ok(before) => before.assemble(&disk, &shared, &threads, native).await,
            Err(error) => Err(error),
        };
        match parts {
            Ok(Parts { peers, controller, broker, cluster, serving }) => {
                let serving = Some(serving);
                Ok(Self { shared, _lock, threads, peers, controller, broker, cluster, status, http, serving })
            }
            Err(error) => {
                threads.stop();
                Err(error)
            }
        }
    }
}

/// What is done while the threads come up.
struct BeforeThreads {
    /// By which others know this node.
    directory: DirectoryId,
    others: Option<Listener>,
    /// The directory of a node that need not ask anybody.
    alone: Option<Opened>,
}

/// What a node consists of.
struct Parts {
    peers: Option<PeerSide>,
    controller: Option<Addr<Controller>>,
    broker: Option<BrokerSide>,
    cluster: ClusterId,
    serving: Serving,
}

impl BeforeThreads {
    fn look(disk: &Arc<dyn Disk>, shared: &Shared, others: Option<Listener>) -> Result<Self, NodeError> {
        let config = &shared.config;
        let found = DataDir::identity(disk.as_ref(), &config.node.data_dir)?;
        let directory = found.map_or_else(DirectoryId::random, |meta| meta.directory);
        let mut alone = None;
        if config.cluster.controllers.is_none() {
            let endpoint = others.as_ref().map(|listener| peers::endpoint(config, listener)).transpose()?;
            alone = Some(opening::open_alone(disk, &shared.files, config, directory, endpoint)?);
        }
        Ok(Self { directory, others, alone })
    }

    async fn assemble(
        self,
        disk: &Arc<dyn Disk>,
        shared: &Shared,
        threads: &Threads,
        native: Option<(Listener, NetLimits)>,
    ) -> Result<Parts, NodeError> {
        let Self { directory, others, alone } = self;
        let config = &shared.config;
        let nothing = BrokerView {
            partitions: 0,
            image: Arc::new(ClusterImage::empty(ClusterId(uuid::Uuid::nil()))),
            replicas: Default::default(),
        };
        let (view, seen) = watch::channel(Arc::new(nothing));
        let myself = Myself { node: config.node.id, directory, cluster: OwnCluster::default() };
        let mut invited = None;
        let mut peers = None;
        if let Some(listener) = others {
            let (side, invitations) = PeerSide::start(listener, myself, shared, threads, seen.clone())?;
            (peers, invited) = (Some(side), Some(invitations));
        }
        let mut opened = match (alone, &peers, &mut invited) {
            (Some(opened), ..) => opened,
            (None, Some(peers), Some(invited)) => {
                let controllers = config.cluster.controllers.as_deref().unwrap_or_default();
                opening::open_in_cluster(disk, &shared.files, config, controllers, peers, invited).await?
            }
            // The configuration was checked.
            (None, ..) => return Err(NodeError::Ended),
        };
        let cluster = opened.directory.meta().cluster;
        if let Some(peers) = &peers {
            peers.myself.cluster.learn(cluster);
        }
        let controller = match opened.metadata.take() {
            Some(metadata) => Some(start_controller(metadata, peers.as_ref(), shared, threads).await?),
            None => None,
        };
        let (mut broker, mut serving) = (None, None);
        if let Some(native) = native {
            let controllers = controllers_of(config, controller.as_ref(), peers.as_ref())?;
            let (side, seen) = BrokerSide::start(shared, &opened, controllers, peers.as_ref(), threads, view, native)?;
            (broker, serving) = (Some(side), Some(seen));
        }
        let serving = serving.unwrap_or_else(|| Serving::nothing(seen));
        Ok(Parts { peers, controller, broker, cluster, serving })
    }
}

/// Starts the controller, and lets others in.
async fn start_controller(
    metadata: OpenedMetadata,
    peers: Option<&PeerSide>,
    shared: &Shared,
    threads: &Threads,
) -> Result<Addr<Controller>, NodeError> {
    let OpenedMetadata { files, me, first_members } = metadata;
    let settings = ControllerSettings { metrics: Arc::clone(&shared.metrics), ..settings_of(&shared.config) };
    let Some(peers) = peers else {
        let transport = Arc::new(controller::Nobody);
        let starting = Starting { files, settings, transport, first_members, others: None };
        return Ok(controller::start_on(&threads.control(), starting).await?);
    };
    let transport = Arc::new(RaftOverPeers::new(Arc::clone(&peers.links)));
    let (links, door, seat) = (Arc::clone(&peers.links), peers.raft.clone(), peers.seat.clone());
    let others = Some(Others { me, links, door, seat });
    let starting = Starting { files, settings, transport, first_members, others };
    let controller = controller::start_on(&threads.control(), starting).await?;
    post(
        &peers.controller,
        OpenDoor { calls: controller.clone().recipient(), gone: Some(controller.clone().recipient()) },
    );
    Ok(controller)
}

/// Whom the broker here asks.
fn controllers_of(
    config: &NodeConfig,
    here: Option<&Addr<Controller>>,
    peers: Option<&PeerSide>,
) -> Result<Controllers, NodeError> {
    let local = here.map(|controller| (config.node.id, controller.clone()));
    match (&config.cluster.controllers, peers, local) {
        (Some(listed), Some(peers), local) => {
            Ok(Controllers::among(listed.iter().map(PeerTarget::from).collect(), &peers.links, local))
        }
        // Others may be added.
        (None, Some(peers), local @ Some(_)) => Ok(Controllers::among(Vec::new(), &peers.links, local)),
        (_, None, Some((node, controller))) => Ok(Controllers::alone(node, controller)),
        // The configuration was checked.
        (_, _, None) => Err(NodeError::Ended),
    }
}

impl Node {
    /// Waits until this node can do what it is there for, and describes it.
    fn becoming_ready(&self) -> impl Future<Output = Result<Ready, NodeError>> + use<> {
        let (config, cluster) = (Arc::clone(&self.shared.config), self.cluster.to_string());
        let broker = self.broker.as_ref().map(|side| {
            let local = local_address(&side.listener);
            (side.broker.clone(), side.controllers.clone(), side.view.clone(), local, side.until_counted_on())
        });
        let http = self.http.as_ref().map(HttpServer::address);
        let peer = self.peers.as_ref().map(|peers| format!("{}:{}", peers.endpoint.host, peers.endpoint.port));
        async move {
            let (mut native, mut topics, mut declared) = (None, 0, Vec::new());
            if let Some((broker, controllers, view, local, counted_on)) = broker {
                let index = counted_on.await?;
                broker.send(AwaitMetadata { index }).await.map_err(|_| NodeError::Ended)?;
                declared = match config.cluster.controllers {
                    Some(_) => declare_in_cluster(Arc::clone(&config), controllers, broker).await?,
                    None => declare_topics(&config, &controllers, &broker).await?,
                };
                (native, topics) = (Some(local?), view.borrow().image.topics.len());
            }
            let data_dir = config.node.data_dir.clone();
            Ok(Ready { native, peer, http, data_dir, cluster, topics, declared })
        }
    }

    /// Serves until `stop`. Connections are accepted while replicas are still being opened: who asks for one of those is told to try
    /// again. `ready` is told when all are, and the declared topics exist.
    pub(super) async fn serve_until(
        mut self,
        ready: &std::sync::mpsc::SyncSender<Ready>,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<(), NodeError> {
        let mut becoming_ready = Box::pin(self.becoming_ready());
        let mut ended = self.broker.as_ref().map(|side| side.ended.clone());
        let mut is_ready = false;
        let mut tidying = tokio::time::interval(BUFFERS_INTERVAL);
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
                connection = accept(self.broker.as_mut()) => connection,
                _ = tidying.tick() => {
                    self.shared.buffers.release_unused();
                    continue;
                }
                () = taken_over(ended.as_mut()) => {
                    // Nothing of it may be written any more: nothing is closed.
                    self.status.stops();
                    self.peers.iter().for_each(PeerSide::close);
                    self.threads.stop();
                    return Err(NodeError::Superseded);
                }
                _ = stop.recv() => break,
            };
            if let Some(side) = &self.broker {
                side.serve(connection, &self.threads);
            }
        }
        self.shut_down().await
    }

    async fn shut_down(self) -> Result<(), NodeError> {
        let Self { threads, peers, controller, broker, status, http, .. } = self;
        status.stops();
        let mut problems = Vec::new();
        if let Some(BrokerSide { broker, listener, .. }) = broker {
            drop(listener);
            // It hands over what it leads, for which it needs the controllers, and serves those who are connected meanwhile.
            problems.extend(broker.send(StopBroker).await.unwrap_or_else(|error| vec![error.to_string()]));
            // The replies to what was just written are on their way through codecs and sockets.
            tokio::time::sleep(LAST_REPLIES).await;
        }
        if let Some(controller) = controller {
            match controller.send(CloseController).await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => problems.push(problem),
                Err(error) => problems.push(error.to_string()),
            }
        }
        peers.iter().for_each(PeerSide::close);
        threads.stop();
        drop(http);
        if problems.is_empty() { Ok(()) } else { Err(NodeError::Unclean(problems.join("; "))) }
    }
}

/// Another process of the broker here has taken over; that never happens where there is no broker.
async fn taken_over(ended: Option<&mut watch::Receiver<Option<EndReason>>>) {
    if let Some(ended) = ended
        && ended.wait_for(|ended| *ended == Some(EndReason::Superseded)).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The next connection of a client; none comes where there is no broker.
async fn accept(side: Option<&mut BrokerSide>) -> Connection<TcpStream> {
    match side {
        Some(side) => side.accept().await,
        None => std::future::pending().await,
    }
}

fn settings_of(config: &NodeConfig) -> ControllerSettings {
    let duration = Duration::from_millis(config.cluster.lease_ms);
    let policy = ControllerPolicy {
        max_topics: config.limits.max_topics,
        max_partitions: config.limits.max_partitions,
        max_partitions_per_topic: config.limits.max_partitions_per_topic,
        default_partitions: config.topics.default_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        topic_defaults: config.topic_defaults.clone(),
    };
    // Clocks of machines drift apart by parts in a million; within a lease that is nothing beside this.
    let leases = Leases { duration, drift: duration / DRIFT_SHARE };
    ControllerSettings { leases, ..ControllerSettings::new(policy) }
}
