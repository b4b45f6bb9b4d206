//! The controller alone: its log on a virtual disk, and a probe where the broker would be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Addr};

use super::*;
use crate::actors::send::post;
use crate::actors::test_support::Ear;
use crate::engine::controller::ControllerPolicy;
use crate::engine::metadata::{BrokerRegistration, ClusterImage, DirectoryHistory, MetadataRecord};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{AlterTopic, NewTopic};
use crate::storage::disk::virtual_disk::FaultyOperation;
use crate::storage::disk::{Disk, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, IncarnationId, NodeId, ProducerEpoch, SystemClock, TopicConfig,
};

const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

fn open(disk: &VirtualDisk) -> (MetadataLog, ClusterImage) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
    MetadataLog::open(disk, files, Path::new("/data/__cluster_metadata"), CLUSTER).expect("whole metadata")
}

struct Stage {
    controller: Addr<Controller>,
    broker: Ear<MetadataCommitted>,
    image: Arc<ClusterImage>,
}

impl Stage {
    async fn on(disk: &VirtualDisk) -> Self {
        let (log, image) = open(disk);
        let policy = ControllerPolicy {
            max_topics: 100,
            max_partitions: 1_000,
            max_partitions_per_topic: 10,
            default_partitions: 2,
            default_replication_factor: None,
            topic_defaults: TopicConfig::default(),
        };
        let controller = Controller::new(log, image, policy, Arc::new(SystemClock::start())).start();
        let mut broker = Ear::new();
        post(&controller, Subscribe(broker.recipient()));
        let first = broker.next().await;
        assert_eq!(first.records.len(), 0, "the first news is where to start");
        Self { controller, broker, image: first.image }
    }

    async fn registered(disk: &VirtualDisk) -> Self {
        let mut stage = Self::on(disk).await;
        let registration = BrokerRegistration {
            node: NodeId(1),
            epoch: BrokerEpoch(0),
            incarnation: IncarnationId(uuid::Uuid::from_u128(3)),
            directory: DirectoryId(uuid::Uuid::from_u128(4)),
            host: "127.0.0.1".to_owned(),
            port: 1,
            rack: None,
            software: "test".to_owned(),
            before: DirectoryHistory::default(),
            decided_at: None,
        };
        let (node, registered) = (NodeId(1), stage.controller.send(RegisterBroker(registration)).await);
        let epoch = registered.expect("alive").expect("registered").answer;
        stage.news().await;
        assert!(!stage.image.is_live(node), "it has not written its epoch down");
        stage.controller.send(UnfenceBroker { node, epoch }).await.expect("alive").expect("unfenced");
        stage.news().await;
        stage
    }

    /// The next news; the image it carries is remembered.
    async fn news(&mut self) -> Arc<[MetadataRecord]> {
        let MetadataCommitted { image, records } = self.broker.next().await;
        assert_eq!(image.index, self.image.index + records.len() as u64, "each record counts once");
        self.image = image;
        records
    }

    async fn create(
        &self,
        names: &[&str],
    ) -> Committed<Vec<Result<crate::protocol::messages::CreatedTopic, crate::protocol::ApiError>>> {
        let topic = |name: &&str| NewTopic {
            name: (*name).to_owned(),
            partitions: None,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        let topics = names.iter().map(topic).collect();
        self.controller.send(CreateTopics { topics, validate_only: false }).await.expect("alive")
    }

    async fn alter(
        &self,
        name: &str,
        key: &str,
        value: &str,
    ) -> Committed<Vec<Result<crate::types::TopicId, crate::protocol::ApiError>>> {
        let set = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let change = AlterTopic { name: name.to_owned(), set, reset: Vec::new() };
        self.controller.send(AlterTopics(vec![change])).await.expect("alive")
    }

    async fn close(self) -> Arc<ClusterImage> {
        self.controller.send(CloseController).await.expect("alive").expect("closed");
        self.image
    }
}

#[actix::test]
async fn what_was_decided_is_there_after_a_crash_by_replay_and_after_a_stop_by_snapshot() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    let created = stage.create(&["a", "b", "c", "a"]).await;
    let outcomes: Vec<_> =
        created.answer.iter().map(|r| r.as_ref().map(|t| t.partitions).map_err(|e| e.code)).collect();
    assert_eq!(outcomes, [Ok(2), Ok(2), Ok(2), Err(ErrorCode::TopicExists)], "each on what those before it left");
    stage.news().await;
    assert_eq!(stage.image.index, created.index, "the answer stands on what was published");
    stage.alter("b", "flush", "os").await.answer.remove(0).expect("altered");
    stage.news().await;
    let deleted = stage
        .controller
        .send(DeleteTopics(vec!["c".to_owned()]))
        .await
        .expect("alive")
        .answer
        .remove(0)
        .expect("deleted");
    stage.news().await;
    assert!(stage.image.tombstones.contains(&deleted));
    let before = Arc::clone(&stage.image);

    disk.power_loss_keeping_nothing();
    let replayed = Stage::on(&disk).await;
    assert_eq!(*replayed.image, *before, "replayed from the log");
    let stopped = replayed.close().await;
    assert_eq!(*stopped, *before);
    disk.power_loss_keeping_nothing();
    let mut snapshotted = Stage::on(&disk).await;
    assert_eq!(*snapshotted.image, *before, "read from the snapshot");

    let gone = TopicFilesGone { topic: deleted, node: NodeId(1) };
    post(&snapshotted.controller, gone);
    let cleared = MetadataRecord::TombstoneCleared { topic: deleted, node: Some(NodeId(1)) };
    assert_eq!(*snapshotted.news().await, [cleared]);
    post(&snapshotted.controller, gone);
    snapshotted.create(&["d"]).await.answer.remove(0).expect("created");
    assert_eq!(snapshotted.news().await.len(), 1, "a tombstone is cleared once");
    let before = Arc::clone(&snapshotted.image);
    disk.kill();
    assert_eq!(*Stage::on(&disk).await.image, *before, "a snapshot and what came after it");
}

#[actix::test]
async fn rule_14_a_broker_is_counted_on_only_under_the_epoch_that_it_was_given_and_has_written_down() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.create(&["a"]).await.answer.remove(0).expect("created");
    stage.news().await;
    let node = NodeId(1);
    let epoch = stage.image.epoch_of(node).expect("registered");
    let old = UnfenceBroker { node, epoch: BrokerEpoch(epoch.0 - 1) };
    let refused = stage.controller.send(old).await.expect("alive").expect_err("not that one");
    assert_eq!(refused.code, ErrorCode::StaleMetadata);
    let again = stage.controller.send(UnfenceBroker { node, epoch }).await.expect("alive").expect("as it is");
    assert_eq!(again.index, stage.image.index, "no record");
    assert_eq!(stage.image.brokers[&node].unfenced_epoch, epoch);
    assert!(stage.image.partitions().all(|(_, partition)| partition.leader == Some(node)));
}

#[actix::test]
async fn a_long_log_is_cut_by_snapshots_and_gives_the_same_image() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.create(&["a"]).await.answer.remove(0).expect("created");
    stage.news().await;
    for n in 0..1_200 {
        stage.alter("a", "retention_ms", &(1_000_000 + n).to_string()).await.answer.remove(0).expect("altered");
        stage.news().await;
    }
    let before = Arc::clone(&stage.image);
    disk.power_loss_keeping_nothing();
    disk.reset_counts();
    let (_, image) = open(&disk);
    assert_eq!(image, *before);
}

#[actix::test]
async fn a_change_that_changes_nothing_is_no_record() {
    let disk = VirtualDisk::new(1);
    let mut stage = Stage::registered(&disk).await;
    stage.create(&["a"]).await;
    stage.news().await;
    let index = stage.alter("a", "flush", "os").await.index;
    stage.news().await;
    let again = stage.alter("a", "flush", "os").await;
    assert_eq!((again.index, again.answer.len()), (index, 1));
    let checked = CreateTopics {
        topics: vec![NewTopic {
            name: "b".to_owned(),
            partitions: None,
            replication_factor: None,
            config: BTreeMap::new(),
        }],
        validate_only: true,
    };
    let checked = stage.controller.send(checked).await.expect("alive");
    assert!(checked.answer[0].is_ok());
    assert!(stage.broker.pending().is_empty(), "nothing was committed");
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
        disk.power_loss_keeping_nothing();
    }
}

#[actix::test]
async fn after_its_log_failed_it_decides_nothing_and_publishes_nothing() {
    for operation in [FaultyOperation::Write, FaultyOperation::Sync] {
        let disk = VirtualDisk::new(1);
        let mut stage = Stage::registered(&disk).await;
        stage.create(&["before"]).await.answer.remove(0).expect("created");
        stage.news().await;
        disk.fail_nth(operation, 1, ".log");
        let failed = stage.create(&["x", "y"]).await;
        let codes: Vec<_> = failed.answer.into_iter().map(|outcome| outcome.expect_err("failed").code).collect();
        assert_eq!(codes, [ErrorCode::StorageFailed; 2]);
        let refused = stage.create(&["z"]).await.answer.remove(0).expect_err("nothing is decided any more");
        assert_eq!(refused.code, ErrorCode::StorageFailed);
        assert!(refused.message.contains("restart the controller"), "{refused}");
        assert_eq!(
            stage.alter("before", "flush", "os").await.answer.remove(0).expect_err("nor changed").code,
            ErrorCode::StorageFailed
        );
        assert!(stage.broker.pending().is_empty(), "nothing was published");
        let before = stage.close().await;
        disk.power_loss_keeping_nothing();
        let (_, image) = open(&disk);
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
