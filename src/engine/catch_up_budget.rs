//! How fast a broker may fetch for its replicas of one topic that are not in sync, so that live traffic does not starve.
//!
//! ```text
//!   rate ──► budget, at most a second's worth ── take a share ──► fetch ──► answer ── settle: what it did not bring goes back
//!                                            └── too little there: wait until the moment that is named
//! ```
//!
//! A leader answers with one whole batch even where that is more than was asked for. The budget is in debt then, and what comes next
//! waits until the debt is paid.

use std::time::Duration;

use crate::types::MonoTime;

/// A fetch may bring this part of a second's worth: small enough that fetches follow each other evenly.
const SHARES_A_SECOND: u64 = 10;
/// A share has so many bytes at least: a request has a price of its own. It is no more than a second's worth at the slowest rate.
const MIN_SHARE: u64 = 16 << 10;

/// In parts of a byte, so that no time is lost however often the budget is looked at.
const NANOS: i128 = 1_000_000_000;

/// See the module page. It begins empty. The rate is given with each question, since it may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpBudget {
    /// Bytes × 10⁹ that may be fetched; below zero, what was fetched too much.
    nano_bytes: i128,
    as_of: MonoTime,
}

impl CatchUpBudget {
    /// Nothing may be fetched yet.
    #[must_use]
    pub fn new(now: MonoTime) -> Self {
        Self { nano_bytes: 0, as_of: now }
    }

    /// Takes what a fetch may bring that wants `wanted` bytes: so many, or fewer.
    ///
    /// # Errors
    /// The moment before which there is too little, if nothing is given back until then. It lies ahead of `now`.
    pub fn take(&mut self, now: MonoTime, bytes_per_second: u64, wanted: usize) -> Result<usize, MonoTime> {
        let rate = bytes_per_second.max(1);
        self.grow(now, rate);
        let share = (rate / SHARES_A_SECOND).max(MIN_SHARE).min(rate);
        let share = usize::try_from(share).unwrap_or(usize::MAX).min(wanted);
        let missing = nano(share) - self.nano_bytes;
        if missing > 0 {
            let nanos = missing.unsigned_abs().div_ceil(u128::from(rate));
            return Err(now.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))));
        }
        self.nano_bytes -= nano(share);
        Ok(share)
    }

    /// A fetch that had `taken` bytes has come to its end, and brought `fetched`: fewer, or more.
    pub fn settle(&mut self, taken: usize, fetched: usize) {
        self.nano_bytes += nano(taken) - nano(fetched);
    }

    fn grow(&mut self, now: MonoTime, rate: u64) {
        let elapsed = now.since(self.as_of).as_nanos();
        let grown = i128::try_from(elapsed.saturating_mul(u128::from(rate))).unwrap_or(i128::MAX);
        // What nobody wanted for long does not pile up.
        self.nano_bytes = self.nano_bytes.saturating_add(grown).min(i128::from(rate) * NANOS);
        self.as_of = self.as_of.max(now);
    }
}

fn nano(bytes: usize) -> i128 {
    i128::try_from(bytes).unwrap_or(i128::MAX / NANOS) * NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const RATE: u64 = 1_000_000;
    const SHARE: usize = 100_000;

    fn at(millis: u64) -> MonoTime {
        MonoTime(Duration::from_millis(millis))
    }

    /// What is fetched until `end` by whoever asks again as soon as may be, each time with answers of `bytes_of` what was given.
    fn fetched(budget: &mut CatchUpBudget, end: MonoTime, rate: u64, bytes_of: impl Fn(usize) -> usize) -> usize {
        let (mut now, mut sum) = (budget.as_of, 0);
        while now < end {
            match budget.take(now, rate, MIB) {
                Ok(taken) => {
                    budget.settle(taken, bytes_of(taken));
                    sum += bytes_of(taken);
                }
                Err(later) => {
                    assert!(later > now, "nobody waits for the present");
                    now = later;
                }
            }
        }
        sum
    }

    #[test]
    fn a_second_brings_a_second_s_worth_in_even_shares() {
        let mut budget = CatchUpBudget::new(at(0));
        assert_eq!(budget.take(at(0), RATE, MIB), Err(at(100)), "it begins empty");
        assert_eq!(budget.take(at(99), RATE, MIB), Err(at(100)));
        assert_eq!(budget.take(at(100), RATE, MIB), Ok(SHARE));
        assert_eq!(budget.take(at(100), RATE, MIB), Err(at(200)));
        let mut budget = CatchUpBudget::new(at(0));
        let sum = fetched(&mut budget, at(10_050), RATE, |taken| taken);
        assert_eq!(sum, 10 * RATE as usize);
    }

    #[test]
    fn no_time_is_lost_however_often_it_is_looked_at() {
        let mut budget = CatchUpBudget::new(at(0));
        for nanos in 0..99_000 {
            let now = MonoTime(Duration::from_nanos(nanos * 1_000));
            assert_eq!(budget.take(now, RATE, MIB), Err(at(100)));
        }
        assert_eq!(budget.take(at(100), RATE, MIB), Ok(SHARE));
    }

    #[test]
    fn what_an_answer_did_not_bring_goes_back_and_what_it_brought_beyond_is_paid_for() {
        let mut budget = CatchUpBudget::new(at(0));
        assert_eq!(budget.take(at(100), RATE, MIB), Ok(SHARE));
        budget.settle(SHARE, 0);
        assert_eq!(budget.take(at(100), RATE, MIB), Ok(SHARE), "a fetch that failed cost nothing");
        budget.settle(SHARE, SHARE + 400_000);
        assert_eq!(budget.take(at(100), RATE, MIB), Err(at(600)), "0.4 s for the debt, 0.1 s for the next share");
        let mut budget = CatchUpBudget::new(at(0));
        let sum = fetched(&mut budget, at(100_000), RATE, |taken| taken * 7);
        assert!(sum <= 100 * RATE as usize + 7 * SHARE, "{sum} bytes in 100 s, with batches that are too large");
    }

    #[test]
    fn an_idle_topic_saves_up_a_second_at_most() {
        let mut budget = CatchUpBudget::new(at(0));
        let burst = (0..100).map_while(|_| budget.take(at(3_600_000), RATE, MIB).ok()).sum::<usize>();
        assert_eq!(burst, RATE as usize);
    }

    #[test]
    fn a_rate_that_changes_counts_at_once_for_debts_too() {
        let mut budget = CatchUpBudget::new(at(0));
        budget.settle(0, 4 * MIB);
        assert_eq!(budget.take(at(0), 65_536, MIB), Err(at(64_250)), "64 s, and a quarter for the share");
        assert!(budget.take(at(0), 1 << 30, MIB).is_err_and(|later| later <= at(5)));
        let mut budget = CatchUpBudget::new(at(0));
        assert_eq!(budget.take(at(1_000), 1 << 30, MIB), Ok(MIB));
        assert!(budget.take(at(1_000), 65_536, MIB).is_ok(), "what was saved up");
        assert!((0..10).any(|_| budget.take(at(1_000), 65_536, MIB).is_err()), "is cut to a second of the slower rate");
    }

    #[test]
    fn whoever_wants_little_takes_little_and_the_slowest_rate_has_a_share_worth_a_request() {
        let mut budget = CatchUpBudget::new(at(0));
        assert_eq!(budget.take(at(1_000), RATE, 64 << 10), Ok(64 << 10));
        let mut budget = CatchUpBudget::new(at(0));
        assert_eq!(budget.take(at(1_000), 65_536, MIB), Ok(MIN_SHARE as usize));
        // A clock that stands still, or is read out of order, takes nothing away.
        assert_eq!(budget.take(at(0), 65_536, MIB), Ok(MIN_SHARE as usize));
    }
}
