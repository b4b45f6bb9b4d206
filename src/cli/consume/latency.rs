//! The time from sending to reading, of records that carry when they were sent.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use crate::cli::output::micros;
use crate::cli::produce::load;

/// The longest latency told apart, in microseconds: an hour. Longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Latencies of all consumers of a command, shared between them.
#[derive(Debug)]
pub struct Latencies {
    histogram: Mutex<Histogram<u64>>,
}

/// A summary in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySummary {
    /// How many records carried a send time.
    pub records: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// Ninety-nine of a hundred took no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3);
        Self { histogram: Mutex::new(histogram.expect("1 to an hour with three digits are legal bounds")) }
    }
}

impl Latencies {
    /// Counts the values that carry a send time, read at `now_us` (wall clock).
    pub fn record<'a>(&self, values: impl Iterator<Item = &'a [u8]>, now_us: u64) {
        let mut sent = values.filter_map(load::sent_us).peekable();
        if sent.peek().is_none() {
            return;
        }
        let mut histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        for sent_us in sent {
            // A clock that was set back in between makes a latency of nothing, not of ages.
            histogram.saturating_record(now_us.saturating_sub(sent_us).max(1));
        }
    }

    /// What was counted so far; nothing when no record carried a send time.
    #[must_use]
    pub fn summary(&self) -> Option<LatencySummary> {
        let histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        (!histogram.is_empty()).then(|| LatencySummary {
            records: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        })
    }
}

impl std::fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, max] = [self.p50_us, self.p99_us, self.max_us].map(micros);
        write!(f, "latency p50 {p50}, p99 {p99}, max {max}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_of_records_that_carry_their_send_time() {
        let latencies = Latencies::default();
        latencies.record([&b"a line"[..], b""].into_iter(), 5_000);
        assert_eq!(latencies.summary(), None);
        let values: Vec<_> = (1..=100).map(|n| load::value(n, 10_000 - n * 10)).collect();
        latencies.record(values.iter().map(|value| &value[..]), 10_000);
        let summary = latencies.summary().expect("a hundred were counted");
        assert_eq!(summary, LatencySummary { records: 100, p50_us: 500, p99_us: 990, max_us: 1_000 });
        assert_eq!(summary.to_string(), "latency p50 500 µs, p99 990 µs, max 1.0 ms");
    }

    #[test]
    fn a_clock_that_was_set_back_counts_as_no_latency() {
        let latencies = Latencies::default();
        latencies.record([&load::value(1, 9_000)[..]].into_iter(), 5_000);
        assert_eq!(latencies.summary().map(|summary| summary.max_us), Some(1));
    }
}
