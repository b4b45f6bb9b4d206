//! What a node needs to serve clients: its broker, and the sessions of those who connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::opening::Opened;
use super::peers::PeerSide;
use super::registration::registration;
use super::status::Serving;
use super::{NodeError, local_address};
use crate::actors::broker::{Broker, BrokerSettings, BrokerView};
use crate::actors::codec::{CodecSettings, serve};
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{CacheBudget, Keeping, PartitionLeaderSettings, ReadBudget};
use crate::actors::replica_fetcher::{ReplicaFetcher, ReplicaFetcherSettings};
use crate::actors::session::{NodeFacts, Session, SessionSettings};
use crate::actors::threads::Threads;
use crate::config::NodeConfig;
use crate::engine::broker::{self, EndReason};
use crate::engine::metadata::ClusterImage;
use crate::engine::waiters::OwnerId;
use crate::metrics::Metrics;
use crate::net::{Connection, Listener, NetLimits, NodeBudget};
use crate::storage::file_cache::FileCache;
use crate::types::{BufferPool, Clock, IncarnationId, NodeId};

/// How often a lease is renewed while it runs.
const RENEWALS_A_LEASE: u32 = 5;

/// What the parts of a node share.
pub(super) struct Shared {
    pub config: Arc<NodeConfig>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub files: Arc<FileCache>,
    pub buffers: BufferPool,
    pub keeping: Keeping,
}

/// The broker of a node, and those who connect to it.
pub(super) struct BrokerSide {
    pub broker: Addr<Broker>,
    pub view: watch::Receiver<Arc<BrokerView>>,
    pub controllers: Controllers,
    pub listener: Listener,
    /// Why it has ended, once it has.
    pub ended: watch::Receiver<Option<EndReason>>,
    /// The broker, and the run of its process.
    process: (NodeId, IncarnationId),
    sessions: SessionSettings,
    codecs: CodecSettings,
    owners: AtomicU64,
}

impl BrokerSide {
    /// Starts the broker over an open directory. It registers by itself, as soon as a controller decides.
    pub(super) fn start(
        shared: &Shared,
        opened: &Opened,
        controllers: Controllers,
        peers: Option<&PeerSide>,
        threads: &Threads,
        view: watch::Sender<Arc<BrokerView>>,
        (listener, limits): (Listener, NetLimits),
    ) -> Result<(Self, Serving), NodeError> {
        let Shared { config, clock, metrics, files, buffers, keeping } = shared;
        let cluster = opened.directory.meta().cluster;
        let nothing = BrokerView {
            partitions: 0,
            image: Arc::new(ClusterImage::empty(cluster)),
            replicas: std::collections::HashMap::new(),
        };
        view.send_replace(Arc::new(nothing));
        let seen = view.subscribe();
        let partitions = PartitionLeaderSettings {
            node: config.node.id,
            storage: config.storage.clone(),
            placement: config.threads.log_writer,
            clock: Arc::clone(clock),
            disk: threads.disk_pool(),
            cache: CacheBudget::new(config.storage.tail_cache_bytes),
            reads: ReadBudget::new(config.limits.node_bytes_in_flight),
            keeping: *keeping,
            metrics: Arc::clone(metrics),
        };
        let (cache, reads) = (partitions.cache.clone(), partitions.reads.clone());
        let requests = NodeBudget::new(limits.node_bytes_in_flight);
        let gate = listener.gate().clone();
        let local = local_address(&listener)?;
        let facts = NodeFacts {
            bound: local,
            directory: Arc::clone(&opened.directory),
            disk: threads.disk_pool(),
            storage: config.storage.clone(),
            core_threads: threads.core().len(),
            disk_threads: config.threads.disk,
            requests: requests.clone(),
            reads: reads.clone(),
            cache: cache.clone(),
            connections: gate.clone(),
        };
        let fetches = peers.map(|peers| {
            let (links, arbiter) = (Arc::clone(&peers.links), peers.data.clone());
            ReplicaFetcher::start(ReplicaFetcherSettings {
                node: config.node.id,
                topic_defaults: config.topic_defaults.clone(),
                clock: Arc::clone(clock),
                view: seen.clone(),
                links,
                arbiter,
            })
        });
        let registration = registration(config, opened, local, peers.map(|peers| peers.endpoint.clone()));
        let (process, (over, ended)) = ((registration.node, registration.incarnation), watch::channel(None));
        let broker = Broker::new(BrokerSettings {
            registration,
            times: times_of(config),
            controllers: controllers.clone(),
            directory: Arc::clone(&opened.directory),
            files: Arc::clone(files),
            topic_defaults: config.topic_defaults.clone(),
            partitions,
            core: threads.core(),
            fetches,
            view,
            ended: over,
        })
        .start();
        let sessions = SessionSettings {
            node: config.node.id,
            limits: config.limits.clone(),
            topic_defaults: config.topic_defaults.clone(),
            clock: Arc::clone(clock),
            view: seen.clone(),
            controllers: controllers.clone(),
            broker: broker.clone(),
            metrics: Arc::clone(metrics),
            facts: Arc::new(facts),
        };
        let codecs = CodecSettings {
            requests_in_flight: config.limits.requests_in_flight_per_connection,
            node_budget: requests.clone(),
            buffers: buffers.clone(),
            limits,
            metrics: Arc::clone(metrics),
        };
        let serving = Serving { view: seen.clone(), gate, requests, cache, reads };
        Ok((
            Self {
                broker,
                view: seen,
                controllers,
                listener,
                ended,
                process,
                sessions,
                codecs,
                owners: AtomicU64::new(0),
            },
            serving,
        ))
    }

    /// Waits until the metadata here counts on this process of the broker, and returns its index.
    pub(super) fn until_counted_on(&self) -> impl Future<Output = Result<u64, NodeError>> + use<> {
        let (mut view, mut ended, (node, incarnation)) = (self.view.clone(), self.ended.clone(), self.process);
        let is_counted_on = move |view: &Arc<BrokerView>| {
            let known = view.image.brokers.get(&node);
            known.is_some_and(|known| known.registration.incarnation == incarnation && !known.fenced)
        };
        async move {
            tokio::select! {
                seen = view.wait_for(is_counted_on) => seen.map(|view| view.image.index).map_err(|_| NodeError::Ended),
                Ok(_) = ended.wait_for(Option::is_some) => Err(NodeError::Superseded),
            }
        }
    }

    /// The next connection of a client. Nobody is let in before the metadata is known: a topic that exists must not be called unknown.
    pub(super) async fn accept(&mut self) -> Connection<TcpStream> {
        // The broker is gone only when the node ends.
        if self.view.wait_for(|view| view.image.index > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.listener.accept().await
    }

    /// Serves a client on the next core thread.
    pub(super) fn serve(&self, connection: Connection<TcpStream>, threads: &Threads) {
        let owner = OwnerId(self.owners.fetch_add(1, Ordering::Relaxed));
        let (sessions, codecs) = (self.sessions.clone(), self.codecs.clone());
        let Connection { stream, peer_addr, permit } = connection;
        // The socket moves to the reactor of the thread that will serve it.
        let Ok(socket) = stream.into_std() else { return };
        threads.next_session().spawn_fn(move || {
            let Ok(socket) = TcpStream::from_std(socket) else { return };
            let (read_half, write_half) = socket.into_split();
            serve(read_half, write_half, (owner, peer_addr), &codecs, permit, |codec| {
                Session::create(|ctx| Session::new(ctx, sessions, codec, owner, peer_addr))
            });
        });
    }
}

/// How often the broker asks: a lease is renewed five times within itself, so that four renewals in a row may be lost.
fn times_of(config: &NodeConfig) -> broker::BrokerSettings {
    let renewal_interval = Duration::from_millis(config.cluster.lease_ms) / RENEWALS_A_LEASE;
    broker::BrokerSettings { renewal_interval, ..broker::BrokerSettings::default() }
}
