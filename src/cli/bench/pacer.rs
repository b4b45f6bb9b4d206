//! An open loop: records are due at exact moments, whatever became of those before.
//!
//! ```text
//!   Schedule: record i is due at start + i / rate, in whole nanoseconds
//!        │                                                     due, not sent yet
//!   timerfd of the kernel ─ a tick for each record, ─► Pacer ──────────────────────► sender
//!                           at most one in 50 µs
//! ```
//!
//! tokio's timers tick once a millisecond, which would send ten records at a time at 10,000 a second and measure that. A
//! timerfd has the kernel's resolution and wakes the runtime through the same epoll as its sockets: no thread beside it, no
//! hand-over, no polling. What a tick is late, and what the sender is late because it was held up, counts: a latency begins
//! at the moment at which the record was due, not at the one at which it was sent.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::clock::BenchClock;

const SECOND_NS: u128 = 1_000_000_000;

/// No two ticks are closer than this: above 20,000 records a second a tick sends several, each late by less.
const SHORTEST_TICK_NS: u64 = 50_000;

/// When the records of one producer are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When the first record of all producers is due, on the bench's clock.
    pub start_ns: u64,
    /// Records a second, of all producers.
    pub rate: u64,
    /// How many producers deal the records out among them, in turn.
    pub producers: u32,
    /// Which of them this is, from 0.
    pub producer: u32,
}

impl Schedule {
    /// When this producer's record number `index`, from 0, is due.
    #[must_use]
    pub fn at(&self, index: u64) -> u64 {
        let among_all = u128::from(index) * u128::from(self.producers) + u128::from(self.producer);
        let after = among_all * SECOND_NS / u128::from(self.rate);
        self.start_ns.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// How many of this producer's records are due at `now_ns`, those that are sent already included.
    #[must_use]
    pub fn due(&self, now_ns: u64) -> u64 {
        let Some(after) = now_ns.checked_sub(self.start_ns) else { return 0 };
        // The last record of all that is due: the largest k with floor(k * second / rate) <= after.
        let last = ((u128::from(after) + 1) * u128::from(self.rate) - 1) / SECOND_NS;
        let Some(of_this) = last.checked_sub(u128::from(self.producer)) else { return 0 };
        u64::try_from(of_this / u128::from(self.producers) + 1).unwrap_or(u64::MAX)
    }

    fn tick_ns(&self) -> u64 {
        let between = u128::from(self.producers) * SECOND_NS / u128::from(self.rate);
        u64::try_from(between).unwrap_or(u64::MAX).max(SHORTEST_TICK_NS)
    }
}

/// Wakes a producer when records are due.
#[derive(Debug)]
pub struct Pacer {
    schedule: Schedule,
    clock: BenchClock,
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// Begins to tick.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn start(schedule: Schedule, clock: BenchClock) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let first = schedule.at(0).saturating_sub(clock.now_ns()).max(1);
        let ticks = Itimerspec { it_interval: timespec(schedule.tick_ns()), it_value: timespec(first) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &ticks)?;
        #[allow(
            deprecated,
            reason = "the function instead is unsafe, for types whose descriptor may change; an OwnedFd keeps its own"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { schedule, clock, timer })
    }

    /// Waits until more than the first `sent` records are due, and returns which ones. May be dropped while it waits.
    ///
    /// # Errors
    /// When the timer fails, which it does not.
    pub async fn due(&self, sent: u64) -> io::Result<Range<u64>> {
        loop {
            let due = self.schedule.due(self.clock.now_ns());
            if due > sent {
                return Ok(sent..due);
            }
            let mut ready = self.timer.readable().await?;
            // How often it has ticked does not matter: the clock says what is due.
            match rustix::io::read(&self.timer, &mut [0; 8]) {
                Ok(_) => {}
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn timespec(ns: u64) -> Timespec {
    let duration = Duration::from_nanos(ns);
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u64, producers: u32, producer: u32) -> Schedule {
        Schedule { start_ns: 1_000, rate, producers, producer }
    }

    #[test]
    fn intended_times_are_exact_and_do_not_drift() {
        let alone = schedule(10_000, 1, 0);
        assert_eq!([0, 1, 2, 10_000].map(|index| alone.at(index)), [1_000, 101_000, 201_000, 1_000_001_000]);
        // A third of a nanosecond is lost at most, a million records later, too.
        let thirds = schedule(3, 1, 0);
        assert_eq!(
            [1, 2, 3, 3_000_000].map(|index| thirds.at(index)),
            [333_334_333, 666_667_666, 1_000_001_000, 1_000_000 * 1_000_000_000 + 1_000]
        );
    }

    #[test]
    fn producers_deal_the_records_out_in_turn() {
        let of = |producer| [0, 1].map(|index| schedule(1_000, 3, producer).at(index));
        assert_eq!([of(0), of(1), of(2)], [[1_000, 3_001_000], [1_001_000, 4_001_000], [2_001_000, 5_001_000]]);
    }

    #[test]
    fn a_record_is_due_at_its_moment_and_not_before() {
        for schedule in [schedule(3, 1, 0), schedule(10_000, 7, 3), schedule(99_999_999, 2, 1), schedule(1, 3, 2)] {
            assert_eq!(schedule.due(999), 0);
            for index in [0, 1, 2, 41, 1_000_003] {
                let at = schedule.at(index);
                let due = [at - 1, at, schedule.at(index + 1) - 1].map(|now| schedule.due(now));
                // Beyond a record each nanosecond, neighbours share one.
                assert!(due[0] <= index && due[1] > index && due[2] <= index + 1, "{schedule:?} {index} {due:?}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_comes_before_it_is_due_and_what_was_missed_comes_at_once() {
        let clock = BenchClock::start();
        let (start_ns, rate) = (clock.now_ns(), 2_000);
        let schedule = Schedule { start_ns, rate, producers: 1, producer: 0 };
        let pacer = Pacer::start(schedule, clock).expect("a timer");
        let mut sent = 0;
        while sent < 100 {
            let due = pacer.due(sent).await.expect("ticks");
            assert_eq!(due.start, sent);
            assert!(schedule.at(due.end - 1) <= clock.now_ns());
            sent = due.end;
        }
        assert_eq!(pacer.due(0).await.expect("ticks").start, 0, "all that is due, at once");
    }
}
