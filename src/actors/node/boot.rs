//! Starting a node, serving its connections, and ending it: each in its order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};

use super::{NodeError, Ready};
use crate::actors::broker::{AwaitMetadata, Broker, BrokerSettings, BrokerView, StopReplicas};
use crate::actors::codec::{CodecSettings, serve};
use crate::actors::controller::{CloseController, Controller, CreateTopics, MetadataLog, RegisterBroker, Subscribe};
use crate::actors::partition_leader::{CacheBudget, Keeping, PartitionLeaderSettings, ReadBudget};
use crate::actors::send::post;
use crate::actors::session::{NodeFacts, Session, SessionSettings};
use crate::actors::threads::Threads;
use crate::config::topics_file;
use crate::config::{NodeConfig, Role};
use crate::engine::controller::ControllerPolicy;
use crate::engine::metadata::{BrokerRegistration, ClusterImage};
use crate::engine::waiters::OwnerId;
use crate::net::{ByteBudget, ConnectionGate, Listener, NetLimits};
use crate::protocol::ErrorCode;
use crate::protocol::messages::NewTopic;
use crate::storage::data_dir::{DataDir, DirectoryLock, lock_directory};
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::types::{BrokerEpoch, BufferPool, Clock, IncarnationId, SystemClock};

/// Descriptors kept for segments that are being written, beside those of `storage.open_files`.
const DESCRIPTORS_OF_ACTIVE_SEGMENTS: usize = 1_024;

/// Of the bytes that requests may take, one in so many may be kept in free buffers: 32 MiB by default.
const BUFFERS_SHARE: usize = 4;
/// How often buffers that nobody needed are freed.
const BUFFERS_INTERVAL: Duration = Duration::from_secs(10);

/// How long connections get to take their last replies when the node stops.
const LAST_REPLIES: Duration = Duration::from_millis(200);

pub(super) struct Node {
    config: Arc<NodeConfig>,
    directory: Arc<DataDir>,
    _lock: DirectoryLock,
    epoch: BrokerEpoch,
    controller: Addr<Controller>,
    broker: Addr<Broker>,
    view: watch::Receiver<Arc<BrokerView>>,
    threads: Threads,
    listener: Listener,
    sessions: SessionSettings,
    codecs: CodecSettings,
    declared: Vec<String>,
}

impl Node {
    pub(super) async fn boot(disk: Arc<dyn Disk>, config: NodeConfig, keeping: Keeping) -> Result<Self, NodeError> {
        if !(config.node.roles.contains(&Role::Controller) && config.node.roles.contains(&Role::Broker)) {
            return Err(NodeError::Roles);
        }
        let config = Arc::new(config);
        let root = &config.node.data_dir;
        // Bound before anything is created: a port in use leaves no trace.
        let limits = net_limits(&config, descriptors());
        let connections = ConnectionGate::from_limits(&limits);
        let listener = Listener::bind(&config.listener.native.bind, connections.clone()).await?;
        let lock = lock_directory(root)?;
        let directory = Arc::new(DataDir::open(Arc::clone(&disk), root, config.node.id, config.node.cluster_id)?);
        let was_clean = directory.take_clean_stop()?.is_some();
        tracing::debug!(was_clean, "the data directory is open");

        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let threads = Threads::start(config.threads.core, config.threads.disk);
        let buffers = BufferPool::new(limits.node_bytes_in_flight / BUFFERS_SHARE);
        let files = FileCache::new(Arc::clone(&disk), config.storage.open_files).with_buffers(buffers.clone());
        let files = Arc::new(files);
        let cluster = directory.meta().cluster;
        let (log, image) = MetadataLog::open(disk, Arc::clone(&files), &directory.metadata_dir(), cluster)?;
        let (view_sender, view) = watch::channel(Arc::new(BrokerView {
            partitions: 0,
            image: Arc::new(ClusterImage::empty(cluster)),
            replicas: std::collections::HashMap::new(),
        }));
        let controller = start_controller(&threads.control(), log, image, &config, &clock);
        let partitions = PartitionLeaderSettings {
            storage: config.storage.clone(),
            placement: config.threads.log_writer,
            clock: Arc::clone(&clock),
            disk: threads.disk_pool(),
            cache: CacheBudget::new(config.storage.tail_cache_bytes),
            reads: ReadBudget::new(config.limits.node_bytes_in_flight),
            keeping,
        };
        let requests = ByteBudget::new(limits.node_bytes_in_flight);
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
        let broker = Broker::new(BrokerSettings {
            node: config.node.id,
            directory: Arc::clone(&directory),
            files,
            topic_defaults: config.topic_defaults.clone(),
            partitions,
            core: threads.core(),
            topic_opened: controller.clone().recipient(),
            topic_files_gone: controller.clone().recipient(),
            view: view_sender,
        })
        .start();
        let epoch = register(&config, &directory, &listener, &controller, &broker).await?;
        let declared = declare_topics(&config, &controller, &broker).await?;
        let sessions = SessionSettings {
            node: config.node.id,
            limits: config.limits.clone(),
            topic_defaults: config.topic_defaults.clone(),
            clock,
            view: view.clone(),
            controller: controller.clone(),
            broker: broker.clone(),
            facts: Arc::new(facts),
        };
        let codecs = CodecSettings {
            requests_in_flight: config.limits.requests_in_flight_per_connection,
            node_budget: requests,
            buffers,
            limits,
        };
        let _lock = lock;
        Ok(Self {
            config,
            directory,
            _lock,
            epoch,
            controller,
            broker,
            view,
            threads,
            listener,
            sessions,
            codecs,
            declared,
        })
    }

    pub(super) fn announce(&self) -> Result<Ready, NodeError> {
        let view = self.view.borrow();
        Ok(Ready {
            native: local_address(&self.listener)?,
            data_dir: self.config.node.data_dir.clone(),
            cluster: view.image.cluster_id.to_string(),
            topics: view.image.topics.len(),
            declared: self.declared.clone(),
        })
    }

    pub(super) async fn serve_until(mut self, stop: &mut mpsc::Receiver<()>) -> Result<(), NodeError> {
        let owners = AtomicU64::new(0);
        let mut tidying = tokio::time::interval(BUFFERS_INTERVAL);
        loop {
            let connection = tokio::select! {
                connection = self.listener.accept() => connection,
                _ = tidying.tick() => {
                    self.codecs.buffers.release_unused();
                    continue;
                }
                _ = stop.recv() => break,
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
                serve(read_half, write_half, peer, &codecs, place, |codec| {
                    Session::create(|ctx| Session::new(ctx, sessions, codec, owner, peer))
                });
            });
        }
        self.shut_down().await
    }

    async fn shut_down(self) -> Result<(), NodeError> {
        let Self { directory, epoch, controller, broker, threads, listener, .. } = self;
        drop(listener);
        // First no more changes of topics: a partition that is opened while the others close would be closed by nobody.
        let mut problems = match controller.send(CloseController).await {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(problem)) => vec![problem],
            Err(error) => vec![error.to_string()],
        };
        problems.extend(broker.send(StopReplicas).await.unwrap_or_else(|error| vec![error.to_string()]));
        // The replies to what was just written are on their way through codecs and sockets.
        tokio::time::sleep(LAST_REPLIES).await;
        if problems.is_empty()
            && let Err(error) = directory.mark_clean_stop(epoch)
        {
            problems.push(error.to_string());
        }
        threads.stop();
        if problems.is_empty() { Ok(()) } else { Err(NodeError::Unclean(problems.join("; "))) }
    }
}

/// Raises the soft limit of open files to the hard one, and returns how many files this process may have open: each
/// connection is one, and an active segment has three.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// How many connections may be open: when descriptors are few, connections are refused, and never an append for want of
/// a file. Half of them at least are left to connections.
fn most_connections(wanted: usize, open_files: usize, descriptors: usize) -> usize {
    let for_logs = open_files.saturating_add(DESCRIPTORS_OF_ACTIVE_SEGMENTS).min(descriptors / 2);
    let most = wanted.min(descriptors - for_logs);
    if most < wanted {
        tracing::debug!(
            most,
            wanted,
            descriptors,
            "fewer connections than limits.max_connections: raise `ulimit -Hn` for more"
        );
    }
    most
}

fn net_limits(config: &NodeConfig, descriptors: usize) -> NetLimits {
    let limits = &config.limits;
    NetLimits {
        max_frame_bytes: limits.max_frame_bytes as usize,
        max_frame_bytes_before_hello: limits.max_frame_bytes_before_hello as usize,
        max_connections: most_connections(limits.max_connections, config.storage.open_files, descriptors),
        max_connections_per_address: limits.max_connections_per_address,
        connection_bytes_in_flight: limits.connection_bytes_in_flight,
        node_bytes_in_flight: limits.node_bytes_in_flight,
        idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
        partial_frame_timeout: Duration::from_millis(limits.partial_frame_timeout_ms),
        write_queue_bytes: limits.write_queue_bytes,
        write_timeout: Duration::from_millis(limits.write_timeout_ms),
    }
}

fn local_address(listener: &Listener) -> Result<SocketAddr, NodeError> {
    listener
        .local_addr()
        .map_err(|cause| NodeError::Io { what: "cannot tell the listener's address".to_owned(), cause })
}

fn start_controller(
    thread: &ArbiterHandle,
    log: MetadataLog,
    image: ClusterImage,
    config: &NodeConfig,
    clock: &Arc<dyn Clock>,
) -> Addr<Controller> {
    let policy = ControllerPolicy {
        max_topics: config.limits.max_topics,
        max_partitions: config.limits.max_partitions,
        max_partitions_per_topic: config.limits.max_partitions_per_topic,
        default_partitions: config.topics.default_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        topic_defaults: config.topic_defaults.clone(),
    };
    let clock = Arc::clone(clock);
    Controller::start_in_arbiter(thread, move |_| Controller::new(log, image, policy, clock))
}

/// Registers the broker, and waits until its replicas are open.
async fn register(
    config: &NodeConfig,
    directory: &DataDir,
    listener: &Listener,
    controller: &Addr<Controller>,
    broker: &Addr<Broker>,
) -> Result<BrokerEpoch, NodeError> {
    let stopped = |_| NodeError::Ended;
    let (host, port) = advertised(config, local_address(listener)?);
    let meta = directory.meta();
    let registration = BrokerRegistration {
        node: config.node.id,
        epoch: meta.broker_epoch.unwrap_or_default(),
        incarnation: IncarnationId::random(),
        directory: meta.directory,
        host,
        port,
        rack: config.node.rack.clone(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let committed =
        controller.send(RegisterBroker(registration)).await.map_err(stopped)?.map_err(NodeError::Register)?;
    directory.store_broker_epoch(committed.answer)?;
    post(controller, Subscribe(broker.clone().recipient()));
    broker.send(AwaitMetadata { index: committed.index }).await.map_err(stopped)?;
    Ok(committed.answer)
}

/// Where clients are told to connect: `advertise` as it is, else the address that is listened on.
fn advertised(config: &NodeConfig, local: SocketAddr) -> (String, u16) {
    let native = &config.listener.native;
    let given = native.advertise.as_deref().and_then(|given| given.rsplit_once(':'));
    if let Some((host, port)) = given
        && let Ok(port) = port.parse()
    {
        return (host.trim_matches(['[', ']']).to_owned(), port);
    }
    if local.ip().is_unspecified() {
        // Listening everywhere says nothing about how this machine is reached: the host name is the best guess.
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        tracing::warn!(advertised = %name, "clients are sent to this host name: set listener.native.advertise if they cannot resolve it");
        return (name, local.port());
    }
    (local.ip().to_string(), local.port())
}

/// Creates the topics of the topics file that are missing. Existing ones are left as they are.
async fn declare_topics(
    config: &NodeConfig,
    controller: &Addr<Controller>,
    broker: &Addr<Broker>,
) -> Result<Vec<String>, NodeError> {
    let Some(file) = &config.topics.file else { return Ok(Vec::new()) };
    let declared = topics_file::read(Path::new(file))?;
    let wanted = |topic: &topics_file::DeclaredTopic| NewTopic {
        name: topic.name.as_str().to_owned(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.clone(),
    };
    let request = CreateTopics { topics: declared.iter().map(wanted).collect(), validate_only: false };
    let created = controller.send(request).await.map_err(|_| NodeError::Ended)?;
    broker.send(AwaitMetadata { index: created.index }).await.map_err(|_| NodeError::Ended)?;
    let mut said = Vec::new();
    for (topic, outcome) in declared.iter().zip(created.answer) {
        match outcome {
            Ok(_) => said.push(format!("created topic '{}'", topic.name)),
            Err(error) if error.code == ErrorCode::TopicExists => {}
            Err(cause) => {
                let name = topic.name.as_str().to_owned();
                return Err(NodeError::DeclaredTopic { name, file: file.clone(), cause });
            }
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_descriptors_are_few_logs_keep_theirs_and_connections_are_fewer() {
        assert_eq!(most_connections(20_000, 4_096, usize::MAX), 20_000);
        assert_eq!(most_connections(20_000, 4_096, 20_000), 20_000 - 4_096 - 1_024);
        assert_eq!(most_connections(20_000, 4_096, 1_024), 512);
    }
}
