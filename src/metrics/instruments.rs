//! A counter, a gauge and a histogram: atomics with relaxed order, because each figure stands for itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that only rises. It wraps after 2^64, which nobody lives to see.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `by` more.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A figure that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is `value` now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// One more.
    pub fn increase(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less. As often as [`Gauge::increase`] at most.
    pub fn decrease(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often a figure fell into each of a few ranges, and the sum of all.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what lies beyond the last.
    counts: Box<[Counter]>,
    sum: Counter,
}

impl Histogram {
    /// Ranges that end with `bounds`, each inclusive, in rising order.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted(), "bounds rise");
        Self { bounds, counts: (0..=bounds.len()).map(|_| Counter::default()).collect(), sum: Counter::default() }
    }

    /// Counts `value`: a look at a few numbers, two additions.
    pub fn observe(&self, value: u64) {
        let range = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[range].add(1);
        self.sum.add(value);
    }

    /// The bounds, each with how many values were at most that large; then how many there were, and their sum. The count
    /// is that of the ranges, so that the two never contradict each other while somebody counts.
    #[must_use]
    pub fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut below = 0;
        let mut up_to = |count: &Counter| {
            below += count.get();
            below
        };
        let cumulative: Vec<u64> = self.counts.iter().map(&mut up_to).collect();
        let ranges = self.bounds.iter().copied().zip(cumulative).collect();
        (ranges, below, self.sum.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_in_every_range_that_holds_it() {
        let histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, 5_000] {
            histogram.observe(value);
        }
        assert_eq!(histogram.read(), (vec![(10, 2), (100, 4)], 6, 5_222));
    }
}
