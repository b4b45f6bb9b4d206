//! Latencies of a run, and their percentiles.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart, in nanoseconds: an hour. Longer ones count as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Latencies in nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("1 ns to an hour with three digits are legal bounds"))
    }
}

/// What is told of latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer.
    pub p50_us: f64,
    /// Nine of ten took no longer.
    pub p90_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1,000 took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Their percentiles; nothing when none was counted.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(self.0.max()),
        })
    }
}

/// Latencies that several tasks count. Clones share them; one histogram for all, because each takes a third of a megabyte.
#[derive(Clone, Debug, Default)]
pub struct SharedLatencies(Arc<Mutex<Latencies>>);

impl SharedLatencies {
    /// Counts one.
    pub fn record(&self, ns: u64) {
        self.lock().record(ns);
    }

    /// What was counted so far, which is forgotten here.
    #[must_use]
    pub fn take(&self) -> Latencies {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Latencies> {
        // Counting cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_that_share_them() {
        let shared = SharedLatencies::default();
        let other = shared.clone();
        (1..=50).for_each(|us| shared.record(us * 1_000));
        (51..=100).for_each(|us| other.record(us * 1_000));
        let told = shared.take().percentiles().expect("some");
        let near = |told: f64, us: f64| (told - us).abs() <= us / 500.0;
        assert_eq!(told.count, 100);
        assert!(near(told.p50_us, 50.0) && near(told.p99_us, 99.0) && near(told.max_us, 100.0), "{told:?}");
        assert_eq!(other.take().percentiles(), None, "they were taken");
    }
}
