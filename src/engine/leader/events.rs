//! What the leader's engine is told, and what it commands.

use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaVerdict};
use crate::protocol::ApiError;
use crate::protocol::messages::{Acks, DeleteBefore, FetchedPartition, ListedOffset, OffsetAt, ProducedBatch};
use crate::types::record_batch::BatchHeader;
use crate::types::{LeaderEpoch, MonoTime, Offset, TimestampMs};

use super::Proposal;
use crate::engine::waiters::OwnerId;

/// A batch that wants to be appended. The engine sees its header only.
#[derive(Clone, Debug)]
pub struct ProduceEvent<R> {
    /// The header, checksum already verified.
    pub header: BatchHeader,
    /// The size of the whole batch in bytes.
    pub batch_bytes: usize,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// When to answer.
    pub acks: Acks,
    /// When to give up waiting.
    pub deadline: MonoTime,
    /// The wall clock, for log-append time.
    pub wall: TimestampMs,
    /// Who asks.
    pub owner: OwnerId,
    /// How to answer.
    pub reply: R,
}

/// A wish to read.
#[derive(Clone, Debug)]
pub struct FetchEvent<R> {
    /// The first offset wanted.
    pub offset: Offset,
    /// About how many bytes.
    pub max_bytes: usize,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Until when to wait for a record; `None` answers at once.
    pub wait_until: Option<MonoTime>,
    /// Who asks.
    pub owner: OwnerId,
    /// How to answer.
    pub reply: R,
}

/// A wish to know an offset.
#[derive(Clone, Debug)]
pub struct ListOffsetsEvent<R> {
    /// Which.
    pub at: OffsetAt,
    /// When to give up waiting.
    pub deadline: MonoTime,
    /// Who asks.
    pub owner: OwnerId,
    /// How to answer.
    pub reply: R,
}

/// A follower's wish for more.
#[derive(Clone, Debug)]
pub struct ReplicaFetchEvent<R> {
    /// What it says.
    pub fetch: ReplicaFetch,
    /// Until when to wait for news; `None` answers at once.
    pub wait_until: Option<MonoTime>,
    /// How to answer.
    pub reply: R,
}

/// A wish that the first records go.
#[derive(Clone, Debug)]
pub struct DeleteRecordsEvent<R> {
    /// Where those that stay begin.
    pub before: DeleteBefore,
    /// When to give up waiting.
    pub deadline: MonoTime,
    /// Who asks.
    pub owner: OwnerId,
    /// How to answer.
    pub reply: R,
}

/// What to read from the log on behalf of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The first offset wanted.
    pub from: Offset,
    /// Nothing at or beyond this.
    pub upper_exclusive: Offset,
    /// About how many bytes.
    pub max_bytes: usize,
}

/// What the actor has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<R> {
    /// Stamp the batch of the event at hand and pass it to the log writer.
    Append {
        /// The offset of its first record.
        base_offset: Offset,
        /// The current epoch.
        leader_epoch: LeaderEpoch,
        /// The time to stamp, with log-append time.
        append_time: Option<TimestampMs>,
    },
    /// Answer a produce request.
    Produced {
        /// How.
        reply: R,
        /// With what.
        result: Result<ProducedBatch, ApiError>,
    },
    /// Read records and answer a fetch with them and with `state`.
    Read {
        /// How.
        reply: R,
        /// What to read.
        range: ReadRange,
        /// The partition's state for the answer.
        state: FetchedPartition,
    },
    /// Answer a fetch without records.
    Fetched {
        /// How.
        reply: R,
        /// With what.
        result: Result<FetchedPartition, ApiError>,
    },
    /// Answer a look-up.
    Listed {
        /// How.
        reply: R,
        /// With what.
        result: Result<ListedOffset, ApiError>,
    },
    /// Look up an offset by time, and answer.
    LookUp {
        /// How.
        reply: R,
        /// What is wanted.
        at: OffsetAt,
        /// Among the records below this.
        upper_exclusive: Offset,
    },
    /// Read records for a follower, and answer it with them and with `state`.
    ReadForFollower {
        /// How.
        reply: R,
        /// What to read.
        range: ReadRange,
        /// The leader's state for the answer.
        state: LeaderState,
    },
    /// Read records for a follower whose own are damaged there, and answer it with them and with `state`.
    ReadForRepair {
        /// How.
        reply: R,
        /// What to read.
        range: ReadRange,
        /// The leader's state for the answer.
        state: LeaderState,
    },
    /// Answer a follower without records.
    ReplicaFetched {
        /// How.
        reply: R,
        /// With what.
        result: Result<(ReplicaVerdict, LeaderState), ApiError>,
    },
    /// Ask the controller for another in-sync set or leader.
    Propose(Proposal),
    /// Have the log writer delete the records before this offset, after what was commanded before.
    DeleteRecords {
        /// The first record that stays.
        before: Offset,
    },
    /// Answer a request to delete records with the log's start.
    RecordsDeleted {
        /// How.
        reply: R,
        /// With what.
        result: Result<Offset, ApiError>,
    },
    /// Have the log writer store this producer snapshot, after the appends that went before.
    SnapshotProducers {
        /// The end offset that it describes.
        at: Offset,
        /// See [`crate::engine::producer_state::ProducerTable::to_snapshot`].
        payload: Vec<u8>,
    },
}

/// The commands of one event, in the order in which they are to be carried out.
#[derive(Debug)]
pub struct Output<R>(pub Vec<Command<R>>);

impl<R> Default for Output<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
