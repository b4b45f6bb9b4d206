//! A machine with a disk that loses power, the storage of a node on it, and what the test expects to find there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard::storage::data_dir::{DataDir, DirectoryMeta, partition_dir_name};
use callboard::storage::disk::virtual_disk::is_crash;
use callboard::storage::disk::{Disk, OpenMode, SyncPoint, VirtualDisk, read_full_at};
use callboard::storage::file_cache::FileCache;
use callboard::storage::{Log, LogConfig, LogError, OpenReport, PartitionIdentity, TruncateLeave, inspect};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{
    BrokerEpoch, ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, TimestampMs, TopicId, TopicName,
    TopicPartition,
};
use uuid::Uuid;

use crate::expected::{Expected, Found, Presence, Producers};
use crate::workload::Step;

const CONFIG: LogConfig = LogConfig {
    segment_bytes: 3_000,
    segment_ms: u64::MAX,
    index_interval_bytes: 300,
    retention_ms: None,
    retention_bytes: Some(6_000),
    max_batch_bytes: 1 << 20,
};

/// Why a run ends early.
#[derive(Debug)]
pub enum Stop {
    /// The machine has stopped, as it was told to, or the disk has failed, as it was told to.
    Crashed,
    /// A promise was broken.
    Wrong(String),
}

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The process is killed: all that was written is still there.
    Kill,
    /// Power loss; an arbitrary part of what was not synced survives.
    PowerLoss,
    /// Power loss; nothing of what was not synced survives.
    TotalLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CleanStop {
    No,
    Perhaps(u64),
    Yes(u64),
}

struct Node {
    data_dir: DataDir,
    files: Arc<FileCache>,
    logs: BTreeMap<usize, Log>,
}

struct Partition {
    incarnation: u128,
    expected: Expected,
}

pub struct Machine {
    pub disk: VirtualDisk,
    rng: fastrand::Rng,
    node: Option<Node>,
    partitions: BTreeMap<usize, Partition>,
    identity: Option<DirectoryMeta>,
    broker_epoch: u64,
    clean_stop: CleanStop,
    /// Whether all outages since the node last ran were kills.
    all_written_survives: bool,
    /// The operation, counted from the first, at which the machine stops.
    crash_at: Option<u64>,
    /// What recovery cut off a log and said it kept, with the bytes it kept.
    kept_aside: BTreeMap<PathBuf, Vec<u8>>,
    /// Whether the disk may fail: an error is no broken promise then.
    pub disk_may_fail: bool,
    records: u64,
}

impl Machine {
    pub fn new(seed: u64, skipped: Option<SyncPoint>) -> Self {
        let disk = VirtualDisk::new(seed);
        disk.skip_sync(skipped);
        Self {
            disk,
            rng: fastrand::Rng::with_seed(seed),
            node: None,
            partitions: BTreeMap::new(),
            identity: None,
            broker_epoch: 0,
            clean_stop: CleanStop::No,
            all_written_survives: true,
            crash_at: None,
            kept_aside: BTreeMap::new(),
            disk_may_fail: false,
            records: 0,
        }
    }

    /// The machine stops at this operation, counted from the first there was.
    pub fn crash_at(&mut self, operation: u64) {
        self.crash_at = Some(operation);
        self.arm();
    }

    /// The machine goes on.
    pub fn never_crash(&mut self) {
        self.crash_at = None;
        self.disk.cancel_crash();
    }

    fn arm(&self) {
        if let Some(at) = self.crash_at.filter(|at| *at > self.disk.operations()) {
            self.disk.crash_after_operations(at - self.disk.operations());
        }
    }

    fn stop_of(&self, doing: &str, error: &impl Display) -> Stop {
        match self.disk.exists(Path::new("/")) {
            Err(crash) if is_crash(&crash) => Stop::Crashed,
            _ if self.disk_may_fail => Stop::Crashed,
            _ => Stop::Wrong(format!("{doing}: {error}")),
        }
    }

    /// The machine goes down. Open files are lost.
    pub fn go_down(&mut self, outage: Outage) {
        self.node = None;
        match outage {
            Outage::Kill => self.disk.kill(),
            Outage::PowerLoss => self.disk.power_loss(&mut self.rng),
            Outage::TotalLoss => self.disk.power_loss_keeping_nothing(),
        }
        self.all_written_survives &= outage == Outage::Kill;
        self.arm();
    }

    /// The node starts: all of it is opened and compared with what must be there.
    pub fn start(&mut self) -> Result<(), Stop> {
        let data_dir = self.open_data_dir()?;
        let clean = self.take_clean_stop(&data_dir)?;
        let epoch = self.broker_epoch + 1;
        self.broker_epoch = epoch;
        data_dir.store_broker_epoch(BrokerEpoch(epoch)).map_err(|error| self.stop_of("storing the epoch", &error))?;
        let files = Arc::new(FileCache::new(Arc::new(self.disk.clone()), 2));
        let mut there: BTreeMap<TopicPartition, PathBuf> =
            data_dir.partitions().map_err(|error| self.stop_of("listing partitions", &error))?.into_iter().collect();
        let mut logs = BTreeMap::new();
        let indices: Vec<_> = self.partitions.keys().copied().collect();
        for index in indices {
            let dir = there.remove(&topic_partition(index, self.partitions[&index].incarnation));
            let presence = self.partitions[&index].expected.presence;
            match (dir, presence) {
                (None, Presence::Absent) => {}
                (None, Presence::Either) => self.expected(index).presence = Presence::Absent,
                (None, Presence::Present) => return Err(Stop::Wrong(format!("partition {index} is gone"))),
                (Some(_), Presence::Absent) => return Err(Stop::Wrong(format!("partition {index} came back"))),
                (Some(dir), _) => drop(logs.insert(index, self.open_log(index, &files, &dir, clean)?)),
            }
        }
        if let Some(dir) = there.into_values().next() {
            return Err(Stop::Wrong(format!("{} came back", dir.display())));
        }
        self.all_written_survives = true;
        self.node = Some(Node { data_dir, files, logs });
        Ok(())
    }

    fn open_data_dir(&mut self) -> Result<DataDir, Stop> {
        let opened = DataDir::open(Arc::new(self.disk.clone()), Path::new("/srv/data"), NodeId(1), None);
        let data_dir = opened.map_err(|error| self.stop_of("opening the data directory", &error))?;
        let meta = data_dir.meta();
        if let Some(known) = self.identity.as_ref()
            && (known.cluster, known.directory) != (meta.cluster, meta.directory)
        {
            return Err(Stop::Wrong("the data directory became another one".to_owned()));
        }
        let stored = meta.broker_epoch.map_or(0, |epoch| epoch.0);
        if let Some(known) = self.identity.as_ref()
            && stored < known.broker_epoch.map_or(0, |epoch| epoch.0)
        {
            return Err(Stop::Wrong(format!("the broker epoch went back to {stored}")));
        }
        self.identity = Some(meta);
        Ok(data_dir)
    }

    fn take_clean_stop(&mut self, data_dir: &DataDir) -> Result<bool, Stop> {
        let due = self.clean_stop;
        if let CleanStop::Yes(epoch) = due {
            // A crash while it is taken may leave it.
            self.clean_stop = CleanStop::Perhaps(epoch);
        }
        let taken = data_dir.take_clean_stop().map_err(|error| self.stop_of("taking the clean-stop marker", &error))?;
        let taken = taken.map(|epoch| epoch.0);
        let right = match due {
            CleanStop::No => taken.is_none(),
            CleanStop::Perhaps(epoch) => taken.is_none_or(|taken| taken == epoch),
            CleanStop::Yes(epoch) => taken == Some(epoch),
        };
        if !right {
            return Err(Stop::Wrong(format!("the clean-stop marker says {taken:?}, due was {due:?}")));
        }
        self.clean_stop = CleanStop::No;
        Ok(taken.is_some())
    }

    fn open_log(&mut self, index: usize, files: &Arc<FileCache>, dir: &Path, clean: bool) -> Result<Log, Stop> {
        let reads_before = self.disk.read_count(".log");
        let doing = format!("opening partition {index}");
        let cluster_id = self.identity.as_ref().map(|meta| meta.cluster).expect("the data directory is open");
        let identity = identity(cluster_id, index, self.partitions[&index].incarnation);
        let mut producers = Producers::default();
        let opened = Log::open(Arc::new(self.disk.clone()), Arc::clone(files), dir, &identity, CONFIG, &mut producers);
        let (log, report) = opened.map_err(|error| self.stop_of(&doing, &error))?;
        let reads = self.disk.read_count(".log") - reads_before;
        // A snapshot that cannot be read is made up for from the records.
        if clean && reads > 0 && !self.disk_may_fail {
            return Err(Stop::Wrong(format!("{doing}: {reads} reads of record data after a clean stop: {report:?}")));
        }
        let found = look(&log, producers).map_err(|error| self.stop_of(&doing, &error))?;
        let seen = inspect(&self.disk, dir, None, &mut |_| true).map_err(|error| self.stop_of(&doing, &error))?;
        if !seen.is_good() && !self.disk_may_fail {
            return Err(Stop::Wrong(format!("{doing}: {:?} {:?}", seen.problems, seen.index_problems)));
        }
        let all_written_survives = self.all_written_survives || clean;
        let expected = self.expected(index);
        expected
            .check(&found, all_written_survives)
            .map_err(|wrong| Stop::Wrong(format!("partition {index}: {wrong}; {report:?}")))?;
        expected.adopt(&found);
        self.check_kept_aside(dir)?;
        for name in report.cut.into_iter().flat_map(|cut| cut.saved_as) {
            let path = dir.join(name);
            let bytes = self.content(&path).map_err(|error| self.stop_of("reading what was kept aside", &error))?;
            self.kept_aside.insert(path, bytes);
        }
        Ok(log)
    }

    /// What recovery cut off may be of use to a person: once it said so, it stays.
    fn check_kept_aside(&self, dir: &Path) -> Result<(), Stop> {
        for (path, bytes) in self.kept_aside.iter().filter(|(path, _)| path.starts_with(dir)) {
            let found = self.content(path).map_err(|error| self.stop_of("what was kept aside", &error))?;
            if found != *bytes {
                return Err(Stop::Wrong(format!("{} was kept aside and is not the same any more", path.display())));
            }
        }
        Ok(())
    }

    pub fn content(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let file = self.disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).expect("a small file")];
        read_full_at(&*file, &mut bytes, 0)?;
        Ok(bytes)
    }

    fn expected(&mut self, index: usize) -> &mut Expected {
        let absent = || Partition { incarnation: 0, expected: Expected::absent() };
        &mut self.partitions.entry(index).or_insert_with(absent).expected
    }

    /// Does one step. Steps that make no sense now, such as an append to a partition that is not there, do nothing.
    pub fn run(&mut self, step: Step) -> Result<(), Stop> {
        match step {
            Step::Create(index) => self.create(index),
            Step::Kill => self.restart(Outage::Kill),
            Step::PowerLoss => self.restart(Outage::PowerLoss),
            Step::CleanRestart => self.restart_cleanly(),
            Step::Delete(index) => self.delete(index),
            Step::NewLeader(index) => {
                self.expected(index).leader_epoch += 1;
                Ok(())
            }
            Step::Append { partition, .. }
            | Step::Sync(partition)
            | Step::SyncWhileAppending { partition, .. }
            | Step::SyncWhileTruncating { partition, .. }
            | Step::Truncate { partition, .. }
            | Step::Trim { partition, .. }
            | Step::DeleteRecords { partition, .. }
            | Step::StartAnew { partition, .. }
            | Step::Repair { partition, .. }
            | Step::Retain(partition)
            | Step::Checkpoint(partition) => {
                let Some(mut log) = self.node.as_mut().and_then(|node| node.logs.remove(&partition)) else {
                    return Ok(());
                };
                self.run_on(partition, &mut log, step)?;
                if let Some(node) = &mut self.node {
                    node.logs.insert(partition, log);
                }
                Ok(())
            }
        }
    }

    fn run_on(&mut self, index: usize, log: &mut Log, step: Step) -> Result<(), Stop> {
        match step {
            Step::Append { batches, value_bytes, .. } => self.append(index, log, batches, value_bytes),
            Step::SyncWhileAppending { batches, value_bytes, .. } => {
                self.sync(index, log, |machine, log| machine.append(index, log, batches, value_bytes))
            }
            Step::SyncWhileTruncating { batches_back, .. } => {
                self.sync(index, log, |machine, log| machine.truncate(index, log, batches_back))
            }
            Step::Sync(_) => {
                self.sync(index, log, |_, _| Ok(()))?;
                let (durable, written) = (log.durable_end(), log.written_end());
                if durable == written {
                    Ok(())
                } else {
                    Err(Stop::Wrong(format!("after a sync {durable} is durable of {written}")))
                }
            }
            Step::Truncate { batches_back, .. } => self.truncate(index, log, batches_back),
            Step::Repair { batches_back, batches, .. } => self.repair(index, log, batches_back, batches),
            Step::StartAnew { offsets_ahead, .. } => {
                let start = log.written_end().0 + offsets_ahead;
                self.expected(index).starting_anew_at = Some(start);
                let anew = log.truncate_fully_and_start_at(Offset(start), TruncateLeave::default(), None);
                anew.map_err(|error| self.stop_of("starting anew", &error))?;
                self.expected(index).started_anew(start);
                Ok(())
            }
            Step::Trim { batches_ahead, .. } => {
                let to = self.expected(index).start_of_batch_from_start(batches_ahead);
                self.expected(index).log_start_at_most = to;
                log.advance_log_start(Offset(to)).map_err(|error| self.stop_of("trimming", &error))?;
                self.note_log_start(index, log)
            }
            Step::DeleteRecords { batches_ahead, .. } => {
                let to = self.expected(index).start_of_written_batch(batches_ahead);
                self.expected(index).log_start_at_most = to;
                log.delete_records_before(Offset(to)).map_err(|error| self.stop_of("deleting records", &error))?;
                let (start, durable) = (log.log_start().0, log.durable_end().0);
                let expected = self.expected(index);
                expected.durable_end = expected.durable_end.max(durable);
                if start != to || durable < to {
                    return Err(Stop::Wrong(format!("after deleting before {to}: start {start}, durable {durable}")));
                }
                self.note_log_start(index, log)
            }
            Step::Retain(_) => {
                let high_watermark = self.expected(index).durable_end;
                self.expected(index).log_start_at_most = high_watermark;
                let retained = log.apply_retention(TimestampMs(0), Offset(high_watermark), Offset(u64::MAX));
                retained.map_err(|error| self.stop_of("retention", &error))?;
                self.note_log_start(index, log)
            }
            Step::Checkpoint(_) => {
                let (end, high_watermark) = (log.written_end(), Offset(self.expected(index).durable_end));
                let producers = self.expected(index).producer_snapshot(end.0);
                log.write_producer_snapshot(end, &producers).map_err(|error| self.stop_of("snapshot", &error))?;
                let checkpointed = match log.begin_checkpoint(high_watermark) {
                    Some(job) => log.finish_side(job.run()),
                    None => log.save_checkpoint(high_watermark),
                };
                checkpointed.map_err(|error| self.stop_of("checkpoint", &error))?;
                self.expected(index).high_watermark = high_watermark.0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note_log_start(&mut self, index: usize, log: &Log) -> Result<(), Stop> {
        let start = log.log_start().0;
        let expected = self.expected(index);
        if start < expected.log_start || start > expected.log_start_at_most {
            return Err(Stop::Wrong(format!("the log start moved to {start}")));
        }
        (expected.log_start, expected.log_start_at_most) = (start, start);
        Ok(())
    }

    fn append(&mut self, index: usize, log: &mut Log, batches: usize, value_bytes: usize) -> Result<(), Stop> {
        let mut next = log.written_end();
        let epoch = LeaderEpoch(self.expected(index).leader_epoch);
        let mut appended = Vec::new();
        for _ in 0..batches {
            let batch = self.batch(value_bytes).stamped(next, epoch, None);
            next = batch.header.end_offset_exclusive();
            appended.push(batch);
        }
        self.expected(index).batches.extend(appended.iter().cloned());
        // Leaders and followers write the same log.
        let outcome = if self.rng.bool() {
            log.append(TimestampMs(0), &appended)
        } else {
            log.append_replicated(TimestampMs(0), &appended)
        };
        let outcome = outcome.map_err(|error| self.stop_of("appending", &error))?;
        self.expected(index).written_end = next.0;
        if outcome.end == next {
            Ok(())
        } else {
            Err(Stop::Wrong(format!("appended up to {}, not {next}", outcome.end)))
        }
    }

    fn batch(&mut self, value_bytes: usize) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::None, value_bytes + 100);
        for _ in 0..self.rng.usize(1..4) {
            self.records += 1;
            let mut value = format!("record {} ", self.records).into_bytes();
            value.resize(value_bytes.max(value.len()), b'x');
            builder.append(TimestampMs(1), None, Some(&value), &[]);
        }
        RecordBatch::from_client(builder.build().expect("a small batch")).expect("a whole batch")
    }

    fn sync(
        &mut self,
        index: usize,
        log: &mut Log,
        meanwhile: impl FnOnce(&mut Self, &mut Log) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let job = log.begin_sync();
        meanwhile(self, log)?;
        let Some(job) = job else { return Ok(()) };
        let done = job.run();
        let durable = log.finish_sync(done).map_err(|error| self.stop_of("syncing", &error))?.0;
        let expected = self.expected(index);
        if durable > expected.written_end {
            return Err(Stop::Wrong(format!("{durable} is durable, only {} written", expected.written_end)));
        }
        expected.durable_end = expected.durable_end.max(durable);
        Ok(())
    }

    fn truncate(&mut self, index: usize, log: &mut Log, batches_back: usize) -> Result<(), Stop> {
        let to = self.expected(index).start_of_batch_from_end(batches_back);
        self.expected(index).truncating_to = Some(to);
        let saved = log.saved_high_watermark().0;
        let mut truncated = log.truncate_to(Offset(to), TruncateLeave::default());
        if matches!(truncated, Err(LogError::BelowHighWatermark { .. })) {
            if to >= saved {
                return Err(Stop::Wrong(format!("truncation to {to} is refused, the high watermark is {saved}")));
            }
            let leader_epoch = LeaderEpoch(self.expected(index).leader_epoch + 1);
            truncated = log.truncate_to(
                Offset(to),
                TruncateLeave { unclean_election: Some(leader_epoch), ..TruncateLeave::default() },
            );
        } else if to < saved && truncated.is_ok() {
            return Err(Stop::Wrong(format!("truncated to {to}, below the high watermark {saved}")));
        }
        truncated.map_err(|error| self.stop_of("truncating", &error))?;
        self.expected(index).truncated_to(to);
        let end = log.written_end().0;
        if end == to { Ok(()) } else { Err(Stop::Wrong(format!("truncated to {end} instead of {to}"))) }
    }

    /// Batches come from another replica and take the place of the same ones here.
    fn repair(&mut self, index: usize, log: &mut Log, batches_back: usize, count: usize) -> Result<(), Stop> {
        let expected = self.expected(index);
        let there = expected.batches.iter().filter(|batch| batch.header.base_offset.0 >= expected.log_start);
        let there: Vec<_> = there.cloned().collect();
        let end = there.len().saturating_sub(batches_back - 1);
        let fetched = &there[end.saturating_sub(count)..end];
        let (Some(oldest), Some(newest)) = (fetched.first(), fetched.last()) else { return Ok(()) };
        let range = oldest.header.base_offset..newest.header.end_offset_exclusive();
        log.repair(range, fetched).map_err(|error| self.stop_of("repairing", &error))?;
        let (durable, written) = (log.durable_end().0, log.written_end().0);
        if durable != written {
            return Err(Stop::Wrong(format!("after a repair {durable} is durable of {written}")));
        }
        self.expected(index).durable_end = durable;
        Ok(())
    }

    fn create(&mut self, index: usize) -> Result<(), Stop> {
        let Some(node) = self.node.as_ref().filter(|node| !node.logs.contains_key(&index)) else {
            return Ok(());
        };
        let (root, files) = (node.data_dir.topics_dir().to_owned(), Arc::clone(&node.files));
        let cluster_id = node.data_dir.meta().cluster;
        let incarnation = self.partitions.get(&index).map_or(1, |partition| partition.incarnation + 1);
        let expected = Expected { presence: Presence::Either, ..Expected::absent() };
        self.partitions.insert(index, Partition { incarnation, expected });
        let dir = root.join(dir_name(index, incarnation));
        let identity = identity(cluster_id, index, incarnation);
        let created = Log::create(Arc::new(self.disk.clone()), files, &dir, &identity, CONFIG);
        let log = created.map_err(|error| self.stop_of("creating a partition", &error))?;
        self.expected(index).presence = Presence::Present;
        if let Some(node) = &mut self.node {
            node.logs.insert(index, log);
        }
        Ok(())
    }

    fn delete(&mut self, index: usize) -> Result<(), Stop> {
        let Some(incarnation) = self.partitions.get(&index).map(|partition| partition.incarnation) else {
            return Ok(());
        };
        if self.node.as_mut().and_then(|node| node.logs.remove(&index)).is_none() {
            return Ok(());
        }
        self.expected(index).presence = Presence::Either;
        let name = dir_name(index, incarnation);
        if let Some(node) = &self.node {
            node.files.forget_dir(&node.data_dir.root().join(&name));
            let deleted = node.data_dir.delete_partition_dir(&name);
            deleted.map_err(|error| self.stop_of("deleting a partition", &error))?;
        }
        self.expected(index).presence = Presence::Absent;
        Ok(())
    }

    fn restart(&mut self, outage: Outage) -> Result<(), Stop> {
        self.go_down(outage);
        self.start()
    }

    fn restart_cleanly(&mut self) -> Result<(), Stop> {
        let Some(node) = self.node.take() else { return Ok(()) };
        self.clean_stop = CleanStop::Perhaps(self.broker_epoch);
        for (index, log) in node.logs {
            let written = log.written_end();
            let producers = self.expected(index).producer_snapshot(written.0);
            log.close_cleanly(written, &producers).map_err(|error| self.stop_of("closing", &error))?;
            let expected = self.expected(index);
            (expected.durable_end, expected.high_watermark) = (written.0, written.0);
        }
        let marked = node.data_dir.mark_clean_stop(BrokerEpoch(self.broker_epoch));
        marked.map_err(|error| self.stop_of("marking a clean stop", &error))?;
        self.clean_stop = CleanStop::Yes(self.broker_epoch);
        self.restart(Outage::TotalLoss)
    }

    /// Opens a log without expecting anything.
    pub fn open_untested(&self, dir: &Path) -> Result<OpenReport, LogError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let identity = PartitionIdentity::read(&*disk, dir)?;
        let files = Arc::new(FileCache::new(Arc::clone(&disk), 2));
        Ok(Log::open(disk, files, dir, &identity, CONFIG, &mut ())?.1)
    }

    /// Which partitions are open.
    pub fn open_partitions(&self) -> Vec<usize> {
        self.node.as_ref().map(|node| node.logs.keys().copied().collect()).unwrap_or_default()
    }
}

/// Where the first incarnation of a partition lies.
pub fn partition_path(index: usize) -> PathBuf {
    Path::new("/srv/data").join(dir_name(index, 1))
}

fn topic_partition(index: usize, incarnation: u128) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(incarnation)), PartitionIndex(u32::try_from(index).expect("few")))
}

fn topic() -> TopicName {
    TopicName::new("rides").expect("a legal name")
}

fn dir_name(index: usize, incarnation: u128) -> String {
    partition_dir_name(&topic(), topic_partition(index, incarnation))
}

fn identity(cluster_id: ClusterId, index: usize, incarnation: u128) -> PartitionIdentity {
    let TopicPartition { topic: topic_id, partition } = topic_partition(index, incarnation);
    PartitionIdentity { cluster_id, topic: topic(), topic_id, partition }
}

/// Reads all that a log has.
fn look(log: &Log, producers: Producers) -> Result<Found, String> {
    let reader = log.reader();
    let (log_start, end) = (log.log_start(), log.written_end());
    let mut batches = Vec::new();
    let mut next = log_start;
    while next < end {
        let slice = reader.read(next, end, 2_000).map_err(|error| format!("reading at {next}: {error}"))?;
        let mut bytes = slice.bytes;
        if bytes.is_empty() {
            return Err(format!("nothing can be read at {next}, the log ends at {end}"));
        }
        while !bytes.is_empty() {
            let batch = RecordBatch::split_from(&mut bytes).map_err(|error| format!("at {next}: {error}"))?;
            next = batch.header.end_offset_exclusive();
            batches.push(batch);
        }
    }
    let epochs = log.leader_epochs().entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect();
    let damaged = reader.damaged_ranges().into_iter().map(|(start, end)| (start.0, end.0)).collect();
    Ok(Found {
        log_start: log_start.0,
        end: end.0,
        durable_end: log.durable_end().0,
        batches,
        epochs,
        damaged,
        high_watermark: log.saved_high_watermark().0,
        producers,
    })
}
