//! What leader and follower of a partition say to each other, and what each is started with.
//!
//! ```text
//!   follower ── ReplicaFetch: "I hold this much, this much of it for good; what comes next?" ──► leader
//!            ◄─ ReplicaAnswer: records | for your damage: these | producers | cut your log | start anew ─
//! ```
//!
//! A fetch is an acknowledgement, too: nothing else tells a leader what its followers hold (docs/replication.md).

use crate::types::{BrokerEpoch, EpochHistory, LeaderEpoch, NodeId, Offset};

use super::cursors::Cursors;
use super::damage::Damage;
use super::producer_state::ProducerTable;

/// A replica's log and what is known of it, when its replica starts to lead or to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The first offset that the log holds.
    pub log_start: Offset,
    /// The end of what a sync has covered, exclusive. Recovery has synced what it found.
    pub durable_end: Offset,
    /// The end of what is written, exclusive.
    pub written_end: Offset,
    /// The high watermark as far as it is known.
    pub high_watermark: Offset,
    /// Who wrote which part.
    pub epochs: EpochHistory,
    /// The producers at the end.
    pub producers: ProducerTable,
    /// What is known to be damaged of it.
    pub damage: Damage,
}

impl ReplicaState {
    /// A replica that holds `[log_start, end)`, all of it synced, and knows of nothing that is committed.
    #[must_use]
    pub fn opened(log_start: Offset, end: Offset, epochs: EpochHistory, producers: ProducerTable) -> Self {
        let damage = Damage::default();
        Self { log_start, durable_end: end, written_end: end, high_watermark: log_start, epochs, producers, damage }
    }

    /// A replica that stands at `cursors`, with nothing on its way to the log.
    #[must_use]
    pub fn at(cursors: &Cursors, epochs: EpochHistory, producers: ProducerTable, damage: Damage) -> Self {
        Self {
            log_start: cursors.log_start(),
            durable_end: cursors.durable_end(),
            written_end: cursors.written_end(),
            high_watermark: cursors.high_watermark(),
            epochs,
            producers,
            damage,
        }
    }

    /// A replica that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::opened(Offset::ZERO, Offset::ZERO, EpochHistory::default(), ProducerTable::default())
    }
}

/// A follower's wish for more, and its acknowledgement of what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaFetch {
    /// Who follows.
    pub replica: NodeId,
    /// Its registration: a fetch of an earlier one counts for nothing.
    pub broker_epoch: BrokerEpoch,
    /// The epoch of the leader that is followed.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each fetch of that registration, so that one that was held up on the way is known to be old.
    pub number: u64,
    /// The end of what the follower has written, exclusive: the offset that it wants next.
    pub position: Offset,
    /// The epoch of its record before `position`; `None` when it has none there.
    pub last_epoch: Option<LeaderEpoch>,
    /// It lacks what records said of producers that are damaged there, or gone, and wants that of the leader.
    pub lacks_producers: bool,
    /// The end of what it has synced, exclusive.
    pub durable_end: Offset,
    /// The high watermark that it knows: it is answered as soon as there is a higher one.
    pub high_watermark: Offset,
    /// About how many bytes it wants.
    pub max_bytes: usize,
    /// Part of what it holds is damaged, or was and has not been looked through since: it counts for nothing meanwhile.
    pub is_damaged: bool,
    /// Damaged records (start, end exclusive) that it wants instead of those from `position` on.
    pub repair: Option<(Offset, Offset)>,
}

/// Names a fetch, for its answer: numbers begin anew with each registration, and an answer to an earlier process of the broker,
/// which may have had another log, must not pass for one to this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchId {
    /// The registration under which it was sent.
    pub broker_epoch: BrokerEpoch,
    /// Its number.
    pub number: u64,
}

impl ReplicaFetch {
    /// What its answer is named by.
    #[must_use]
    pub fn id(&self) -> FetchId {
        FetchId { broker_epoch: self.broker_epoch, number: self.number }
    }
}

/// What a leader knows that its followers need, with every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderState {
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that the leader's log holds.
    pub log_start: Offset,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The end of what the leader has written.
    pub written_end: Offset,
    /// Whether the leader knew, when it said so, that nobody else leads and how much is committed: an offset beyond
    /// `written_end` was then no offset of the partition.
    pub knows_all: bool,
}

/// What a follower has to do before it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaVerdict {
    /// The follower's log is the beginning of the leader's: what comes next, if anything, is with the answer.
    Continues,
    /// The same, and with the answer are batches for the damaged range that the fetch named: from the one that holds its start on,
    /// as many as fit.
    Repairs,
    /// The same, and these are the producers, which the fetch said it lacks.
    Producers {
        /// The position of the fetch: they are as of there.
        at: Offset,
        /// A snapshot of them.
        producers: Vec<u8>,
    },
    /// The logs part before `position`: the leader's largest epoch that is not above the follower's last one, and its end.
    Diverged(Option<(LeaderEpoch, Offset)>),
    /// The follower's log is to be emptied and started at `offset`: the leader's starts later.
    StartsAt {
        /// The start.
        offset: Offset,
        /// A snapshot of the producers as they were there. Their batches are gone, and a retry of one must still be known.
        producers: Vec<u8>,
    },
}

impl ReplicaVerdict {
    /// Whether the records that there are go with it.
    #[must_use]
    pub fn has_records(&self) -> bool {
        matches!(self, Self::Continues | Self::Repairs)
    }
}
