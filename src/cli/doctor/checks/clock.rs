//! Whether a node's clock and this machine's agree, without blaming the clock for a slow answer.

use std::time::Duration;

use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output;
use crate::types::TimestampMs;

/// What machines with NTP stay within, many times over.
const ALLOWED_MS: i64 = 1_000;
/// How far ahead a record's timestamp may be: producers' clocks are allowed to be off a little, and time zones are not.
const AHEAD_ALLOWED_MS: i64 = 3_600_000;

/// The node's clock, read at some moment between two readings of this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// When the question was sent, by this machine's clock.
    pub sent: TimestampMs,
    /// What the node's clock showed.
    pub node: TimestampMs,
    /// When the answer came, by this machine's clock.
    pub received: TimestampMs,
}

impl ClockSample {
    /// The least that the node's clock is ahead (behind, if negative), in milliseconds; 0 while the time that the question and
    /// its answer took could explain everything.
    #[must_use]
    pub fn least_offset_ms(&self) -> i64 {
        let (most, least) = (self.node.0 - self.sent.0, self.node.0 - self.received.0);
        if least > 0 { least } else { most.min(0) }
    }
}

/// Whether the clocks agree.
#[must_use]
pub fn agree(about: &str, sample: &ClockSample) -> Option<Finding> {
    let offset = sample.least_offset_ms();
    if offset.abs() <= ALLOWED_MS {
        return None;
    }
    let direction = if offset > 0 { "ahead of" } else { "behind" };
    let off_by = shown(offset.unsigned_abs());
    let seen = format!("its clock is at least {off_by} {direction} this machine's");
    Some(Finding::new(Code::ClockOff, about, seen))
}

/// Whether a record's timestamp lies in the future.
#[must_use]
pub fn in_the_future(about: &str, newest: TimestampMs, now: TimestampMs) -> Option<Finding> {
    let ahead = newest.0.saturating_sub(now.0);
    (ahead > AHEAD_ALLOWED_MS).then(|| {
        let seen = format!("its newest record is dated {} after this machine's clock", shown(ahead.unsigned_abs()));
        Finding::new(Code::FutureTimestamps, about, seen)
    })
}

/// A time for people, however long.
#[must_use]
pub fn shown(ms: u64) -> String {
    match ms {
        0..120_000 => output::duration(Duration::from_millis(ms)),
        120_000..7_200_000 => format!("{} minutes", ms / 60_000),
        7_200_000..172_800_000 => format!("{} hours", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent: i64, node: i64, received: i64) -> ClockSample {
        ClockSample { sent: TimestampMs(sent), node: TimestampMs(node), received: TimestampMs(received) }
    }

    #[test]
    fn a_slow_answer_is_never_blamed_on_the_clock() {
        for node in [0, 100, 30_000, 60_000] {
            assert_eq!(
                agree("node 1", &sample(0, node, 60_000)),
                None,
                "the node was asked somewhere within this minute"
            );
        }
        assert_eq!(agree("node 1", &sample(0, 61_000, 60_000)), None);
        assert_eq!(agree("node 1", &sample(0, -1_000, 60_000)), None);
    }

    #[test]
    fn a_clock_that_is_off_beyond_what_the_answer_took_is_found_with_its_direction() {
        let ahead = agree("node 1", &sample(0, 65_000, 60_000)).expect("a finding");
        assert_eq!(ahead.code, Code::ClockOff);
        assert!(ahead.seen.contains("5.0 s ahead"), "{ahead:?}");
        let behind = agree("node 1", &sample(100_000_000, 0, 100_000_100)).expect("a finding");
        assert!(behind.seen.contains("27 hours behind") && behind.fix.contains("NTP"), "{behind:?}");
    }

    #[test]
    fn records_from_the_future_are_found() {
        let now = TimestampMs(1_700_000_000_000);
        assert_eq!(in_the_future("rides", TimestampMs::NONE, now), None);
        assert_eq!(in_the_future("rides", TimestampMs(now.0 + AHEAD_ALLOWED_MS), now), None);
        let finding = in_the_future("rides", TimestampMs(now.0 + 10 * 86_400_000), now).expect("a finding");
        assert!(finding.seen.contains("10 days") && finding.fix.contains("timestamp_type"), "{finding:?}");
        assert!(in_the_future("rides", TimestampMs(i64::MAX), now).is_some());
    }
}
