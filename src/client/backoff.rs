//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
/// The first one while others work: a hand-over takes about 25 ms.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// Waiting times that grow up to a second, each shortened at random by up to half, so that many clients that lost the
/// same broker do not come back at the same instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    failures: u32,
    first: Duration,
    growth: f64,
}

impl Default for Backoff {
    /// Each twice as long as the one before.
    fn default() -> Self {
        Self { failures: 0, first: FIRST, growth: 2.0 }
    }
}

impl Backoff {
    /// For what others are at work on, as while a leader is elected: each a quarter longer than the one before. So none is longer than a
    /// quarter of all that was waited before it, and nobody waits much longer than it takes, however long that is.
    pub fn while_others_work() -> Self {
        Self { failures: 0, first: FIRST_LOOK, growth: 1.25 }
    }

    /// The time to wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let grown = self.growth.powi(self.failures.min(100).cast_signed());
        self.failures = self.failures.saturating_add(1);
        let full = Duration::try_from_secs_f64(self.first.as_secs_f64() * grown).unwrap_or(LONGEST).min(LONGEST);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Whether nothing has failed since the last success.
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_a_second_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..10).map(|_| backoff.next_delay()).collect();
        for (failures, delay) in delays.iter().enumerate() {
            let full = Duration::from_millis((20 << failures).min(1_000));
            assert!(*delay >= full / 2 && *delay <= full, "{failures}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn while_others_work_nobody_waits_a_quarter_longer_than_before_and_a_second_at_most() {
        let mut backoff = Backoff::while_others_work();
        let mut waited = Duration::ZERO;
        for _ in 0..100 {
            let delay = backoff.next_delay();
            assert!(delay <= LONGEST && delay <= FIRST_LOOK + waited / 2, "{delay:?} after {waited:?}");
            waited += delay;
        }
        assert!(backoff.next_delay() >= LONGEST / 2);
    }
}
