//! Which leader wrote which part of a log: what two replicas compare to find out how far their logs agree (KIP-101).
//!
//! ```text
//!   offset   0 ────────── 120 ───────────────── 300 ───── end
//!   epoch    │    1        │         4           │    5
//! ```
//!
//! A leader writes its epoch into each batch, and no epoch has two leaders. So two logs that hold the same epoch at the same
//! offset hold the same records up to there.

use std::ops::Range;

use super::{LeaderEpoch, Offset};

/// The leader epochs of a log, each with the offset of its first record. Both rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochHistory {
    /// The history that `entries` tell, oldest first; `None` unless epochs and offsets rise strictly.
    #[must_use]
    pub fn from_entries(entries: Vec<(LeaderEpoch, Offset)>) -> Option<Self> {
        entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1).then_some(Self { entries })
    }

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

    /// The epoch of the record before `offset`; `None` when the log holds none there.
    #[must_use]
    pub fn epoch_before(&self, offset: Offset) -> Option<LeaderEpoch> {
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

    /// How far this log, which ends at `log_end`, can agree with one whose largest epoch not above ours is `theirs` and ends
    /// there. The answer lies below `log_end` whenever the two differ, so that asking again comes to an end.
    #[must_use]
    pub fn agreement(&self, log_start: Offset, log_end: Offset, theirs: Option<(LeaderEpoch, Offset)>) -> Offset {
        let Some((epoch, end)) = theirs else { return log_start };
        match self.end_offset_for(epoch, log_end) {
            // The same leader wrote both: they agree up to where the shorter one ends.
            Some((ours, our_end)) if ours == epoch => our_end.min(end).max(log_start),
            // That leader's records never came here: what comes after our largest epoch below it is not in the other log.
            Some((_, our_end)) => our_end.min(end).max(log_start),
            None => log_start,
        }
    }

    /// Notes that a batch of `epoch` starts at `offset`, and returns whether the epoch is new.
    pub fn note(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let is_new = self.latest().is_none_or(|latest| epoch > latest);
        if is_new {
            // An epoch whose records were all deleted at the front: it ends where it was moved to, and has none left.
            self.entries.truncate(self.entries.partition_point(|(_, start)| *start < offset));
            self.entries.push((epoch, offset));
        }
        is_new
    }

    /// Forgets what starts at or after `end`, and returns whether there was something.
    pub fn truncate_to(&mut self, end: Offset) -> bool {
        let kept = self.entries.partition_point(|(_, start)| *start < end);
        let is_news = kept < self.entries.len();
        self.entries.truncate(kept);
        is_news
    }

    /// The batches in `range` were replaced by others, in a log that ends at `log_end`: these epochs with their offsets, in order.
    pub fn replace(
        &mut self,
        range: Range<Offset>,
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
    }

    /// Forgets the epochs that end at or before `log_start`, and lets the one in force there start there. Returns whether that
    /// changed something.
    pub fn advance_start(&mut self, log_start: Offset) -> bool {
        let after = self.entries.partition_point(|(_, start)| *start <= log_start);
        if let Some(in_force) = after.checked_sub(1)
            && (in_force > 0 || self.entries[0].1 < log_start)
        {
            self.entries.drain(..in_force);
            self.entries[0].1 = log_start;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(log: &[u32]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (offset, epoch) in (0..).zip(log) {
            history.note(LeaderEpoch(*epoch), Offset(offset));
        }
        history
    }

    fn end(log: &[u32]) -> Offset {
        Offset(log.len() as u64)
    }

    /// What a follower and its leader do until they agree, on logs that are lists of epochs. Returns how often they asked.
    fn follow(follower: &mut Vec<u32>, leader: &[u32]) -> usize {
        for asked in 0.. {
            let position = end(follower);
            let last = history(follower).epoch_before(position);
            let theirs = last.and_then(|last| history(leader).end_offset_for(last, end(leader)));
            let is_prefix = last.is_none() || theirs.is_some_and(|(epoch, end)| Some(epoch) == last && end >= position);
            if is_prefix {
                return asked;
            }
            let agreement = history(follower).agreement(Offset(0), position, theirs);
            assert!(agreement < position, "asking again comes to an end");
            follower.truncate(agreement.0 as usize);
        }
        unreachable!()
    }

    #[test]
    fn an_epoch_that_the_other_log_never_had_goes_whole() {
        let mut follower = vec![1, 1, 1, 2, 2];
        assert_eq!(follow(&mut follower, &[1, 1, 3, 3]), 1);
        assert_eq!(follower, [1, 1]);
    }

    #[test]
    fn an_epoch_that_is_left_without_records_makes_way_for_the_next() {
        let mut history = history(&[1, 2, 2]);
        assert!(history.advance_start(Offset(3)) && history.note(LeaderEpoch(3), Offset(3)));
        assert_eq!(history.entries(), [(LeaderEpoch(3), Offset(3))]);
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let history = history(&[1, 1, 4, 4, 5]);
        let ends = |epoch| history.end_offset_for(LeaderEpoch(epoch), Offset(9)).map(|(epoch, end)| (epoch.0, end.0));
        assert_eq!(
            [0, 1, 3, 4, 5, 9].map(ends),
            [None, Some((1, 2)), Some((1, 2)), Some((4, 4)), Some((5, 9)), Some((5, 9))]
        );
        assert_eq!([1, 2, 4].map(|at| history.epoch_of(Offset(at)).map(|epoch| epoch.0)), [Some(1), Some(4), Some(5)]);
    }

    #[test]
    fn a_deleted_front_leaves_the_epoch_in_force_there() {
        let mut history = history(&[1, 1, 4, 4, 5]);
        history.advance_start(Offset(3));
        assert_eq!(history.entries(), [(LeaderEpoch(4), Offset(3)), (LeaderEpoch(5), Offset(4))]);
        assert_eq!((history.epoch_before(Offset(3)), history.epoch_before(Offset(4))), (None, Some(LeaderEpoch(4))));
    }

    proptest! {
        /// Logs as elections leave them: each branch of the tree copies a prefix of some log and goes on in a higher epoch.
        #[test]
        fn two_replicas_end_up_with_what_they_have_in_common(
            branches in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, 1usize..4), 2..9)
        ) {
            let mut logs: Vec<Vec<u32>> = vec![Vec::new()];
            for (epoch, (parent, cut, count)) in (1u32..).zip(&branches) {
                let parent = &logs[parent.index(logs.len())];
                let mut log = parent[..parent.len().saturating_sub(*cut)].to_vec();
                log.extend(std::iter::repeat_n(epoch, *count));
                logs.push(log);
            }
            for leader in &logs {
                for follower in &logs {
                    let common = follower.iter().zip(leader).take_while(|(a, b)| a == b).count();
                    let mut log = follower.clone();
                    follow(&mut log, leader);
                    prop_assert_eq!(&log[..], &follower[..common]);
                }
            }
        }
    }
}
