//! Questions to a follower that change nothing.

use super::{FollowerEngine, Phase};
use crate::engine::cursors::Cursors;
use crate::engine::producer_state::ProducerTable;
use crate::engine::replication::ReplicaState;
use crate::protocol::ApiError;

impl<R> FollowerEngine<R> {
    /// Where the replica stands.
    #[must_use]
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The producers that the log knows of.
    #[must_use]
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// The number of the newest fetch.
    #[must_use]
    pub fn newest_fetch(&self) -> u64 {
        self.newest_fetch
    }

    /// Whether everything that was commanded to the log has come to an end, or never will.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let is_written = self.cursors.next_offset() == self.cursors.written_end();
        self.failed.is_some() || (is_written && !matches!(self.phase, Phase::Cutting | Phase::Repairing))
    }

    /// What whoever takes over from this engine needs to know, and why the log takes no more, if it does not.
    #[must_use]
    pub fn into_state(self) -> (ReplicaState, Option<ApiError>) {
        (ReplicaState::at(&self.cursors, self.epochs, self.producers, self.damage), self.failed)
    }

    /// Why this replica takes no more, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<&ApiError> {
        self.failed.as_ref()
    }
}

impl<R> std::fmt::Display for FollowerEngine<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { following, phase, cursors, damage, newest_fetch, fetch_at, leader, failed, .. } = self;
        write!(
            f,
            "{phase:?} {following:?} {cursors:?} {damage:?} fetch {newest_fetch} next {fetch_at:?} leader {leader:?} failed {failed:?}"
        )
    }
}
