//! The append path allocates nothing for a batch once it is warm: from the bytes of a frame through checksum, engine, tail
//! cache and log to the answer. Counted on the thread that runs it, as a core thread does. What comes on top of it in a node
//! is counted in docs/performance.md: the request that batches come in, and actix's own envelopes.
#![allow(missing_docs, reason = "tests")]

#[path = "support/counting_allocator.rs"]
mod counting_allocator;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard::actors::partition_leader::{CacheBudget, TailCache};
use callboard::engine::leader::{Command, LeaderEngine, LeaderSettings, Leadership, Output, ProduceEvent};
use callboard::engine::replication::ReplicaState;
use callboard::engine::waiters::OwnerId;
use callboard::protocol::messages::Acks;
use callboard::storage::disk::{Disk, RealDisk};
use callboard::storage::file_cache::FileCache;
use callboard::storage::{Log, LogConfig, PartitionIdentity};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{
    BrokerEpoch, ClusterId, FlushPolicy, LeaderEpoch, MonoTime, NodeId, PartitionIndex, ProducerEpoch, ProducerId,
    TimestampMs, TopicConfig, TopicId, TopicName,
};
use counting_allocator::allocations;

/// Batches before counting: queues grow to their size, chunks of the tail cache come round once.
const WARM_UP: usize = 6_000;
const COUNTED: usize = 2_000;

const NOW: MonoTime = MonoTime(Duration::ZERO);

struct Partition {
    engine: LeaderEngine<()>,
    out: Output<()>,
    cache: TailCache,
    log: Log,
    answered: usize,
    _directory: tempfile::TempDir,
}

impl Partition {
    fn new() -> Self {
        let config = TopicConfig { flush: FlushPolicy::Os, ..TopicConfig::default() };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let directory = tempfile::tempdir().expect("a writable directory");
        let identity = PartitionIdentity {
            cluster_id: ClusterId::random(),
            topic: TopicName::new("counted").expect("a legal name"),
            topic_id: TopicId::random(),
            partition: PartitionIndex(0),
        };
        let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
        let log = Log::create(disk, files, &directory.path().join("counted-0"), &identity, LogConfig::from(&config))
            .expect("created");
        let leadership = Leadership::alone(LeaderEpoch(0), NodeId(1), BrokerEpoch(1));
        let (state, settings) = (ReplicaState::empty(), LeaderSettings::default());
        let mut engine = LeaderEngine::new(NOW, NodeId(1), leadership, config, state, settings);
        engine.on_lease(NOW, MonoTime(Duration::MAX), &mut Output::default());
        Self {
            engine,
            out: Output::default(),
            cache: TailCache::new(4 << 20, CacheBudget::new(64 << 20)),
            log,
            answered: 0,
            _directory: directory,
        }
    }

    /// What session, leader and log writer do with a batch, one after the other.
    fn produce(&mut self, bytes: Bytes) {
        let mut batch = Some(RecordBatch::from_client(bytes).expect("a good batch"));
        let header = batch.as_ref().expect("just made").header;
        let event = ProduceEvent {
            header,
            batch_bytes: header.total_bytes(),
            leader_epoch: None,
            acks: Acks::All,
            deadline: MonoTime(Duration::from_secs(30)),
            wall: TimestampMs(1),
            owner: OwnerId(1),
            reply: (),
        };
        self.engine.on_produce(NOW, event, &mut self.out);
        for command in self.out.0.drain(..) {
            if let Command::Append { base_offset, leader_epoch, append_time } = command {
                let batch = batch.take().expect("one append a batch");
                let stamped = batch.stamped(base_offset, leader_epoch, append_time);
                self.cache.push(&stamped);
                self.log.append(TimestampMs(1), std::array::from_ref(&stamped)).expect("space");
            }
        }
        self.engine.on_written(NOW, self.log.written_end(), &mut self.out);
        self.answered += self.out.0.drain(..).filter(|command| matches!(command, Command::Produced { .. })).count();
    }
}

/// Batches of `records` records of `value_bytes` bytes, with the sequences of one idempotent producer.
fn batches(records: usize, value_bytes: usize) -> Vec<Bytes> {
    let value = vec![b'v'; value_bytes];
    let batch = |number: usize| {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.set_producer(ProducerId(7), ProducerEpoch(0), i32::try_from(number * records).expect("few records"));
        for _ in 0..records {
            builder.append(TimestampMs(1), None, Some(&value), &[]);
        }
        let batch = builder.build().expect("small");
        // The slices of a frame share its memory already.
        drop(batch.clone());
        batch
    };
    (0..WARM_UP + COUNTED).map(batch).collect()
}

fn count(what: &str, records: usize, value_bytes: usize) {
    let mut partition = Partition::new();
    let mut before = 0;
    for (number, bytes) in batches(records, value_bytes).into_iter().enumerate() {
        if number == WARM_UP {
            before = allocations();
        }
        partition.produce(bytes);
    }
    let counted = allocations() - before;
    assert_eq!(partition.answered, WARM_UP + COUNTED, "every batch was acknowledged");
    assert_eq!(counted, 0, "{what}: {counted} allocations for {COUNTED} batches");
}

#[test]
fn a_small_batch_allocates_nothing_between_its_frame_and_its_answer() {
    count("batches of one record of 1 KiB", 1, 1_024);
}

#[test]
fn a_large_batch_allocates_nothing_between_its_frame_and_its_answer() {
    count("batches of 20 records of 1 KiB", 20, 1_024);
}
