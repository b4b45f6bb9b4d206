//! What a broker tells a replica, or asks of it: for the controllers, and for the background scrub.

use actix::Message;

use crate::storage::ScrubbedPart;
use crate::types::{LeaderEpoch, Offset};

/// The controller has refused what this leader proposed in that partition epoch.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct ProposalRefused {
    /// One that was overtaken is no news.
    pub partition_epoch: u32,
}

/// The broker gives its lease up. Answered when this replica answers nothing any more that a lease is needed for.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct GiveUpLease;

/// The replica was doubtful, and counts as whole from here on.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct MarkVerified;

/// Say how far the log reaches: the leader epoch of the last record, and the offset after it. `None` for an empty log.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<(LeaderEpoch, Offset)>")]
pub struct ReadEnd;

/// Look through the next part of the log, or, if the last one was the end, through the first.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ScrubbedOn")]
pub struct ScrubOn;

/// The answer to [`ScrubOn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubbedOn {
    /// What was read, and found.
    pub part: ScrubbedPart,
    /// Whether all of the log that was there when its first part was read is looked through.
    pub is_through: bool,
}
