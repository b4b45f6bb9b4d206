//! A session behind its real codec, over a pipe; the replicas that it sees are the test's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio_util::codec::{Encoder, FramedRead};

use super::*;
use crate::actors::broker::{Broker, BrokerSettings, BrokerView, Replica};
use crate::actors::codec::{CodecSettings, serve};
use crate::actors::controller::{self, Controller, ControllerSettings, MetadataFiles};
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{CacheBudget, PartitionLeader, PartitionLeaderSettings, ReadBudget};
use crate::actors::test_support::{
    DiskThread, batch, lead, new_log, nowhere, partition, registration, replica_settings,
};
use crate::config::{LimitsSection, StorageSection};
use crate::engine::controller::ControllerPolicy;
use crate::engine::leader::Leadership;
use crate::engine::metadata::{ClusterImage, FEATURE_LEVEL, MetadataRecord};
use crate::engine::producer_state::ProducerTable;
use crate::engine::waiters::OwnerId;
use crate::net::{ConnectionGate, NetLimits, NodeBudget};
use crate::protocol::frame::{Attachment, Frame, FrameCodec, decode_reply, encode_request};
use crate::protocol::messages::{
    self, Acks, DescribeCluster, DescribeNode, FetchPartition, Hello, Produce, ProducePartition, Request,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{ControllerNode, RaftId, RaftWork};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::{Disk, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::types::{
    BrokerEpoch, ClusterId, CorrelationId, LeaderEpoch, NodeId, Offset, PartitionIndex, SystemClock, TopicConfig,
    TopicConfigOverrides,
};

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

struct Stage {
    requests: WriteHalf<DuplexStream>,
    replies: FramedRead<ReadHalf<DuplexStream>, FrameCodec>,
    next_id: u32,
    thread: DiskThread,
    _view: watch::Sender<Arc<BrokerView>>,
}

fn partitions(thread: &DiskThread) -> PartitionLeaderSettings {
    // Nothing is cached, so that a disk thread that is held up holds up reads.
    replica_settings(NodeId(1), thread, 0)
}

/// A controller and a broker that no test here asks for much.
async fn cast(disk: &VirtualDisk, thread: &DiskThread) -> (Addr<Controller>, Addr<Broker>, NodeFacts) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = DataDir::open(Arc::clone(&disk), Path::new("/node"), NodeId(1), Some(CLUSTER)).expect("new");
    let directory = Arc::new(directory);
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
    let (node, directory_id) = (NodeId(1), directory.meta().directory);
    let me = ControllerNode { node, directory: directory_id, host: String::new(), port: 0 };
    let metadata =
        MetadataFiles::open(&directory, &files, (&me, RaftId::first_of(me.node)), &RaftWork::here()).expect("new");
    let policy = ControllerPolicy {
        max_topics: 1,
        max_partitions: 1,
        max_partitions_per_topic: 1,
        default_partitions: 1,
        default_replication_factor: None,
        topic_defaults: TopicConfig::default(),
    };
    let starting = controller::Starting::alone(metadata, &me, ControllerSettings::new(policy));
    let controller = controller::start_here(starting).await.expect("it runs");
    let view = BrokerView { partitions: 0, image: Arc::new(ClusterImage::empty(CLUSTER)), replicas: HashMap::new() };
    let broker = Broker::new(BrokerSettings {
        registration: registration(NodeId(1), directory_id),
        controllers: Controllers::alone(NodeId(1), controller.clone()),
        times: Default::default(),
        directory: Arc::clone(&directory),
        files,
        topic_defaults: TopicConfig::default(),
        partitions: partitions(thread),
        core: vec![Arbiter::current()],
        fetches: None,
        view: watch::channel(Arc::new(view)).0,
        ended: watch::channel(None).0,
    });
    let facts = NodeFacts {
        bound: "127.0.0.1:9644".parse().expect("an address"),
        directory,
        disk: thread.pool.clone(),
        storage: StorageSection::default(),
        core_threads: 1,
        disk_threads: 1,
        requests: NodeBudget::new(4 << 20),
        reads: ReadBudget::new(1 << 20),
        cache: CacheBudget::new(1 << 20),
        connections: ConnectionGate::new(10, 5),
    };
    (controller, broker.start(), facts)
}

/// A leader of the tests' partition.
fn leader(disk: &VirtualDisk, thread: &DiskThread) -> Addr<PartitionLeader> {
    let log = new_log(disk, &TopicConfig::default());
    let (leadership, settings) = (Leadership::alone(LeaderEpoch(0), NodeId(1), BrokerEpoch(1)), partitions(thread));
    let (config, log) = (TopicConfig::default(), (log, ProducerTable::default()));
    let leader =
        PartitionLeader::create(|ctx| PartitionLeader::new(ctx, partition(), config, log, settings, nowhere()));
    lead(&leader, leadership, TopicConfig::default());
    leader
}

impl Stage {
    /// A connection to a session that sees the partitions of topic `t` like this.
    async fn with(limits: LimitsSection, replicas: impl FnOnce(&VirtualDisk, &DiskThread) -> Vec<Replica>) -> Self {
        let (disk, thread) = (VirtualDisk::new(1), DiskThread::start());
        let (controller, broker, facts) = cast(&disk, &thread).await;
        let replicas = replicas(&disk, &thread);
        let (at, name) = partition();
        let mut image = ClusterImage::empty(CLUSTER);
        let placed = vec![vec![NodeId(1)]; replicas.len()];
        for record in [
            MetadataRecord::FeatureLevel { level: FEATURE_LEVEL },
            MetadataRecord::TopicCreated {
                topic: at.topic,
                name,
                replicas: placed,
                config: TopicConfigOverrides::default(),
            },
        ] {
            image.apply(&record).expect("fits");
        }
        let replicas = HashMap::from([(at.topic, Arc::from(replicas))]);
        let (sender, view) = watch::channel(Arc::new(BrokerView { partitions: 0, image: Arc::new(image), replicas }));
        let net = NetLimits::default();
        let codecs = CodecSettings {
            requests_in_flight: limits.requests_in_flight_per_connection,
            node_budget: NodeBudget::new(net.node_bytes_in_flight),
            buffers: crate::types::BufferPool::new(0),
            limits: net,
            metrics: Arc::default(),
        };
        let settings = SessionSettings {
            node: NodeId(1),
            limits,
            topic_defaults: TopicConfig::default(),
            clock: Arc::new(SystemClock::start()),
            view,
            controllers: Controllers::alone(NodeId(1), controller),
            broker,
            metrics: Arc::default(),
            facts: Arc::new(facts),
        };
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (read_half, write_half) = tokio::io::split(theirs);
        let peer = "127.0.0.1:1".parse().expect("an address");
        serve(read_half, write_half, (OwnerId(1), peer), &codecs, (), |codec| {
            Session::create(|ctx| Session::new(ctx, settings, codec, OwnerId(1), peer))
        });
        let (replies, requests) = tokio::io::split(ours);
        let replies = FramedRead::new(replies, FrameCodec::for_replies(64 << 20));
        Self { requests, replies, next_id: 1, thread, _view: sender }
    }

    async fn send<R: Request>(&mut self, request: &R, attachments: Vec<Bytes>) -> CorrelationId {
        let id = CorrelationId(self.next_id);
        self.next_id += 1;
        let frame = encode_request(request, id, attachments.into_iter().map(Attachment::from).collect());
        let mut bytes = BytesMut::new();
        FrameCodec::for_replies(64 << 20).encode(frame, &mut bytes).expect("encodable");
        self.requests.write_all(&bytes).await.expect("the pipe is open");
        id
    }

    async fn frame(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.replies.next());
        next.await.expect("an answer in time").map(|frame| frame.expect("well-formed"))
    }

    async fn ask<R: Request>(&mut self, request: &R, attachments: Vec<Bytes>) -> Result<R::Reply, ApiError> {
        let id = self.send(request, attachments).await;
        let frame = self.frame().await.expect("an answer");
        assert_eq!(frame.head.correlation_id, id);
        decode_reply::<R>(&frame)
    }

    async fn greet(&mut self) {
        let hello = Hello { protocol_min: 1, protocol_max: 1, client_id: "t".to_owned(), software: String::new() };
        self.ask(&hello, Vec::new()).await.expect("welcome");
    }
}

fn fetch(partitions: &[u32], max_wait_ms: u32, max_bytes: u32) -> messages::Fetch {
    let entry = |number: &u32| FetchPartition {
        topic: partition().0.topic,
        partition: PartitionIndex(*number),
        leader_epoch: None,
        offset: Offset(0),
        max_bytes,
    };
    messages::Fetch { max_wait_ms, min_bytes: 1, max_bytes, partitions: partitions.iter().map(entry).collect() }
}

fn produce(partitions: &[u32]) -> (Produce, Vec<Bytes>) {
    let entry = |number: &u32| ProducePartition {
        topic: partition().0.topic,
        partition: PartitionIndex(*number),
        leader_epoch: None,
    };
    let partitions: Vec<_> = partitions.iter().map(entry).collect();
    let attachments = vec![Bytes::from(batch(1).to_vec()); partitions.len()];
    (Produce { acks: Acks::All, timeout_ms: 10_000, partitions }, attachments)
}

#[actix::test]
async fn hello_comes_first_and_nothing_is_handled_after_a_refusal() {
    let mut stage = Stage::with(LimitsSection::default(), |_, _| Vec::new()).await;
    let refused = stage.send(&DescribeCluster {}, Vec::new()).await;
    stage.send(&DescribeCluster {}, Vec::new()).await;
    let frame = stage.frame().await.expect("an answer");
    assert_eq!(frame.head.correlation_id, refused);
    assert_eq!(decode_reply::<DescribeCluster>(&frame).expect_err("refused").code, ErrorCode::HelloRequired);
    assert_eq!(stage.frame().await, None, "then the connection ends");
}

#[actix::test]
async fn partitions_that_are_offline_or_elsewhere_are_answered_beside_those_that_are_here() {
    let offline = ApiError::new(ErrorCode::StorageFailed, "its disk failed");
    let mut stage = Stage::with(LimitsSection::default(), |disk, thread| {
        vec![Replica::Leader(leader(disk, thread)), Replica::Offline(offline), Replica::Elsewhere]
    })
    .await;
    stage.greet().await;
    let all = [0, 1, 2, 3];
    let expected =
        [None, Some(ErrorCode::StorageFailed), Some(ErrorCode::NotLeader), Some(ErrorCode::UnknownTopicOrPartition)];
    let (request, attachments) = produce(&all);
    let produced = stage.ask(&request, attachments).await.expect("an answer for each");
    let codes: Vec<_> = produced.partitions.into_iter().map(|o| o.into_result().err().map(|e| e.code)).collect();
    assert_eq!(codes, expected);
    let fetched = stage.ask(&fetch(&all, 60_000, 1 << 20), Vec::new()).await.expect("an answer for each");
    let codes: Vec<_> = fetched.partitions.into_iter().map(|o| o.into_result().err().map(|e| e.code)).collect();
    assert_eq!(codes, expected, "at once, whatever it might have waited");
}

#[actix::test]
async fn fetches_beyond_the_room_for_replies_wait_for_those_before_them() {
    let limits = LimitsSection { write_queue_bytes: 1 << 20, ..LimitsSection::default() };
    let mut stage = Stage::with(limits, |disk, thread| vec![Replica::Leader(leader(disk, thread))]).await;
    stage.greet().await;
    let (request, attachments) = produce(&[0]);
    stage.ask(&request, attachments).await.expect("produced");
    let held = stage.thread.hold_up();
    let reading = stage.send(&fetch(&[0], 0, 1 << 20), Vec::new()).await;
    let mut at_the_end = fetch(&[0], 0, 1 << 20);
    at_the_end.partitions[0].offset = Offset(1);
    // It could be answered at once, but has no room while the first may still bring a mebibyte.
    let deferred = stage.send(&at_the_end, Vec::new()).await;
    stage.ask(&DescribeCluster {}, Vec::new()).await.expect("other requests pass");
    drop(held);
    for expected in [reading, deferred] {
        assert_eq!(stage.frame().await.expect("an answer").head.correlation_id, expected);
    }
}

#[actix::test]
async fn a_fetch_that_is_parked_takes_no_room_and_holds_up_nothing() {
    let limits = LimitsSection { write_queue_bytes: 1 << 20, ..LimitsSection::default() };
    let mut stage = Stage::with(limits, |disk, thread| vec![Replica::Leader(leader(disk, thread))]).await;
    stage.greet().await;
    let parked = stage.send(&fetch(&[0], 60_000, 1 << 20), Vec::new()).await;
    stage.ask(&fetch(&[0], 0, 1 << 20), Vec::new()).await.expect("answered while the other is parked");
    let (request, attachments) = produce(&[0]);
    let produced = stage.send(&request, attachments).await;
    let mut answered =
        [stage.frame().await, stage.frame().await].map(|frame| frame.expect("an answer").head.correlation_id);
    answered.sort_unstable_by_key(|id| id.0);
    assert_eq!(answered, [parked, produced]);
}

#[actix::test]
async fn a_node_describes_itself_from_a_disk_thread_and_holds_up_nothing_meanwhile() {
    let mut stage = Stage::with(LimitsSection::default(), |_, _| Vec::new()).await;
    stage.greet().await;
    let held = stage.thread.hold_up();
    let describing = stage.send(&DescribeNode {}, Vec::new()).await;
    stage.ask(&DescribeCluster {}, Vec::new()).await.expect("other requests pass");
    drop(held);
    let frame = stage.frame().await.expect("an answer");
    assert_eq!(frame.head.correlation_id, describing);
    let node = decode_reply::<DescribeNode>(&frame).expect("described");
    assert_eq!(
        (node.node_id, node.bound.as_str(), node.process.pid),
        (NodeId(1), "127.0.0.1:9644", std::process::id())
    );
    let limits = (node.budgets.request_bytes.limit, node.budgets.read_bytes.limit, node.budgets.connections.limit);
    assert_eq!(limits, (4 << 20, 1 << 20, 10));
    assert_eq!(node.budgets.configured_connections, 20_000);
}

#[actix::test]
async fn a_request_that_names_something_twice_is_refused() {
    let mut stage =
        Stage::with(LimitsSection::default(), |disk, thread| vec![Replica::Leader(leader(disk, thread))]).await;
    stage.greet().await;
    let twice = stage.ask(&fetch(&[0, 0], 0, 1 << 20), Vec::new()).await.expect_err("refused");
    assert_eq!(twice.code, ErrorCode::InvalidRequest);
    let names = Some(vec!["t".to_owned(), "t".to_owned()]);
    let twice = stage.ask(&messages::Metadata { topics: names }, Vec::new()).await.expect_err("refused");
    assert_eq!(twice.code, ErrorCode::InvalidRequest);
}

#[actix::test]
async fn a_client_that_hangs_up_leaves_nothing_behind() {
    let mut stage =
        Stage::with(LimitsSection::default(), |disk, thread| vec![Replica::Leader(leader(disk, thread))]).await;
    stage.greet().await;
    stage.send(&fetch(&[0], 60_000, 1 << 20), Vec::new()).await;
    stage.requests.shutdown().await.expect("closed");
    assert_eq!(stage.frame().await, None, "a parked fetch keeps no connection open");
}
