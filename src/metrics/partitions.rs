//! What the leader and the log writer of each partition count, and the register of partitions that a scrape goes through.
//!
//! Figures that differ from partition to partition, and tell which one is in trouble, are kept for each. Times and sizes of
//! writes and syncs are those of the disk, which all partitions share: one histogram for the node says more than ten thousand,
//! each of forty lines.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Counter, Gauge, Histogram};
use crate::types::{Offset, PartitionIndex, TopicName};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;

/// From what an idle NVMe disk takes to what a failing one does, in nanoseconds.
const SYNC_BOUNDS: &[u64] = &[
    50 * MICROSECOND,
    100 * MICROSECOND,
    200 * MICROSECOND,
    400 * MICROSECOND,
    800 * MICROSECOND,
    1_600 * MICROSECOND,
    3_200 * MICROSECOND,
    6_400 * MICROSECOND,
    12_800 * MICROSECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    5_000 * MILLISECOND,
];
/// Batches of one write.
const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024];
/// Bytes of one write, up to several times the default of `storage.append_group_bytes`.
const BYTE_BOUNDS: &[u64] = &[1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// What the log writers of a node count together.
#[derive(Debug)]
pub struct LogMetrics {
    /// How long syncs took, in nanoseconds.
    pub sync_ns: Histogram,
    /// How many batches went into one write.
    pub write_batches: Histogram,
    /// How many bytes went into one write.
    pub write_bytes: Histogram,
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            sync_ns: Histogram::new(SYNC_BOUNDS),
            write_batches: Histogram::new(BATCH_BOUNDS),
            write_bytes: Histogram::new(BYTE_BOUNDS),
        }
    }
}

/// What only the files of a log know, asked for when somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFiles {
    /// Bytes of records in all segments.
    pub size_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Ranges of offsets that are known to be damaged.
    pub damaged_ranges: u64,
}

type AskFiles = Box<dyn Fn() -> LogFiles + Send + Sync>;

/// One partition that is led here.
pub struct PartitionMetrics {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub partition: PartitionIndex,
    /// The first offset that the log still holds.
    pub log_start: Gauge,
    /// The end of what is committed.
    pub high_watermark: Gauge,
    /// The end of what is written.
    pub log_end: Gauge,
    /// Records appended.
    pub records_in: Counter,
    /// Bytes of batches appended.
    pub bytes_in: Counter,
    /// Offsets that readers were taken forward.
    pub records_out: Counter,
    /// Bytes of batches read.
    pub bytes_out: Counter,
    /// Bytes of batches that were accepted and wait for their write.
    pub write_queue_bytes: Gauge,
    logs: Arc<LogMetrics>,
    files: AskFiles,
    offline: Mutex<Option<String>>,
}

impl PartitionMetrics {
    /// The cursors stand here now.
    pub fn moved(&self, log_start: Offset, high_watermark: Offset, log_end: Offset) {
        self.log_start.set(log_start.0);
        self.high_watermark.set(high_watermark.0);
        self.log_end.set(log_end.0);
    }

    /// A batch was accepted.
    pub fn appended(&self, records: u64, bytes: usize) {
        self.records_in.add(records);
        self.bytes_in.add(bytes as u64);
    }

    /// Batches were read for a consumer, which asked from `from` on and goes on at `next`.
    pub fn read(&self, from: Offset, next: Offset, bytes: usize) {
        self.records_out.add(next.0.saturating_sub(from.0));
        self.bytes_out.add(bytes as u64);
    }

    /// So many bytes wait for their write.
    pub fn queued(&self, bytes: usize) {
        self.write_queue_bytes.set(bytes as u64);
    }

    /// A group of batches goes to the disk in one write.
    pub fn wrote(&self, batches: usize, bytes: usize) {
        self.logs.write_batches.observe(batches as u64);
        self.logs.write_bytes.observe(bytes as u64);
    }

    /// A sync has ended after so long.
    pub fn synced(&self, took: Duration) {
        self.logs.sync_ns.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The replica takes no records any more, for this cause.
    pub fn failed(&self, cause: String) {
        *self.offline.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Why the replica takes no records any more, if so.
    #[must_use]
    pub fn offline(&self) -> Option<String> {
        self.offline.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the files hold now.
    #[must_use]
    pub fn files(&self) -> LogFiles {
        (self.files)()
    }
}

impl fmt::Debug for PartitionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionMetrics({}-{})", self.topic, self.partition)
    }
}

type ByName = BTreeMap<(TopicName, PartitionIndex), Arc<PartitionMetrics>>;

/// The partitions led here. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Partitions {
    by_name: Arc<Mutex<ByName>>,
    logs: Arc<LogMetrics>,
}

impl Partitions {
    /// Takes a partition in. It leaves when the handle is dropped.
    #[must_use]
    pub fn enter(
        &self,
        topic: TopicName,
        partition: PartitionIndex,
        files: impl Fn() -> LogFiles + Send + Sync + 'static,
    ) -> PartitionHandle {
        let entry = Arc::new(PartitionMetrics {
            topic: topic.clone(),
            partition,
            log_start: Gauge::default(),
            high_watermark: Gauge::default(),
            log_end: Gauge::default(),
            records_in: Counter::default(),
            bytes_in: Counter::default(),
            records_out: Counter::default(),
            bytes_out: Counter::default(),
            write_queue_bytes: Gauge::default(),
            logs: Arc::clone(&self.logs),
            files: Box::new(files),
            offline: Mutex::default(),
        });
        self.lock().insert((topic, partition), Arc::clone(&entry));
        PartitionHandle { partitions: self.clone(), entry }
    }

    /// All partitions, by topic and number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionMetrics>> {
        self.lock().values().cloned().collect()
    }

    /// What the log writers count together.
    #[must_use]
    pub fn logs(&self) -> &LogMetrics {
        &self.logs
    }

    fn lock(&self) -> MutexGuard<'_, ByName> {
        // Nothing panics while it is held.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition's place in the register.
#[derive(Debug)]
pub struct PartitionHandle {
    partitions: Partitions,
    entry: Arc<PartitionMetrics>,
}

impl PartitionHandle {
    /// The counters, for whoever else counts for this partition.
    #[must_use]
    pub fn share(&self) -> Arc<PartitionMetrics> {
        Arc::clone(&self.entry)
    }
}

impl Deref for PartitionHandle {
    type Target = PartitionMetrics;

    fn deref(&self) -> &PartitionMetrics {
        &self.entry
    }
}

impl Drop for PartitionHandle {
    fn drop(&mut self) {
        let mut by_name = self.partitions.lock();
        let place = (self.entry.topic.clone(), self.entry.partition);
        // A topic that was created again under the same name has a place of its own by now, which stays.
        if by_name.get(&place).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            by_name.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(partitions: &Partitions, topic: &str, partition: u32) -> PartitionHandle {
        partitions.enter(TopicName::new(topic).expect("legal"), PartitionIndex(partition), LogFiles::default)
    }

    fn names(partitions: &Partitions) -> Vec<String> {
        partitions.all().iter().map(|entry| format!("{}-{}", entry.topic, entry.partition)).collect()
    }

    #[test]
    fn partitions_are_listed_by_topic_and_number_until_they_end() {
        let partitions = Partitions::default();
        let held: Vec<_> = [("b", 10), ("b", 2), ("a", 0)].map(|(topic, n)| enter(&partitions, topic, n)).into();
        assert_eq!(names(&partitions), ["a-0", "b-2", "b-10"]);
        drop(held);
        assert_eq!(names(&partitions), [""; 0]);
    }

    #[test]
    fn the_end_of_a_deleted_topic_does_not_take_away_its_namesake() {
        let partitions = Partitions::default();
        let deleted = enter(&partitions, "t", 0);
        let created_again = enter(&partitions, "t", 0);
        drop(deleted);
        created_again.appended(3, 100);
        assert_eq!(partitions.all()[0].records_in.get(), 3);
    }
}
