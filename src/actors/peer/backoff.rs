//! How long to wait before dialling again.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause: a connection that broke by chance is back before an election starts.
const FIRST: Duration = Duration::from_millis(20);
/// The longest: a node that comes back is found within this.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// Pauses that double up to a second, each shortened at random by up to half, so that the nodes which lost the same one do not
/// come back to it at the same instant.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// A connection that was there from `since` to `now` is lost. Only one that lasted starts the pauses over: a node that accepts and
    /// hangs up at once must not be dialled in a loop.
    pub fn connection_lost(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= LONGEST {
            self.failures = 0;
        }
    }

    /// Starts over: something about the other node has changed.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_second_and_start_over_after_a_connection_that_lasted() {
        let mut backoff = Backoff::default();
        for failures in 0..10 {
            let full = Duration::from_millis((20 << failures).min(1_000));
            let pause = backoff.next_pause();
            assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
        }
        let since = Instant::now();
        tokio::time::advance(LONGEST / 2).await;
        backoff.connection_lost(since, Instant::now());
        assert!(backoff.next_pause() > FIRST, "it did not last");
        tokio::time::advance(LONGEST / 2).await;
        backoff.connection_lost(since, Instant::now());
        assert!(backoff.next_pause() <= FIRST);
    }
}
