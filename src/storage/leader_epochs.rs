//! Where each leader's term starts in the log: what a follower compares to find out how far two logs agree (KIP-101).
//!
//! ```text
//!   offset   0 ────────── 120 ───────────────── 300 ───── end
//!   epoch    │    1        │         4           │    5
//! ```

use std::path::Path;

use super::atomic_file::{AtomicFileError, Magic, write_atomically};
use super::disk::{Disk, child};
use super::partition_state::{json, read_json};
use crate::types::{LeaderEpoch, Offset};

/// The checkpoint file in a partition's directory.
pub const LEADER_EPOCHS_FILE: &str = "leader-epochs";

const MAGIC: Magic = *b"CBle";
const VERSION: u16 = 1;

/// What a follower learns from its leader's answer to "where does your epoch N end?"; see [`LeaderEpochs::compare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The two logs hold the same records before this offset (exclusive) and differ from there on, if the follower has more.
    AgreeUpTo(Offset),
    /// The leader does not have that epoch: ask it for this older one.
    AskFor(LeaderEpoch),
    /// No epoch is in both logs. What the follower has was deleted by the leader meanwhile, or never was the leader's.
    NothingInCommon,
}

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

    /// One step of a follower's walk back to the largest epoch that is in both logs (KIP-101, KIP-279). It begins with its own
    /// [`LeaderEpochs::latest`]: `answer` is what the leader's [`LeaderEpochs::end_offset_for`] says of the epoch asked
    /// for, `log_end` the end of the follower's log.
    ///
    /// Each [`Comparison::AskFor`] names an older epoch than the one before, so that the walk ends. Nothing is to be cut
    /// off before it has.
    #[must_use]
    pub fn compare(&self, log_end: Offset, answer: Option<(LeaderEpoch, Offset)>) -> Comparison {
        let Some((leaders, leaders_end)) = answer else {
            return Comparison::NothingInCommon;
        };
        match self.end_offset_for(leaders, log_end) {
            Some((own, own_end)) if own == leaders => Comparison::AgreeUpTo(own_end.min(leaders_end)),
            Some((older, _)) => Comparison::AskFor(older),
            None => Comparison::NothingInCommon,
        }
    }

    /// Notes that a batch of `epoch` starts at `offset`, and returns whether the epoch is new.
    pub(super) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let is_new = self.latest().is_none_or(|latest| epoch > latest);
        if is_new {
            // An epoch whose records were all deleted at the front: it ends where it was moved to, and has none left.
            self.entries.truncate(self.entries.partition_point(|(_, start)| *start < offset));
            self.entries.push((epoch, offset));
            self.unsaved = true;
        }
        is_new
    }

    /// Forgets what starts at or after `end`.
    pub(super) fn truncate_to(&mut self, end: Offset) {
        let kept = self.entries.partition_point(|(_, start)| *start < end);
        self.unsaved |= kept < self.entries.len();
        self.entries.truncate(kept);
    }

    /// The batches in `range` were replaced by others: these epochs with their offsets, in order.
    pub(super) fn replace(
        &mut self,
        range: std::ops::Range<Offset>,
        log_end: Offset,
        found: impl Iterator<Item = (LeaderEpoch, Offset)>,
    ) {
        let in_force_after = self.epoch_of(range.end).filter(|_| range.end < log_end);
        let later = self.entries.split_off(self.entries.partition_point(|(_, start)| *start <= range.end));
        self.truncate_to(range.start);
        let after = in_force_after.map(|epoch| (epoch, range.end));
        for (epoch, start) in found.chain(after).chain(later) {
            self.note(epoch, start);
        }
        self.unsaved = true;
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.truncate_to(Offset::ZERO);
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
        let path = child(dir, LEADER_EPOCHS_FILE);
        let entries: Option<Vec<(LeaderEpoch, Offset)>> = read_json(disk, &path, MAGIC, VERSION)?;
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
            write_atomically(disk, &child(dir, LEADER_EPOCHS_FILE), MAGIC, VERSION, &json(&self.entries)?)?;
            self.unsaved = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// A log as the epoch of each offset, from `start` on.
    fn epochs_of(log: &[u32], start: usize) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (offset, epoch) in log.iter().enumerate() {
            epochs.note(LeaderEpoch(*epoch), Offset(offset as u64));
        }
        epochs.advance_start(Offset(start as u64));
        epochs
    }

    /// How far two logs agree, by asking the leader until it is known; also how often it was asked.
    fn walk(follower: &LeaderEpochs, end: usize, leader: &LeaderEpochs, leaders_end: usize) -> (Comparison, usize) {
        let mut asked = follower.latest().expect("a follower with records");
        for questions in 1.. {
            let answer = leader.end_offset_for(asked, Offset(leaders_end as u64));
            match follower.compare(Offset(end as u64), answer) {
                Comparison::AskFor(older) => {
                    assert!(older < asked, "the walk goes back");
                    asked = older;
                }
                done => return (done, questions),
            }
        }
        unreachable!("a range without an end")
    }

    #[test]
    fn a_follower_walks_back_to_the_largest_epoch_that_both_logs_have() {
        // KIP-279's schedule: each of two brokers led, alone, for some epochs, and neither has those of the other.
        let follower = epochs(&[(1, 0), (3, 10), (5, 20)]);
        let leader = epochs(&[(1, 0), (2, 12), (4, 15), (6, 30)]);
        assert_eq!(leader.end_offset_for(LeaderEpoch(5), Offset(40)), Some((LeaderEpoch(4), Offset(30))));
        let end = Offset(25);
        assert_eq!(follower.compare(end, Some((LeaderEpoch(4), Offset(30)))), Comparison::AskFor(LeaderEpoch(3)));
        assert_eq!(follower.compare(end, Some((LeaderEpoch(2), Offset(15)))), Comparison::AskFor(LeaderEpoch(1)));
        let agreed = Comparison::AgreeUpTo(Offset(10));
        assert_eq!(follower.compare(end, Some((LeaderEpoch(1), Offset(12)))), agreed);
        assert_eq!(walk(&follower, 25, &leader, 40), (agreed, 3));
        assert_eq!(follower.compare(end, None), Comparison::NothingInCommon);
    }

    #[test]
    fn a_follower_that_is_merely_behind_or_ahead_in_the_same_epoch_learns_it_from_one_answer() {
        let both = epochs(&[(1, 0), (4, 20)]);
        assert_eq!(walk(&both, 30, &both, 50), (Comparison::AgreeUpTo(Offset(30)), 1));
        assert_eq!(walk(&both, 50, &both, 30), (Comparison::AgreeUpTo(Offset(30)), 1));
        assert_eq!(walk(&epochs(&[(7, 0)]), 9, &epochs(&[(8, 0)]), 9).0, Comparison::NothingInCommon);
    }

    /// The epochs after the common part of a log, which ended in `common`: that leader's records may go on, later epochs are
    /// odd in one log and even in the other, because an epoch has one leader.
    fn tail(rises: &[u32], common: u32, odd: bool, goes_on: bool) -> Vec<u32> {
        let mut epoch = common;
        let next = |rise: &u32| {
            if *rise > 0 || (epoch == common && !goes_on) {
                epoch += 1 + 2 * rise;
                epoch += u32::from((epoch % 2 == 1) != odd);
            }
            epoch
        };
        rises.iter().map(next).collect()
    }

    /// The common part of two logs, and what each has after it.
    fn two_logs() -> impl Strategy<Value = (Vec<u32>, Vec<u32>, Vec<u32>)> {
        let rises = || proptest::collection::vec(0..3u32, 0..12);
        (rises(), rises(), rises(), any::<bool>()).prop_map(|(common, ours, theirs, ours_goes_on)| {
            let common = tail(&common, 1, true, true);
            let last = common.last().copied().unwrap_or(1);
            (common, tail(&ours, last, true, ours_goes_on), tail(&theirs, last, false, !ours_goes_on))
        })
    }

    proptest! {
        #[test]
        fn the_walk_finds_exactly_where_two_logs_part(
            (common, ours, theirs) in two_logs(),
            (our_start, their_start) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let (ours, theirs) = ([common.clone(), ours].concat(), [common.clone(), theirs].concat());
            prop_assume!(!ours.is_empty());
            let start = |at: prop::sample::Index| if common.is_empty() { 0 } else { at.index(common.len()) };
            let (follower, leader) = (epochs_of(&ours, start(our_start)), epochs_of(&theirs, start(their_start)));
            // The naive way: record by record.
            let agree = ours.iter().zip(&theirs).take_while(|(our, their)| our == their).count();
            let due = if common.is_empty() && agree == 0 {
                Comparison::NothingInCommon
            } else {
                Comparison::AgreeUpTo(Offset(agree as u64))
            };
            prop_assert_eq!(walk(&follower, ours.len(), &leader, theirs.len()).0, due, "{:?} {:?}", ours, theirs);
        }
    }
}
