//! What a follower does not know of producers, because damaged records said it, and how it learns that from its leader.

use super::{Command, FollowerEngine, Output};
use crate::engine::producer_state::ProducerTable;
use crate::types::{Mutant, Offset};

impl<R> FollowerEngine<R> {
    /// Damage that is found now may have been there when the log was opened: a header may have been believed that says something else now.
    pub(super) fn lacks_producers(&self) -> bool {
        let may_lack = self.producers.has_gaps() || !self.damage.is_whole();
        let was_asked = self.asked_for_producers == Some(self.following.leader_epoch);
        may_lack && !was_asked && !Mutant::OverlooksGaps.is_on()
    }

    /// The leader tells of the producers. What was appended since is not in that.
    pub(super) fn take_producers(&mut self, at: Offset, snapshot: &[u8], out: &mut Output<R>) {
        if at != self.cursors.next_offset() {
            return;
        }
        self.asked_for_producers = Some(self.following.leader_epoch);
        if let Some(producers) = ProducerTable::from_snapshot(snapshot) {
            self.producers.merge(producers);
            out.0.push(Command::SnapshotProducers { at, payload: self.producers.to_snapshot() });
        }
    }
}
