//! Cold reads: on a disk thread, within a budget of memory that is given back when the bytes have been sent.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Context};
use bytes::Bytes;

use super::actor::PartitionLeader;
use super::messages::{Answer, DamageMet, FetchedRecords, RecordsForFollower, ReplyTo};
use super::read_budget::{ReadBudget, ReadRoom};
use crate::actors::send::post;
use crate::actors::spans;
use crate::actors::threads::{DiskPool, Lane};
use crate::engine::leader::ReadRange;
use crate::engine::replication::ReplicaVerdict;
use crate::metrics::PartitionMetrics;
use crate::protocol::messages::{ListedOffset, OffsetAt};
use crate::replica::{ReadState, storage_error};
use crate::storage::{LogError, LogReader, LogSlice};
use crate::types::{LeaderEpoch, Offset};

/// The most that a compressed batch may inflate to when a timestamp is looked up in it.
const INFLATE_LIMIT_BYTES: usize = 64 << 20;
/// How long a read waits for its share of the budget before it answers with nothing.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Bytes that give their share of the budget back when the last slice of them is dropped.
struct Budgeted {
    bytes: Bytes,
    _room: ReadRoom,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Records, or none yet, for whoever reads.
fn records_for(state: ReadState, chunks: Vec<Bytes>, next_offset: Option<Offset>) -> Answer {
    match state {
        ReadState::Consumer(state) => Answer::Fetched(FetchedRecords { state, chunks, next_offset }),
        ReadState::Follower(state) => {
            Answer::ForFollower(RecordsForFollower { verdict: ReplicaVerdict::Continues, state, chunks })
        }
        ReadState::Repair(state) => {
            Answer::ForFollower(RecordsForFollower { verdict: ReplicaVerdict::Repairs, state, chunks })
        }
    }
}

impl PartitionLeader {
    /// Reads from the tail cache, or on a disk thread.
    pub(super) fn read(&mut self, ctx: &Context<Self>, reply: ReplyTo, range: ReadRange, state: ReadState) {
        let Some(read) = self.cache.read(range) else {
            let (reader, metrics) = (self.reader.clone(), self.metrics.share());
            let files = ColdFiles { reader, metrics, home: ctx.address() };
            read(&self.settings.disk, self.settings.reads.clone(), files, range, state, reply);
            return;
        };
        let bytes = read.chunks.iter().map(bytes::Bytes::len).sum();
        self.metrics.read(range.from, read.next_offset, bytes);
        reply.answer(Ok(records_for(state, read.chunks, Some(read.next_offset))));
    }
}

/// What a cold read needs of its partition.
pub(super) struct ColdFiles {
    reader: LogReader,
    metrics: Arc<PartitionMetrics>,
    home: Addr<PartitionLeader>,
}

impl ColdFiles {
    /// Answers what could not be read. Damage that was met is for the replica to know.
    fn refuse(&self, error: &LogError, reply: ReplyTo) {
        if matches!(error, LogError::Damaged { .. }) {
            post(&self.home, DamageMet);
        }
        reply.answer(Err(storage_error(error)));
    }
}

/// Reads `range` on a disk thread and answers `reply`. With little room it reads less than was asked for.
pub(super) fn read(
    pool: &DiskPool,
    budget: ReadBudget,
    files: ColdFiles,
    range: ReadRange,
    state: ReadState,
    reply: ReplyTo,
) {
    let pool_of_read = pool.clone();
    pool.spawn(async move {
        // Other partitions of the same fetch may hold what this one waits for: waiting without an end could be for ever.
        let room = budget.acquire(reply.owner(), range.max_bytes, LONGEST_WAIT).await;
        let Some(room) = room else { return not_yet(state, reply) };
        let pool = pool_of_read.clone();
        pool_of_read.run(Lane::Background, move || {
            let _span = spans::of(reply.tag()).entered();
            match read_within(&files.reader, range, room) {
                Ok(slice) => answer(slice, range, &files.metrics, state, reply),
                Err(ReadProblem::Log(error)) => files.refuse(&error, reply),
                Err(ReadProblem::TooLittleRoom { needed_bytes }) => {
                    pool.clone().spawn(read_one(pool, budget, files, range, state, reply, needed_bytes));
                }
            }
        });
    });
}

/// Reads a batch that is larger than the room that could be had at first.
async fn read_one(
    pool: DiskPool,
    budget: ReadBudget,
    files: ColdFiles,
    range: ReadRange,
    state: ReadState,
    reply: ReplyTo,
    needed_bytes: usize,
) {
    let room = budget.acquire_at_least(reply.owner(), needed_bytes, needed_bytes, LONGEST_WAIT).await;
    let Some(room) = room else { return not_yet(state, reply) };
    pool.run(Lane::Background, move || {
        let _span = spans::of(reply.tag()).entered();
        // Room for one batch; more than the whole budget passes alone.
        let range = ReadRange { max_bytes: needed_bytes, ..range };
        match files.reader.read(range.from, range.upper_exclusive, range.max_bytes) {
            Ok(slice) => answer((slice, room), range, &files.metrics, state, reply),
            Err(error) => files.refuse(&error, reply),
        }
    });
}

enum ReadProblem {
    Log(LogError),
    /// The first batch alone is larger.
    TooLittleRoom {
        needed_bytes: usize,
    },
}

/// As much of `range` as there is room for. The room that was not needed goes back at once.
fn read_within(reader: &LogReader, range: ReadRange, mut room: ReadRoom) -> Result<(LogSlice, ReadRoom), ReadProblem> {
    let max_bytes = range.max_bytes.min(room.bytes);
    let slice = reader.read(range.from, range.upper_exclusive, max_bytes).map_err(ReadProblem::Log)?;
    let needed_bytes = slice.bytes.len();
    if needed_bytes > room.bytes {
        return Err(ReadProblem::TooLittleRoom { needed_bytes });
    }
    room.shrink_to(needed_bytes);
    Ok((slice, room))
}

fn answer(
    (slice, room): (LogSlice, ReadRoom),
    range: ReadRange,
    metrics: &PartitionMetrics,
    state: ReadState,
    reply: ReplyTo,
) {
    let LogSlice { bytes, next } = slice;
    metrics.read(range.from, next, bytes.len());
    let next_offset = (!bytes.is_empty()).then_some(next);
    let chunk = Bytes::from_owner(Budgeted { bytes, _room: room });
    reply.answer(Ok(records_for(state, vec![chunk], next_offset)));
}

/// An empty answer says "not yet", and the session asks again.
fn not_yet(state: ReadState, reply: ReplyTo) {
    reply.answer(Ok(records_for(state, Vec::new(), None)));
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
