//! When a broker looks through which of its replicas: round after round, one part of one replica at a time, no faster than it may read.
//!
//! ```text
//!   round begins ── replica ── replica ── … ── replica ── round ends        … interval after it began …        round begins
//!                    │ part │ pause │ part │ pause │
//! ```
//!
//! A part is read at the disk's speed, and the pause after it is as long as the configured rate asks for. Where a round stood is
//! forgotten with the process. So the first one begins soon after a start, measured by the interval, and at another replica than before:
//! a broker that restarts more often than it gets through still comes to all of them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{MonoTime, TopicPartition};

/// The first round begins after this part of the interval: not while the node catches up, and long before the next restart.
const FIRST_AFTER: u32 = 10;

/// How fast, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Bytes a second within a round, at least 1.
    pub bytes_per_second: u64,
    /// From the beginning of a round to that of the next one, which begins at once when a round takes longer.
    pub interval: Duration,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Look through a part of this replica, and tell ([`ScrubRounds::on_part`]).
    Look(TopicPartition),
    /// Nothing before that moment.
    Wait(MonoTime),
}

/// See the module page.
#[derive(Debug)]
pub struct ScrubRounds {
    pace: ScrubPace,
    /// The replicas of this round that are not through. The first one is being looked through.
    left: VecDeque<TopicPartition>,
    /// When the next part may be read; between rounds, when the next one begins.
    next_at: MonoTime,
    next_round_at: MonoTime,
    is_in_round: bool,
    part_began: MonoTime,
}

impl ScrubRounds {
    /// Nothing was looked through so far.
    #[must_use]
    pub fn new(now: MonoTime, pace: ScrubPace) -> Self {
        let first = now.plus(pace.interval / FIRST_AFTER);
        Self { pace, left: VecDeque::new(), next_at: first, next_round_at: first, is_in_round: false, part_began: now }
    }

    /// What to do now. A round that begins goes through the `replicas` that there are, from the one on that `first` falls on.
    pub fn next(&mut self, now: MonoTime, first: u64, replicas: impl FnOnce() -> Vec<TopicPartition>) -> Turn {
        if now < self.next_at {
            return Turn::Wait(self.next_at);
        }
        if !self.is_in_round {
            self.begin(now, first, replicas());
        }
        match self.left.front() {
            Some(partition) => {
                self.part_began = now;
                Turn::Look(*partition)
            }
            None => {
                self.end();
                Turn::Wait(self.next_at)
            }
        }
    }

    fn begin(&mut self, now: MonoTime, first: u64, mut replicas: Vec<TopicPartition>) {
        replicas.sort_unstable();
        let count = replicas.len().max(1) as u64;
        replicas.rotate_left(usize::try_from(first % count).unwrap_or_default());
        self.left = replicas.into();
        self.next_round_at = now.plus(self.pace.interval);
        self.is_in_round = true;
    }

    fn end(&mut self) {
        self.is_in_round = false;
        self.next_at = self.next_at.max(self.next_round_at);
    }

    /// A part was read, of so many bytes; perhaps the replica `is_through` with it, or is not here any more. Returns whether that was the
    /// end of a round.
    pub fn on_part(&mut self, bytes: u64, is_through: bool) -> bool {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.pace.bytes_per_second.max(1));
        self.next_at = self.part_began.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        if is_through {
            self.left.pop_front();
        }
        let is_end = self.is_in_round && self.left.is_empty();
        if is_end {
            self.end();
        }
        is_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionIndex, TopicId};

    const SECOND: Duration = Duration::from_secs(1);
    const PACE: ScrubPace = ScrubPace { bytes_per_second: 1_000, interval: Duration::from_secs(100) };

    fn at(seconds: u64) -> MonoTime {
        MonoTime(SECOND * u32::try_from(seconds).expect("small"))
    }

    fn replica(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(uuid::Uuid::nil()), PartitionIndex(number))
    }

    fn three() -> Vec<TopicPartition> {
        [2, 0, 1].map(replica).into()
    }

    fn never() -> Vec<TopicPartition> {
        panic!("no round begins here")
    }

    #[test]
    fn a_round_goes_through_all_replicas_at_its_pace_and_the_next_one_begins_an_interval_after_it_began() {
        let mut rounds = ScrubRounds::new(at(0), PACE);
        assert_eq!(rounds.next(at(0), 0, never), Turn::Wait(at(10)), "a tenth of the interval");
        assert_eq!(rounds.next(at(12), 0, three), Turn::Look(replica(0)));
        assert!(!rounds.on_part(3_000, false));
        assert_eq!(rounds.next(at(13), 0, never), Turn::Wait(at(15)), "three seconds for 3,000 bytes");
        assert_eq!(rounds.next(at(15), 0, never), Turn::Look(replica(0)));
        assert!(!rounds.on_part(0, true));
        assert_eq!(rounds.next(at(15), 0, never), Turn::Look(replica(1)), "nothing was read, so nothing is waited for");
        assert!(!rounds.on_part(1_000, true));
        assert_eq!(rounds.next(at(20), 0, never), Turn::Look(replica(2)), "a disk that is slower than the pace");
        assert!(rounds.on_part(1_000, true), "the round is over");
        assert_eq!(rounds.next(at(21), 0, never), Turn::Wait(at(112)));
        assert_eq!(rounds.next(at(112), 0, || vec![replica(7)]), Turn::Look(replica(7)));
    }

    #[test]
    fn a_round_that_takes_longer_than_the_interval_is_followed_by_the_next_at_its_pace() {
        let mut rounds = ScrubRounds::new(at(0), PACE);
        assert_eq!(rounds.next(at(10), 0, || vec![replica(0)]), Turn::Look(replica(0)));
        assert!(rounds.on_part(500_000, true));
        assert_eq!(rounds.next(at(111), 0, never), Turn::Wait(at(510)));
        assert_eq!(rounds.next(at(510), 0, || vec![replica(0)]), Turn::Look(replica(0)));
    }

    #[test]
    fn a_round_begins_at_another_replica_after_another_start_and_one_without_replicas_is_over_at_once() {
        for (first, due) in [(0, 0), (1, 1), (5, 2), (u64::MAX, 0)] {
            let mut rounds = ScrubRounds::new(at(0), PACE);
            assert_eq!(rounds.next(at(10), first, three), Turn::Look(replica(due)), "{first}");
        }
        let mut rounds = ScrubRounds::new(at(0), PACE);
        assert_eq!(rounds.next(at(10), 3, Vec::new), Turn::Wait(at(110)));
        assert_eq!(rounds.next(at(110), 3, three), Turn::Look(replica(0)));
    }
}
