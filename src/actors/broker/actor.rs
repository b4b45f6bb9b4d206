//! The broker: its settings, its state, and how its engine is run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle};
use tokio::sync::{oneshot, watch};

use super::messages::*;
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{FetchFromLeader, PartitionLeader, PartitionLeaderSettings, RetentionTick};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::assignment::Assignment;
use crate::engine::broker::{self as engine, BrokerEngine, EndReason, Output};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, TopicImage};
use crate::engine::scrub_rounds::ScrubRounds;
use crate::storage::data_dir::DataDir;
use crate::storage::file_cache::FileCache;
use crate::types::{MonoTime, NodeId, PartitionIndex, TopicConfig, TopicId, TopicName, TopicPartition};

/// How often the free space is looked at. A disk that takes 1 GB/s fills a fifth of the default reserve meanwhile.
const DISK_SPACE_INTERVAL: Duration = Duration::from_millis(100);

/// What a broker is started with.
pub struct BrokerSettings {
    /// What it presents to the controllers: this broker, this process, and what its data directory holds.
    pub registration: BrokerRegistration,
    /// Whoever decides.
    pub controllers: Controllers,
    /// How often it asks, and how long it waits.
    pub times: engine::BrokerSettings,
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
    /// Who carries fetches to other brokers; nobody where there are no others.
    pub fetches: Option<Recipient<FetchFromLeader>>,
    /// Where sessions see the broker's state.
    pub view: watch::Sender<Arc<BrokerView>>,
    /// Where the node sees that the broker is over.
    pub ended: watch::Sender<Option<EndReason>>,
}

/// The replicas of a topic on this node, in the order of its partitions. The name outlives the topic's metadata: the
/// files of a deleted topic are found by it.
pub(super) struct TopicReplicas {
    pub(super) name: TopicName,
    pub(super) replicas: Vec<Replica>,
    /// What each was told last that it is to be.
    pub(super) assigned: Vec<Option<Assignment>>,
}

/// See the module page.
pub struct Broker {
    pub(super) settings: BrokerSettings,
    pub(super) engine: BrokerEngine,
    alarm: Option<(MonoTime, SpawnHandle)>,
    /// The metadata that is applied here.
    pub(super) image: Arc<ClusterImage>,
    /// The newest that there is, which may wait to be applied.
    pub(super) newest: Arc<ClusterImage>,
    pub(super) is_overdue: bool,
    pub(super) is_cut_off: bool,
    pub(super) hand_overs: Vec<(u64, TopicPartition, NodeId)>,
    /// Whether the replicas have been told their parts since the metadata knows this registration.
    pub(super) has_parts: bool,
    pub(super) lease_until: MonoTime,
    pub(super) replicas: HashMap<TopicId, TopicReplicas>,
    /// Replicas that are being opened, each with its topic's name.
    pub(super) opening: BTreeMap<TopicPartition, TopicName>,
    /// The replicas of the start are being opened.
    pub(super) is_first_opening: bool,
    pub(super) show_scheduled: bool,
    /// Whether the data directory was listed, or is being.
    pub(super) is_listed: bool,
    /// Whether it was looked through for what no topic accounts for.
    pub(super) is_tidy: bool,
    /// Files of deleted topics that are to be removed.
    pub(super) deleting: HashMap<TopicId, BTreeSet<PartitionIndex>>,
    pub(super) waiting: Vec<(u64, oneshot::Sender<()>)>,
    pub(super) next_core: usize,
    pub(super) disk_is_full: bool,
    /// `None`: nothing is looked through.
    pub(super) scrub: Option<ScrubRounds>,
    pub(super) stopping: super::stopping::Stopping,
}

impl Broker {
    /// A broker that has not seen any metadata yet. It registers when it is started.
    #[must_use]
    pub fn new(settings: BrokerSettings) -> Self {
        let image = Arc::clone(&settings.view.borrow().image);
        let now = settings.partitions.clock.now();
        let scrub = super::scrubbing::rounds(now, &settings.partitions.storage);
        Self {
            engine: BrokerEngine::new(now, settings.registration.clone(), settings.times),
            settings,
            alarm: None,
            newest: Arc::clone(&image),
            image,
            is_overdue: false,
            is_cut_off: false,
            hand_overs: Vec::new(),
            has_parts: false,
            lease_until: MonoTime::default(),
            replicas: HashMap::new(),
            opening: BTreeMap::new(),
            is_first_opening: true,
            show_scheduled: false,
            is_listed: false,
            is_tidy: false,
            deleting: HashMap::new(),
            waiting: Vec::new(),
            next_core: 0,
            disk_is_full: false,
            scrub,
            stopping: super::stopping::Stopping::default(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.settings.registration.node
    }

    pub(super) fn now(&self) -> MonoTime {
        self.settings.partitions.clock.now()
    }

    /// Lets something happen to the engine, carries out what it wants done, and has it woken when it wants to be.
    pub(super) fn step(
        &mut self,
        ctx: &mut Context<Self>,
        event: impl FnOnce(&mut BrokerEngine, MonoTime, &mut Output),
    ) {
        let mut out = Output::default();
        let now = self.now();
        event(&mut self.engine, now, &mut out);
        self.carry_out(out, ctx);
        self.arm(ctx);
    }

    /// Keeps one timer for the engine's deadline. An earlier one replaces it, a later one waits for it to fire.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(deadline) = self.engine.next_deadline() else { return };
        if let Some((at, alarm)) = self.alarm {
            if at <= deadline {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let wait = deadline.since(self.now());
        let alarm = ctx.run_later(wait, |broker, ctx| {
            broker.alarm = None;
            broker.step(ctx, |engine, now, out| engine.on_tick(now, out));
        });
        self.alarm = Some((deadline, alarm));
    }

    pub(super) fn config_of(&self, topic: &TopicImage) -> TopicConfig {
        topic.config.resolve(&self.settings.topic_defaults).unwrap_or_else(|error| {
            // The controller checked it; only an older node's config file can disagree now.
            tracing::warn!(topic = %topic.name, %error, "the topic's settings do not fit this node's, which are used");
            self.settings.topic_defaults.clone()
        })
    }

    pub(super) fn replica(&self, partition: TopicPartition) -> Option<&Addr<PartitionLeader>> {
        self.replicas.get(&partition.topic)?.replicas.get(number_of(partition))?.address()
    }

    pub(super) fn slot(&mut self, partition: TopicPartition) -> Option<&mut Replica> {
        self.replicas.get_mut(&partition.topic)?.replicas.get_mut(number_of(partition))
    }

    pub(super) fn open_replicas(&self) -> impl Iterator<Item = &Addr<PartitionLeader>> {
        self.replicas.values().flat_map(|topic| &topic.replicas).filter_map(Replica::address)
    }
}

pub(super) fn number_of(partition: TopicPartition) -> usize {
    partition.partition.0 as usize
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
        self.scrub_on(ctx);
        self.step(ctx, |engine, now, out| engine.on_tick(now, out));
        self.ask_for_metadata(ctx);
    }
}

impl Handler<AwaitMetadata> for Broker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, AwaitMetadata { index }: AwaitMetadata, _: &mut Self::Context) -> Self::Result {
        let (done, applied) = oneshot::channel();
        if self.settings.view.borrow().image.index >= index && self.has_parts && self.opening.is_empty() {
            return Box::pin(std::future::ready(()));
        }
        self.waiting.push((index, done));
        Box::pin(async move {
            // The broker stops: whoever waits goes on, and meets that elsewhere.
            let _ = applied.await;
        })
    }
}
