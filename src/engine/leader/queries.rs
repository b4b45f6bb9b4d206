//! Questions to a leader that change nothing.

use super::{LeaderEngine, Leadership};
use crate::engine::damage::Damage;
use crate::engine::replication::ReplicaState;
use crate::protocol::ApiError;
use crate::protocol::messages::{FollowerDescription, LogDescription};
use crate::types::record_batch::BatchHeader;
use crate::types::{MonoTime, NodeId, Offset};

impl<R> LeaderEngine<R> {
    /// Whether everything that was commanded to the log has come to an end, or never will.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.log_failure.is_some() || self.cursors.next_offset() == self.cursors.written_end()
    }

    /// What whoever takes over from this engine needs to know, and why the log takes no more, if it does not.
    #[must_use]
    pub fn into_state(self) -> (ReplicaState, Option<ApiError>) {
        (ReplicaState::at(&self.cursors, self.epochs, self.producers, self.damage), self.log_failure)
    }

    /// What the metadata says of this leadership.
    #[must_use]
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// These ranges of its log are known to be damaged now. Returns whether one of them is news.
    pub fn on_damage(&mut self, known: &[(Offset, Offset)]) -> bool {
        let is_news = self.damage.note(known, self.cursors.log_start(), self.cursors.written_end());
        self.was_damaged |= self.damage.first().is_some();
        is_news
    }

    /// Whether it was damaged in this epoch.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    /// What is known to be damaged of its log.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Whether `node` counts for the watermark: it is in the committed set, or was proposed since.
    #[must_use]
    pub fn counts(&self, node: NodeId) -> bool {
        node == self.me || self.followers.counts(node)
    }

    /// Why this replica takes no more appends, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<&ApiError> {
        self.failed.as_ref()
    }

    /// What the log holds; the shell adds what only the files know.
    #[must_use]
    pub fn describe(
        &self,
        now: MonoTime,
        size_bytes: u64,
        segments: u32,
        damaged: Vec<(Offset, Offset)>,
    ) -> LogDescription {
        LogDescription {
            log_start_offset: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            durable_end_offset: self.cursors.durable_end(),
            log_end_offset: self.cursors.written_end(),
            size_bytes,
            segments,
            leader_epoch: self.leadership.epoch,
            damaged,
            followers: self.describe_followers(now),
        }
    }

    fn describe_followers(&self, now: MonoTime) -> Vec<FollowerDescription> {
        let others = self.leadership.replicas.iter().map(|replica| replica.node).filter(|node| *node != self.me);
        others.map(|node| self.followers.describe(now, node)).collect()
    }

    /// Whether the batch may stand where this log is damaged, nobody here remembers it, and somebody who does may lead soon. Else it is
    /// not waited for: nobody ever will.
    pub(super) fn may_have_had(&self, now: MonoTime, header: &BatchHeader) -> bool {
        let Some((_, end)) = self.damage.first() else { return false };
        let may_miss = header.is_idempotent() && self.producers.has_gaps();
        may_miss && self.followers.may_take_over(now, &self.leadership, end, self.settings.max_lag)
    }
}
