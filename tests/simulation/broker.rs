//! A broker as the simulation runs it: the real data directory, logs, queues and replicas; processes that die; a clock that
//! drifts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callboard::engine::broker::{BrokerEngine, BrokerSettings};
use callboard::engine::follower::FollowerSettings;
use callboard::engine::leader::LeaderSettings;
use callboard::engine::metadata::{BrokerRegistration, ClusterImage, DirectoryHistory, LastStop};
use callboard::replica::{self, OpenJob, ProducerReplay, Replica, ReplicaSettings};
use callboard::storage::data_dir::{DataDir, partition_dir_name};
use callboard::storage::disk::{Disk, VirtualDisk};
use callboard::storage::file_cache::FileCache;
use callboard::storage::queue::LogQueue;
use callboard::storage::{LogConfig, LogReader, PartitionIdentity};
use callboard::types::{
    BrokerEpoch, ClusterId, IncarnationId, MonoTime, NodeId, Offset, TimestampMs, TopicConfig, TopicPartition,
};

use crate::net::ReplyTo;
use crate::rules::Duties;

pub const ROOT: &str = "/data";

pub const SETTINGS: ReplicaSettings = ReplicaSettings {
    leader: LeaderSettings {
        producer_expiry_ms: 86_400_000,
        max_lag: Duration::from_millis(800),
        proposal_timeout: Duration::from_millis(300),
        proposal_backoff: Duration::from_millis(50),
    },
    follower: FollowerSettings {
        producer_expiry_ms: 86_400_000,
        fetch_bytes: 600,
        fetch_timeout: Duration::from_millis(400),
        fetch_backoff: Duration::from_millis(30),
    },
};

/// Several renewals within a lease; no report more often than news come through a network that works.
pub const ENGINE: BrokerSettings = BrokerSettings {
    retry: Duration::from_millis(80),
    renewal_interval: Duration::from_millis(100),
    report_interval: Duration::from_millis(100),
    hand_over_timeout: Duration::from_millis(400),
    stop_timeout: Duration::from_millis(2_000),
    farewell: Duration::from_millis(300),
};

/// How long a leader lets a fetch of a follower wait.
pub const FETCH_WAIT: Duration = Duration::from_millis(200);

/// A clock that runs at its own speed.
#[derive(Clone, Copy)]
pub struct DriftingClock {
    /// Thousandths of the true speed.
    pub rate: u64,
}

impl DriftingClock {
    pub fn read(self, true_us: u64) -> MonoTime {
        MonoTime(Duration::from_micros(true_us * self.rate / 1_000))
    }

    /// The true time at which this clock shows at least `local`.
    pub fn true_us(self, local: MonoTime) -> u64 {
        let us = u64::try_from(local.0.as_micros()).unwrap_or(u64::MAX / 4_000).min(u64::MAX / 4_000);
        (us * 1_000).div_ceil(self.rate)
    }
}

/// A machine with a disk, and perhaps a process on it.
pub struct Broker {
    pub node: NodeId,
    pub disk: VirtualDisk,
    pub clock: DriftingClock,
    pub process: Option<Process>,
    /// Events of an earlier process are not for this one.
    pub life: u64,
    /// Until when the process stands still.
    pub paused_until: u64,
    /// What its replicas had when they were last seen: durable end and written end.
    pub last_seen: BTreeMap<TopicPartition, (Offset, Offset)>,
    /// Replicas that lost what they had, by a fault that the controller has not been told of.
    pub robbed: BTreeSet<TopicPartition>,
    /// Replicas with a flipped bit that have not been found whole since.
    pub flipped: BTreeSet<TopicPartition>,
    /// Its whole directory is another one, or an older copy: so much for whatever it is asked to hold before the controller knows.
    pub is_wiped: bool,
    /// It lost its power, and the controller does not know yet.
    pub is_without_power: bool,
    /// Whether the crash that its disk is set for is a power loss.
    pub loses_power: bool,
}

/// A running broker.
pub struct Process {
    pub directory: DataDir,
    pub files: Arc<FileCache>,
    pub stop: LastStop,
    pub incarnation: u128,
    /// What it asks of controllers, and may do.
    pub engine: BrokerEngine,
    /// When the engine is to be woken.
    pub wake_at: Option<u64>,
    pub image: ClusterImage,
    /// Entries of the metadata log that were applied.
    pub applied: usize,
    pub replicas: BTreeMap<TopicPartition, Hosted>,
    /// Replicas whose log cannot be opened, though it is there.
    pub shut: BTreeSet<TopicPartition>,
    /// Whether it has looked for directories that nobody knows.
    pub has_looked: bool,
    /// Whose files are being removed.
    pub removing: BTreeSet<TopicPartition>,
    /// Replicas whose recovery cut a tail that no power loss explains, and that nobody has taken for whole since.
    pub doubtful: Vec<TopicPartition>,
    /// Until when its leaders were told that they may answer.
    pub lease_until: MonoTime,
}

/// A replica with its log.
pub struct Hosted {
    pub replica: Replica<ReplyTo, ()>,
    pub queue: LogQueue<(), ProducerReplay>,
    pub reader: LogReader,
    pub watermark_seen: Offset,
    /// Where the log started when that was looked at last.
    pub log_start_seen: Offset,
    pub wake_at: Option<u64>,
    pub is_offline: bool,
    /// The log is about to be cut: what it had is not what it will have.
    pub is_cutting: bool,
    /// Where the next scrub begins.
    pub scrub_from: Offset,
    /// Its topic is gone: the log is being closed.
    pub is_leaving: bool,
    pub duties: Duties,
}

pub fn wall(now_us: u64) -> TimestampMs {
    TimestampMs(i64::try_from(now_us / 1_000).unwrap_or(i64::MAX) + 1_700_000_000_000)
}

impl Broker {
    pub fn new(node: NodeId, seed: u64, rate: u64) -> Self {
        Self {
            node,
            disk: VirtualDisk::new(seed),
            clock: DriftingClock { rate },
            process: None,
            life: 0,
            paused_until: 0,
            last_seen: BTreeMap::new(),
            robbed: BTreeSet::new(),
            flipped: BTreeSet::new(),
            is_wiped: false,
            is_without_power: false,
            loses_power: false,
        }
    }

    pub fn now(&self, now_us: u64) -> MonoTime {
        self.clock.read(now_us)
    }

    /// Starts a process. The error is in words; after a crash of the disk the machine has stopped.
    pub fn start(&mut self, cluster: ClusterId, incarnation: u128, now_us: u64) -> Result<(), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let directory = DataDir::open(Arc::clone(&disk), Path::new(ROOT), self.node, Some(cluster));
        let directory = directory.map_err(|error| error.to_string())?;
        let stop = replica::last_stop(&directory).map_err(|error| error.to_string())?;
        let meta = directory.meta();
        let held = meta.broker_epoch.unwrap_or_default();
        let registration = BrokerRegistration {
            node: self.node,
            epoch: held,
            incarnation: IncarnationId(uuid::Uuid::from_u128(incarnation)),
            directory: meta.directory,
            host: "simulated".to_owned(),
            port: 1,
            peer: None,
            rack: None,
            software: String::new(),
            before: DirectoryHistory { epoch: held, stop },
            decided_at: None,
        };
        self.process = Some(Process {
            directory,
            files: Arc::new(FileCache::new(disk, 6)),
            stop,
            incarnation,
            engine: BrokerEngine::new(self.now(now_us), registration, ENGINE),
            wake_at: None,
            image: ClusterImage::empty(cluster),
            applied: 0,
            replicas: BTreeMap::new(),
            shut: BTreeSet::new(),
            has_looked: false,
            removing: BTreeSet::new(),
            doubtful: Vec::new(),
            lease_until: MonoTime::default(),
        });
        Ok(())
    }
}

impl Process {
    /// The registration, once its directory holds it.
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        self.engine.epoch()
    }

    /// Whether the metadata knows this registration: before that nothing of it may lead or follow.
    pub fn is_known(&self, node: NodeId) -> bool {
        self.epoch().is_some_and(|epoch| self.image.is_registered(node, epoch))
    }

    pub fn config_of(&self, partition: TopicPartition, defaults: &TopicConfig) -> TopicConfig {
        let topic = self.image.topics.get(&partition.topic);
        topic.and_then(|topic| topic.config.resolve(defaults).ok()).unwrap_or_else(|| defaults.clone())
    }

    /// What it takes to open a replica; `None` for a topic that is gone.
    pub fn open_job(&self, node: NodeId, partition: TopicPartition, defaults: &TopicConfig) -> Option<OpenJob> {
        let topic = self.image.topics.get(&partition.topic)?;
        let state = self.image.partition(partition)?;
        Some(OpenJob {
            disk: Arc::clone(self.directory.disk()),
            files: Arc::clone(&self.files),
            dir: self.directory.topics_dir().join(partition_dir_name(&topic.name, partition)),
            identity: PartitionIdentity {
                cluster_id: self.image.cluster_id,
                topic: topic.name.clone(),
                topic_id: topic.id,
                partition: partition.partition,
            },
            config: LogConfig::from(&self.config_of(partition, defaults)),
            // A directory that is missing was lost; once the replica counts no more, it begins anew.
            may_be_new: !topic.has_opened(partition.partition, node) || !state.is_member(node),
        })
    }
}
