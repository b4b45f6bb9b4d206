//! The newest entries, kept in memory as they were applied, for those who follow the image step by step.
//!
//! ```text
//!   image at:   …   17     18     19     20 = end
//!   entries:     [16]   [17]   [18]   [19]        between(17, 20) = [17] [18] [19]
//!                 └ oldest that is kept
//! ```
//!
//! Each is an encoded array of records, empty where an entry changed nothing: one of openraft's own, or one that did not fit.
//! Whoever applies them in turn, and counts each as one step of the index, gets from one image to the other exactly.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::engine::metadata::MetadataRecord;

/// More than a broker misses while its connection is found again. Whoever lacks more takes the image, which is smaller then.
const MAX_BYTES: usize = 8 << 20;
/// The same for entries that are small, of which each costs its place.
const MAX_ENTRIES: usize = 4_096;

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Bytes>,
    /// The index of the image after the last one.
    end: u64,
    bytes: usize,
}

impl Ring {
    fn start_over(&mut self, end: u64) {
        *self = Self { end, ..Self::default() };
    }

    fn push(&mut self, index: u64, entry: Bytes) {
        if index != self.end {
            self.start_over(index);
        }
        self.bytes += entry.len();
        self.end += 1;
        self.entries.push_back(entry);
        while self.bytes > MAX_BYTES || self.entries.len() > MAX_ENTRIES {
            self.bytes -= self.entries.pop_front().map_or(0, |oldest| oldest.len());
        }
    }
}

/// The newest entries that were applied here. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct RecentEntries(Arc<Mutex<Ring>>);

impl RecentEntries {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Whoever panicked left a ring that is short of an entry at most: the next one starts it over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry that led from the image at `index` to the next one changed it by `records`.
    pub(super) fn push(&self, index: u64, records: &[MetadataRecord]) {
        match rmp_serde::to_vec_named(records) {
            Ok(entry) => self.ring().push(index, entry.into()),
            // It was read from this form, so this does not happen; if it does, the image leads past it.
            Err(_) => self.ring().start_over(index + 1),
        }
    }

    /// An image came as a whole: nothing leads to it.
    pub(super) fn start_over(&self, index: u64) {
        self.ring().start_over(index);
    }

    /// The entries that lead from the image at `from` to the one at `to`. `None` where they are not kept, or there is no such way.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Option<Vec<Bytes>> {
        let count = usize::try_from(to.checked_sub(from)?).ok()?;
        let ring = self.ring();
        let behind = usize::try_from(ring.end.checked_sub(to)?).ok()?;
        let start = ring.entries.len().checked_sub(behind)?.checked_sub(count)?;
        Some(ring.entries.range(start..start + count).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring_of(indexes: std::ops::Range<u64>, bytes: usize) -> Ring {
        let mut ring = Ring::default();
        for index in indexes {
            ring.push(index, vec![u8::try_from(index % 251).expect("small"); bytes].into());
        }
        ring
    }

    fn firsts(recent: &RecentEntries, from: u64, to: u64) -> Option<Vec<u8>> {
        recent.between(from, to).map(|entries| entries.iter().map(|entry| entry[0]).collect())
    }

    #[test]
    fn the_way_between_two_images_is_there_or_it_is_not() {
        let recent = RecentEntries(Arc::new(Mutex::new(ring_of(5..9, 1))));
        assert_eq!(firsts(&recent, 5, 9), Some(vec![5, 6, 7, 8]));
        assert_eq!(firsts(&recent, 6, 8), Some(vec![6, 7]));
        assert_eq!(firsts(&recent, 9, 9), Some(Vec::new()), "no step");
        assert_eq!(firsts(&recent, 4, 9), None, "not kept");
        assert_eq!(firsts(&recent, 6, 10), None, "not there yet");
        assert_eq!(firsts(&recent, 8, 6), None, "nothing leads back");
        recent.start_over(20);
        assert_eq!((firsts(&recent, 8, 20), firsts(&recent, 20, 20)), (None, Some(Vec::new())));
    }

    #[test]
    fn a_hole_starts_it_over_and_the_oldest_go_first() {
        let mut ring = ring_of(0..3, 1);
        ring.push(7, Bytes::from_static(b"x"));
        assert_eq!((ring.entries.len(), ring.end, ring.bytes), (1, 8, 1));
        let ring = ring_of(0..5_000, 2);
        assert_eq!((ring.entries.len(), ring.bytes), (MAX_ENTRIES, 2 * MAX_ENTRIES));
        let recent = RecentEntries(Arc::new(Mutex::new(ring_of(0..20, 1 << 20))));
        assert_eq!(firsts(&recent, 12, 20).map(|found| found.len()), Some(8));
        assert_eq!(firsts(&recent, 11, 20), None, "eight times a mebibyte is what is kept");
    }
}
