//! How long partitions went without an acknowledgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::cli::evaluate::clients::Journal;
use callboard::cli::evaluate::history::Place;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::stage::ASKED_AGAIN;

/// Looks into a journal until it is asked.
pub struct GapWatch {
    task: JoinHandle<Duration>,
    stop: watch::Sender<bool>,
}

impl GapWatch {
    /// From now on.
    pub fn start(places: &[Place], journal: &Arc<Journal>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (mut gap, journal) = (Gap::of(places, Instant::now()), Arc::clone(journal));
        let task = tokio::spawn(async move {
            loop {
                gap.look(&journal.read().history.acknowledged_counts(), Instant::now());
                tokio::select! {
                    // Were whoever asks gone, ending is right.
                    _ = stopped.changed() => return gap.longest,
                    () = sleep(ASKED_AGAIN) => {}
                }
            }
        });
        Self { task, stop }
    }

    /// The longest time in which some partition had none.
    pub async fn longest(self) -> Duration {
        drop(self.stop);
        self.task.await.expect("it only looks")
    }
}

/// How many each partition had, and since when.
struct Gap {
    longest: Duration,
    counted: BTreeMap<Place, (u64, Instant)>,
}

impl Gap {
    fn of(places: &[Place], now: Instant) -> Self {
        Self { longest: Duration::ZERO, counted: places.iter().map(|place| (place.clone(), (0, now))).collect() }
    }

    fn look(&mut self, counts: &BTreeMap<Place, u64>, now: Instant) {
        for (place, (count, since)) in &mut self.counted {
            self.longest = self.longest.max(now - *since);
            let counted = counts.get(place).copied().unwrap_or(0);
            if counted > *count {
                (*count, *since) = (counted, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_is_that_of_the_partition_that_waited_longest() {
        let places = [0, 1].map(|number| Place::new("t", number));
        let start = Instant::now();
        let second = |number| start + Duration::from_secs(number);
        let mut gap = Gap::of(&places, start);
        for (at, counts) in [(1, [1, 0]), (3, [1, 1]), (4, [2, 2]), (5, [3, 3])] {
            gap.look(&places.iter().cloned().zip(counts).collect(), second(at));
        }
        assert_eq!(gap.longest, Duration::from_secs(3));
    }
}
