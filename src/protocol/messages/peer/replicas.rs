//! Followers and leaders: many partitions a request, each fetch an acknowledgement.
//!
//! A request carries the fetches that are new since the one before; those of earlier requests on the connection that were not answered
//! stay with the leader. The leader answers the oldest request that waits as soon as it has an answer to any fetch of the connection,
//! and at once when a newer request comes.

use serde::{Deserialize, Serialize};

use super::PeerRequest;
use crate::protocol::messages::Outcome;
use crate::protocol::peer_api::PeerApi;
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, TopicPartition};

/// What followers of a broker hold, and want next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReplicas {
    /// The broker that follows.
    pub replica: NodeId,
    /// Its registration.
    pub broker_epoch: BrokerEpoch,
    /// How long the request, and each fetch that may wait, may wait for news, in milliseconds.
    pub max_wait_ms: u32,
    /// About how many bytes the answer may have. The first records are sent even when they alone are more.
    pub max_bytes: u32,
    /// The fetches that are new.
    pub fetches: Vec<FetchReplica>,
}

/// What one follower holds, and wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReplica {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the leader that is followed.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each fetch of a registration.
    pub number: u64,
    /// The end of what is written, exclusive: the offset that is wanted next.
    pub position: Offset,
    /// The epoch of the record before that; nil without one.
    pub last_epoch: Option<LeaderEpoch>,
    /// The end of what is synced, exclusive.
    pub durable_end: Offset,
    /// The high watermark that the follower knows.
    pub high_watermark: Offset,
    /// About how many bytes it wants.
    pub max_bytes: u32,
    /// The fetch may wait for news.
    pub may_wait: bool,
    /// The follower lacks what its records said of producers.
    pub lacks_producers: bool,
    /// Part of what it holds is, or was, damaged and counts for nothing.
    pub is_damaged: bool,
    /// Damaged records (start, end exclusive) that it wants instead; nil for none.
    pub repair: Option<(Offset, Offset)>,
}

/// The answer to [`FetchReplicas`]. Attachments: one for each answer, by position: the records for `continues` and `repairs`, a snapshot
/// of producers for `producers` and `starts at`, else nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReplicasReply {
    /// The answers, to fetches of this request or of earlier ones.
    pub answers: Vec<ReplicaFetched>,
}

/// The answer to one fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The fetch that it answers.
    pub number: u64,
    /// What the leader says.
    pub outcome: Outcome<LeaderAnswer>,
}

/// What a leader says to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderAnswer {
    /// What the follower has to do.
    pub verdict: Verdict,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that its log holds.
    pub log_start: Offset,
    /// The end of what is committed.
    pub high_watermark: Offset,
    /// The end of what it has written.
    pub written_end: Offset,
    /// It knows that nobody else leads, and how much is committed.
    pub knows_all: bool,
}

/// What a follower has to do. On the wire an array of three: a number (0 continues, 1 repairs, 2 producers, 3 diverged, 4 starts at), the
/// offset for 2, 3 (or nil) and 4, the leader epoch for 3 (or nil).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireVerdict", into = "WireVerdict")]
pub enum Verdict {
    /// Its log is the beginning of the leader's: what comes next is attached.
    Continues,
    /// The same, and attached are records for the damaged range.
    Repairs,
    /// The same, and attached are the producers as of this offset.
    Producers(Offset),
    /// The logs part before its position: the leader's largest epoch that is not above its last one, and its end.
    Diverged(Option<(LeaderEpoch, Offset)>),
    /// The log is to be emptied and started at this offset, with the producers attached.
    StartsAt(Offset),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireVerdict(u8, Option<Offset>, Option<LeaderEpoch>);

impl From<Verdict> for WireVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Continues => Self(0, None, None),
            Verdict::Repairs => Self(1, None, None),
            Verdict::Producers(at) => Self(2, Some(at), None),
            Verdict::Diverged(None) => Self(3, None, None),
            Verdict::Diverged(Some((epoch, end))) => Self(3, Some(end), Some(epoch)),
            Verdict::StartsAt(offset) => Self(4, Some(offset), None),
        }
    }
}

impl TryFrom<WireVerdict> for Verdict {
    type Error = String;
    fn try_from(verdict: WireVerdict) -> Result<Self, String> {
        match verdict {
            WireVerdict(0, None, None) => Ok(Self::Continues),
            WireVerdict(1, None, None) => Ok(Self::Repairs),
            WireVerdict(2, Some(at), None) => Ok(Self::Producers(at)),
            WireVerdict(3, None, None) => Ok(Self::Diverged(None)),
            WireVerdict(3, Some(end), Some(epoch)) => Ok(Self::Diverged(Some((epoch, end)))),
            WireVerdict(4, Some(offset), None) => Ok(Self::StartsAt(offset)),
            WireVerdict(kind, ..) => Err(format!("{kind} with these fields is nothing that a leader says")),
        }
    }
}

impl PeerRequest for FetchReplicas {
    const API: PeerApi = PeerApi::FetchReplicas;
    type Reply = FetchReplicasReply;
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
