//! What the follower's engine is told, and what it commands.

use crate::engine::leader::ReadRange;
use crate::engine::producer_state::ProducerTable;
use crate::engine::replication::{FetchId, LeaderState, ReplicaFetch, ReplicaVerdict};
use crate::protocol::ApiError;
use crate::protocol::messages::FetchedPartition;
use crate::types::record_batch::BatchHeader;
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset};

/// Whom to follow, as the metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The leader; `None` while there is none.
    pub leader: Option<NodeId>,
    /// The epoch of the newest election.
    pub leader_epoch: LeaderEpoch,
    /// This broker's registration.
    pub broker_epoch: BrokerEpoch,
    /// Whether this replica is in one of the two sets, so that it may be elected.
    pub is_member: bool,
    /// The newest epoch whose leader may lack what was committed before it (an unclean election is on record).
    pub unclean_epoch: Option<LeaderEpoch>,
}

impl Following {
    /// Nobody, as yet.
    #[must_use]
    pub fn nobody() -> Self {
        let (leader_epoch, broker_epoch) = (LeaderEpoch(0), BrokerEpoch(0));
        Self { leader: None, leader_epoch, broker_epoch, is_member: false, unclean_epoch: None }
    }
}

/// An answer of the leader, its records verified and in hand.
#[derive(Clone, Debug)]
pub struct ReplicaFetched {
    /// The fetch that it answers.
    pub id: FetchId,
    /// What the leader says.
    pub result: Result<(ReplicaVerdict, LeaderState), ApiError>,
    /// The headers of the batches that came with it, in order, checksums verified.
    pub headers: Vec<BatchHeader>,
}

/// The log was cut, or started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The first offset that the log holds now.
    pub log_start: Offset,
    /// Its end: written, and synced.
    pub end: Offset,
    /// The producers at the end.
    pub producers: ProducerTable,
}

/// What the actor has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<R> {
    /// Send this to the leader. A fetch that is lost is sent again ([`super::FollowerEngine::on_tick`]).
    Fetch {
        /// The leader.
        leader: NodeId,
        /// What to ask.
        fetch: ReplicaFetch,
        /// Whether the leader may let it wait for news, as long as the shell says; else it answers at once.
        may_wait: bool,
    },
    /// Pass the batches of the event at hand to the log writer, as they are.
    Append {
        /// Where they begin.
        base_offset: Offset,
    },
    /// Have the log writer cut the log, after the appends that went before, and tell ([`super::FollowerEngine::on_truncated`], or
    /// [`super::FollowerEngine::on_not_truncated`] where damage is in the way).
    Truncate {
        /// The end from then on.
        to: Offset,
        /// The epoch of an unclean election that is on record, so that it may go below the watermark.
        unclean_epoch: Option<LeaderEpoch>,
        /// Whether, within damage, the cut is made where that starts: nobody counts on this replica.
        back_to_damage: bool,
    },
    /// Have the log writer empty the log and start it there, after the appends that went before, and tell.
    StartAt {
        /// The start and end from then on.
        offset: Offset,
        /// As for [`Command::Truncate`].
        unclean_epoch: Option<LeaderEpoch>,
        /// The producers there: kept before anything is appended.
        producers: Vec<u8>,
    },
    /// Have the log writer put the batches of the event at hand that lie in this range (end exclusive) in the place of what is damaged
    /// there, after the appends that went before, and tell ([`super::FollowerEngine::on_repaired`]).
    Repair {
        /// From where.
        from: Offset,
        /// Up to where, exclusive.
        to: Offset,
    },
    /// Have the segment that holds this offset looked through, and tell ([`super::FollowerEngine::on_scrubbed`]).
    Scrub {
        /// The offset.
        from: Offset,
    },
    /// Have the log writer drop the records before this offset: the leader has none there.
    AdvanceLogStart {
        /// The first record that stays.
        to: Offset,
    },
    /// This replica cannot follow without losing what is committed: it stays as it is and takes no more.
    GoOffline {
        /// What to tell people.
        cause: ApiError,
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
    /// Have the log writer store this producer snapshot, after the appends that went before.
    SnapshotProducers {
        /// The end offset that it describes.
        at: Offset,
        /// See [`ProducerTable::to_snapshot`].
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
