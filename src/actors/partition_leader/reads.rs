//! Cold reads: on a disk thread, within a budget of memory that is given back when the bytes have been sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::messages::{Answer, FetchedRecords, ReplyTo};
use crate::actors::errors::storage_error;
use crate::actors::spans;
use crate::actors::threads::{DiskPool, Lane};
use crate::engine::leader::ReadRange;
use crate::metrics::PartitionMetrics;
use crate::protocol::messages::{FetchedPartition, ListedOffset, OffsetAt};
use crate::storage::{LogReader, LogSlice};
use crate::types::{LeaderEpoch, Offset};

/// The most that a compressed batch may inflate to when a timestamp is looked up in it.
const INFLATE_LIMIT_BYTES: usize = 64 << 20;
/// Permits are counted in units of this many bytes: a semaphore counts to 2^32 / 8 only.
const UNIT_BYTES: usize = 1_024;
/// How long a read waits for its share of the budget before it answers with nothing.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// The memory that cold reads of the whole node may hold until it has been sent.
#[derive(Clone, Debug)]
pub struct ReadBudget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

impl ReadBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from((bytes / UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        Self { semaphore: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Bytes that reads hold now, and may hold.
    #[must_use]
    pub fn used_and_total_bytes(&self) -> (usize, usize) {
        let total = self.units as usize;
        (total.saturating_sub(self.semaphore.available_permits()) * UNIT_BYTES, total * UNIT_BYTES)
    }

    async fn acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // A read larger than the whole budget waits for all of it, rather than for ever.
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.semaphore).acquire_many_owned(units).await.ok()
    }
}

/// Bytes that give their share of the budget back when the last slice of them is dropped.
struct Budgeted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads `range` on a disk thread and answers `reply`.
pub(super) fn read(
    pool: &DiskPool,
    budget: ReadBudget,
    (reader, metrics): (LogReader, Arc<PartitionMetrics>),
    range: ReadRange,
    state: FetchedPartition,
    reply: ReplyTo,
) {
    let pool_of_read = pool.clone();
    pool.spawn(async move {
        // Other partitions of the same fetch may hold what this one waits for: waiting without an end could be for ever.
        // An empty answer says "not yet", and the session asks again.
        let Ok(Some(permit)) = tokio::time::timeout(LONGEST_WAIT, budget.acquire(range.max_bytes)).await else {
            reply.answer(Ok(Answer::Fetched(FetchedRecords { state, chunks: Vec::new(), next_offset: None })));
            return;
        };
        pool_of_read.run(Lane::Background, move || {
            let _span = spans::of(reply.tag()).entered();
            let result = reader.read(range.from, range.upper_exclusive, range.max_bytes).map(|slice| {
                let LogSlice { bytes, next } = slice;
                metrics.read(range.from, next, bytes.len());
                let next_offset = (!bytes.is_empty()).then_some(next);
                let chunk = Bytes::from_owner(Budgeted { bytes, _permit: permit });
                Answer::Fetched(FetchedRecords { state, chunks: vec![chunk], next_offset })
            });
            reply.answer(result.map_err(|error| storage_error(&error)));
        });
    });
}

/// Looks an offset up by time on a disk thread and answers `reply`.
pub(super) fn list(
    pool: &DiskPool,
    reader: LogReader,
    at: OffsetAt,
    upper: Offset,
    leader_epoch: LeaderEpoch,
    reply: ReplyTo,
) {
    pool.run(Lane::Background, move || {
        let _span = spans::of(reply.tag()).entered();
        let found = match at {
            OffsetAt::Timestamp(time) => reader.offset_for_timestamp(time, upper, INFLATE_LIMIT_BYTES),
            _ => reader.max_timestamp(upper, INFLATE_LIMIT_BYTES),
        };
        let listed = found.map(|found| {
            let (offset, timestamp) = (found.map(|(offset, _)| offset), found.map(|(_, time)| time));
            Answer::Listed(ListedOffset { offset, timestamp, leader_epoch })
        });
        reply.answer(listed.map_err(|error| storage_error(&error)));
    });
}
