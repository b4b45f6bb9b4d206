//! The broker's handlers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, Recipient, ResponseFuture};
use tokio::sync::{oneshot, watch};

use super::housekeeping::report;
use super::messages::*;
use crate::actors::controller::{AlterInSync, MetadataCommitted, ReportDamaged, TopicFilesGone, TopicOpened};
use crate::actors::partition_leader::{
    FetchFromLeader, PartitionLeader, PartitionLeaderSettings, RetentionTick, Stop, StopReason,
};
use crate::actors::send::{post, post_to};
use crate::actors::threads::Lane;
use crate::engine::assignment::Assignment;
use crate::engine::metadata::{ClusterImage, TopicImage};
use crate::replica::storage_error;
use crate::storage::LogError;
use crate::storage::data_dir::{DataDir, partition_dir_name};
use crate::storage::file_cache::FileCache;
use crate::types::{BrokerEpoch, MonoTime, NodeId, PartitionIndex, TopicConfig, TopicId, TopicName, TopicPartition};

/// How often the free space is looked at. A disk that takes 1 GB/s fills a fifth of the default reserve meanwhile.
const DISK_SPACE_INTERVAL: Duration = Duration::from_millis(100);

/// What a broker is started with.
pub struct BrokerSettings {
    /// This broker.
    pub node: NodeId,
    /// Its data directory.
    pub directory: Arc<DataDir>,
    /// The open files that all logs share.
    pub files: Arc<FileCache>,
    /// The settings of topics that do not override them.
    pub topic_defaults: TopicConfig,
    /// What each partition needs.
    pub partitions: PartitionLeaderSettings,
    /// Where partitions run, dealt out in turn.
    pub core: Vec<ArbiterHandle>,
    /// Whom to tell that a topic's replicas are on disk.
    pub topic_opened: Recipient<TopicOpened>,
    /// Whom to tell that a deleted topic's files are gone.
    pub topic_files_gone: Recipient<TopicFilesGone>,
    /// Whom to ask for other in-sync sets and leaders.
    pub in_sync: Recipient<AlterInSync>,
    /// Whom to tell of damaged replicas.
    pub damaged: Recipient<ReportDamaged>,
    /// Who carries fetches to other brokers; nobody where there are no others.
    pub fetches: Option<Recipient<FetchFromLeader>>,
    /// Where sessions see the broker's state.
    pub view: watch::Sender<Arc<BrokerView>>,
}

/// The replicas of a topic on this node, in the order of its partitions. The name outlives the topic's metadata: the
/// files of a deleted topic are found by it.
pub(super) struct TopicReplicas {
    pub(super) name: TopicName,
    pub(super) replicas: Vec<Replica>,
    /// What each was told last that it is to be.
    pub(super) assigned: Vec<Assignment>,
}

/// See the module page.
pub struct Broker {
    pub(super) settings: BrokerSettings,
    pub(super) image: Arc<ClusterImage>,
    /// Its registration: nothing has a part before.
    pub(super) epoch: Option<BrokerEpoch>,
    pub(super) lease_until: MonoTime,
    pub(super) replicas: HashMap<TopicId, TopicReplicas>,
    /// The newest metadata, while what came before it is being worked off.
    incoming: Option<Arc<ClusterImage>>,
    pub(super) opening: usize,
    started: bool,
    /// The replicas of the start are being opened.
    pub(super) is_first_opening: bool,
    pub(super) show_scheduled: bool,
    pub(super) stopping: bool,
    pub(super) deleting: HashMap<TopicId, usize>,
    pub(super) waiting: Vec<(u64, oneshot::Sender<()>)>,
    pub(super) next_core: usize,
    pub(super) disk_is_full: bool,
}

impl Broker {
    /// A broker that has not seen any metadata yet.
    #[must_use]
    pub fn new(settings: BrokerSettings) -> Self {
        let image = Arc::clone(&settings.view.borrow().image);
        Self {
            settings,
            image,
            epoch: None,
            lease_until: MonoTime::default(),
            replicas: HashMap::new(),
            incoming: None,
            opening: 0,
            started: false,
            is_first_opening: true,
            show_scheduled: false,
            stopping: false,
            deleting: HashMap::new(),
            waiting: Vec::new(),
            next_core: 0,
            disk_is_full: false,
        }
    }

    /// Works off metadata while nothing is being opened.
    fn work_off(&mut self, ctx: &Context<Self>) {
        while self.opening == 0 && !self.stopping {
            let Some(image) = self.incoming.take() else { break };
            let before = std::mem::replace(&mut self.image, image);
            // What it starts with holds for the first time: its directory is looked through for deleted topics.
            if std::mem::replace(&mut self.started, true) {
                self.drop_deleted(&before, ctx);
            }
            self.follow_topics(&before, ctx);
            if self.opening == 0 {
                self.publish();
            } else if self.is_first_opening {
                self.show();
            }
        }
    }

    /// Deletes the replicas of topics that are gone, those included that came and went since `before`.
    fn drop_deleted(&mut self, before: &ClusterImage, ctx: &Context<Self>) {
        let image = Arc::clone(&self.image);
        for topic in image.tombstones.difference(&before.tombstones) {
            self.delete_topic(*topic, ctx);
        }
    }

    pub(super) fn config_of(&self, topic: &TopicImage) -> TopicConfig {
        topic.config.resolve(&self.settings.topic_defaults).unwrap_or_else(|error| {
            // The controller checked it; only an older node's config file can disagree now.
            tracing::warn!(topic = %topic.name, %error, "the topic's settings do not fit this node's, which are used");
            self.settings.topic_defaults.clone()
        })
    }

    fn delete_topic(&mut self, topic: TopicId, ctx: &Context<Self>) {
        let Some(TopicReplicas { name, replicas, .. }) = self.replicas.remove(&topic) else {
            self.topic_is_gone_if_done(topic);
            return;
        };
        for (number, replica) in (0..).zip(replicas) {
            if matches!(replica, Replica::Elsewhere) {
                continue;
            }
            let partition = TopicPartition::new(topic, PartitionIndex(number));
            *self.deleting.entry(topic).or_default() += 1;
            let (done, closed) = oneshot::channel();
            if let Some(address) = replica.address() {
                post(address, Stop { why: StopReason::TopicDeleted, done });
            }
            let (directory, home) = (Arc::clone(&self.settings.directory), ctx.address());
            let files = partition_dir_name(&name, partition);
            let (pool, cache) = (self.settings.partitions.disk.clone(), Arc::clone(&self.settings.files));
            drop(replica);
            self.settings.partitions.disk.spawn(async move {
                // An offline replica never answers: its sender is dropped, which is an answer too.
                let _ = closed.await;
                pool.run(Lane::Background, move || {
                    let result = directory.delete_partition_dir(&files);
                    // An open file keeps its space: nothing is freed before its last handle is gone.
                    cache.forget_dir(&directory.topics_dir().join(&files));
                    post(&home, ReplicaDeleted { partition, result });
                });
            });
        }
        self.topic_is_gone_if_done(topic);
    }

    pub(super) fn topic_is_gone_if_done(&mut self, topic: TopicId) {
        if self.deleting.get(&topic).is_none_or(|left| *left == 0) {
            self.deleting.remove(&topic);
            post_to(&self.settings.topic_files_gone, TopicFilesGone { topic, node: self.settings.node });
        }
    }

    pub(super) fn open_replicas(&self) -> impl Iterator<Item = &Addr<PartitionLeader>> {
        self.replicas.values().flat_map(|topic| &topic.replicas).filter_map(Replica::address)
    }
}

impl Actor for Broker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(DISK_SPACE_INTERVAL, |broker, ctx| {
            let (directory, home) = (Arc::clone(&broker.settings.directory), ctx.address());
            broker.settings.partitions.disk.run(Lane::Background, move || {
                post(&home, DiskSpaceSeen(directory.disk().free_bytes(directory.root())));
            });
        });
        let retention = Duration::from_millis(self.settings.partitions.storage.retention_check_ms);
        ctx.run_interval(retention, |broker, _| {
            broker.open_replicas().for_each(|replica| post(replica, RetentionTick))
        });
    }
}

impl Handler<MetadataCommitted> for Broker {
    type Result = ();
    fn handle(&mut self, message: MetadataCommitted, ctx: &mut Self::Context) {
        let first = !self.started && self.incoming.is_none();
        self.incoming = Some(message.image);
        self.work_off(ctx);
        if first {
            self.list_directory(ctx);
        }
    }
}

impl Handler<ReplicaOpened> for Broker {
    type Result = ();
    fn handle(&mut self, ReplicaOpened { partition, result }: ReplicaOpened, ctx: &mut Self::Context) {
        self.opening -= 1;
        if self.stopping {
            // Nothing was written since it was opened: its files are as a clean stop leaves them.
            return;
        }
        let replica = match result {
            Ok(opened) => {
                report(partition, &opened);
                self.start_replica(partition, opened, ctx)
            }
            Err(error) => {
                tracing::error!(%partition, %error, "the replica stays offline");
                Replica::Offline(storage_error(&error))
            }
        };
        let slot = self
            .replicas
            .get_mut(&partition.topic)
            .and_then(|topic| topic.replicas.get_mut(partition.partition.0 as usize));
        if let Some(slot) = slot {
            *slot = replica;
        }
        if self.opening == 0 {
            self.publish();
            self.work_off(ctx);
        } else {
            self.show_soon(ctx);
        }
    }
}

impl Handler<AwaitMetadata> for Broker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, AwaitMetadata { index }: AwaitMetadata, _: &mut Self::Context) -> Self::Result {
        let (done, applied) = oneshot::channel();
        if self.settings.view.borrow().image.index >= index && self.started && self.opening == 0 {
            return Box::pin(std::future::ready(()));
        }
        self.waiting.push((index, done));
        Box::pin(async move {
            // The broker stops: whoever waits goes on, and meets that elsewhere.
            let _ = applied.await;
        })
    }
}

impl Handler<StopReplicas> for Broker {
    type Result = ResponseFuture<Vec<String>>;
    fn handle(&mut self, _: StopReplicas, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let mut closing = Vec::new();
        for replica in self.open_replicas() {
            let (done, closed) = oneshot::channel::<Result<(), LogError>>();
            post(replica, Stop { why: StopReason::NodeStops, done });
            closing.push(closed);
        }
        self.replicas.clear();
        Box::pin(async move {
            let mut problems = Vec::new();
            for closed in closing {
                match closed.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => problems.push(error.to_string()),
                    Err(_) => problems.push("a partition ended without closing its log".to_owned()),
                }
            }
            problems
        })
    }
}
