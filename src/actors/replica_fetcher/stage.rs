//! Two nodes for tests: real sockets between them, real replicas on virtual disks; where the controller would be, its image.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler, Recipient};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ReplicaFetcher, ReplicaFetcherSettings};
use crate::actors::broker::{BrokerView, Replica};
use crate::actors::partition_leader::*;
use crate::actors::peer::{Dial, Dialing, LinkSettings, Myself, PeerAddress, PeerLinks, ReadHalf, WriteHalf};
use crate::actors::peer_session::*;
use crate::actors::replica_server::{ReplicaServer, ReplicaServerSettings};
use crate::actors::send::{post, post_to};
use crate::actors::test_support::{DiskThread, Ear, new_log, replica_settings};
use crate::engine::assignment::Assignment;
use crate::engine::controller::test_support::{Cluster, P0, nodes};
use crate::engine::metadata::{MetadataRecord, PeerEndpoint};
use crate::engine::producer_state::ProducerTable;
use crate::engine::waiters::OwnerId;
use crate::net::{ConnectionGate, Listener};
use crate::protocol::messages::Acks;
use crate::protocol::messages::peer::FetchReplicas;
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::disk::VirtualDisk;
use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use crate::types::*;

const ME: OwnerId = OwnerId(1);
/// What the cable damages in a record, when it is told to.
pub const FRAGILE: &[u8] = b"fragile goods";

/// TCP whose connections a test can cut, and that can damage what comes over it.
#[derive(Default)]
pub struct Cable {
    sockets: Arc<Mutex<Vec<StdStream>>>,
    is_unplugged: AtomicBool,
    /// How often what is fragile is damaged from here on.
    damages: Arc<AtomicUsize>,
}

impl Cable {
    pub fn cut(&self) -> usize {
        let sockets: Vec<_> = self.sockets.lock().unwrap().drain(..).collect();
        sockets.iter().filter(|socket| socket.shutdown(Shutdown::Both).is_ok()).count()
    }

    /// Cuts, and lets no connection be opened, until it is plugged in again.
    pub fn unplug(&self, is_unplugged: bool) {
        self.is_unplugged.store(is_unplugged, Ordering::Relaxed);
        if is_unplugged {
            self.cut();
        }
    }

    pub fn damage(&self, times: usize) {
        self.damages.store(times, Ordering::Relaxed);
    }

    pub fn damages_left(&self) -> usize {
        self.damages.load(Ordering::Relaxed)
    }
}

impl Dial for Cable {
    fn dial(&self, address: &PeerAddress) -> Dialing {
        let (address, sockets, damages) = (address.to_string(), Arc::clone(&self.sockets), Arc::clone(&self.damages));
        let is_unplugged = self.is_unplugged.load(Ordering::Relaxed);
        Box::pin(async move {
            if is_unplugged {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let socket = socket.into_std()?;
            sockets.lock().unwrap().push(socket.try_clone()?);
            let (read, write) = TcpStream::from_std(socket)?.into_split();
            Ok((Box::new(Rough { read, damages }) as ReadHalf, Box::new(write) as WriteHalf))
        })
    }
}

/// Flips a bit of what is fragile.
struct Rough {
    read: OwnedReadHalf,
    damages: Arc<AtomicUsize>,
}

impl AsyncRead for Rough {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(cx, buf))?;
        let came = &mut buf.filled_mut()[before..];
        let found = came.windows(FRAGILE.len()).position(|window| window == FRAGILE);
        if let Some(at) = found.filter(|_| self.damages.load(Ordering::Relaxed) > 0) {
            came[at] ^= 1;
            self.damages.fetch_sub(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

/// Stands before a connection's server and writes down what is asked.
struct Doorman {
    service: ConnectionService,
    asked: Arc<Mutex<Vec<FetchReplicas>>>,
}

impl Actor for Doorman {
    type Context = Context<Self>;
}

impl Handler<PeerCall> for Doorman {
    type Result = ();
    fn handle(&mut self, call: PeerCall, _: &mut Context<Self>) {
        if let PeerRequestBody::FetchReplicas(request) = &call.body {
            self.asked.lock().unwrap().push(request.clone());
        }
        post_to(&self.service.calls, call);
    }
}

fn watched(service: StartService, asked: Arc<Mutex<Vec<FetchReplicas>>>) -> StartService {
    StartService::new(move |from| {
        let service = service.start(from);
        let (gone, asked) = (service.gone.clone(), Arc::clone(&asked));
        ConnectionService { calls: Doorman { service, asked }.start().recipient(), gone }
    })
}

pub struct Node {
    pub cable: Arc<Cable>,
    pub links: Arc<PeerLinks>,
    pub replicas: Vec<Addr<PartitionLeader>>,
    pub reports: Ear<ReplicaReport>,
    /// What others asked of it.
    pub asked: Arc<Mutex<Vec<FetchReplicas>>>,
    view: watch::Sender<Arc<BrokerView>>,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        self.links.close();
    }
}

pub struct Stage {
    pub cluster: Cluster,
    pub nodes: BTreeMap<NodeId, Node>,
    config: TopicConfig,
    session: Ear<PartitionAnswer>,
    answers_to: Arc<Recipient<PartitionAnswer>>,
    clock: SystemClock,
    partitions: usize,
    requests: u64,
    _thread: DiskThread,
}

pub fn place(partition: usize) -> TopicPartition {
    TopicPartition::new(P0.topic, PartitionIndex(partition as u32))
}

pub fn batch_with(value: &[u8], producer: Option<i32>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, value.len() + 64);
    builder.append(TimestampMs(1_000), None, Some(value), &[]);
    if let Some(sequence) = producer {
        builder.set_producer(ProducerId(5), ProducerEpoch(0), sequence);
    }
    RecordBatch::split_from(&mut builder.build().expect("small")).expect("whole")
}

impl Stage {
    /// Broker 1 leads, broker 2 follows, all `partitions`.
    pub async fn new(partitions: usize, config: TopicConfig) -> Self {
        let mut cluster = Cluster::of(2);
        cluster.apply(&[MetadataRecord::TopicCreated {
            topic: P0.topic,
            name: TopicName::new("rides").expect("legal"),
            replicas: vec![nodes([1, 2]); partitions],
            config: TopicConfigOverrides::default(),
        }]);
        let mut listeners = BTreeMap::new();
        for node in nodes([1, 2]) {
            let listener = Listener::bind("127.0.0.1:0", ConnectionGate::new(100, 100)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let broker = cluster.image.brokers.get_mut(&node).unwrap();
            broker.registration.peer = Some(PeerEndpoint { host: "127.0.0.1".to_owned(), port });
            listeners.insert(node, listener);
        }
        let (thread, session, clock) = (DiskThread::start(), Ear::new(), SystemClock::start());
        let nodes = listeners.into_iter().map(|(node, listener)| {
            let made = Node::start(node, listener, (&cluster, &config, partitions), &thread, clock);
            (node, made)
        });
        let (nodes, answers_to) = (nodes.collect(), Arc::new(session.recipient()));
        let mut stage =
            Self { cluster, nodes, config, session, answers_to, clock, partitions, requests: 0, _thread: thread };
        stage.publish();
        stage
    }

    /// Each node learns the image, each replica what it says of it.
    pub fn publish(&mut self) {
        for (node, there) in &self.nodes {
            let leads = |at| self.cluster.image.partition(at).is_some_and(|state| state.leader == Some(*node));
            let replicas: Arc<[Replica]> = (there.replicas.iter().cloned().enumerate())
                .map(
                    |(at, replica)| {
                        if leads(place(at)) { Replica::Leader(replica) } else { Replica::Follower(replica) }
                    },
                )
                .collect();
            let (image, replicas) = (Arc::new(self.cluster.image.clone()), HashMap::from([(P0.topic, replicas)]));
            there.view.send_replace(Arc::new(BrokerView { image, partitions: self.partitions, replicas }));
            for (at, replica) in there.replicas.iter().enumerate() {
                let epoch = self.cluster.epoch(node.0);
                let assignment = Assignment::of(&self.cluster.image, *node, epoch, place(at));
                post(replica, Assign { assignment, config: self.config.clone() });
            }
        }
    }

    pub fn node(&self, node: u32) -> &Node {
        &self.nodes[&NodeId(node)]
    }

    fn reply(&mut self) -> ReplyTo {
        self.requests += 1;
        let tag = RequestTag { connection: ME, correlation: CorrelationId(0), request: self.requests, item: 0 };
        ReplyTo::new(Arc::clone(&self.answers_to), tag)
    }

    fn deadline(&self) -> MonoTime {
        self.clock.now().plus(Duration::from_secs(30))
    }

    pub fn send(&mut self, (node, partition): (u32, usize), batch: RecordBatch, acks: Acks) {
        let (deadline, reply) = (self.deadline(), self.reply());
        let (room, leader_epoch) = (None, None);
        let message = Produce { batch, room, leader_epoch, acks, deadline, owner: ME, reply };
        post(&self.node(node).replicas[partition], message);
    }

    /// The answer to whatever was asked: the next one.
    pub async fn answer(&mut self) -> Result<Answer, ApiError> {
        self.session.next().await.result
    }

    /// Where a record was appended, by the time it is acknowledged.
    pub async fn produce(&mut self, at: (u32, usize), batch: RecordBatch, acks: Acks) -> Result<u64, ErrorCode> {
        self.send(at, batch, acks);
        match self.answer().await {
            Ok(Answer::Produced(placed)) => Ok(placed.base_offset.0),
            Ok(other) => panic!("nobody asked for {other:?}"),
            Err(error) => Err(error.code),
        }
    }

    /// What a consumer at `node` gets from `offset` on, as soon as there is something: the values and their epochs.
    pub async fn read(&mut self, (node, partition): (u32, usize), offset: u64) -> Vec<(Offset, LeaderEpoch, Vec<u8>)> {
        let (wait_until, reply) = (Some(self.deadline()), self.reply());
        let (offset, max_bytes) = (Offset(offset), 16 << 20);
        let message = Fetch { offset, max_bytes, leader_epoch: None, wait_until, owner: ME, reply };
        post(&self.node(node).replicas[partition], message);
        let records = match self.answer().await.expect("records") {
            Answer::Fetched(records) => records,
            other => panic!("nobody asked for {other:?}"),
        };
        let (mut bytes, mut read) = (bytes::Bytes::from(records.chunks.concat()), Vec::new());
        while !bytes.is_empty() {
            let batch = RecordBatch::split_from(&mut bytes).expect("whole");
            let records = crate::types::record_batch::decode_records(&batch, 16 << 20).expect("readable");
            let epoch = batch.header.leader_epoch;
            read.extend(records.into_iter().map(|record| (record.offset, epoch, record.value.expect("one").to_vec())));
        }
        read
    }

    /// All up to `end` as a consumer at `node` sees it.
    pub async fn read_all(&mut self, at: (u32, usize), from: u64, end: u64) -> Vec<(Offset, LeaderEpoch, Vec<u8>)> {
        let mut read = Vec::new();
        while let next = read.last().map_or(from, |(offset, ..): &(Offset, _, _)| offset.0 + 1)
            && next < end
        {
            read.extend(self.read(at, next).await);
        }
        read
    }

    /// Applies what the leader `node` proposes.
    pub async fn take_proposal(&mut self, node: u32) {
        let told = self.nodes.get_mut(&NodeId(node)).unwrap().reports.next().await;
        let Reported::Proposal(proposal) = told.what else { panic!("a proposal was due, there is {told:?}") };
        let members: Vec<u32> = proposal.members.iter().map(|(node, _)| node.0).collect();
        self.cluster.in_sync(&members);
        self.publish();
    }

    /// How many requests, and fetches in them, node 1 was asked so far.
    pub fn counts(&self) -> (usize, usize) {
        let asked = self.node(1).asked.lock().unwrap();
        (asked.len(), asked.iter().map(|request| request.fetches.len()).sum())
    }
}

impl Node {
    fn start(
        node: NodeId,
        listener: Listener,
        (cluster, config, partitions): (&Cluster, &TopicConfig, usize),
        thread: &DiskThread,
        clock: SystemClock,
    ) -> Self {
        let directory = cluster.image.brokers[&node].registration.directory;
        let here = ClusterId(uuid::Uuid::from_u128(9));
        let myself = Myself { node, directory, cluster: here.into() };
        let (cable, here) = (Arc::new(Cable::default()), Arbiter::current());
        let dial = Arc::clone(&cable) as Arc<dyn Dial>;
        let settings = LinkSettings { dial, ..LinkSettings::new(myself.clone(), BufferPool::new(0)) };
        let links = Arc::new(PeerLinks::new(settings, here.clone(), here.clone()));
        let empty = BrokerView { image: Arc::new(cluster.image.clone()), partitions, replicas: HashMap::new() };
        let (view, seen) = watch::channel(Arc::new(empty));
        let settings = ReplicaFetcherSettings {
            node,
            topic_defaults: config.clone(),
            clock: Arc::new(clock),
            view: seen.clone(),
            links: Arc::clone(&links),
            arbiter: here.clone(),
        };
        let (fetches, reports) = (ReplicaFetcher::start(settings), Ear::new());
        let settings = PartitionLeaderSettings {
            clock: Arc::new(clock),
            cache: CacheBudget::new(64 << 20),
            reads: ReadBudget::new(64 << 20),
            ..replica_settings(node, thread, 256 << 10)
        };
        let replicas = (0..partitions).map(|at| {
            let log = (new_log(&VirtualDisk::new(u64::from(node.0)), config), ProducerTable::default());
            let named = (place(at), TopicName::new("rides").expect("legal"));
            let outward = Outward { fetches: Some(fetches.clone()), reports: reports.recipient() };
            let (config, settings) = (config.clone(), settings.clone());
            let replica =
                PartitionLeader::create(|ctx| PartitionLeader::new(ctx, named, config, log, settings, outward));
            post(&replica, SetLease(MonoTime(Duration::MAX)));
            replica
        });
        let (replicas, asked) = (replicas.collect(), Arc::default());
        let service = ReplicaServer::start(ReplicaServerSettings { view: seen, clock: Arc::new(clock) });
        let services = PeerServices { replicas: Some(watched(service, Arc::clone(&asked))), ..PeerServices::default() };
        let stop = CancellationToken::new();
        let sessions = PeerSessionSettings { myself, services, max_frame_bytes: 0, stop: stop.clone() };
        let server = PeerServer::new(sessions, BufferPool::new(0), Arc::new(move |_| here.clone()));
        actix_rt::spawn(server.serve(listener));
        Self { cable, links, replicas, reports, asked, view, stop }
    }
}
