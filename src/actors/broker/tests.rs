//! The broker with real replicas on a virtual disk; metadata comes from the test instead of a controller.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler, MessageResult};
use tokio::sync::watch;

use super::*;
use crate::actors::controller::{AlterInSync, MetadataCommitted, ReportDamaged, TopicFilesGone, TopicOpened};
use crate::actors::partition_leader::{ReplicaReport, Reported};
use crate::actors::send::post;
use crate::actors::test_support::{DiskThread, Ear, replica_settings};
use crate::engine;
use crate::engine::metadata::{
    BrokerRegistration, ClusterImage, DirectoryHistory, FEATURE_LEVEL, MetadataRecord, PartitionChange,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::data_dir::{DataDir, partition_dir_name};
use crate::storage::disk::{Disk, OpenMode, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, IncarnationId, MonoTime, NodeId, PartitionIndex, TopicConfig,
    TopicConfigOverrides, TopicId, TopicName, TopicPartition,
};

const ME: NodeId = NodeId(1);
const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

fn id(n: u128) -> TopicId {
    TopicId(uuid::Uuid::from_u128(n))
}

fn name(n: u128) -> TopicName {
    TopicName::new(&format!("topic-{n}")).expect("legal")
}

fn created(n: u128, partitions: usize) -> MetadataRecord {
    let replicas = vec![vec![ME]; partitions];
    MetadataRecord::TopicCreated { topic: id(n), name: name(n), replicas, config: TopicConfigOverrides::default() }
}

fn image_of(records: &[MetadataRecord]) -> ClusterImage {
    let mut image = ClusterImage::empty(CLUSTER);
    records.iter().for_each(|record| image.apply(record).expect("fits"));
    image
}

fn beginning() -> Vec<MetadataRecord> {
    let registration = BrokerRegistration {
        node: ME,
        epoch: BrokerEpoch(1),
        incarnation: IncarnationId(uuid::Uuid::from_u128(3)),
        directory: DirectoryId(uuid::Uuid::from_u128(4)),
        host: "127.0.0.1".to_owned(),
        port: 1,
        peer: None,
        rack: None,
        software: "test".to_owned(),
        before: DirectoryHistory::default(),
        decided_at: None,
    };
    vec![
        MetadataRecord::FeatureLevel { level: FEATURE_LEVEL },
        MetadataRecord::BrokerRegistered(registration),
        MetadataRecord::BrokerUnfenced { node: ME, epoch: BrokerEpoch(1) },
    ]
}

/// A controller that accepts no proposal.
struct Refuses;

impl Actor for Refuses {
    type Context = Context<Self>;
}

impl Handler<AlterInSync> for Refuses {
    type Result = MessageResult<AlterInSync>;
    fn handle(&mut self, AlterInSync(proposals): AlterInSync, _: &mut Self::Context) -> Self::Result {
        let refusal = |_| Err(ApiError::new(ErrorCode::StaleMetadata, "not now"));
        MessageResult(proposals.into_iter().map(refusal).collect())
    }
}

struct Stage {
    disk: VirtualDisk,
    broker: Addr<Broker>,
    controller: Ear<TopicFilesGone>,
    opened: Ear<TopicOpened>,
    damaged: Ear<ReportDamaged>,
    view: watch::Receiver<Arc<BrokerView>>,
    thread: DiskThread,
    records: Vec<MetadataRecord>,
}

impl Stage {
    fn on(disk: &VirtualDisk, records: Vec<MetadataRecord>) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let directory =
            DataDir::open(Arc::clone(&shared), Path::new("/data"), ME, Some(CLUSTER)).expect("a data directory");
        let (sender, view) = watch::channel(Arc::new(BrokerView {
            partitions: 0,
            image: Arc::new(ClusterImage::empty(CLUSTER)),
            replicas: HashMap::new(),
        }));
        let (thread, controller, opened, damaged) = (DiskThread::start(), Ear::new(), Ear::new(), Ear::new());
        let broker = Broker::new(BrokerSettings {
            node: ME,
            directory: Arc::new(directory),
            files: Arc::new(FileCache::new(shared, 16)),
            topic_defaults: TopicConfig::default(),
            partitions: replica_settings(ME, &thread, 0),
            core: vec![Arbiter::current()],
            topic_opened: opened.recipient(),
            topic_files_gone: controller.recipient(),
            in_sync: Refuses.start().recipient(),
            damaged: damaged.recipient(),
            fetches: None,
            view: sender,
        })
        .start();
        post(&broker, LeaseRenewed { until: MonoTime(Duration::MAX) });
        post(&broker, Registered { epoch: BrokerEpoch(1) });
        let stage = Self { disk: disk.clone(), broker, controller, opened, damaged, view, thread, records };
        stage.tell();
        stage
    }

    fn new() -> Self {
        Self::on(&VirtualDisk::new(1), beginning())
    }

    fn tell(&self) {
        post(&self.broker, MetadataCommitted { image: Arc::new(image_of(&self.records)) });
    }

    fn commit(&mut self, records: &[MetadataRecord]) {
        self.records.extend_from_slice(records);
        self.tell();
    }

    async fn caught_up(&self) {
        let index = self.records.len() as u64;
        let caught_up = self.broker.send(AwaitMetadata { index });
        tokio::time::timeout(Duration::from_secs(10), caught_up).await.expect("in time").expect("alive");
        assert!(self.view.borrow().image.index >= index);
    }

    fn dir_of(&self, n: u128, partition: u32) -> PathBuf {
        let partition = TopicPartition::new(id(n), PartitionIndex(partition));
        Path::new("/data").join(partition_dir_name(&name(n), partition))
    }

    fn state_of(&self, n: u128, partition: u32) -> &'static str {
        let view = self.view.borrow();
        match view.replica(TopicPartition::new(id(n), PartitionIndex(partition))) {
            None => "unknown",
            Some(Replica::Leader(_)) => "leads",
            Some(Replica::Follower(_)) => "follows",
            Some(Replica::Retired(_)) => "retired",
            Some(Replica::Offline(_)) => "offline",
            Some(Replica::Elsewhere) => "elsewhere",
        }
    }
}

#[actix::test]
async fn await_metadata_is_answered_when_the_replicas_that_it_calls_for_are_open() {
    let mut stage = Stage::new();
    stage.caught_up().await;
    let held = stage.thread.hold_up();
    stage.commit(&[created(1, 2)]);
    stage.commit(&[created(2, 1), MetadataRecord::TopicDeleted { topic: id(2) }, created(3, 1)]);
    let waiting = stage.broker.send(AwaitMetadata { index: stage.records.len() as u64 });
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "no replica is open yet");
    assert_eq!(stage.state_of(1, 0), "unknown", "a view is published whole");
    drop(held);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("alive");
    let states = [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0)].map(|(topic, partition)| stage.state_of(topic, partition));
    assert_eq!(states, ["leads", "leads", "unknown", "unknown", "leads"]);
    assert_eq!(stage.controller.next().await.topic, id(2), "created and deleted at once: there are no files");
}

#[actix::test]
async fn during_the_start_sessions_see_topics_whose_replicas_are_still_being_opened() {
    let stage = Stage::on(&VirtualDisk::new(1), [beginning(), vec![created(1, 2)]].concat());
    let held = stage.thread.hold_up();
    let (mut view, index) = (stage.view.clone(), stage.records.len() as u64);
    let seen = view.wait_for(|view| view.image.index == index);
    drop(
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("before any replica is open").expect("alive"),
    );
    let partition = TopicPartition::new(id(1), PartitionIndex(1));
    let Some(Replica::Offline(cause)) = stage.view.borrow().replica(partition).cloned() else { panic!("not open yet") };
    assert_eq!(cause.code, ErrorCode::NotLeader, "clients ask again");
    assert!(cause.message.contains("being opened"), "{}", cause.message);
    let early = tokio::time::timeout(Duration::from_millis(50), stage.broker.send(AwaitMetadata { index })).await;
    assert!(early.is_err(), "ready means that replicas are open");
    drop(held);
    stage.caught_up().await;
    assert_eq!([stage.state_of(1, 0), stage.state_of(1, 1)], ["leads", "leads"]);
}

#[actix::test]
async fn a_deleted_topics_files_go_and_the_controller_is_told_once_all_are_gone() {
    let mut stage = Stage::new();
    stage.commit(&[created(1, 3)]);
    stage.caught_up().await;
    assert!(stage.disk.exists(&stage.dir_of(1, 2)).unwrap());
    stage.commit(&[MetadataRecord::TopicDeleted { topic: id(1) }]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "unknown");
    assert_eq!(stage.controller.next().await.topic, id(1));
    for partition in 0..3 {
        assert!(!stage.disk.exists(&stage.dir_of(1, partition)).unwrap());
    }
    assert!(stage.controller.pending().is_empty(), "once");
}

#[actix::test]
async fn a_replica_that_cannot_be_opened_is_offline_and_the_others_lead() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::on(&disk, beginning());
    stage.commit(&[created(1, 1), created(2, 1), created(3, 1)]);
    stage.caught_up().await;
    let problems = stage.broker.send(StopReplicas).await.expect("alive");
    assert_eq!(problems, Vec::<String>::new());
    let meta = stage.dir_of(2, 0).join("partition.meta");
    let file = disk.open(&meta, OpenMode::Create).expect("it is there");
    drop(file);

    let restarted = Stage::on(&disk, stage.records.clone());
    restarted.caught_up().await;
    let states = [1, 2, 3].map(|topic| restarted.state_of(topic, 0));
    assert_eq!(states, ["leads", "offline", "leads"]);
    let view = Arc::clone(&restarted.view.borrow());
    let Some(Replica::Offline(cause)) = view.replica(TopicPartition::new(id(2), PartitionIndex(0))) else {
        panic!("offline");
    };
    assert_eq!(cause.code, ErrorCode::StorageFailed);
    assert!(cause.message.contains("partition.meta"), "{cause}");
    assert!(disk.exists(&meta).unwrap(), "its files are left as they are");
}

#[actix::test]
async fn a_directory_that_was_here_and_is_gone_is_never_replaced_by_an_empty_one() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::on(&disk, beginning());
    stage.commit(&[created(1, 1), created(2, 1)]);
    stage.caught_up().await;
    let opened = [stage.opened.next().await.topic, stage.opened.next().await.topic];
    assert!(opened.contains(&id(1)) && opened.contains(&id(2)));
    stage.broker.send(StopReplicas).await.expect("alive");
    for topic in [1, 2] {
        disk.remove_dir_all(&stage.dir_of(topic, 0)).expect("it is there");
    }

    let mut records = stage.records.clone();
    records.push(MetadataRecord::TopicOpened { topic: id(1), node: ME, partitions: None });
    let restarted = Stage::on(&disk, records);
    restarted.caught_up().await;
    assert_eq!(
        [1, 2].map(|topic| restarted.state_of(topic, 0)),
        ["offline", "leads"],
        "the second may never have been"
    );
    assert!(!disk.exists(&restarted.dir_of(1, 0)).unwrap());
}

#[actix::test]
async fn at_the_start_tombstones_are_worked_off_and_strangers_put_aside() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::on(&disk, beginning());
    stage.commit(&[created(1, 1), created(2, 2), created(3, 1)]);
    stage.caught_up().await;
    stage.broker.send(StopReplicas).await.expect("alive");
    let (known, deleted, stranger) = (stage.dir_of(1, 0), stage.dir_of(2, 1), stage.dir_of(3, 0));

    // Topic 2 was deleted while its files could not be removed; topic 3 never was in this metadata.
    let mut records = beginning();
    records.extend([created(1, 1), created(2, 2), MetadataRecord::TopicDeleted { topic: id(2) }]);
    let mut restarted = Stage::on(&disk, records);
    restarted.caught_up().await;
    assert_eq!(restarted.controller.next().await.topic, id(2));
    restarted.thread.settle().await;
    assert!(disk.exists(&known).unwrap() && !disk.exists(&deleted).unwrap());
    let aside = Path::new("/data/quarantine").join(stranger.file_name().unwrap());
    assert!(!disk.exists(&stranger).unwrap() && disk.exists(&aside).unwrap(), "kept, never removed");
}

/// Two brokers, of which this is one, and a topic of a partition on both.
fn shared(leader: NodeId, follower: NodeId) -> Vec<MetadataRecord> {
    let mut records = beginning();
    let MetadataRecord::BrokerRegistered(mut other) = records[1].clone() else { panic!("the registration") };
    (other.node, other.epoch) = (NodeId(2), BrokerEpoch(2));
    records.push(MetadataRecord::BrokerRegistered(other));
    records.push(MetadataRecord::BrokerUnfenced { node: NodeId(2), epoch: BrokerEpoch(2) });
    let (replicas, config) = (vec![vec![leader, follower]], TopicConfigOverrides::default());
    records.push(MetadataRecord::TopicCreated { topic: id(1), name: name(1), replicas, config });
    records
}

#[actix::test]
async fn a_replica_leads_or_follows_as_the_metadata_says_and_retires_when_it_has_no_part() {
    let other = NodeId(2);
    let mut stage = Stage::on(&VirtualDisk::new(1), shared(other, ME));
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "follows");
    // The other one falls silent.
    let image = image_of(&stage.records);
    let fenced = engine::controller::fence(&image, other, BrokerEpoch(2)).expect("it lives");
    stage.commit(&fenced.records);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "leads");
    let image = image_of(&stage.records);
    let partition = TopicPartition::new(id(1), PartitionIndex(0));
    let state = image.partition(partition).expect("there");
    let moved = PartitionChange {
        replicas: Some(vec![other]),
        in_sync: Vec::new(),
        eligible: vec![other],
        leader: None,
        ..state.to_change(partition)
    };
    stage.commit(&[MetadataRecord::PartitionChanged(moved)]);
    stage.caught_up().await;
    assert_eq!(stage.state_of(1, 0), "retired");
    assert!(stage.disk.exists(&stage.dir_of(1, 0)).unwrap(), "its files are kept");
}

#[actix::test]
async fn partitions_that_are_added_are_opened_and_reported() {
    let mut stage = Stage::new();
    stage.commit(&[created(1, 1)]);
    stage.caught_up().await;
    assert_eq!(stage.opened.next().await.partitions, [PartitionIndex(0)]);
    let replicas = vec![vec![ME]; 2];
    stage.commit(&[MetadataRecord::TopicPartitionsAdded { topic: id(1), first: PartitionIndex(1), replicas }]);
    stage.caught_up().await;
    assert_eq!([1, 2, 3].map(|partition| stage.state_of(1, partition)), ["leads", "leads", "unknown"]);
    assert_eq!(stage.opened.next().await.partitions, [0, 1, 2].map(PartitionIndex));
}

#[actix::test]
async fn the_controller_is_told_of_damaged_replicas_that_others_can_replace() {
    let mut stage = Stage::on(&VirtualDisk::new(1), [shared(ME, NodeId(2)), vec![created(2, 1)]].concat());
    stage.caught_up().await;
    let partition = |n| TopicPartition::new(id(n), PartitionIndex(0));
    let failed = || Reported::Offline(ApiError::new(ErrorCode::StorageFailed, "a bad disk"));
    post(&stage.broker, ReplicaReport { partition: partition(2), what: failed() });
    post(&stage.broker, ReplicaReport { partition: partition(1), what: failed() });
    let told = stage.damaged.next().await;
    assert_eq!(
        (told.partition, told.node, told.epoch),
        (partition(1), ME, BrokerEpoch(1)),
        "nobody can replace the other"
    );
}
