//! Raft between controllers, in forms of our own: a new release of the consensus library changes nothing on the wire.
//!
//! Entries and chunks of snapshots travel as attachments. What a member answers with an error of the whole request means that
//! its Raft has ended; what Raft itself refuses stands inside the replies.

use serde::{Deserialize, Serialize};

use super::PeerRequest;
use crate::protocol::peer_api::PeerApi;
use crate::types::{DirectoryId, NodeId};

/// The position of an entry, and the leader that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireLogId {
    /// The term.
    pub term: u64,
    /// The member that led.
    pub leader: u64,
    /// The position.
    pub index: u64,
}

/// A vote: whom a member voted for, or follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVote {
    /// The term.
    pub term: u64,
    /// The member voted for.
    pub candidate: u64,
    /// A quorum granted it: the candidate leads.
    pub granted: bool,
}

/// Appends entries, or is a heartbeat without any. Attachments: one for each entry, by index, each a record batch as it stands
/// in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftAppend {
    /// The leader's.
    pub vote: WireVote,
    /// The entry before the first one here; nil when that is the first of all.
    pub previous: Option<WireLogId>,
    /// The last entry that the leader knows to be committed.
    pub committed: Option<WireLogId>,
}

/// The answer to [`RaftAppend`]. On the wire an array of three: a number (0 appended, 1 appended up to, 2 conflict, 3 higher
/// vote), the entry for 1 or nil, the vote for 3 or nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Appended", into = "Appended")]
pub enum RaftAppendReply {
    /// All entries are on its disk.
    Appended,
    /// The entries up to this one are.
    AppendedUpTo(Option<WireLogId>),
    /// Its log has another entry at [`RaftAppend::previous`], or none.
    Conflict,
    /// It has seen a higher vote.
    HigherVote(WireVote),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Appended(u8, Option<WireLogId>, Option<WireVote>);

impl From<RaftAppendReply> for Appended {
    fn from(reply: RaftAppendReply) -> Self {
        match reply {
            RaftAppendReply::Appended => Self(0, None, None),
            RaftAppendReply::AppendedUpTo(entry) => Self(1, entry, None),
            RaftAppendReply::Conflict => Self(2, None, None),
            RaftAppendReply::HigherVote(vote) => Self(3, None, Some(vote)),
        }
    }
}

impl TryFrom<Appended> for RaftAppendReply {
    type Error = String;
    fn try_from(reply: Appended) -> Result<Self, String> {
        match reply {
            Appended(0, None, None) => Ok(Self::Appended),
            Appended(1, entry, None) => Ok(Self::AppendedUpTo(entry)),
            Appended(2, None, None) => Ok(Self::Conflict),
            Appended(3, None, Some(vote)) => Ok(Self::HigherVote(vote)),
            Appended(kind, ..) => Err(format!("{kind} with these fields answers no RaftAppend")),
        }
    }
}

impl PeerRequest for RaftAppend {
    const API: PeerApi = PeerApi::RaftAppend;
    type Reply = RaftAppendReply;
}

/// Asks for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftVote {
    /// The candidate's.
    pub vote: WireVote,
    /// The newest entry of the candidate.
    pub last: Option<WireLogId>,
}

/// The answer to [`RaftVote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftVoteReply {
    /// The member's vote afterwards, on its disk.
    pub vote: WireVote,
    /// It voted for the candidate.
    pub granted: bool,
    /// Its newest entry.
    pub last: Option<WireLogId>,
}

impl PeerRequest for RaftVote {
    const API: PeerApi = PeerApi::RaftVote;
    type Reply = RaftVoteReply;
}

/// Sends one chunk of a snapshot. Attachments: one, the chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftSnapshot {
    /// The leader's.
    pub vote: WireVote,
    /// The last entry that the snapshot covers.
    pub last: Option<WireLogId>,
    /// The members at that entry.
    pub members: WireMembers,
    /// Tells this snapshot from others.
    pub snapshot: String,
    /// Where the chunk starts in the snapshot, in bytes.
    pub offset: u64,
    /// It is the last chunk.
    pub done: bool,
}

/// The members of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireMembers {
    /// The entry that made them so.
    pub at: Option<WireLogId>,
    /// Who votes: two sets while the members change.
    pub voters: Vec<Vec<u64>>,
    /// All members, learners too, by number.
    pub members: Vec<WireMember>,
}

/// A member, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireMember {
    /// Its number in the group.
    pub id: u64,
    /// The node.
    pub node: NodeId,
    /// The node's data directory.
    pub directory: DirectoryId,
    /// The host.
    pub host: String,
    /// The port there.
    pub port: u16,
}

/// The answer to [`RaftSnapshot`]: a vote, or that another chunk is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftSnapshotReply {
    /// The member's vote; nil with a mismatch.
    pub vote: Option<WireVote>,
    /// Why the chunk was not taken: the sender starts over at offset 0.
    pub mismatch: Option<WireMismatch>,
}

/// Another chunk was due than the one that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireMismatch {
    /// The snapshot that is being received.
    pub expected_snapshot: String,
    /// The byte that is due.
    pub expected_offset: u64,
    /// The snapshot whose chunk came.
    pub found_snapshot: String,
    /// Where that starts.
    pub found_offset: u64,
}

impl PeerRequest for RaftSnapshot {
    const API: PeerApi = PeerApi::RaftSnapshot;
    type Reply = RaftSnapshotReply;
}
