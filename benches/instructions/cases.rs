//! What is counted, on input that never changes. Each case prepares, warms up, and hands what is to be counted to
//! [`measured`], which callgrind is told to watch.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use callboard::actors::partition_leader::{CacheBudget, TailCache};
use callboard::engine::leader::{Command, LeaderEngine, LeaderSettings, Leadership, Output, ProduceEvent, ReadRange};
use callboard::engine::replication::ReplicaState;
use callboard::engine::waiters::OwnerId;
use callboard::protocol::Api;
use callboard::protocol::frame::{Attachment, FrameCodec, FrameHead, SegmentedBuf, encode_reply, encode_request};
use callboard::protocol::messages::{Acks, Fetch, FetchReply, FetchedPartition, Produce, ProducePartition};
use callboard::storage::disk::{Disk, RealDisk};
use callboard::storage::file_cache::FileCache;
use callboard::storage::{Log, LogConfig, PartitionIdentity};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch, Records};
use callboard::types::{
    BrokerEpoch, ClusterId, CorrelationId, FlushPolicy, LeaderEpoch, MonoTime, NodeId, Offset, PartitionIndex,
    ProducerEpoch, ProducerId, TimestampMs, TopicConfig, TopicId, TopicName,
};
use tokio_util::codec::{Decoder, Encoder};

/// How often each case does its work while it is counted. The table shows the count of one.
pub const TIMES: u64 = 200;
/// And before, where state builds up: queues have their size then, chunks of the tail cache have come round.
const APPENDS_BEFORE: u64 = 1_000;
/// And before, elsewhere.
const WARM_UP: u64 = 10;

pub struct Case {
    pub name: &'static str,
    pub run: fn(),
}

pub const CASES: &[Case] = &[
    Case { name: "append_small", run: || append(1) },
    Case { name: "append_large", run: || append(100) },
    Case { name: "fetch_tail", run: fetch_tail },
    Case { name: "fetch_cold", run: fetch_cold },
    Case { name: "codec_decode", run: codec_decode },
    Case { name: "codec_encode", run: codec_encode },
    Case { name: "batch_check", run: batch_check },
    Case { name: "client_encode", run: client_encode },
    Case { name: "client_decode", run: client_decode },
];

/// Callgrind counts from the entry of this function to its exit: it must stay a function, with this name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        work();
    }
}

fn repeat(mut work: impl FnMut()) {
    repeat_after(WARM_UP, &mut work);
}

fn repeat_after(warm_up: u64, work: &mut dyn FnMut()) {
    for _ in 0..warm_up {
        work();
    }
    measured(work);
}

/// A batch of `records` records of 1 KiB from an idempotent producer.
fn batch(records: usize, number: u64) -> Bytes {
    let value = [b'v'; 1_024];
    let mut builder = BatchBuilder::new(Compression::None, records * 1_040);
    let sequence = i32::try_from(number * records as u64).expect("few records");
    builder.set_producer(ProducerId(7), ProducerEpoch(0), sequence);
    for _ in 0..records {
        builder.append(TimestampMs(1), None, Some(&value), &[]);
    }
    let bytes = builder.build().expect("small");
    // The slices of a frame share its memory already.
    drop(bytes.clone());
    bytes
}

fn topic_id() -> TopicId {
    TopicId(uuid::Uuid::from_u128(9))
}

const NOW: MonoTime = MonoTime(Duration::ZERO);

struct Partition {
    engine: LeaderEngine<()>,
    out: Output<()>,
    cache: TailCache,
    log: Log,
    _directory: tempfile::TempDir,
}

impl Partition {
    fn new() -> Self {
        let config = TopicConfig { flush: FlushPolicy::Os, ..TopicConfig::default() };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let directory = tempfile::tempdir().expect("a writable directory");
        let identity = PartitionIdentity {
            cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
            topic: TopicName::new("counted").expect("a legal name"),
            topic_id: topic_id(),
            partition: PartitionIndex(0),
        };
        let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
        let place = directory.path().join("counted-0");
        let log = Log::create(disk, files, &place, &identity, LogConfig::from(&config)).expect("created");
        let leadership = Leadership::alone(LeaderEpoch(0), NodeId(1), BrokerEpoch(1));
        let (state, settings) = (ReplicaState::empty(), LeaderSettings::default());
        let mut engine = LeaderEngine::new(NOW, NodeId(1), leadership, config, state, settings);
        engine.on_lease(NOW, MonoTime(Duration::MAX), &mut Output::default());
        Self {
            engine,
            out: Output::default(),
            cache: TailCache::new(4 << 20, CacheBudget::new(64 << 20)),
            log,
            _directory: directory,
        }
    }

    /// What session, leader and log writer do with a batch, one after the other: as in tests/append_allocations.rs.
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
        let answered = |command: &Command<()>| matches!(command, Command::Produced { .. });
        assert_eq!(self.out.0.drain(..).filter(answered).count(), 1, "every batch is acknowledged");
    }
}

/// From the bytes of a frame through checksum, engine, tail cache and log to the answer.
fn append(records: usize) {
    let mut partition = Partition::new();
    let mut batches = (0..APPENDS_BEFORE + TIMES).map(|number| batch(records, number)).collect::<Vec<_>>().into_iter();
    repeat_after(APPENDS_BEFORE, &mut || partition.produce(batches.next().expect("one for each turn")));
}

/// A fetch of a mebibyte of small batches that are in memory, down to what a vectored write is given.
fn fetch_tail() {
    let mut cache = TailCache::new(4 << 20, CacheBudget::new(64 << 20));
    for number in 0..1_000 {
        let batch = RecordBatch::from_client(batch(1, number)).expect("a good batch");
        cache.push(&batch.stamped(Offset(number), LeaderEpoch(0), None));
    }
    let range = ReadRange { from: Offset(100), upper_exclusive: Offset(1_000), max_bytes: 1 << 20 };
    let mut out = SegmentedBuf::new();
    repeat(|| {
        let read = cache.read(black_box(range)).expect("in memory");
        put_reply(&mut out, read.chunks.into_iter().collect());
    });
}

fn put_reply(out: &mut SegmentedBuf, records: Attachment) {
    let head = FrameHead { api: Api::Fetch.number(), version: 1, correlation_id: CorrelationId(70_000) };
    let end = Offset(1_000);
    let state = FetchedPartition { log_start_offset: Offset::ZERO, high_watermark: end, last_stable_offset: end };
    let reply = FetchReply { partitions: vec![Ok(state).into()] };
    out.put_frame(encode_reply::<Fetch>(head, Ok(reply), vec![records])).expect("fits");
    out.advance(black_box(out.remaining()));
}

/// The same from the log, where the page cache has it.
fn fetch_cold() {
    let mut partition = Partition::new();
    (0..1_000).for_each(|number| partition.produce(batch(1, number)));
    let (reader, end) = (partition.log.reader(), partition.log.written_end());
    let mut out = SegmentedBuf::new();
    repeat(|| {
        let slice = reader.read(Offset(100), end, 1 << 20).expect("read");
        put_reply(&mut out, slice.bytes.into());
    });
}

fn produce_frame(records: &Bytes) -> callboard::protocol::frame::OutFrame {
    let partition = ProducePartition { topic: topic_id(), partition: PartitionIndex(3), leader_epoch: None };
    let request = Produce { acks: Acks::All, timeout_ms: 30_000, partitions: vec![partition] };
    encode_request(&request, CorrelationId(70_000), vec![records.clone().into()])
}

/// A produce request, from the bytes of the socket to the typed request.
fn codec_decode() {
    let mut wire = BytesMut::new();
    FrameCodec::new(usize::MAX).encode(produce_frame(&batch(1, 0)), &mut wire).expect("encodes");
    let mut codec = FrameCodec::new(16 << 20);
    repeat(|| {
        let frame = codec.decode(&mut wire.clone()).expect("a frame").expect("whole");
        black_box((frame.decode_body::<Produce>().expect("a request"), frame.attachments));
    });
}

/// The same request, on its way out.
fn codec_encode() {
    let records = batch(100, 0);
    let mut out = SegmentedBuf::new();
    repeat(|| {
        out.put_frame(produce_frame(&records)).expect("fits");
        out.advance(black_box(out.remaining()));
    });
}

/// Header and checksum of a batch of 100 KiB.
fn batch_check() {
    let bytes = batch(100, 0);
    repeat(|| drop(black_box(RecordBatch::from_client(bytes.clone()).expect("a good batch"))));
}

/// What a producer does to 100 records.
fn client_encode() {
    repeat(|| drop(black_box(batch(100, 0))));
}

/// What a consumer does with them.
fn client_decode() {
    let batch = RecordBatch::from_client(batch(100, 0)).expect("a good batch");
    repeat(|| {
        let records = Records::open(&batch, 16 << 20).expect("good records");
        black_box(records.iter().filter_map(|record| record.value).map(<[u8]>::len).sum::<usize>());
    });
}
