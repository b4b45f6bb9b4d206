//! Append, read and open of one partition's log on the real file system, without the network.
//!
//! Appends are not synced: what is measured is the path to the page cache. Run with `cargo bench --bench storage`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use callboard::storage::disk::{Disk, RealDisk};
use callboard::storage::file_cache::FileCache;
use callboard::storage::{Log, LogConfig, PartitionIdentity, TruncateLeave};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{ClusterId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicConfig, TopicId, TopicName};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// The log is cut back to nothing when it has this many bytes: above it a bench measures cold memory, not the log.
const LARGEST_LOG_BYTES: u64 = 512 << 20;

fn identity() -> PartitionIdentity {
    PartitionIdentity {
        cluster_id: ClusterId::random(),
        topic: TopicName::new("bench").expect("a legal name"),
        topic_id: TopicId::random(),
        partition: PartitionIndex(0),
    }
}

struct Bench {
    disk: Arc<dyn Disk>,
    files: Arc<FileCache>,
    identity: PartitionIdentity,
    config: LogConfig,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let files = Arc::new(FileCache::new(Arc::clone(&disk), 64));
        let config = LogConfig::from(&TopicConfig::default());
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a writable directory");
        Self { disk, files, identity: identity(), config, directory }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.directory.path().join("bench-0")
    }

    fn create(&self) -> Log {
        let (disk, files) = (Arc::clone(&self.disk), Arc::clone(&self.files));
        Log::create(disk, files, &self.dir(), &self.identity, self.config).expect("created")
    }

    fn open(&self, dir: &Path) -> Log {
        let (disk, files) = (Arc::clone(&self.disk), Arc::clone(&self.files));
        Log::open(disk, files, dir, &self.identity, self.config, &mut ()).expect("opened").0
    }
}

/// One batch of records of 1 KiB that takes about `bytes` bytes.
fn batch_of(bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, bytes);
    let value = vec![b'v'; bytes.min(1_000)];
    while builder.plain_bytes() + value.len() <= bytes + 100 {
        builder.append(TimestampMs(1), None, Some(&value), &[]);
    }
    RecordBatch::from_client(builder.build().expect("small")).expect("good")
}

/// Stamps copies of `batch` one after the other from `base` on.
fn group(batch: &RecordBatch, count: usize, base: Offset) -> Vec<RecordBatch> {
    let mut next = base;
    let stamp = |_| {
        let stamped = batch.clone().stamped(next, LeaderEpoch(0), None);
        next = stamped.header.end_offset_exclusive();
        stamped
    };
    (0..count).map(stamp).collect()
}

fn append(c: &mut Criterion) {
    let mut benches = c.benchmark_group("append");
    for (name, count, bytes) in [("one batch of 64 KiB", 1, 64 << 10), ("100 batches of 1 KiB", 100, 1 << 10)] {
        let bench = Bench::new();
        let mut log = bench.create();
        let batch = batch_of(bytes);
        benches.throughput(Throughput::Bytes((count * batch.total_bytes()) as u64));
        benches.bench_function(name, |b| {
            b.iter(|| {
                if log.size_bytes() > LARGEST_LOG_BYTES {
                    log.truncate_to(Offset::ZERO, TruncateLeave::default()).expect("truncated");
                }
                let batches = group(&batch, count, log.written_end());
                black_box(log.append(TimestampMs(1), &batches).expect("appended"));
            });
        });
    }
    benches.finish();
}

fn read(c: &mut Criterion) {
    let mut benches = c.benchmark_group("read");
    for (name, bytes) in [("1 MiB of batches of 64 KiB", 64 << 10), ("1 MiB of batches of 1 KiB", 1 << 10)] {
        let bench = Bench::new();
        let mut log = bench.create();
        let batch = batch_of(bytes);
        while log.size_bytes() < 128 << 20 {
            let batches = group(&batch, (1 << 20) / bytes, log.written_end());
            log.append(TimestampMs(1), &batches).expect("appended");
        }
        let reader = log.reader();
        let end = log.written_end();
        let mut next = Offset::ZERO;
        benches.throughput(Throughput::Bytes(1 << 20));
        benches.bench_function(name, |b| {
            b.iter(|| {
                let slice = reader.read(next, end, 1 << 20).expect("read");
                next = if slice.next == end { Offset::ZERO } else { slice.next };
                black_box(slice)
            });
        });
        let mut random = fastrand::Rng::with_seed(1);
        benches.bench_function(format!("{name}, anywhere"), |b| {
            b.iter(|| black_box(reader.read(Offset(random.u64(0..end.0)), end, 1 << 20).expect("read")));
        });
    }
    benches.finish();
}

fn open(c: &mut Criterion) {
    let bench = Bench::new();
    let mut log = bench.create();
    let batch = batch_of(64 << 10);
    while log.size_bytes() < 64 << 20 {
        let batches = group(&batch, 16, log.written_end());
        log.append(TimestampMs(1), &batches).expect("appended");
    }
    log.close_cleanly(Offset::ZERO, b"").expect("closed");
    c.bench_function("open after a clean stop", |b| {
        b.iter_batched(|| bench.dir(), |dir| black_box(bench.open(&dir)), BatchSize::PerIteration);
    });
}

criterion_group!(storage, append, read, open);
criterion_main!(storage);
