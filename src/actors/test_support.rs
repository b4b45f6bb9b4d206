//! What the tests of the actors share: probes that stand where other actors would, and logs on a virtual disk.

#![allow(clippy::disallowed_methods, reason = "a probe keeps whatever a test sends it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, Recipient};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::partition_leader::{
    Assign, CacheBudget, Keeping, Outward, PartitionLeader, PartitionLeaderSettings, ReadBudget, SetLease,
};
use super::send::post;
use super::threads::{DiskPool, Lane};
use crate::config::{LogWriterPlacement, StorageSection};
use crate::engine::assignment::Assignment;
use crate::engine::leader::Leadership;
use crate::engine::metadata::{BrokerRegistration, DirectoryHistory};
use crate::storage::disk::{Disk, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::storage::{Log, LogConfig, PartitionIdentity};
use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use crate::types::{
    BrokerEpoch, ClusterId, DirectoryId, IncarnationId, LeaderEpoch, MonoTime, NodeId, Offset, PartitionIndex,
    SystemClock, TimestampMs, TopicConfig, TopicId, TopicName, TopicPartition,
};

/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(10);

struct Probe<M>(mpsc::UnboundedSender<M>);

impl<M: Send + Unpin + 'static> Actor for Probe<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Handler<M> for Probe<M> {
    type Result = ();
    fn handle(&mut self, message: M, _: &mut Self::Context) {
        // A test that has heard enough is no error.
        let _ = self.0.send(message);
    }
}

/// Stands where another actor would, and hears what that one would be told.
pub struct Ear<M: Message<Result = ()> + Send + Unpin + 'static> {
    probe: Addr<Probe<M>>,
    heard: mpsc::UnboundedReceiver<M>,
}

impl<M: Message<Result = ()> + Send + Unpin + 'static> Ear<M> {
    /// Starts listening.
    pub fn new() -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        Self { probe: Probe(sender).start(), heard }
    }

    /// Where to send.
    pub fn recipient(&self) -> Recipient<M> {
        self.probe.clone().recipient()
    }

    /// The next message.
    pub async fn next(&mut self) -> M {
        match tokio::time::timeout(PATIENCE, self.heard.recv()).await {
            Ok(Some(message)) => message,
            _ => panic!("nothing was heard within {PATIENCE:?}"),
        }
    }

    /// What has been heard and not taken yet.
    pub fn pending(&mut self) -> Vec<M> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

/// What a replica of these tests needs of its node, with so much memory for its newest batches.
pub fn replica_settings(node: NodeId, thread: &DiskThread, cache_bytes: usize) -> PartitionLeaderSettings {
    PartitionLeaderSettings {
        node,
        storage: StorageSection {
            min_free_bytes: 0,
            tail_cache_partition_bytes: cache_bytes,
            ..StorageSection::default()
        },
        placement: LogWriterPlacement::Core,
        clock: Arc::new(SystemClock::start()),
        disk: thread.pool.clone(),
        cache: CacheBudget::new(1 << 20),
        reads: ReadBudget::new(1 << 20),
        metrics: Arc::default(),
        keeping: Keeping::Log,
    }
}

/// What a broker on a new directory presents.
pub fn registration(node: NodeId, directory: DirectoryId) -> BrokerRegistration {
    BrokerRegistration {
        node,
        epoch: BrokerEpoch(0),
        incarnation: IncarnationId::random(),
        directory,
        host: "127.0.0.1".to_owned(),
        port: 1,
        peer: None,
        rack: None,
        software: "test".to_owned(),
        before: DirectoryHistory::default(),
        decided_at: None,
    }
}

/// Where what a replica has to say to others goes in a test that is not about that.
pub fn nowhere() -> Outward {
    Outward { fetches: None, reports: Ear::new().recipient() }
}

/// Has a replica that was just started lead, for good.
pub fn lead(replica: &Addr<PartitionLeader>, leadership: Leadership, config: TopicConfig) {
    post(replica, SetLease(MonoTime(Duration::MAX)));
    post(replica, Assign { assignment: Assignment::Lead(leadership), config });
}

/// One disk thread, so that a test can hold up all work on it.
pub struct DiskThread {
    pub pool: DiskPool,
    _arbiter: Arbiter,
}

impl DiskThread {
    pub fn start() -> Self {
        let arbiter = Arbiter::new();
        Self { pool: DiskPool::new(std::slice::from_ref(&arbiter), std::slice::from_ref(&arbiter)), _arbiter: arbiter }
    }

    /// Nothing runs on the thread until the result is dropped.
    pub fn hold_up(&self) -> std::sync::mpsc::SyncSender<()> {
        let (go_on, wait) = std::sync::mpsc::sync_channel(0);
        self.pool.run(Lane::Sync, move || {
            // The sender's end is the signal.
            let _ = wait.recv();
        });
        go_on
    }

    /// Waits until everything that was given to the thread before is done.
    pub async fn settle(&self) {
        let (done, settled) = tokio::sync::oneshot::channel();
        self.pool.run(Lane::Sync, move || {
            let _ = done.send(());
        });
        settled.await.expect("the thread lives");
    }
}

/// The partition of these tests.
pub fn partition() -> (TopicPartition, TopicName) {
    let topic = TopicId(uuid::Uuid::from_u128(7));
    (TopicPartition::new(topic, PartitionIndex(0)), TopicName::new("t").expect("legal"))
}

/// Its new log on `disk`.
pub fn new_log(disk: &VirtualDisk, config: &TopicConfig) -> Log {
    let (partition, topic) = partition();
    let identity = PartitionIdentity {
        cluster_id: ClusterId(uuid::Uuid::from_u128(1)),
        topic,
        topic_id: partition.topic,
        partition: partition.partition,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    disk.create_dir_all(Path::new("/data")).expect("a new disk");
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 16));
    Log::create(disk, files, Path::new("/data/t"), &identity, LogConfig::from(config)).expect("a new log")
}

/// A batch of `records` records, not stamped yet.
pub fn batch(records: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, 64);
    for _ in 0..records {
        builder.append(TimestampMs(1_000), None, Some(b"value"), &[]);
    }
    let mut bytes: Bytes = builder.build().expect("small");
    RecordBatch::split_from(&mut bytes).expect("whole")
}

/// A batch of one record, stamped.
pub fn batch_at(offset: u64) -> RecordBatch {
    batch(1).stamped(Offset(offset), LeaderEpoch(0), None)
}
