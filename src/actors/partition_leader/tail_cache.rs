//! The newest batches of a partition, kept in memory so that consumers that keep up never touch the disk.
//!
//! A large body stays where it was read to. What is small, headers and small batches, is packed into chunks, which are used
//! again once the batches in them have left: a cache that is full allocates nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use crate::engine::leader::ReadRange;
use crate::types::Offset;
use crate::types::record_batch::{BatchHeader, RecordBatch};

/// A body smaller than this may be a small part of a read buffer that it would keep alive: it is copied. Larger frames
/// are read into a buffer of their own.
const COPY_BELOW_BYTES: usize = 16 * 1024;
/// A chunk holds about this many batches of the size at hand, within [`SMALLEST_CHUNK_BYTES`] and [`LARGEST_CHUNK_BYTES`]: a
/// partition with a few small batches takes little, one with many fills chunks rarely.
const BATCHES_A_CHUNK: usize = 16;
const SMALLEST_CHUNK_BYTES: usize = 4 * 1024;
const LARGEST_CHUNK_BYTES: usize = 64 * 1024;

/// The memory that all tail caches of a node share: for what is in them, and as much again for replies that are not sent
/// yet, which keep alive what has left them meanwhile.
#[derive(Clone, Debug)]
pub struct CacheBudget {
    limit_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
    lent_bytes: Arc<AtomicUsize>,
}

/// Batches of a reply, until it is sent.
#[derive(Debug)]
struct Lent {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The last piece of a reply, which is the last to be sent.
struct LastPiece {
    piece: Bytes,
    _lent: Lent,
}

impl AsRef<[u8]> for LastPiece {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl CacheBudget {
    /// A budget of `limit_bytes` (`storage.tail_cache_bytes`).
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: Arc::default(), lent_bytes: Arc::default() }
    }

    /// How many bytes replies hold that are not sent yet.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes.load(Ordering::Relaxed)
    }

    /// Lends `bytes` to a reply, unless replies hold too much.
    fn lend(&self, bytes: usize) -> Option<Lent> {
        let before = self.lent_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Gives it back at once when it is too much.
        let lent = Lent { bytes, all: Arc::clone(&self.lent_bytes) };
        (before + bytes <= self.limit_bytes).then_some(lent)
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
    /// The header, with the body if that is small.
    head: Bytes,
    /// A large body.
    body: Bytes,
}

impl CachedBatch {
    fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Chunks that small things are packed into.
#[derive(Debug, Default)]
struct Chunks {
    filling: Chunk,
    /// Full ones, the oldest first: each is free again when the batches in it have left the cache and all replies.
    full: VecDeque<Chunk>,
}

#[derive(Debug, Default)]
struct Chunk {
    /// What is left of it.
    room: BytesMut,
    /// What it had when it was new.
    bytes: usize,
}

impl Chunk {
    fn new(bytes: usize) -> Self {
        Self { room: BytesMut::with_capacity(bytes), bytes }
    }

    /// Takes all of it into use again, if nothing in it is held any more.
    fn reclaim(&mut self) -> bool {
        self.room.try_reclaim(self.bytes)
    }
}

impl Chunks {
    /// Packs `parts`, one after the other.
    fn pack(&mut self, parts: [&[u8]; 2]) -> Bytes {
        let need = parts[0].len() + parts[1].len();
        if self.filling.room.capacity() < need {
            let bytes = (need * BATCHES_A_CHUNK).next_power_of_two().clamp(SMALLEST_CHUNK_BYTES, LARGEST_CHUNK_BYTES);
            let next = self.free_one(bytes).unwrap_or_else(|| Chunk::new(bytes));
            let full = std::mem::replace(&mut self.filling, next);
            self.full.push_back(full);
        }
        for part in parts {
            self.filling.room.extend_from_slice(part);
        }
        self.filling.room.split().freeze()
    }

    /// A full chunk that holds nothing any more. Mostly the oldest; a slow reply may still hold that one.
    fn free_one(&mut self, bytes: usize) -> Option<Chunk> {
        // One that is too small is of no use any more. Its memory goes with the last batch in it.
        self.full.retain(|chunk| chunk.bytes >= bytes);
        let free = self.full.iter_mut().position(Chunk::reclaim)?;
        self.full.remove(free)
    }

    /// Frees the chunks that hold nothing.
    fn release_free(&mut self) {
        self.full.retain_mut(|chunk| !chunk.reclaim());
    }
}

/// The newest batches, without gaps, in order.
#[derive(Debug)]
pub struct TailCache {
    batches: VecDeque<CachedBatch>,
    chunks: Chunks,
    /// Somebody has read, or waits to read, since the last look at it.
    is_read: bool,
    /// Somebody did between the two looks before.
    was_read: bool,
    bytes: usize,
    limit_bytes: usize,
    budget: CacheBudget,
}

/// What the cache has for a read.
#[derive(Debug, PartialEq, Eq)]
pub struct CachedRead {
    /// Whole batches, in pieces that follow each other.
    pub chunks: Vec<Bytes>,
    /// The offset after the last record in them.
    pub next_offset: Offset,
}

impl TailCache {
    /// An empty cache of at most `limit_bytes`, within `budget`.
    #[must_use]
    pub fn new(limit_bytes: usize, budget: CacheBudget) -> Self {
        Self {
            batches: VecDeque::new(),
            chunks: Chunks::default(),
            is_read: false,
            was_read: false,
            bytes: 0,
            limit_bytes,
            budget,
        }
    }

    /// Adds the batch that was just appended.
    pub fn push(&mut self, batch: &RecordBatch) {
        let header: &BatchHeader = &batch.header;
        let small = batch.body.len() < COPY_BELOW_BYTES;
        let (packed, body) = if small { (&batch.body[..], Bytes::new()) } else { (&[][..], batch.body.clone()) };
        let cached = CachedBatch {
            base_offset: header.base_offset,
            end_offset_exclusive: header.end_offset_exclusive(),
            head: self.chunks.pack([&header.to_bytes(), packed]),
            body,
        };
        self.bytes += cached.bytes();
        self.budget.used_bytes.fetch_add(cached.bytes(), Ordering::Relaxed);
        self.batches.push_back(cached);
        // The newest batch stays even when the node's budget is used up: a consumer that keeps up wants it next. A partition
        // that nobody reads keeps no other large one: its memory is used for the next frame while a core's cache holds it.
        let is_idle = !small && !self.is_read && !self.was_read;
        while self.bytes > self.limit_bytes || ((is_idle || self.budget.is_exceeded()) && self.batches.len() > 1) {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    /// The offset of the oldest batch that is here.
    #[must_use]
    pub fn start(&self) -> Option<Offset> {
        self.batches.front().map(|batch| batch.base_offset)
    }

    /// Somebody reads this partition, or waits to.
    pub fn note_reader(&mut self) {
        self.is_read = true;
    }

    /// To be called now and then. Gives memory back: that of batches while the node's budget is exceeded, down to nothing if
    /// need be, and chunks that hold nothing; and looks whether anybody has read since the last call.
    pub fn shrink(&mut self) {
        (self.was_read, self.is_read) = (self.is_read, false);
        while self.budget.is_exceeded() && self.drop_oldest() {}
        self.chunks.release_free();
    }

    /// Drops everything: the log is about to be cut.
    pub fn clear(&mut self) {
        while self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.batches.pop_front() else { return false };
        self.bytes -= oldest.bytes();
        self.budget.used_bytes.fetch_sub(oldest.bytes(), Ordering::Relaxed);
        true
    }

    /// The batches for `range`, at least one, whatever its size; `None` when its start is not here, or when replies that are
    /// not sent yet hold too much: such readers are served from the files, where each has a share of its own.
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
            chunks.push(batch.head.clone());
            if !batch.body.is_empty() {
                chunks.push(batch.body.clone());
            }
        }
        let piece = chunks.pop()?;
        // A slice of a chunk keeps all of it.
        let lent = self.budget.lend(bytes + self.chunks.filling.bytes)?;
        chunks.push(Bytes::from_owner(LastPiece { piece, _lent: lent }));
        Some(CachedRead { chunks, next_offset })
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
        cache.note_reader();
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
    fn large_batches_that_nobody_reads_are_not_kept_but_for_the_newest() {
        let mut cache = TailCache::new(1 << 20, CacheBudget::new(1 << 20));
        let push = |cache: &mut TailCache, bases: std::ops::Range<u64>| {
            bases.for_each(|base| cache.push(&batch(base, 1, 30_000)));
            cache.batches.len()
        };
        assert_eq!(push(&mut cache, 0..5), 1);
        assert!(cache.read(range(4, 5, 1)).is_some(), "a consumer that comes now finds the newest");
        cache.note_reader();
        assert_eq!(push(&mut cache, 5..10), 6);
        cache.shrink();
        assert_eq!(push(&mut cache, 10..12), 8, "one that read a moment ago will read again");
        cache.shrink();
        assert_eq!(push(&mut cache, 12..14), 1);
    }

    #[test]
    fn chunks_are_used_again_once_the_batches_in_them_have_left() {
        let mut cache = TailCache::new(20_000, CacheBudget::new(1 << 20));
        let mut held = Vec::new();
        for n in 0..2_000 {
            let batch = batch(n, 1, 100 + (n as usize % 7) * 30);
            cache.push(&batch);
            let read = cache.read(range(n, n + 1, 1)).expect("just pushed");
            assert_eq!(read.chunks.concat(), batch.to_vec());
            if n % 400 == 0 {
                held.push((read.chunks.concat(), read.chunks));
            }
        }
        assert!(cache.chunks.full.len() <= 8, "{} chunks for 20 kB of batches", cache.chunks.full.len());
        for (bytes, chunks) in held {
            assert_eq!(chunks.concat(), bytes, "what a reply holds is not overwritten");
        }
        while cache.drop_oldest() {}
        cache.shrink();
        assert_eq!(cache.chunks.full.len(), 0, "chunks that hold nothing are freed");
    }

    #[test]
    fn replies_that_are_not_sent_hold_a_bounded_part_of_what_has_left_the_cache() {
        let budget = CacheBudget::new(1 << 20);
        let mut cache = TailCache::new(256 << 10, budget.clone());
        cache.note_reader();
        let mut replies = Vec::new();
        for n in 0..100 {
            cache.push(&batch(n, 1, 30_000));
            replies.extend(cache.read(range(n, n + 1, 1)));
        }
        assert!((25..35).contains(&replies.len()), "{} replies of 30 kB within a mebibyte", replies.len());
        assert!(budget.lent_bytes() <= 1 << 20, "{}", budget.lent_bytes());
        replies.pop();
        let next = cache.read(range(99, 100, 1)).expect("there is room again for one");
        assert!(cache.read(range(99, 100, 1)).is_none(), "and for no other");
        drop((next, replies));
        assert_eq!(budget.lent_bytes(), 0, "what was sent holds nothing");
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
