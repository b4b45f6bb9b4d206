//! What the writer of a log shares with its readers: which segments there are, how far they go, what is damaged.
//!
//! The lock is held for lookups in memory only, never while the disk is read or written.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::file_cache::FileCache;
use super::index::{Lookup, OffsetEntry};
use super::leader_epochs::LeaderEpochs;
use super::segment::{Handles, INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX, segment_path};
use super::time_index::TimeEntry;
use crate::types::{Offset, TimestampMs};

/// How many places where a reader stopped are remembered. A few consumers that follow one partition need no more.
const REMEMBERED_PLACES: usize = 8;

/// Shared by a [`Log`](super::Log) and its readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub files: Arc<FileCache>,
    pub dir: PathBuf,
    view: RwLock<View>,
    places: Mutex<Places>,
}

#[derive(Debug)]
pub(super) struct View {
    pub log_start: Offset,
    /// Exclusive.
    pub written_end: Offset,
    /// By base offset. The last one is the one that is appended to, unless it was sealed.
    pub segments: VecDeque<Segment>,
    /// Known damaged ranges, start inclusive and end exclusive, in order and apart from each other.
    pub damaged: Vec<(Offset, Offset)>,
    /// The writer's, which change with every leader: readers answer followers from here.
    pub epochs: Arc<LeaderEpochs>,
    /// Rises when bytes go away: a read that saw it rise starts over.
    pub generation: u64,
    /// Rises with it unless whole segments went away, and the others are what they were.
    pub rewritten: u64,
}

/// Where readers stopped, so that reading on needs no index.
#[derive(Debug, Default)]
struct Places {
    generation: u64,
    next_slot: usize,
    slots: [Option<(Offset, Offset, u64)>; REMEMBERED_PLACES],
}

/// A segment as it was at one moment: enough to read it without the lock.
#[derive(Clone, Debug)]
pub(super) struct SegmentRef {
    pub base: Offset,
    pub end: Offset,
    pub size: u64,
    pub largest: Option<(TimestampMs, Offset)>,
    pub handles: Option<Handles>,
    /// The view's, when this was taken.
    pub generation: u64,
}

impl View {
    pub(super) fn position_of_segment(&self, offset: Offset) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base <= offset).checked_sub(1)
    }

    pub(super) fn segment_ref(&self, at: usize) -> SegmentRef {
        let segment = &self.segments[at];
        SegmentRef {
            base: segment.base,
            end: segment.end,
            size: segment.size,
            largest: segment.largest,
            handles: segment.handles.clone(),
            generation: self.generation,
        }
    }

    pub(super) fn offset_floor(&self, at: usize, offset: Offset) -> Lookup<OffsetEntry> {
        self.segments[at].offsets.floor(offset)
    }

    pub(super) fn time_floor(&self, at: usize, timestamp: TimestampMs) -> Lookup<TimeEntry> {
        self.segments[at].times.floor(timestamp)
    }

    /// The damaged range that holds `offset`.
    pub(super) fn damage_at(&self, offset: Offset) -> Option<(Offset, Offset)> {
        let at = self.damaged.partition_point(|(_, end)| *end <= offset);
        self.damaged.get(at).copied().filter(|(start, _)| *start <= offset)
    }

    /// Whether all of `start..end` is known to be damaged.
    pub(super) fn knows_damage(&self, start: Offset, end: Offset) -> bool {
        self.damage_at(start).is_some_and(|(_, known_end)| known_end >= end)
    }

    /// Adds a damaged range, merged with those that it touches.
    pub(super) fn add_damage(&mut self, start: Offset, end: Offset) {
        if start < end {
            merge_range(&mut self.damaged, start, end);
        }
    }

    /// Shows readers the writer's epochs, which have changed.
    pub(super) fn set_epochs(&mut self, epochs: &LeaderEpochs) {
        self.epochs = Arc::new(epochs.clone());
    }

    pub(super) fn out_of_range(&self, requested: Offset) -> LogError {
        LogError::OffsetOutOfRange { requested, log_start: self.log_start, end: self.written_end }
    }
}

/// Adds `start..end` to ordered ranges that do not touch each other.
pub(super) fn merge_range(ranges: &mut Vec<(Offset, Offset)>, start: Offset, end: Offset) {
    let first = ranges.partition_point(|(_, known_end)| *known_end < start);
    let after = ranges.partition_point(|(known_start, _)| *known_start <= end);
    let touched = &ranges[first..after.max(first)];
    let merged_start = touched.first().map_or(start, |(known, _)| start.min(*known));
    let merged_end = touched.last().map_or(end, |(_, known)| end.max(*known));
    ranges.splice(first..after.max(first), [(merged_start, merged_end)]);
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, files: Arc<FileCache>, dir: PathBuf, view: View) -> Self {
        Self { disk, files, dir, view: RwLock::new(view), places: Mutex::default() }
    }

    // A panic while the lock was held aborts the process in release builds; in tests the data is still whole, because
    // every change under the lock is a plain assignment.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, base: Offset, suffix: &str) -> PathBuf {
        segment_path(&self.dir, base, suffix)
    }

    /// The segment's record file, for reading.
    pub(super) fn log_file(&self, segment: &SegmentRef) -> io::Result<Arc<dyn DiskFile>> {
        match &segment.handles {
            Some(handles) => Ok(Arc::clone(&handles.log)),
            None => self.files.get(&self.path(segment.base, LOG_SUFFIX)),
        }
    }

    /// The segment's offset index, for reading.
    pub(super) fn index_file(&self, segment: &SegmentRef) -> io::Result<Arc<dyn DiskFile>> {
        match &segment.handles {
            Some(handles) => Ok(Arc::clone(&handles.index)),
            None => self.files.get(&self.path(segment.base, INDEX_SUFFIX)),
        }
    }

    /// The segment's time index, for reading.
    pub(super) fn time_index_file(&self, segment: &SegmentRef) -> io::Result<Arc<dyn DiskFile>> {
        match &segment.handles {
            Some(handles) => Ok(Arc::clone(&handles.time_index)),
            None => self.files.get(&self.path(segment.base, TIME_INDEX_SUFFIX)),
        }
    }

    /// Closes what the cache has open of a segment whose files are about to go or to change hands.
    pub(super) fn forget_files(&self, base: Offset) {
        for suffix in [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
            self.files.forget(&self.path(base, suffix));
        }
    }

    /// Remembers that the batch at `offset` starts at `position` of segment `base`.
    pub(super) fn remember_place(&self, generation: u64, base: Offset, offset: Offset, position: u64) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.generation < generation {
            *places = Places { generation, ..Places::default() };
        }
        if places.generation == generation {
            let slot = places.next_slot;
            places.slots[slot] = Some((base, offset, position));
            places.next_slot = (slot + 1) % REMEMBERED_PLACES;
        }
    }

    /// The position of the batch at `offset` in segment `base`, if a reader stopped there.
    pub(super) fn recall_place(&self, generation: u64, base: Offset, offset: Offset) -> Option<u64> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |slot: &(Offset, Offset, u64)| slot.0 == base && slot.1 == offset;
        places
            .slots
            .iter()
            .flatten()
            .find(|slot| known(slot))
            .map(|slot| slot.2)
            .filter(|_| places.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_ranges_that_touch_become_one() {
        let mut ranges = Vec::new();
        for (start, end) in [(10, 20), (40, 50), (30, 35), (20, 22), (5, 6), (33, 41)] {
            merge_range(&mut ranges, Offset(start), Offset(end));
        }
        let plain: Vec<_> = ranges.iter().map(|(start, end)| (start.0, end.0)).collect();
        assert_eq!(plain, [(5, 6), (10, 22), (30, 50)]);
    }
}
