//! Where in a segment to start looking for an offset: what the index says, checked against the batch that stands there.

use std::io;

use super::disk::DiskFile;
use super::index::{Lookup, OffsetEntry, floor_in_file};
use super::scan::{Check, Scanner, Step};
use super::view::{SegmentRef, Shared};
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// Where to start looking, and what is known of the batch there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub position: u64,
    /// Its first offset.
    pub first: Option<Offset>,
    /// Its last offset.
    pub last: Option<Offset>,
}

impl Start {
    pub(super) fn of_segment(base: Offset) -> Self {
        Self { position: 0, first: Some(base), last: None }
    }

    /// A scanner of the segment's headers that starts here; at the segment's start if the batch here is not the one that
    /// the index speaks of.
    pub(super) fn scanner<'a>(
        self,
        file: &'a (dyn DiskFile + 'a),
        segment: &SegmentRef,
    ) -> io::Result<Scanner<'a, dyn DiskFile + 'a>> {
        let at = |position, first| Scanner::new(file, segment.size, position, first, Check::Headers);
        let mut first_step = at(self.position, self.first);
        match first_step.step()? {
            Step::Batch { header, .. } if self.fits(&header) => Ok(at(self.position, Some(header.base_offset))),
            _ => Ok(at(0, Some(segment.base))),
        }
    }

    pub(super) fn fits(&self, header: &BatchHeader) -> bool {
        self.first.is_none_or(|first| first == header.base_offset)
            && self.last.is_none_or(|last| last == header.last_offset())
    }
}

impl Shared {
    /// Where the index says to look for `offset`: at its batch or an earlier one.
    pub(super) fn follow_index(&self, segment: &SegmentRef, lookup: Lookup<OffsetEntry>, offset: Offset) -> Start {
        let entry = match lookup {
            Lookup::Known(entry) => entry,
            Lookup::InFile(entries) => {
                let found = self
                    .index_file(segment)
                    .and_then(|file| floor_in_file::<OffsetEntry>(&*file, segment.base, entries, offset));
                // Without its index a segment is read from its start: slow, and right.
                found.unwrap_or_else(|error| {
                    tracing::warn!(dir = %self.dir.display(), base = %segment.base, %error, "an index cannot be read");
                    None
                })
            }
        };
        match entry {
            Some(entry) if entry.position >= segment.size => {
                self.distrust_index(segment);
                Start::of_segment(segment.base)
            }
            Some(entry) => Start { position: entry.position, first: None, last: Some(entry.last_offset) },
            None => Start::of_segment(segment.base),
        }
    }

    /// Has the writer rebuild the index when it next tidies up.
    pub(super) fn distrust_index(&self, segment: &SegmentRef) {
        if let Some(known) = self.write().segments.iter_mut().find(|known| known.base == segment.base) {
            known.index_is_wrong = true;
        }
    }

    /// A place at or before the batch that holds `offset`, as far as the index can be trusted.
    pub(super) fn place_before(&self, segment: &SegmentRef, offset: Offset) -> Start {
        let lookup = {
            let view = self.read();
            let at = view.segments.iter().position(|known| known.base == segment.base);
            at.map_or(Lookup::Known(None), |at| view.offset_floor(at, offset))
        };
        self.follow_index(segment, lookup, offset)
    }
}
