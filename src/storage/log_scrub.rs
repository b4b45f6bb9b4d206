//! A look through a whole log, part by part, as slowly as its caller likes.
//!
//! ```text
//!   log start ─── segment ─── segment ─── segment ──┬─ segments that were begun meanwhile: the next time
//!                  │ part │ part │ …                └ the end when it began
//! ```
//!
//! Each segment is read as far as it goes when its turn comes.

use super::error::LogError;
use super::log_reader::LogReader;
use super::scrub::SegmentScrub;
use crate::types::Offset;

/// See the module page.
#[derive(Debug)]
pub struct LogScrub {
    reader: LogReader,
    segment: Option<SegmentScrub>,
    /// Where the next segment begins.
    next: Offset,
    /// Where the log ended when this began.
    end: Offset,
}

/// What one step of a [`LogScrub`] has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubbedPart {
    /// Bytes that were read.
    pub bytes: u64,
    /// How many damaged ranges were not known before. They are noted, and not served from now on.
    pub damage_found: u64,
}

impl LogScrub {
    /// A look through what there is now.
    #[must_use]
    pub fn new(reader: LogReader) -> Self {
        let (next, end) = (reader.log_start(), reader.written_end());
        Self { reader, segment: None, next, end }
    }

    /// Whether all was looked through.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.segment.is_none() && self.next >= self.end
    }

    /// Verifies about `max_bytes` more, of one segment. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The disk's. What comes after that segment is still looked through.
    pub fn go_on(&mut self, max_bytes: u64) -> Result<ScrubbedPart, LogError> {
        let Some(mut segment) = self.segment.take().or_else(|| self.next_segment()) else {
            return Ok(ScrubbedPart::default());
        };
        // Whatever comes of it: a segment that cannot be read is left behind.
        self.next = segment.found.next;
        let (position, known) = (segment.position(), self.reader.damaged_ranges());
        let is_through = match self.reader.scrub_on(&mut segment, max_bytes) {
            // Cut off meanwhile.
            Err(LogError::OffsetOutOfRange { .. }) => true,
            through => through?,
        };
        let is_news = |found: &&(Offset, Offset)| !known.iter().any(|(from, to)| *from <= found.0 && found.1 <= *to);
        let part = ScrubbedPart {
            bytes: segment.position().saturating_sub(position),
            damage_found: self.reader.damaged_ranges().iter().filter(is_news).count() as u64,
        };
        self.next = segment.found.next;
        self.segment = (!is_through).then_some(segment);
        Ok(part)
    }

    /// Begins with the next segment; `None` when nothing is left of what was there when this began.
    fn next_segment(&mut self) -> Option<SegmentScrub> {
        while self.next < self.end {
            self.next = self.next.max(self.reader.log_start());
            match self.reader.begin_scrub(self.next) {
                Ok(segment) => return Some(segment),
                // Deleted at this moment.
                Err(_) if self.next < self.reader.log_start() => {}
                // Cut off meanwhile.
                Err(_) => self.next = self.end,
            }
        }
        None
    }
}
