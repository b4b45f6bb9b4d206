//! The broker with real replicas on a virtual disk; the controller is the test's: it decides with the real engine, and keeps what it
//! was asked.

mod life;
mod replicas;
mod scrubbing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler, MessageResult, ResponseFuture};
use tokio::sync::watch;

use super::*;
use crate::actors::controller::{
    AddPartitions, AlterTopics, AskController, ChangeControllers, Committed, CreateTopics, DeleteTopics,
    DescribeControllers, ElectLeaders, FindController, FollowMetadata, InitProducer, MetadataNews, Reassign,
};
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::PartitionLeaderSettings;
use crate::actors::test_support::{DiskThread, registration, replica_settings};
use crate::engine::broker::{Answer, BrokerSettings as Times, EndReason, Finding, Renewal, ReplicaReport, Request};
use crate::engine::controller::{Decision, fence, register, stopping, unfence};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, DirectoryHistory, FEATURE_LEVEL, MetadataRecord};
use crate::metrics::Metrics;
use crate::protocol::messages::ControllerDescription;
use crate::protocol::messages::peer::{DescribeControllersReply, FindControllerReply};
use crate::protocol::messages::{CreatedTopic, InitProducerReply};
use crate::protocol::{ApiError, ErrorCode};
use crate::replica;
use crate::storage::data_dir::{DataDir, partition_dir_name};
use crate::storage::disk::{Disk, OpenMode, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, LeaderEpoch, NodeId, PartitionIndex, TopicConfig, TopicConfigOverrides,
    TopicId, TopicName, TopicPartition,
};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));
/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(10);

const TIMES: Times = Times {
    retry: Duration::from_millis(20),
    renewal_interval: Duration::from_millis(50),
    report_interval: Duration::from_millis(50),
    hand_over_timeout: Duration::from_millis(500),
    stop_timeout: PATIENCE,
    farewell: PATIENCE,
};

fn id(n: u128) -> TopicId {
    TopicId(uuid::Uuid::from_u128(n))
}

fn name(n: u128) -> TopicName {
    TopicName::new(&format!("topic-{n}")).expect("legal")
}

fn place(n: u128, partition: u32) -> TopicPartition {
    TopicPartition::new(id(n), PartitionIndex(partition))
}

fn created(n: u128, replicas: Vec<Vec<NodeId>>) -> MetadataRecord {
    MetadataRecord::TopicCreated { topic: id(n), name: name(n), replicas, config: TopicConfigOverrides::default() }
}

/// A topic whose replicas stay members when they leave.
fn strict(n: u128, replicas: Vec<Vec<NodeId>>) -> MetadataRecord {
    let config = TopicConfigOverrides([("min_insync_replicas".to_owned(), "2".to_owned())].into());
    MetadataRecord::TopicCreated { topic: id(n), name: name(n), replicas, config }
}

/// A topic of so many partitions here.
fn mine(n: u128, partitions: usize) -> MetadataRecord {
    created(n, vec![vec![ME]; partitions])
}

/// The metadata before anything is registered.
fn beginning() -> ClusterImage {
    with(&ClusterImage::empty(CLUSTER), &[MetadataRecord::FeatureLevel { level: FEATURE_LEVEL }])
}

fn with(image: &ClusterImage, records: &[MetadataRecord]) -> ClusterImage {
    let mut image = image.clone();
    records.iter().for_each(|record| image.apply(record).expect("fits"));
    image
}

/// The other broker is there, and counted on.
fn other() -> [MetadataRecord; 2] {
    let epoch = BrokerEpoch(100);
    let directory = DirectoryId(uuid::Uuid::from_u128(22));
    let other = BrokerRegistration { epoch, ..registration(OTHER, directory) };
    [MetadataRecord::BrokerRegistered(other), MetadataRecord::BrokerUnfenced { node: OTHER, epoch }]
}

/// The controller.
#[derive(Clone)]
struct Desk {
    image: Arc<watch::Sender<Arc<ClusterImage>>>,
    heard: Arc<Mutex<Vec<Request>>>,
    /// Reports are heard, but nothing comes of them.
    is_deaf: Arc<Mutex<bool>>,
    /// Whoever follows the metadata is told of it.
    tells: Arc<watch::Sender<bool>>,
}

impl Desk {
    fn new(image: ClusterImage) -> Self {
        Self {
            image: Arc::new(watch::Sender::new(Arc::new(image))),
            heard: Arc::default(),
            is_deaf: Arc::default(),
            tells: Arc::new(watch::Sender::new(true)),
        }
    }

    fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    fn commit(&self, records: &[MetadataRecord]) {
        if !records.is_empty() {
            self.image.send_modify(|image| *image = Arc::new(with(image, records)));
        }
    }

    fn take<T>(&self, decision: Result<Decision<T>, ApiError>) -> Result<T, ApiError> {
        let Decision { records, answer } = decision?;
        self.commit(&records);
        Ok(answer)
    }

    fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }

    fn findings(&self) -> Vec<Finding> {
        let report = |request| match request {
            Request::Report(report) => Some(report.findings),
            _ => None,
        };
        self.heard().into_iter().filter_map(report).flatten().collect()
    }

    fn decide(&self, request: Request) -> Result<Option<Answer>, ApiError> {
        let image = self.image();
        match request {
            Request::Register(registration) => {
                let incarnation = registration.incarnation;
                let decided = self.take(register(&image, registration, &TopicConfig::default()));
                Ok(Some(match decided {
                    Ok(epoch) => Answer::Registered { incarnation, epoch },
                    Err(cause) => Answer::NotRegistered { incarnation, cause },
                }))
            }
            Request::Renew(Renewal { node, epoch, applied, sent, doubtful }) => {
                if !image.is_live(node) && applied > 0 {
                    self.take(unfence(&image, node, epoch, &doubtful))?;
                }
                Ok(Some(Answer::Renewed { epoch, sent, duration: Duration::from_secs(60) }))
            }
            Request::Report(ReplicaReport { node, findings, .. }) => {
                let heard = !*self.is_deaf.lock().unwrap();
                for finding in findings.into_iter().filter(|_| heard) {
                    // One that was overtaken says nothing new.
                    let image = self.image();
                    match finding {
                        Finding::Opened(TopicPartition { topic, partition }) if image.topics.contains_key(&topic) => {
                            let partitions = Some(vec![partition]);
                            self.commit(&[MetadataRecord::TopicOpened { topic, node, partitions }]);
                        }
                        Finding::FilesGone(topic) if image.holds_tombstone(topic, node) => {
                            self.commit(&[MetadataRecord::TombstoneCleared { topic, node: Some(node) }]);
                        }
                        _ => {}
                    }
                }
                Ok(None)
            }
            Request::Propose(_) => Ok(None),
            Request::Stopping { node, epoch } => self.take(stopping(&image, node, epoch)).map(|()| None),
            Request::Stopped { node, epoch } => self.take(fence(&image, node, epoch)).map(|()| None),
        }
    }
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<AskController> for Desk {
    type Result = Result<Option<Answer>, ApiError>;
    fn handle(&mut self, AskController(request): AskController, _: &mut Self::Context) -> Self::Result {
        self.heard.lock().unwrap().push(request.clone());
        self.decide(request)
    }
}

impl Handler<FollowMetadata> for Desk {
    type Result = ResponseFuture<Result<MetadataNews, ApiError>>;
    fn handle(&mut self, request: FollowMetadata, _: &mut Self::Context) -> Self::Result {
        let (mut images, mut tells) = (self.image.subscribe(), self.tells.subscribe());
        Box::pin(async move {
            let _ = tells.wait_for(|tells| *tells).await;
            let waited = images.wait_for(|image| image.index > request.index);
            let _ = tokio::time::timeout(request.patience, waited).await;
            let image = Arc::clone(&images.borrow());
            Ok(MetadataNews { image, entries: None, hand_overs: Vec::new() })
        })
    }
}

impl Handler<FindController> for Desk {
    type Result = MessageResult<FindController>;
    fn handle(&mut self, _: FindController, _: &mut Self::Context) -> Self::Result {
        MessageResult(FindControllerReply {
            cluster: None,
            decides: true,
            term: 1,
            leader: Some(ME),
            controllers: Vec::new(),
        })
    }
}

macro_rules! never_asked {
    ($($message:ident -> $answer:ty),* $(,)?) => {
        $(impl Handler<$message> for Desk {
            type Result = Result<$answer, ApiError>;
            fn handle(&mut self, _: $message, _: &mut Self::Context) -> Self::Result {
                Err(ApiError::new(ErrorCode::Unknown, "brokers do not ask for that"))
            }
        })*
    };
}

never_asked!(
    CreateTopics -> Committed<Vec<Result<CreatedTopic, ApiError>>>,
    DeleteTopics -> Committed<Vec<Result<TopicId, ApiError>>>,
    AlterTopics -> Committed<Vec<Result<TopicId, ApiError>>>,
    AddPartitions -> Committed<Vec<Result<TopicId, ApiError>>>,
    Reassign -> Committed<Vec<Result<Vec<NodeId>, ApiError>>>,
    ElectLeaders -> Committed<Vec<Result<NodeId, ApiError>>>,
    InitProducer -> InitProducerReply,
    ChangeControllers -> Vec<ControllerDescription>,
    DescribeControllers -> DescribeControllersReply,
);

struct Stage {
    disk: VirtualDisk,
    directory: Arc<DataDir>,
    broker: Addr<Broker>,
    desk: Desk,
    view: watch::Receiver<Arc<BrokerView>>,
    ended: watch::Receiver<Option<EndReason>>,
    thread: DiskThread,
    metrics: Arc<Metrics>,
}

impl Stage {
    /// A process on `disk` comes to a cluster with this metadata.
    fn on(disk: &VirtualDisk, image: ClusterImage) -> Self {
        Self::with(disk, Desk::new(image), DiskThread::start())
    }

    fn with(disk: &VirtualDisk, desk: Desk, thread: DiskThread) -> Self {
        let partitions = replica_settings(ME, &thread, 0);
        Self::set(disk, desk, thread, partitions)
    }

    fn set(disk: &VirtualDisk, desk: Desk, thread: DiskThread, partitions: PartitionLeaderSettings) -> Self {
        let metrics = Arc::clone(&partitions.metrics);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let directory = DataDir::open(Arc::clone(&shared), Path::new("/data"), ME, Some(CLUSTER));
        let directory = Arc::new(directory.expect("a data directory"));
        let stop = replica::last_stop(&directory).expect("readable");
        let epoch = directory.meta().broker_epoch.unwrap_or_default();
        let before = DirectoryHistory { epoch, stop };
        let registration = BrokerRegistration { epoch, before, ..registration(ME, directory.meta().directory) };
        let empty =
            BrokerView { partitions: 0, image: Arc::new(ClusterImage::empty(CLUSTER)), replicas: HashMap::new() };
        let (sender, view) = watch::channel(Arc::new(empty));
        let (end, ended) = watch::channel(None);
        let broker = Broker::new(BrokerSettings {
            registration,
            controllers: Controllers::alone(ME, desk.clone().start()),
            times: TIMES,
            directory: Arc::clone(&directory),
            files: Arc::new(FileCache::new(shared, 16)),
            topic_defaults: TopicConfig::default(),
            partitions,
            core: vec![Arbiter::current()],
            fetches: None,
            view: sender,
            ended: end,
        })
        .start();
        Self { disk: disk.clone(), directory, broker, desk, view, ended, thread, metrics }
    }

    /// A process on a new disk, which is counted on.
    async fn new() -> Self {
        let stage = Self::on(&VirtualDisk::new(1), beginning());
        stage.counted_on().await;
        stage
    }

    fn commit(&self, records: &[MetadataRecord]) {
        self.desk.commit(records);
    }

    /// Until something holds.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
    }

    async fn counted_on(&self) {
        self.until("counted on", |stage| stage.desk.image().is_live(ME) && stage.directory_epoch().is_some()).await;
        self.caught_up().await;
    }

    fn directory_epoch(&self) -> Option<BrokerEpoch> {
        self.directory.meta().broker_epoch
    }

    async fn caught_up(&self) {
        let index = self.desk.image().index;
        let caught_up = self.broker.send(AwaitMetadata { index });
        tokio::time::timeout(PATIENCE, caught_up).await.expect("in time").expect("alive");
        assert!(self.view.borrow().image.index >= index);
    }

    async fn stop(&self) -> Vec<String> {
        let stopped = self.broker.send(StopBroker);
        tokio::time::timeout(PATIENCE, stopped).await.expect("in time").expect("alive")
    }

    fn dir_of(&self, n: u128, partition: u32) -> PathBuf {
        Path::new("/data").join(partition_dir_name(&name(n), place(n, partition)))
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path).expect("readable")
    }

    fn state_of(&self, n: u128, partition: u32) -> &'static str {
        match self.view.borrow().replica(place(n, partition)) {
            None => "unknown",
            Some(Replica::Leader(_)) => "leads",
            Some(Replica::Follower(_)) => "follows",
            Some(Replica::Retired(_)) => "retired",
            Some(Replica::Offline(_)) => "offline",
            Some(Replica::Elsewhere) => "elsewhere",
        }
    }

    async fn until_state(&self, n: u128, state: &str) {
        self.until(state, |stage| stage.state_of(n, 0) == state).await;
    }
}
