//! What a partition's leader is told, and what it answers. Both doors, native and later Kafka's, use the same messages.

use std::sync::Arc;

use actix::{Message, Recipient};
use bytes::Bytes;
use tokio::sync::oneshot;

pub use super::orders::*;
use crate::actors::log_writer::Room;
use crate::actors::send::post_to;
use crate::engine::assignment::Assignment;
use crate::engine::follower::ReplicaFetched;
use crate::engine::leader::Proposal;
use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaVerdict};
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::{
    Acks, DeleteBefore, FetchedPartition, ListedOffset, LogDescription, OffsetAt, ProducedBatch,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::replica;
use crate::storage::LogError;
use crate::types::record_batch::RecordBatch;
use crate::types::{CorrelationId, LeaderEpoch, MonoTime, NodeId, Offset, TopicConfig, TopicPartition};

/// Names one item of one request of a session, so that answers find their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestTag {
    /// The connection.
    pub connection: OwnerId,
    /// What the client calls the request.
    pub correlation: CorrelationId,
    /// The request, numbered by the session.
    pub request: u64,
    /// The item within it.
    pub item: u32,
}

/// Whom to answer, and under which tag. One that is dropped without an answer, because its actor or thread has ended,
/// answers that: no caller waits for ever.
pub struct ReplyTo {
    session: Arc<Recipient<PartitionAnswer>>,
    tag: RequestTag,
    answered: bool,
}

impl ReplyTo {
    /// An answer is owed to `session` under `tag`.
    #[must_use]
    pub fn new(session: Arc<Recipient<PartitionAnswer>>, tag: RequestTag) -> Self {
        Self { session, tag, answered: false }
    }

    /// The connection.
    #[must_use]
    pub fn owner(&self) -> OwnerId {
        self.tag.connection
    }

    /// The tag of the request.
    #[must_use]
    pub fn tag(&self) -> RequestTag {
        self.tag
    }

    /// Answers.
    pub fn answer(mut self, result: Result<Answer, ApiError>) {
        self.answered = true;
        post_to(&self.session, PartitionAnswer { tag: self.tag, result });
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if !self.answered {
            let text = "the partition's leader went away before it answered: refresh the metadata and try again";
            let result = Err(ApiError::new(ErrorCode::NotLeader, text));
            post_to(&self.session, PartitionAnswer { tag: self.tag, result });
        }
    }
}

impl std::fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplyTo({:?})", self.tag)
    }
}

/// Append a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Produce {
    /// The batch, checksum verified.
    pub batch: RecordBatch,
    /// Room of the frame that it came in.
    pub room: Room,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// When to answer.
    pub acks: Acks,
    /// When to give up waiting.
    pub deadline: MonoTime,
    /// The connection.
    pub owner: OwnerId,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Read batches.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Fetch {
    /// The first offset wanted.
    pub offset: Offset,
    /// About how many bytes.
    pub max_bytes: usize,
    /// The epoch that the client believes in.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Until when to wait for a record; `None` answers at once.
    pub wait_until: Option<MonoTime>,
    /// The connection.
    pub owner: OwnerId,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// A follower wants what comes next, and says what it has.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FetchForFollower {
    /// What it says.
    pub fetch: ReplicaFetch,
    /// Until when to wait for news; `None` answers at once.
    pub wait_until: Option<MonoTime>,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Take back the parked fetches of one request.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct CancelFetch {
    /// The connection.
    pub owner: OwnerId,
    /// The request.
    pub request: u64,
}

/// A connection is gone.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct OwnerGone(pub OwnerId);

/// Look up an offset by position or time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ListOffset {
    /// What is wanted.
    pub at: OffsetAt,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Delete the first records.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DeleteRecords {
    /// Where those that stay begin.
    pub before: DeleteBefore,
    /// When to give up waiting.
    pub deadline: MonoTime,
    /// The connection.
    pub owner: OwnerId,
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Say what the log holds.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DescribeLog {
    /// Whom to answer.
    pub reply: ReplyTo,
}

/// Say whether something is wrong with the replica.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ReplicaHealth")]
pub struct ExamineReplica;

/// The answer to [`ExamineReplica`].
#[derive(Clone, Debug, Default, PartialEq, Eq, actix::MessageResponse)]
pub struct ReplicaHealth {
    /// Why it takes no more appends, if it does not.
    pub failure: Option<ApiError>,
    /// How many ranges of it are known to be damaged.
    pub damaged_ranges: usize,
}

/// The answer to one of the above.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PartitionAnswer {
    /// The tag of the request.
    pub tag: RequestTag,
    /// What came of it.
    pub result: Result<Answer, ApiError>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Produce`].
    Produced(ProducedBatch),
    /// To [`Fetch`].
    Fetched(FetchedRecords),
    /// To [`FetchForFollower`].
    ForFollower(RecordsForFollower),
    /// To [`ListOffset`].
    Listed(ListedOffset),
    /// To [`DeleteRecords`]: where the log starts now.
    RecordsDeleted(Offset),
    /// To [`DescribeLog`].
    Described(LogDescription),
}

impl From<replica::Answer> for Answer {
    fn from(answer: replica::Answer) -> Self {
        let nothing = Vec::new;
        match answer {
            replica::Answer::Produced(batch) => Self::Produced(batch),
            replica::Answer::Fetched(state) => {
                Self::Fetched(FetchedRecords { state, chunks: nothing(), next_offset: None })
            }
            replica::Answer::Listed(listed) => Self::Listed(listed),
            replica::Answer::RecordsDeleted(start) => Self::RecordsDeleted(start),
            replica::Answer::ReplicaFetched(verdict, state) => {
                Self::ForFollower(RecordsForFollower { verdict, state, chunks: nothing() })
            }
        }
    }
}

/// Records read for a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecords {
    /// The partition's state when they were read.
    pub state: FetchedPartition,
    /// Whole batches, in pieces that are to be sent one after the other.
    pub chunks: Vec<Bytes>,
    /// The offset after the last record in them; `None` without records.
    pub next_offset: Option<Offset>,
}

impl FetchedRecords {
    /// How many bytes of records there are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// What a follower is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsForFollower {
    /// What it has to do before it can go on.
    pub verdict: ReplicaVerdict,
    /// What the leader knows.
    pub state: LeaderState,
    /// Whole batches that follow its position, in pieces.
    pub chunks: Vec<Bytes>,
}

/// The metadata says what this replica is to be, and how its topic is set: both from one image.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Assign {
    /// What it is to be.
    pub assignment: Assignment,
    /// How its topic is set.
    pub config: TopicConfig,
}

/// The broker's lease runs until then.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SetLease(pub MonoTime);

/// A replica asks its leader. Goes to whoever reaches other nodes, as everything in [`Outward`] does.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct FetchFromLeader {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader.
    pub leader: NodeId,
    /// What to ask.
    pub fetch: ReplicaFetch,
    /// Whether the leader may let it wait for news.
    pub may_wait: bool,
    /// Where the answer goes. One that never comes is asked for again.
    pub answer_to: Recipient<LeaderAnswered>,
}

/// The leader has answered. What came with it has the right checksums.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct LeaderAnswered {
    /// The answer.
    pub fetched: ReplicaFetched,
    /// The batches that came with it, each with the room that its frame takes.
    pub batches: Vec<(RecordBatch, Room)>,
}

/// What a replica has to tell the controller. Goes to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ReplicaReport {
    /// The partition.
    pub partition: TopicPartition,
    /// What there is to tell.
    pub what: Reported,
}

/// See [`ReplicaReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The leader here proposes another in-sync set, or another leader.
    Proposal(Proposal),
    /// Part of its log is damaged now, or nothing of it is any more.
    Health {
        /// Whether something is known to be damaged, or was and has not been looked through since.
        is_damaged: bool,
    },
    /// The controller is to know that part of it is damaged, in this leader epoch.
    Damaged(LeaderEpoch),
    /// It takes no more.
    Offline(ApiError),
}

/// Hand this leadership over. Answers with why it cannot be; otherwise the metadata tells when it has been.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), ApiError>")]
pub struct HandOver {
    /// To whom.
    pub to: NodeId,
    /// When to give up.
    pub deadline: MonoTime,
}

/// A read, or the background scrub, met damage.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct DamageMet;

/// Whom a replica tells what concerns others.
#[derive(Clone)]
pub struct Outward {
    /// Fetches for the leader; nobody carries them where there are no other nodes.
    pub fetches: Option<Recipient<FetchFromLeader>>,
    /// What the controller is to know.
    pub reports: Recipient<ReplicaReport>,
}

/// The disk is nearly full (with what to tell producers), or no longer.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SetDiskSpace(pub Option<ApiError>);

/// It is time to look for segments to delete, and to drop what the tail cache holds too much.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct RetentionTick;

/// End this leadership.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// Why.
    pub why: StopReason,
    /// Told once the files are at rest.
    pub done: oneshot::Sender<Result<(), LogError>>,
}

/// Why a leadership ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The node stops: what was accepted is written and answered first, then the log is closed cleanly.
    NodeStops,
    /// The topic was deleted: the files are about to go.
    TopicDeleted,
}
