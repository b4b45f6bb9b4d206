//! The controller alone, the only one of its cluster: its files on a virtual disk, and the test where its broker would be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

mod bench;
mod following;
mod leasing;
mod reports;

use super::*;
use crate::actors::send::post;
use crate::actors::test_support::registration;
use crate::engine::broker::{Answer, Finding, Renewal, ReplicaReport, Request};
use crate::engine::controller::{ControllerPolicy, Leases};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, DirectoryHistory, FEATURE_LEVEL};
use crate::protocol::messages::{AlterTopic, CreatedTopic, NewTopic};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{ControllerNode, RaftId, RaftWork};
use crate::storage::data_dir::DataDir;
use crate::storage::disk::virtual_disk::FaultyOperation;
use crate::storage::disk::{Disk, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, IncarnationId, MonoTime, NodeId, ProducerEpoch, TopicConfig, TopicId,
};

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));
/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

fn policy() -> ControllerPolicy {
    ControllerPolicy {
        max_topics: 100,
        max_partitions: 1_000,
        max_partitions_per_topic: 10,
        default_partitions: 2,
        default_replication_factor: None,
        topic_defaults: TopicConfig::default(),
    }
}

fn open(disk: &VirtualDisk) -> (MetadataFiles, ControllerNode) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = DataDir::open(Arc::clone(&disk), Path::new("/data"), NodeId(1), Some(CLUSTER)).expect("whole");
    let files = Arc::new(FileCache::new(disk, 8));
    let (node, directory_id) = (NodeId(1), directory.meta().directory);
    let me = ControllerNode { node, directory: directory_id, host: String::new(), port: 0 };
    let metadata = MetadataFiles::open(&directory, &files, (&me, RaftId::first_of(me.node)), &RaftWork::here())
        .expect("whole metadata");
    (metadata, me)
}

async fn start(disk: &VirtualDisk) -> Addr<Controller> {
    let (metadata, me) = open(disk);
    // No test here is about leases: none of them ends.
    let leases = Leases { duration: Duration::from_secs(86_400), drift: Duration::ZERO };
    let settings = ControllerSettings { leases, ..ControllerSettings::new(policy()) };
    start_here(Starting::alone(metadata, &me, settings)).await.expect("it runs")
}

fn wanted(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: None, replication_factor: None, config: BTreeMap::new() }
}

const ME: NodeId = NodeId(1);

struct Stage {
    controller: Addr<Controller>,
    image: Arc<ClusterImage>,
}

impl Stage {
    async fn on(disk: &VirtualDisk) -> Self {
        let controller = start(disk).await;
        let mut stage = Self { controller, image: Arc::new(ClusterImage::empty(CLUSTER)) };
        // In office it first says which software may follow.
        stage.until(|image| image.feature_level == FEATURE_LEVEL).await;
        stage
    }

    async fn registered(disk: &VirtualDisk) -> Self {
        let mut stage = Self::on(disk).await;
        let registration = registration(ME, DirectoryId(uuid::Uuid::from_u128(4)));
        let Ok(Some(Answer::Registered { epoch, .. })) = stage.ask(Request::Register(registration)).await else {
            panic!("not registered")
        };
        stage.until(|image| image.is_registered(ME, epoch)).await;
        assert!(!stage.image.is_live(ME), "it has not written its epoch down");
        assert!(matches!(stage.renew(epoch).await, Some(Answer::Renewed { .. })));
        stage.until(|image| image.is_live(ME)).await;
        stage
    }

    async fn ask(&self, request: Request) -> Result<Option<Answer>, ApiError> {
        self.controller.send(AskController(request)).await.expect("alive")
    }

    /// The broker says that it has written that epoch down, and knows all there is.
    async fn renew(&self, epoch: BrokerEpoch) -> Option<Answer> {
        let (applied, sent) = (u64::MAX, MonoTime::default());
        let renewal = Renewal { node: ME, epoch, applied, sent, doubtful: Vec::new() };
        self.ask(Request::Renew(renewal)).await.expect("in office")
    }

    async fn follow(&self, patience: Duration) -> Result<Arc<ClusterImage>, ApiError> {
        let request = FollowMetadata { node: ME, epoch: None, index: self.image.index, patience };
        Ok(self.controller.send(request).await.expect("alive")?.image)
    }

    async fn shows_nothing_new(&self) -> bool {
        self.follow(Duration::ZERO).await.expect("in office").index == self.image.index
    }

    /// Hears the news until the image is as wanted. It never goes back.
    async fn until(&mut self, wanted: impl Fn(&ClusterImage) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !wanted(&self.image) {
            assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}");
            let image = self.follow(PATIENCE).await.expect("in office");
            assert!(image.index >= self.image.index, "what was shown does not go back");
            self.image = image;
        }
    }

    async fn reach(&mut self, index: u64) {
        self.until(|image| image.index >= index).await;
    }

    async fn try_create(&self, names: &[&str]) -> Result<Committed<Vec<Result<CreatedTopic, ApiError>>>, ApiError> {
        let topics = names.iter().map(|name| wanted(name)).collect();
        self.controller.send(CreateTopics { topics, validate_only: false }).await.expect("alive")
    }

    async fn create(&self, names: &[&str]) -> Committed<Vec<Result<CreatedTopic, ApiError>>> {
        self.try_create(names).await.expect("decided")
    }

    async fn created(&mut self, name: &str) {
        let Committed { index, mut answer } = self.create(&[name]).await;
        answer.remove(0).expect("created");
        self.reach(index).await;
    }

    async fn alter(&self, name: &str, key: &str, value: &str) -> Committed<Vec<Result<TopicId, ApiError>>> {
        self.try_alter(name, key, value).await.expect("decided")
    }

    async fn try_alter(
        &self,
        name: &str,
        key: &str,
        value: &str,
    ) -> Result<Committed<Vec<Result<TopicId, ApiError>>>, ApiError> {
        let set = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let change = AlterTopic { name: name.to_owned(), set, reset: Vec::new() };
        self.controller.send(AlterTopics(vec![change])).await.expect("alive")
    }

    async fn close(self) -> Arc<ClusterImage> {
        self.controller.send(CloseController).await.expect("alive").expect("closed");
        self.image
    }

    /// The machine loses power, and with it all that was not synced. (The controller is stopped first: that writes nothing.)
    async fn lose_power(self, disk: &VirtualDisk) -> Arc<ClusterImage> {
        let operations = disk.operations();
        let image = self.close().await;
        assert_eq!(disk.operations(), operations, "stopping writes nothing");
        disk.power_loss_keeping_nothing();
        image
    }
}

#[actix::test]
async fn what_was_decided_is_there_after_a_crash_and_after_a_stop() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    let created = stage.create(&["a", "b", "c", "a"]).await;
    let outcomes: Vec<_> =
        created.answer.iter().map(|r| r.as_ref().map(|t| t.partitions).map_err(|e| e.code)).collect();
    assert_eq!(outcomes, [Ok(2), Ok(2), Ok(2), Err(ErrorCode::TopicExists)], "each on what those before it left");
    stage.reach(created.index).await;
    stage.alter("b", "flush", "os").await.answer.remove(0).expect("altered");
    let deleted = stage.controller.send(DeleteTopics(vec!["c".to_owned()])).await.expect("alive").expect("decided");
    stage.reach(deleted.index).await;
    let deleted = deleted.answer.into_iter().next().expect("one answer").expect("deleted");
    assert!(stage.image.tombstones.contains(&deleted) && stage.image.topics.len() == 2);
    let before = stage.lose_power(&disk).await;

    let again = Stage::on(&disk).await;
    assert_eq!(again.image, before, "after a crash");
    again.close().await;
    let mut again = Stage::on(&disk).await;
    assert_eq!(again.image, before, "after a stop");

    let epoch = again.image.epoch_of(ME).expect("registered");
    let findings = vec![Finding::FilesGone(deleted)];
    let gone = Request::Report(ReplicaReport { node: ME, epoch, findings });
    assert_eq!(again.ask(gone.clone()).await, Ok(None));
    again.until(|image| image.tombstones.is_empty()).await;
    let index = again.image.index;
    assert_eq!(again.ask(gone).await, Ok(None));
    again.created("d").await;
    assert_eq!(again.image.index, index + 1, "a tombstone is cleared once");
    let before = again.lose_power(&disk).await;
    assert_eq!(Stage::on(&disk).await.image, before, "after another crash");
}

#[actix::test]
async fn rule_14_a_broker_is_counted_on_only_under_the_epoch_that_it_was_given_and_has_written_down() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.created("a").await;
    let (epoch, index) = (stage.image.epoch_of(ME).expect("registered"), stage.image.index);
    let old = stage.renew(BrokerEpoch(epoch.0 - 1)).await;
    assert_eq!(old, Some(Answer::StaleEpoch { epoch: BrokerEpoch(epoch.0 - 1), current: Some(epoch) }));
    assert!(matches!(stage.renew(epoch).await, Some(Answer::Renewed { .. })), "as it is");
    assert!(stage.shows_nothing_new().await && stage.image.index == index, "no record");
    assert_eq!(stage.image.brokers[&ME].unfenced_epoch, epoch);
    assert!(stage.image.partitions().all(|(_, partition)| partition.leader == Some(ME)));
}

#[actix::test]
async fn what_arrives_while_something_is_decided_is_decided_together() {
    let mut stage = Stage::registered(&VirtualDisk::new(1)).await;
    let before = stage.image.index;
    let names: Vec<_> = (0..50).map(|number| format!("t{number}")).collect();
    let asked: Vec<_> = names
        .iter()
        .map(|name| stage.controller.send(CreateTopics { topics: vec![wanted(name)], validate_only: false }))
        .collect();
    let ids: Vec<_> = (0..20).map(|_| stage.controller.send(InitProducer(None))).collect();
    let mut indexes = std::collections::BTreeSet::new();
    for created in futures_util::future::join_all(asked).await {
        let Committed { index, answer } = created.expect("alive").expect("decided");
        assert!(answer.iter().all(Result::is_ok));
        indexes.insert(index);
    }
    let ids = futures_util::future::join_all(ids).await.into_iter().map(|id| id.expect("alive").expect("an id"));
    let ids: std::collections::BTreeSet<_> = ids.map(|reply| reply.producer_id).collect();
    assert_eq!(ids.len(), 20, "no id twice");
    let last = *indexes.last().expect("answers");
    stage.reach(last).await;
    assert_eq!(stage.image.topics.len(), 50);
    assert!(last - before < 10, "{} entries for 50 requests", last - before);
}

#[actix::test]
async fn a_long_log_is_cut_by_snapshots_and_gives_the_same_image() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.created("a").await;
    for n in 0..2_200 {
        let altered = stage.alter("a", "retention_ms", &(1_000_000 + n).to_string()).await;
        stage.reach(altered.index).await;
    }
    let snapshot = Path::new("/data/__cluster_metadata/raft/snapshot");
    let taken = async {
        while !disk.exists(snapshot).expect("no faults") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("a snapshot in time");
    let before = stage.close().await;
    disk.power_loss_keeping_nothing();
    assert_eq!(Stage::on(&disk).await.image, before, "a snapshot and what came after it");
}

#[actix::test]
async fn a_change_that_changes_nothing_is_no_record() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.created("a").await;
    let index = stage.alter("a", "flush", "os").await.index;
    stage.reach(index).await;
    let again = stage.alter("a", "flush", "os").await;
    assert_eq!((again.index, again.answer.len()), (index, 1));
    let checked = CreateTopics { topics: vec![wanted("b")], validate_only: true };
    let checked = stage.controller.send(checked).await.expect("alive").expect("decided");
    assert!(checked.answer[0].is_ok());
    assert!(stage.shows_nothing_new().await, "nothing was committed");
}

#[actix::test]
async fn producer_ids_are_never_handed_out_twice() {
    let disk = VirtualDisk::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3 {
        let stage = Stage::on(&disk).await;
        for _ in 0..5 {
            let reply = stage.controller.send(InitProducer(None)).await.expect("alive").expect("an id");
            assert!(seen.insert(reply.producer_id), "{} again in round {round}", reply.producer_id);
            assert_eq!(reply.producer_epoch, ProducerEpoch(0));
        }
        stage.lose_power(&disk).await;
    }
}

#[actix::test]
async fn after_its_log_failed_it_decides_nothing_and_publishes_nothing() {
    for operation in [FaultyOperation::Write, FaultyOperation::Sync] {
        let disk = VirtualDisk::new(1);
        let mut stage = Stage::registered(&disk).await;
        stage.created("before").await;
        disk.fail_nth(operation, 1, ".log");
        let failed = stage.try_create(&["x", "y"]).await.expect_err("nothing was decided");
        assert_eq!(failed.code, ErrorCode::StorageFailed);
        let refused = stage.try_create(&["z"]).await.expect_err("nothing is decided any more");
        assert_eq!(refused.code, ErrorCode::StorageFailed);
        assert!(refused.message.contains("restart the controller"), "{refused}");
        let unchanged = stage.try_alter("before", "flush", "os").await.expect_err("nor changed");
        assert_eq!(unchanged.code, ErrorCode::StorageFailed);
        let failed = stage.follow(Duration::ZERO).await.expect_err("nothing is published any more");
        assert_eq!(failed.code, ErrorCode::StorageFailed);
        let before = stage.close().await;
        disk.power_loss_keeping_nothing();
        let image = Stage::on(&disk).await.image;
        // What a failed sync left is unknown: all of the refused request or nothing of it, and never less than before.
        let (kept, had) = (image.topics.len(), before.topics.len());
        assert!(kept == had || (operation == FaultyOperation::Sync && kept == had + 2), "{kept} topics of {had}");
        assert!(before.topics.iter().all(|topic| image.topics.get(topic.0) == Some(topic.1)));
    }
}

#[actix::test]
async fn a_controller_that_was_closed_says_that_it_stops() {
    let disk = VirtualDisk::new(1);
    let stage = Stage::registered(&disk).await;
    let controller = stage.controller.clone();
    stage.close().await;
    let error = controller.send(InitProducer(None)).await.expect("alive").expect_err("closed");
    assert_eq!(error.code, ErrorCode::ShuttingDown);
}
