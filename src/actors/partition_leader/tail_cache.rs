//! The newest batches of a partition, kept in memory so that consumers that keep up never touch the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::engine::leader::ReadRange;
use crate::types::Offset;
use crate::types::record_batch::{BatchHeader, RecordBatch};

/// A body smaller than this may be a small part of a read buffer that it would keep alive: it is copied. Larger frames
/// are read into a buffer of their own.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// The memory that all tail caches of a node share.
#[derive(Clone, Debug)]
pub struct CacheBudget {
    limit_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
}

impl CacheBudget {
    /// A budget of `limit_bytes` (`storage.tail_cache_bytes`).
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: Arc::new(AtomicUsize::new(0)) }
    }

    /// How many bytes are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// How many bytes may be in use.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }
}

#[derive(Debug)]
struct CachedBatch {
    base_offset: Offset,
    end_offset_exclusive: Offset,
    head: Bytes,
    body: Bytes,
}

impl CachedBatch {
    fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// The newest batches, without gaps, in order.
#[derive(Debug)]
pub struct TailCache {
    batches: VecDeque<CachedBatch>,
    bytes: usize,
    limit_bytes: usize,
    budget: CacheBudget,
}

/// What the cache has for a read.
#[derive(Debug, PartialEq, Eq)]
pub struct CachedRead {
    /// Whole batches, header and body in turn.
    pub chunks: Vec<Bytes>,
    /// The offset after the last record in them.
    pub next_offset: Offset,
}

impl TailCache {
    /// An empty cache of at most `limit_bytes`, within `budget`.
    #[must_use]
    pub fn new(limit_bytes: usize, budget: CacheBudget) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, limit_bytes, budget }
    }

    /// Adds the batch that was just appended.
    pub fn push(&mut self, batch: &RecordBatch) {
        let header: &BatchHeader = &batch.header;
        let small = batch.body.len() < COPY_BELOW_BYTES;
        let cached = CachedBatch {
            base_offset: header.base_offset,
            end_offset_exclusive: header.end_offset_exclusive(),
            head: Bytes::copy_from_slice(&header.to_bytes()),
            body: if small { Bytes::copy_from_slice(&batch.body) } else { batch.body.clone() },
        };
        self.bytes += cached.bytes();
        self.budget.used_bytes.fetch_add(cached.bytes(), Ordering::Relaxed);
        self.batches.push_back(cached);
        // The newest batch stays even when the node's budget is used up: a consumer that keeps up wants it next.
        while self.bytes > self.limit_bytes || (self.budget.is_exceeded() && self.batches.len() > 1) {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    /// Gives memory back while the node's budget is exceeded, down to nothing if need be.
    pub fn shrink(&mut self) {
        while self.budget.is_exceeded() && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.batches.pop_front() else { return false };
        self.bytes -= oldest.bytes();
        self.budget.used_bytes.fetch_sub(oldest.bytes(), Ordering::Relaxed);
        true
    }

    /// The batches for `range`, or `None` when its start is not here. At least one batch, whatever its size.
    #[must_use]
    pub fn read(&self, range: ReadRange) -> Option<CachedRead> {
        if self.batches.front()?.base_offset > range.from {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.end_offset_exclusive <= range.from);
        let (mut chunks, mut bytes, mut next_offset) = (Vec::new(), 0, range.from);
        for batch in self.batches.range(first..) {
            let beyond = batch.end_offset_exclusive > range.upper_exclusive;
            if beyond || (bytes > 0 && bytes + batch.bytes() > range.max_bytes) {
                break;
            }
            bytes += batch.bytes();
            next_offset = batch.end_offset_exclusive;
            chunks.extend([batch.head.clone(), batch.body.clone()]);
        }
        if chunks.is_empty() { None } else { Some(CachedRead { chunks, next_offset }) }
    }
}

impl Drop for TailCache {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::record_batch::{BatchBuilder, Compression};
    use crate::types::{LeaderEpoch, TimestampMs};

    fn batch(base: u64, records: usize, value_bytes: usize) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::None, 0);
        for _ in 0..records {
            builder.append(TimestampMs(1), None, Some(&vec![b'v'; value_bytes]), &[]);
        }
        let bytes = builder.build().expect("builds");
        RecordBatch::from_client(bytes).expect("valid").stamped(Offset(base), LeaderEpoch(0), None)
    }

    fn range(from: u64, upper: u64, max_bytes: usize) -> ReadRange {
        ReadRange { from: Offset(from), upper_exclusive: Offset(upper), max_bytes }
    }

    fn bytes_of(batches: &[&RecordBatch]) -> Vec<u8> {
        batches.iter().flat_map(|batch| batch.to_vec()).collect()
    }

    #[test]
    fn whole_batches_come_back_from_the_one_that_contains_the_offset() {
        let mut cache = TailCache::new(1 << 20, CacheBudget::new(1 << 20));
        let batches = [batch(10, 5, 10), batch(15, 5, 30_000), batch(20, 1, 10)];
        batches.iter().for_each(|batch| cache.push(batch));
        let all = cache.read(range(12, 21, 1 << 20)).expect("cached");
        assert_eq!(
            (all.chunks.concat(), all.next_offset),
            (bytes_of(&[&batches[0], &batches[1], &batches[2]]), Offset(21))
        );
        let bounded = cache.read(range(15, 21, 100)).expect("at least one batch comes");
        assert_eq!(bounded.next_offset, Offset(20));
        let committed = cache.read(range(10, 20, 1 << 20)).expect("cached");
        assert_eq!(committed.next_offset, Offset(20), "nothing beyond the upper bound");
        assert_eq!(cache.read(range(9, 21, 100)), None, "older than the cache");
        assert_eq!(cache.read(range(20, 20, 100)), None, "nothing is committed there yet");
    }

    #[test]
    fn the_partition_and_the_node_have_limits_and_a_dropped_cache_gives_its_share_back() {
        let budget = CacheBudget::new(1_000);
        let mut first = TailCache::new(600, budget.clone());
        let mut second = TailCache::new(600, budget.clone());
        for n in 0..10 {
            first.push(&batch(n, 1, 200));
        }
        assert!(budget.used_bytes() <= 600, "{}", budget.used_bytes());
        for n in 0..10 {
            second.push(&batch(n, 1, 200));
        }
        assert!(budget.used_bytes() <= 1_000, "{}", budget.used_bytes());
        drop(first);
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }
}
