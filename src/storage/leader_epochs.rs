//! Where each leader's term starts in the log: what a follower compares to find out how far two logs agree (KIP-101).
//!
//! ```text
//!   offset   0 ────────── 120 ───────────────── 300 ───── end
//!   epoch    │    1        │         4           │    5
//! ```

use std::path::Path;

use super::atomic_file::{AtomicFileError, Magic};
use super::disk::{Disk, child};
use super::partition_state::{read_json, write_json};
use crate::types::{LeaderEpoch, Offset};

/// The checkpoint file in a partition's directory.
pub const LEADER_EPOCHS_FILE: &str = "leader-epochs";

const MAGIC: Magic = *b"CBle";

/// The leader epochs of a log, each with the offset of its first record. Both rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
    /// What the file lacks.
    unsaved: bool,
}

impl LeaderEpochs {
    /// All of them, oldest first: epoch, and the offset of its first record.
    #[must_use]
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The newest epoch in the log.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch of the record at `offset`.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        self.entries[..after].last().map(|(epoch, _)| *epoch)
    }

    /// The epoch in force just before `offset`.
    pub(super) fn epoch_before(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start < offset);
        self.entries[..after].last().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch that is not above `epoch`, and where it ends (exclusive): the start of the next one, or
    /// `log_end` for the newest. `None` when the log has no such epoch.
    #[must_use]
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = self.entries[..after].last()?;
        let end = self.entries.get(after).map_or(log_end, |(_, start)| *start);
        Some((*found, end))
    }

    /// Notes that a batch of `epoch` starts at `offset`.
    pub(super) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if self.latest().is_none_or(|latest| epoch > latest) {
            // An epoch whose records were all deleted at the front: it ends where it was moved to, and has none left.
            self.entries.truncate(self.entries.partition_point(|(_, start)| *start < offset));
            self.entries.push((epoch, offset));
            self.unsaved = true;
        }
    }

    /// Forgets what starts at or after `end`.
    pub(super) fn truncate_to(&mut self, end: Offset) {
        let kept = self.entries.partition_point(|(_, start)| *start < end);
        self.unsaved |= kept < self.entries.len();
        self.entries.truncate(kept);
    }

    /// Forgets the epochs that end at or before `log_start`, and lets the one in force there start there.
    pub(super) fn advance_start(&mut self, log_start: Offset) {
        let after = self.entries.partition_point(|(_, start)| *start <= log_start);
        if let Some(in_force) = after.checked_sub(1)
            && (in_force > 0 || self.entries[0].1 < log_start)
        {
            self.entries.drain(..in_force);
            self.entries[0].1 = log_start;
            self.unsaved = true;
        }
    }

    pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, AtomicFileError> {
        let entries: Option<Vec<(LeaderEpoch, Offset)>> = read_json(disk, &child(dir, LEADER_EPOCHS_FILE), MAGIC)?;
        let rising = |entries: &Vec<(LeaderEpoch, Offset)>| entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
        Ok(entries.filter(rising).map(|entries| Self { entries, unsaved: false }))
    }

    /// Whether the file lacks something.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// A copy from a moment ago was saved: if nothing came since, the file lacks nothing.
    pub(super) fn were_saved_as(&mut self, saved: &Self) {
        self.unsaved &= self.entries != saved.entries;
    }

    /// Replaces the file when it lacks something. Must come before a recovery point that passes what it lacks.
    pub(super) fn save(&mut self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        if self.unsaved {
            write_json(disk, &child(dir, LEADER_EPOCHS_FILE), MAGIC, &self.entries)?;
            self.unsaved = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(u32, u64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in entries {
            epochs.note(LeaderEpoch(*epoch), Offset(*start));
        }
        epochs
    }

    fn listed(epochs: &LeaderEpochs) -> Vec<(u32, u64)> {
        epochs.entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect()
    }

    #[test]
    fn an_epoch_that_is_left_without_records_makes_way_for_the_next() {
        let mut epochs = epochs(&[(1, 0), (2, 50)]);
        epochs.advance_start(Offset(70));
        epochs.note(LeaderEpoch(3), Offset(70));
        assert_eq!(listed(&epochs), [(3, 70)]);
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = epochs(&[(1, 0), (1, 50), (4, 120), (5, 300)]);
        let ends = |epoch| epochs.end_offset_for(LeaderEpoch(epoch), Offset(400)).map(|(e, end)| (e.0, end.0));
        assert_eq!(listed(&epochs), [(1, 0), (4, 120), (5, 300)]);
        assert_eq!(
            [0, 1, 2, 4, 5, 9].map(ends),
            [None, Some((1, 120)), Some((1, 120)), Some((4, 300)), Some((5, 400)), Some((5, 400))]
        );
        assert_eq!(epochs.epoch_of(Offset(119)), Some(LeaderEpoch(1)));
        assert_eq!(epochs.epoch_of(Offset(300)), Some(LeaderEpoch(5)));
    }

    #[test]
    fn truncation_and_deletion_forget_epochs_at_either_end() {
        let mut epochs = epochs(&[(1, 0), (4, 120), (5, 300)]);
        epochs.truncate_to(Offset(300));
        assert_eq!(listed(&epochs), [(1, 0), (4, 120)]);
        epochs.advance_start(Offset(60));
        assert_eq!(listed(&epochs), [(1, 60), (4, 120)]);
        epochs.advance_start(Offset(200));
        assert_eq!(listed(&epochs), [(4, 200)]);
    }
}
