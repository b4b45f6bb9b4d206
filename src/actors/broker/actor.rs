//! The broker, and how it follows the metadata.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle};
use tokio::sync::{oneshot, watch};

use super::messages::*;
use crate::actors::controller::FollowMetadata;
use crate::actors::controllers::Controllers;
use crate::actors::partition_leader::{FetchFromLeader, PartitionLeader, PartitionLeaderSettings, RetentionTick};
use crate::actors::send::post;
use crate::actors::threads::Lane;
use crate::engine::assignment::Assignment;
use crate::engine::broker::{self, BrokerEngine, EndReason};
use crate::engine::metadata::{BrokerRegistration, ClusterImage, TopicImage};
use crate::storage::data_dir::DataDir;
use crate::storage::file_cache::FileCache;
use crate::types::{MonoTime, NodeId, TopicConfig, TopicId, TopicName, TopicPartition};

/// How often the free space is looked at. A disk that takes 1 GB/s fills a fifth of the default reserve meanwhile.
const DISK_SPACE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a controller may let this broker wait for news.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);
/// A broker that finds no controller looks again after this.
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// What a broker is started with.
pub struct BrokerSettings {
    /// What it presents.
    pub registration: BrokerRegistration,
    /// How often it asks, and how long it waits.
    pub pace: broker::BrokerSettings,
    /// Whom it asks.
    pub controllers: Controllers,
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
}

/// The replicas of a topic on this node, in the order of its partitions. The name outlives the topic's metadata: the
/// files of a deleted topic are found by it.
pub(super) struct TopicReplicas {
    pub(super) name: TopicName,
    pub(super) replicas: Vec<Replica>,
    /// What each was told last that it is to be; `None` before it was told anything.
    pub(super) assigned: Vec<Option<Assignment>>,
}

/// Metadata that is not worked off yet.
struct Incoming {
    image: Arc<ClusterImage>,
    hand_overs: Vec<(TopicPartition, NodeId)>,
}

/// See the module page.
pub struct Broker {
    pub(super) settings: BrokerSettings,
    pub(super) engine: BrokerEngine,
    pub(super) wake: Option<(MonoTime, SpawnHandle)>,
    /// The metadata whose replicas are open, or being opened.
    pub(super) image: Arc<ClusterImage>,
    /// The newest that came.
    newest: Arc<ClusterImage>,
    incoming: Option<Incoming>,
    /// Replicas have parts: the metadata knows this registration.
    pub(super) follows: bool,
    pub(super) lease_until: MonoTime,
    pub(super) replicas: HashMap<TopicId, TopicReplicas>,
    pub(super) opening: usize,
    /// The replicas of the start are being opened.
    pub(super) is_first_opening: bool,
    pub(super) show_scheduled: bool,
    pub(super) deleting: HashMap<TopicId, usize>,
    pub(super) waiting: Vec<(u64, oneshot::Sender<()>)>,
    pub(super) not_counted_on: Vec<oneshot::Sender<()>>,
    pub(super) next_core: usize,
    pub(super) disk_is_full: bool,
    /// What was said last of a registration that is refused.
    pub(super) refusal: Option<String>,
    /// Its logs are being closed, or are closed.
    pub(super) is_closing: bool,
    pub(super) problems: Vec<String>,
    pub(super) ended: Option<EndReason>,
    pub(super) waiting_for_end: Vec<oneshot::Sender<(EndReason, Vec<String>)>>,
}

impl Broker {
    /// A broker that has not seen any metadata yet.
    #[must_use]
    pub fn new(settings: BrokerSettings) -> Self {
        let image = Arc::clone(&settings.view.borrow().image);
        let now = settings.partitions.clock.now();
        Self {
            engine: BrokerEngine::new(now, settings.registration.clone(), settings.pace),
            settings,
            wake: None,
            newest: Arc::clone(&image),
            image,
            incoming: None,
            follows: false,
            lease_until: MonoTime::default(),
            replicas: HashMap::new(),
            opening: 0,
            is_first_opening: true,
            show_scheduled: false,
            deleting: HashMap::new(),
            waiting: Vec::new(),
            not_counted_on: Vec::new(),
            next_core: 0,
            disk_is_full: false,
            refusal: None,
            is_closing: false,
            problems: Vec::new(),
            ended: None,
            waiting_for_end: Vec::new(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.settings.registration.node
    }

    /// Asks for what was decided since the newest metadata here.
    fn ask_for_news(&self, ctx: &Context<Self>) {
        let (controllers, known, home) = (self.settings.controllers.clone(), Arc::clone(&self.newest), ctx.address());
        let (node, epoch, patience) = (self.node(), self.engine.epoch(), NEWS_PATIENCE);
        let request = FollowMetadata { node, epoch, index: known.index, patience };
        actix_rt::spawn(async move {
            let news = controllers.follow(request, &known).await;
            if let Err(error) = &news {
                tracing::debug!(%error, "no news of the metadata");
                tokio::time::sleep(NEWS_PAUSE).await;
            }
            post(&home, NewsCame(news));
        });
    }

    /// Works off metadata while nothing is being opened.
    pub(super) fn work_off(&mut self, ctx: &mut Context<Self>) {
        while self.opening == 0 || self.is_closing {
            let Some(Incoming { image, hand_overs }) = self.incoming.take() else { break };
            let before = std::mem::replace(&mut self.image, image);
            let followed = self.follows;
            self.with_engine(ctx, |engine, image, now, out| engine.on_image(now, image, out));
            // What it follows for the first time has just been looked through.
            if followed && self.follows && !self.is_closing {
                self.drop_deleted(&before, ctx);
                self.assign_all(Some(&before));
            }
            self.with_engine(ctx, |engine, _, now, out| {
                for (partition, to) in hand_overs {
                    engine.on_hand_over_wanted(now, partition, to, out);
                }
            });
            if self.opening == 0 {
                self.publish();
            } else if self.is_first_opening {
                self.show();
            }
        }
    }

    /// The metadata knows this registration: replicas get parts, and the directory is looked through for what is not called for.
    pub(super) fn begin_to_follow(&mut self, ctx: &Context<Self>) {
        self.follows = true;
        self.list_directory(ctx);
        self.assign_all(None);
    }

    /// Deletes the replicas of topics that are gone, those included that came and went since `before`.
    fn drop_deleted(&mut self, before: &ClusterImage, ctx: &mut Context<Self>) {
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

    pub(super) fn open_replicas(&self) -> impl Iterator<Item = &Addr<PartitionLeader>> {
        self.replicas.values().flat_map(|topic| &topic.replicas).filter_map(Replica::address)
    }

    /// Whether it does what it is there for: it is counted on, its lease runs, and its replicas are open.
    fn is_counted_on(&self) -> bool {
        let registered = self.engine.epoch().is_some_and(|epoch| self.image.is_registered(self.node(), epoch));
        let has_lease = self.engine.lease_until() > self.settings.partitions.clock.now();
        registered && self.image.is_live(self.node()) && has_lease && self.opening == 0 && !self.is_first_opening
    }

    pub(super) fn answer_those_who_count_on_it(&mut self) {
        if !self.not_counted_on.is_empty() && self.is_counted_on() {
            for waiting in std::mem::take(&mut self.not_counted_on) {
                // Whoever asked may be gone.
                let _ = waiting.send(());
            }
        }
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
        self.with_engine(ctx, |engine, _, now, out| engine.on_tick(now, out));
        self.ask_for_news(ctx);
    }
}

impl Handler<NewsCame> for Broker {
    type Result = ();
    fn handle(&mut self, NewsCame(news): NewsCame, ctx: &mut Self::Context) {
        if let Ok(news) = news {
            let is_news = news.image.index > self.newest.index;
            if is_news {
                self.newest = news.image;
            }
            if is_news || !news.hand_overs.is_empty() {
                let waiting = self.incoming.take().map(|waiting| waiting.hand_overs);
                let hand_overs = waiting.into_iter().flatten().chain(news.hand_overs).collect();
                self.incoming = Some(Incoming { image: Arc::clone(&self.newest), hand_overs });
                self.work_off(ctx);
            }
        }
        if self.ended.is_none() {
            self.ask_for_news(ctx);
        }
    }
}

impl Handler<AwaitMetadata> for Broker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, AwaitMetadata { index }: AwaitMetadata, _: &mut Self::Context) -> Self::Result {
        let (done, applied) = oneshot::channel();
        if self.settings.view.borrow().image.index >= index && self.opening == 0 && !self.is_first_opening {
            return Box::pin(std::future::ready(()));
        }
        self.waiting.push((index, done));
        Box::pin(async move {
            // The broker stops: whoever waits goes on, and meets that elsewhere.
            let _ = applied.await;
        })
    }
}

impl Handler<AwaitCountedOn> for Broker {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: AwaitCountedOn, _: &mut Self::Context) -> Self::Result {
        let (done, counted_on) = oneshot::channel();
        self.not_counted_on.push(done);
        self.answer_those_who_count_on_it();
        Box::pin(async move {
            // As above.
            let _ = counted_on.await;
        })
    }
}
