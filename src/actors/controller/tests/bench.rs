//! A controller and what stands around it: brokers that ask by name, ports that accept or refuse, a clock that is set by hand.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use actix::{Actor, Context, Handler, Message};

use super::super::starting::run_raft;
use super::*;
use crate::actors::peer::{Dial, Dialing, PeerAddress, ReadHalf, WriteHalf};
use crate::actors::peer_session::{PeerContext, PeerGone};
use crate::engine::controller::{InSyncProposal, Member};
use crate::engine::metadata::{LastStop, PartitionImage, PeerEndpoint};
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::peer::PeerConnection;
use crate::raft::Raft;
use crate::types::{Clock, MonoTime, PartitionIndex, TimestampMs, TopicPartition};

/// The port that refuses; the others accept.
pub const REFUSING: u16 = 1;
/// Asks for the image as it is, and is nobody.
const ONLOOKER: NodeId = NodeId(999);

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
pub struct HandClock(Arc<Mutex<MonoTime>>);

impl HandClock {
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().expect("whole");
        *now = now.plus(by);
    }
}

impl Clock for HandClock {
    fn now(&self) -> MonoTime {
        *self.0.lock().expect("whole")
    }

    fn wall(&self) -> TimestampMs {
        TimestampMs(0)
    }
}

struct Ports;

impl Dial for Ports {
    fn dial(&self, address: &PeerAddress) -> Dialing {
        let is_refused = address.port == REFUSING;
        Box::pin(async move {
            if is_refused {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok((Box::new(tokio::io::empty()) as ReadHalf, Box::new(tokio::io::sink()) as WriteHalf))
        })
    }
}

/// Look now for what is due.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl Handler<Tick> for Controller {
    type Result = ();
    fn handle(&mut self, _: Tick, ctx: &mut Context<Self>) {
        self.tick(ctx);
    }
}

pub struct Bench {
    pub controller: Addr<Controller>,
    pub raft: Raft,
    pub clock: HandClock,
}

impl Bench {
    pub async fn on(disk: &VirtualDisk) -> Self {
        let (files, me) = open(disk);
        let starting = Starting::alone(files, &me, ControllerSettings::new(policy()));
        let (images, entries) = (starting.files.storage.images.clone(), starting.files.storage.entries.clone());
        let (raft, _, _) = run_raft(starting).await.expect("it runs");
        let clock = HandClock::default();
        let usual = ControllerSettings::new(policy());
        let settings = ControllerSettings { clock: Arc::new(clock.clone()), dial: Arc::new(Ports), ..usual };
        let controller = Controller::new(raft.clone(), images, entries, settings, None).start();
        let bench = Self { controller, raft, clock };
        bench.until(|image| image.feature_level == FEATURE_LEVEL).await;
        bench
    }

    pub async fn new() -> Self {
        Self::on(&VirtualDisk::new(1)).await
    }

    pub async fn ask(&self, request: Request) -> Result<Option<Answer>, ApiError> {
        let asked = self.controller.send(AskController(request));
        tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("alive")
    }

    /// Everything that is due by now is done, or on its way.
    pub async fn tick(&self) {
        self.controller.send(Tick).await.expect("alive");
    }

    pub async fn follow(
        &self,
        node: NodeId,
        epoch: Option<BrokerEpoch>,
        index: u64,
        patience: Duration,
    ) -> Result<MetadataNews, ApiError> {
        let asked = self.controller.send(FollowMetadata { node, epoch, index, patience });
        tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("alive")
    }

    pub async fn image(&self) -> Arc<ClusterImage> {
        self.follow(ONLOOKER, None, 0, Duration::ZERO).await.expect("in office").image
    }

    /// Follows until the image is as wanted.
    pub async fn until(&self, wanted: impl Fn(&ClusterImage) -> bool) -> Arc<ClusterImage> {
        let mut index = 0;
        loop {
            let image = self.follow(ONLOOKER, None, index, PATIENCE).await.expect("in office").image;
            if wanted(&image) {
                return image;
            }
            index = image.index;
        }
    }

    /// Process number `process` of the broker, after the machine went down or it did not.
    pub fn registration(node: u32, process: u32, before: DirectoryHistory) -> BrokerRegistration {
        let port = u16::try_from(node).expect("small");
        BrokerRegistration {
            epoch: before.epoch,
            incarnation: IncarnationId(uuid::Uuid::from_u128(u128::from(node * 100 + process))),
            port,
            peer: Some(PeerEndpoint { host: "127.0.0.1".to_owned(), port }),
            before,
            ..registration(NodeId(node), directory_of(node))
        }
    }

    pub async fn register(&self, node: u32, process: u32, before: DirectoryHistory) -> BrokerEpoch {
        match self.ask(Request::Register(Self::registration(node, process, before))).await {
            Ok(Some(Answer::Registered { epoch, .. })) => epoch,
            other => panic!("{other:?}"),
        }
    }

    pub async fn renew(&self, node: u32, epoch: BrokerEpoch, applied: u64) -> Option<Answer> {
        let (node, sent) = (NodeId(node), MonoTime(Duration::from_secs(77)));
        let renewal = Renewal { node, epoch, applied, sent, doubtful: Vec::new() };
        self.ask(Request::Renew(renewal)).await.expect("in office")
    }

    /// A broker that is registered and counted on.
    pub async fn live(&self, node: u32) -> BrokerEpoch {
        let epoch = self.register(node, 0, DirectoryHistory::default()).await;
        self.renewed(node, epoch).await;
        epoch
    }

    pub async fn renewed(&self, node: u32, epoch: BrokerEpoch) {
        let answer = self.renew(node, epoch, u64::MAX).await;
        assert!(matches!(answer, Some(Answer::Renewed { .. })), "{answer:?}");
    }

    /// A topic of one partition on so many brokers.
    pub async fn topic(&self, replicas: u32, settings: &[(&str, &str)]) -> TopicPartition {
        let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let topic =
            NewTopic { partitions: Some(1), replication_factor: Some(replicas), config, ..super::wanted("rides") };
        let request = CreateTopics { topics: vec![topic], validate_only: false };
        let created = self.controller.send(request).await.expect("alive").expect("decided");
        TopicPartition::new(created.answer[0].as_ref().expect("created").id, PartitionIndex(0))
    }

    pub async fn partition(&self, partition: TopicPartition) -> PartitionImage {
        self.image().await.partition(partition).expect("it exists").clone()
    }

    pub async fn report(&self, node: u32, epoch: BrokerEpoch, findings: Vec<Finding>) {
        let report = ReplicaReport { node: NodeId(node), epoch, findings };
        assert_eq!(self.ask(Request::Report(report)).await, Ok(None));
    }

    /// What the leader of the partition asks for, that these are its members.
    pub async fn proposal(&self, partition: TopicPartition, members: &[NodeId]) -> InSyncProposal {
        let image = self.image().await;
        let state = image.partition(partition).expect("it exists");
        let leader = state.leader.expect("it is led");
        let member = |node: &NodeId| Member { node: *node, epoch: image.epoch_of(*node).expect("registered") };
        InSyncProposal {
            partition,
            leader,
            broker_epoch: member(&leader).epoch,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            members: members.iter().map(member).collect(),
            new_leader: None,
        }
    }

    /// A connection of the broker is lost.
    pub fn lost(&self, node: u32, directory: DirectoryId, connection: PeerConnection) {
        let from = PeerContext {
            cluster: Some(CLUSTER),
            node: NodeId(node),
            directory,
            connection,
            software: "test".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            owner: OwnerId(1),
        };
        post(&self.controller, PeerGone { from: Arc::new(from) });
    }
}

pub fn directory_of(node: u32) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(u128::from(node)))
}

/// What a directory says of the time before, after its machine went down.
pub fn after_a_power_loss(epoch: BrokerEpoch) -> DirectoryHistory {
    DirectoryHistory { epoch, stop: LastStop::Machine }
}

/// The lines that are logged on this thread, as long as the guard lives.
pub struct Lines {
    kept: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn new() -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&kept);
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Sink(Arc::clone(&sink))).finish();
        Self { kept, _guard: tracing::subscriber::set_default(log) }
    }

    pub fn with(&self, text: &str) -> Vec<String> {
        let lines = String::from_utf8(self.kept.lock().expect("whole").clone()).expect("text");
        lines.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}
