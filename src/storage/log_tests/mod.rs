//! Stories about the log of one partition, on a virtual disk.

mod appending;
mod following;
mod reading;
mod recovering;
mod repairing;
mod retaining;
mod scrubbing;
mod scrubbing_in_parts;
mod truncating;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile, OpenMode, SyncPoint, VirtualDisk, read_full_at};
use super::file_cache::FileCache;
use super::segment::segment_path;
use super::{
    Appended, LeaderEpochs, Log, LogConfig, LogError, LogReader, NewLog, OpenReport, PartitionIdentity, Replay,
    TruncateLeave,
};
use crate::types::record_batch::{BatchBuilder, BatchHeader, Compression, RecordBatch, decode_records};
use crate::types::{
    ClusterId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicConfig, TopicId,
    TopicName,
};

pub(super) const DIR: &str = "/data/syslog-0";
pub(super) const EVERYTHING: Offset = Offset::MAX;

/// A batch of `count` records of `bytes` bytes each, one millisecond apart.
pub(super) fn batch(base: u64, epoch: u32, time: i64, count: i64, bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for at in 0..count {
        let value: Vec<u8> =
            format!("{}:", base as i64 + at).bytes().chain(std::iter::repeat(b'v')).take(bytes).collect();
        builder.append(TimestampMs(time + at), None, Some(&value), &[]);
    }
    let batch = RecordBatch::from_client(builder.build().unwrap()).unwrap();
    batch.stamped(Offset(base), LeaderEpoch(epoch), None)
}

/// A log on a virtual disk, and the words to tell what happens to it.
pub(super) struct Story {
    pub disk: VirtualDisk,
    pub files: Arc<FileCache>,
    pub config: LogConfig,
    pub log: Option<Log>,
    pub epoch: u32,
    pub time: i64,
    pub record_bytes: usize,
}

pub(super) fn identity() -> PartitionIdentity {
    PartitionIdentity {
        cluster_id: ClusterId(uuid::Uuid::from_u128(1)),
        topic: TopicName::new("syslog").unwrap(),
        topic_id: TopicId(uuid::Uuid::from_u128(2)),
        partition: PartitionIndex(0),
    }
}

pub(super) fn small_segments() -> LogConfig {
    let segment_bytes = 16_384;
    LogConfig { segment_bytes, index_interval_bytes: 1_000, ..LogConfig::from(&TopicConfig::default()) }
}

/// Notes what it is told.
#[derive(Default)]
pub(super) struct Listener {
    pub snapshot: Option<(Offset, Vec<u8>)>,
    pub refuses: Vec<u8>,
    pub batches: Vec<u64>,
}

impl Replay for Listener {
    fn snapshot(&mut self, at: Offset, payload: &[u8]) -> bool {
        let usable = payload != self.refuses;
        self.snapshot = usable.then(|| (at, payload.to_vec()));
        usable
    }
    fn batch(&mut self, header: &BatchHeader) {
        self.batches.push(header.base_offset.0);
    }
}

impl Story {
    pub(super) fn new() -> Self {
        Self::with(small_segments())
    }

    pub(super) fn with(config: LogConfig) -> Self {
        let disk = VirtualDisk::new(7);
        let files = Arc::new(FileCache::new(Arc::new(disk.clone()), 8));
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/"), SyncPoint::PartitionCreated).unwrap();
        let log = Log::create(Arc::new(disk.clone()), Arc::clone(&files), Path::new(DIR), &identity(), config).unwrap();
        Self { disk, files, config, log: Some(log), epoch: 1, time: 1_000, record_bytes: 100 }
    }

    pub(super) fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open")
    }

    pub(super) fn reader(&mut self) -> LogReader {
        self.log().reader()
    }

    /// Appends batches of so many records each, and moves the clock on by a second.
    pub(super) fn try_append(&mut self, counts: &[i64]) -> Result<Appended, LogError> {
        let mut base = self.log().written_end().0;
        let batches: Vec<_> = counts
            .iter()
            .map(|count| {
                let batch = batch(base, self.epoch, self.time, *count, self.record_bytes);
                base += *count as u64;
                batch
            })
            .collect();
        let now = TimestampMs(self.time);
        self.time += 1_000;
        self.log().append(now, &batches)
    }

    pub(super) fn append(&mut self, counts: &[i64]) -> Appended {
        self.try_append(counts).unwrap()
    }

    /// Appends `batches` batches of ten records, one at a time.
    pub(super) fn fill(&mut self, batches: usize) {
        for _ in 0..batches {
            self.append(&[10]);
        }
    }

    pub(super) fn sync(&mut self) -> Offset {
        match self.log().begin_sync() {
            Some(job) => self.log().finish_sync(job.run()).unwrap(),
            None => self.log().durable_end(),
        }
    }

    /// Cuts the log off at `end`, whatever was committed.
    pub(super) fn truncate(&mut self, end: Offset) -> Result<Offset, LogError> {
        self.log().truncate_to(
            end,
            TruncateLeave { unclean_election: Some(LeaderEpoch(u32::MAX)), ..TruncateLeave::default() },
        )
    }

    /// The process is killed.
    pub(super) fn kill(&mut self) {
        self.log = None;
        self.disk.kill();
    }

    /// Everything that was not synced is gone.
    pub(super) fn lose_power(&mut self) {
        self.log = None;
        self.disk.power_loss_keeping_nothing();
    }

    pub(super) fn close(&mut self, high_watermark: u64, snapshot: &[u8]) {
        let log = self.log.take().unwrap();
        log.close_cleanly(Offset(high_watermark), snapshot).unwrap();
        self.disk.kill();
    }

    pub(super) fn try_open(&mut self, replay: &mut dyn Replay) -> Result<OpenReport, LogError> {
        self.files = Arc::new(FileCache::new(Arc::new(self.disk.clone()), 8));
        let (disk, files) = (Arc::new(self.disk.clone()), Arc::clone(&self.files));
        let (log, report) = Log::open(disk, files, Path::new(DIR), &identity(), self.config, replay)?;
        self.log = Some(log);
        Ok(report)
    }

    pub(super) fn open(&mut self) -> OpenReport {
        self.try_open(&mut ()).unwrap()
    }

    pub(super) fn path(&self, base: u64, suffix: &str) -> PathBuf {
        segment_path(Path::new(DIR), Offset(base), suffix)
    }

    pub(super) fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let file = self.disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(read_full_at(&*file, &mut bytes, 0).unwrap(), bytes.len());
        bytes
    }

    pub(super) fn open_for_damage(&self, path: &Path) -> Arc<dyn DiskFile> {
        self.disk.open(path, OpenMode::Write).unwrap()
    }

    /// Flips a bit in the records of the batch at `offset`, which must start a batch.
    pub(super) fn damage_batch(&self, segment: u64, offset: u64) {
        self.flip_bits(segment, offset, &[(70, 3)]);
    }

    /// Flips these bits (byte of the batch, bit) of the batch that starts at `offset`.
    pub(super) fn flip_bits(&self, segment: u64, offset: u64, bits: &[(u64, u8)]) {
        let mut bytes = Bytes::from(self.bytes_of(&self.path(segment, ".log")));
        let mut position = 0;
        while let Ok(batch) = RecordBatch::split_from(&mut bytes) {
            if batch.header.base_offset == Offset(offset) {
                for (at, bit) in bits {
                    self.disk.flip_bit(&self.path(segment, ".log"), position + at, *bit).unwrap();
                }
                return;
            }
            position += batch.total_bytes() as u64;
        }
        panic!("no batch starts at {offset}");
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.disk.read_dir(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// Reads from `from` to the end and checks that each record is the one that was appended at its offset.
    pub(super) fn read_all(&mut self, from: u64) -> Vec<u64> {
        let reader = self.reader();
        let mut next = Offset(from);
        let mut offsets = Vec::new();
        while next < reader.written_end() {
            let slice = reader.read(next, EVERYTHING, 1 << 20).unwrap();
            assert!(slice.next > next, "no progress at {next}");
            for (offset, value) in records(slice.bytes) {
                assert!(value.starts_with(format!("{offset}:").as_bytes()), "offset {offset} holds another record");
                offsets.push(offset);
            }
            next = slice.next;
        }
        offsets.retain(|offset| *offset >= from);
        offsets
    }

    /// Reads everything; it must be exactly the records from the log's start to `end`.
    pub(super) fn holds_exactly(&mut self, end: u64) {
        let start = self.log().log_start().0;
        assert_eq!(self.log().written_end(), Offset(end));
        assert_eq!(self.read_all(start), (start..end).collect::<Vec<_>>());
    }
}

pub(super) fn records(mut bytes: Bytes) -> Vec<(u64, Bytes)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let batch = RecordBatch::split_from(&mut bytes).expect("whole batches only");
        for record in decode_records(&batch, 1 << 24).unwrap() {
            found.push((record.offset.0, record.value.unwrap()));
        }
    }
    found
}

pub(super) fn idempotent_batch(base: u64, producer: i64, sequence: i32) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.set_producer(ProducerId(producer), ProducerEpoch(0), sequence);
    builder.append(TimestampMs(1), None, Some(format!("{base}:").as_bytes()), &[]);
    RecordBatch::from_client(builder.build().unwrap()).unwrap().stamped(Offset(base), LeaderEpoch(1), None)
}
