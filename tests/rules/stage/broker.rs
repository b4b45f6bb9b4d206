//! A broker on the stage: a machine with a disk, and perhaps a process on it. Nothing happens here by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard::engine::assignment::Assignment;
use callboard::engine::broker::{BrokerEngine, BrokerSettings, Command, Opened, Output, Request};
use callboard::engine::follower::FollowerSettings;
use callboard::engine::leader::{LeaderSettings, Proposal};
use callboard::engine::metadata::{BrokerRegistration, ClusterImage, DirectoryHistory, LastStop};
use callboard::engine::replication::{LeaderState, ReplicaFetch, ReplicaVerdict};
use callboard::protocol::ApiError;
use callboard::replica::{self, Answer, Effect, OpenJob, OpenedReplica, ProducerReplay, ReadState, Replica, open_all};
use callboard::storage::data_dir::{DataDir, partition_dir_name};
use callboard::storage::disk::{Disk, VirtualDisk};
use callboard::storage::file_cache::FileCache;
use callboard::storage::queue::{Job, LogNews, LogQueue, LogWork};
use callboard::storage::{LogConfig, LogError, LogReader, PartitionIdentity};
use callboard::types::{
    BrokerEpoch, ClusterId, IncarnationId, MonoTime, NodeId, Offset, TimestampMs, TopicConfig, TopicName,
    TopicPartition,
};

use super::{P0, Reply};

pub const SETTINGS: replica::ReplicaSettings = replica::ReplicaSettings {
    leader: LeaderSettings {
        producer_expiry_ms: 86_400_000,
        max_lag: Duration::from_millis(800),
        proposal_timeout: Duration::from_millis(300),
        proposal_backoff: Duration::from_millis(50),
    },
    follower: FollowerSettings {
        producer_expiry_ms: 86_400_000,
        fetch_bytes: 1_000,
        fetch_timeout: Duration::from_secs(600),
        fetch_backoff: Duration::from_millis(30),
    },
};

pub const WALL: TimestampMs = TimestampMs(1_700_000_000_000);

/// What a replica wants to be sent.
pub enum Sent {
    Fetch { leader: NodeId, fetch: ReplicaFetch, may_wait: bool },
    Propose(Proposal),
    Answer(Reply, Result<Answer, ApiError>, Bytes),
}

/// A machine.
pub struct Broker {
    pub node: NodeId,
    pub disk: VirtualDisk,
    pub process: Option<Process>,
}

/// A running broker.
pub struct Process {
    pub directory: DataDir,
    pub stop: LastStop,
    pub engine: BrokerEngine,
    /// What the engine asks of the controller: the test sees to it, or not.
    pub asked: Vec<Request>,
    pub image: ClusterImage,
    /// Entries of the metadata log that were applied.
    pub applied: usize,
    pub replicas: BTreeMap<TopicPartition, Hosted>,
}

/// A replica with its log, and the jobs of that log which nobody has done yet.
pub struct Hosted {
    pub replica: Replica<Reply, ()>,
    queue: LogQueue<(), ProducerReplay>,
    pub reader: LogReader,
    jobs: Vec<Job<(), ProducerReplay>>,
    pub offline: Option<ApiError>,
    pub closed_well: bool,
}

impl Broker {
    pub fn new(node: u32) -> Self {
        Self { node: NodeId(node), disk: VirtualDisk::new(u64::from(node)), process: None }
    }

    /// Starts a process on what the disk holds.
    pub fn start(&mut self, cluster: ClusterId, now: MonoTime) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let directory = DataDir::open(disk, Path::new("/data"), self.node, Some(cluster)).expect("a data directory");
        let stop = replica::last_stop(&directory).expect("readable");
        let meta = directory.meta();
        let held = meta.broker_epoch.unwrap_or_default();
        let registration = BrokerRegistration {
            node: self.node,
            epoch: held,
            incarnation: IncarnationId::random(),
            directory: meta.directory,
            host: "stage".to_owned(),
            port: 1,
            peer: None,
            rack: None,
            software: String::new(),
            before: DirectoryHistory { epoch: held, stop },
            decided_at: None,
        };
        self.process = Some(Process {
            directory,
            stop,
            engine: BrokerEngine::new(now, registration, BrokerSettings::default()),
            asked: Vec::new(),
            image: ClusterImage::empty(cluster),
            applied: 0,
            replicas: BTreeMap::new(),
        });
    }

    pub fn partition_dir(name: &TopicName) -> PathBuf {
        Path::new("/data").join(partition_dir_name(name, P0))
    }
}

impl Process {
    fn config(&self, defaults: &TopicConfig) -> TopicConfig {
        let topic = self.image.topics.get(&P0.topic);
        topic.map_or_else(|| defaults.clone(), |topic| topic.config.resolve(defaults).expect("checked"))
    }

    /// The registration, once its directory holds it.
    pub fn epoch(&self) -> BrokerEpoch {
        self.engine.epoch().unwrap_or_default()
    }

    /// Lets the engine do something, and does what it wants done here.
    pub fn with_engine(
        &mut self,
        (now, node, defaults): (MonoTime, NodeId, &TopicConfig),
        event: impl FnOnce(&mut BrokerEngine, &ClusterImage, &mut Output),
    ) {
        let mut out = Output::default();
        event(&mut self.engine, &self.image, &mut out);
        out.0.into_iter().for_each(|command| self.obey((now, node, defaults), command));
    }

    fn obey(&mut self, (now, node, defaults): (MonoTime, NodeId, &TopicConfig), command: Command) {
        match command {
            Command::Ask(request) => self.asked.push(request),
            Command::StoreEpoch(epoch) => {
                self.directory.store_broker_epoch(epoch).expect("stored");
                let stored = |engine: &mut BrokerEngine, image: &ClusterImage, out: &mut Output| {
                    engine.on_epoch_stored(now, image, out);
                };
                self.with_engine((now, node, defaults), stored);
            }
            Command::SetLease(until) => {
                self.replicas.values_mut().for_each(|hosted| hosted.replica.on_lease(now, until));
            }
            Command::Open(_) => {
                let config = self.config(defaults);
                self.open(now, node, &config);
            }
            Command::MarkVerified(_) => {
                self.replicas.values_mut().for_each(|hosted| hosted.push(LogWork::MarkVerified));
            }
            // Who hands over and who stops, the test says.
            _ => {}
        }
    }

    /// Gives the replica the part that the metadata asks of it, and opens it if it is not open.
    pub fn follow(&mut self, now: MonoTime, node: NodeId, defaults: &TopicConfig) {
        self.with_engine((now, node, defaults), |engine, image, out| engine.on_image(now, image, out));
        if !self.engine.follows_metadata() {
            return;
        }
        let assignment = Assignment::of(&self.image, node, self.epoch(), P0);
        let config = self.config(defaults);
        if let Some(hosted) = self.replicas.get_mut(&P0) {
            hosted.replica.assign(now, assignment, config);
        }
    }

    fn open(&mut self, now: MonoTime, node: NodeId, config: &TopicConfig) {
        let Some((topic, state)) = self.image.topics.get(&P0.topic).zip(self.image.partition(P0)) else { return };
        let job = OpenJob {
            disk: Arc::clone(self.directory.disk()),
            files: Arc::new(FileCache::new(Arc::clone(self.directory.disk()), 6)),
            dir: Broker::partition_dir(&topic.name),
            identity: PartitionIdentity {
                cluster_id: self.image.cluster_id,
                topic: topic.name.clone(),
                topic_id: topic.id,
                partition: P0.partition,
            },
            config: LogConfig::from(config),
            may_be_new: !topic.has_opened(P0.partition, node) || !state.is_member(node),
        };
        let mut result = None;
        open_all(vec![job], |_, opened| result = Some(opened));
        match result.expect("each job is answered") {
            Ok(opened) => self.host(now, node, config, opened),
            Err(LogError::LostPartition { .. }) => self.engine.on_lost(now, P0),
            Err(error) => panic!("the log of broker {node} cannot be opened: {error}"),
        }
    }

    fn host(&mut self, now: MonoTime, node: NodeId, config: &TopicConfig, opened: OpenedReplica) {
        let is_doubtful = opened.report.as_ref().is_some_and(|report| report.doubtful);
        let state = replica::state_of(&opened.log, opened.producers);
        let queue = LogQueue::new(opened.log, config.flush, 2_000);
        let reader = queue.log().map(|log| log.reader()).expect("just given");
        let mut replica = Replica::new(node, state, config.clone(), SETTINGS);
        replica.on_lease(now, self.engine.lease_until());
        self.engine.on_opened(now, P0, Opened { is_doubtful, is_damaged: replica.is_damaged() });
        let hosted = Hosted { replica, queue, reader, jobs: Vec::new(), offline: None, closed_well: false };
        self.replicas.insert(P0, hosted);
    }
}

impl Hosted {
    /// Passes on what the replica wants done: to the log, or back to whoever sends it.
    pub fn pump(&mut self, now: MonoTime) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let (effects, mut news) = (self.replica.take_effects(), Vec::new());
            let is_idle = effects.is_empty();
            for effect in effects {
                sent.extend(self.carry_out(effect));
            }
            let before = self.jobs.len();
            while let Some(job) = self.queue.next(WALL, &mut news) {
                self.jobs.push(job);
            }
            if is_idle && before == self.jobs.len() && news.is_empty() {
                return sent;
            }
            self.take(now, news);
        }
    }

    fn carry_out(&mut self, effect: Effect<Reply, ()>) -> Option<Sent> {
        Some(match effect {
            Effect::Write(work) => {
                self.queue.push(work);
                return None;
            }
            Effect::Answer(reply, result) => Sent::Answer(reply, result, Bytes::new()),
            Effect::Read(reply, range, state) => {
                let read = self.reader.read(range.from, range.upper_exclusive, range.max_bytes);
                let error =
                    |error: &LogError| ApiError::new(callboard::protocol::ErrorCode::DamagedLog, error.to_string());
                let answer = match state {
                    ReadState::Consumer(state) => Answer::Fetched(state),
                    ReadState::Follower(state) => Answer::ReplicaFetched(ReplicaVerdict::Continues, state),
                    ReadState::Repair(state) => Answer::ReplicaFetched(ReplicaVerdict::Repairs, state),
                };
                match read {
                    Ok(slice) => Sent::Answer(reply, Ok(answer), slice.bytes),
                    Err(cause) => Sent::Answer(reply, Err(error(&cause)), Bytes::new()),
                }
            }
            Effect::LookUp(..) => return None,
            Effect::Fetch { leader, fetch, may_wait } => Sent::Fetch { leader, fetch, may_wait },
            Effect::Propose(proposal) => Sent::Propose(proposal),
            // The tests report it.
            Effect::Damaged(_) => return None,
            Effect::Offline(cause) => {
                self.offline = Some(cause);
                return None;
            }
        })
    }

    fn take(&mut self, now: MonoTime, news: Vec<LogNews<ProducerReplay>>) {
        for item in news {
            self.closed_well |= matches!(item, LogNews::Closed(Ok(())));
            self.replica.on_log_news(now, item);
        }
    }

    /// Does the jobs that are there: the syncs, or all others. Returns whether there were any.
    pub fn work(&mut self, now: MonoTime, syncs: bool) -> bool {
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|job| matches!(job, Job::Sync(_)) == syncs);
        self.jobs = rest;
        let worked = !due.is_empty();
        for job in due {
            let mut news = Vec::new();
            self.queue.finish(job.run(), &mut news);
            self.take(now, news);
        }
        worked
    }

    pub fn push(&mut self, work: LogWork<(), ProducerReplay>) {
        self.queue.push(work);
    }

    pub fn want_sync(&mut self) {
        self.queue.want_sync();
    }

    pub fn watermark(&self) -> Offset {
        self.replica.cursors().expect("a role").high_watermark()
    }
}

/// What a leader says to a follower, on its way.
pub type Verdict = Result<(ReplicaVerdict, LeaderState), ApiError>;
