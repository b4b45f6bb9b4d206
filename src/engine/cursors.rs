//! The cursors of one replica. They only move forward, and their order is checked in one place.
//!
//! ```text
//!   log start          high watermark     durable end        written end        next offset
//!   ├── records ───────┼── not committed ─┼── not synced ────┼── being written ─┤
//!   └ readable ────────┘
//! ```
//!
//! With a flush policy other than `always` the high watermark follows the written end and may pass the durable one.

use crate::types::{FlushPolicy, Mutant, Offset};

/// The cursors of a replica. Every *end* is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    log_start: Offset,
    high_watermark: Offset,
    durable_end: Offset,
    written_end: Offset,
    next_offset: Offset,
}

impl Cursors {
    /// The cursors of a replica that goes on in another role, or whose log was cut. The watermark lies within the log.
    #[must_use]
    pub fn resumed(log_start: Offset, high_watermark: Offset, durable_end: Offset, written_end: Offset) -> Self {
        debug_assert!(
            log_start <= durable_end && durable_end <= written_end,
            "{log_start} {durable_end} {written_end}"
        );
        let high_watermark = high_watermark.clamp(log_start, written_end);
        Self { log_start, high_watermark, durable_end, written_end, next_offset: written_end }
    }

    /// The first offset that the log still holds.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The end of what is committed: what consumers may read.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The end of what a sync has covered.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// The end of what has been written.
    #[must_use]
    pub fn written_end(&self) -> Offset {
        self.written_end
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Assigns `count` offsets and returns the first.
    pub fn assign(&mut self, count: u64) -> Offset {
        let base = self.next_offset;
        self.next_offset = base.plus(count);
        base
    }

    /// The log was written up to `end`.
    pub fn wrote(&mut self, end: Offset) {
        debug_assert!(end <= self.next_offset, "wrote {end} past the next offset {}", self.next_offset);
        self.written_end = self.written_end.max(end);
    }

    /// The log was synced up to `end`.
    pub fn synced(&mut self, end: Offset) {
        debug_assert!(end <= self.written_end, "synced {end} past the written end {}", self.written_end);
        self.durable_end = self.durable_end.max(end);
    }

    /// Where this replica's own log allows the high watermark to be.
    #[must_use]
    pub fn safe_end(&self, flush: FlushPolicy) -> Offset {
        match flush {
            FlushPolicy::Always if !Mutant::CommitsWhatIsOnlyWritten.is_on() => self.durable_end,
            FlushPolicy::Always | FlushPolicy::Interval | FlushPolicy::Os => self.written_end,
        }
    }

    /// Moves the high watermark forward to `to`; returns whether it moved.
    pub fn commit(&mut self, to: Offset) -> bool {
        debug_assert!(to <= self.written_end, "committing {to} past the written end {}", self.written_end);
        let moved = to > self.high_watermark;
        self.high_watermark = self.high_watermark.max(to);
        moved
    }

    /// Records below `to` are gone; returns whether that is news.
    pub fn drop_before(&mut self, to: Offset) -> bool {
        let moved = to > self.log_start;
        self.log_start = self.log_start.max(to);
        self.high_watermark = self.high_watermark.max(self.log_start);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_follows_the_disk_with_always_and_the_write_without() {
        let mut cursors = Cursors::resumed(Offset(0), Offset(0), Offset(0), Offset(0));
        assert_eq!(cursors.assign(5), Offset(0));
        assert_eq!(cursors.safe_end(FlushPolicy::Os), Offset(0));
        cursors.wrote(Offset(5));
        assert_eq!((cursors.safe_end(FlushPolicy::Os), cursors.safe_end(FlushPolicy::Always)), (Offset(5), Offset(0)));
        cursors.synced(Offset(5));
        assert_eq!(cursors.safe_end(FlushPolicy::Always), Offset(5));
    }

    #[test]
    fn nothing_moves_backwards() {
        let mut cursors = Cursors::resumed(Offset(2), Offset(2), Offset(9), Offset(9));
        assert!(cursors.commit(Offset(9)));
        assert!(!cursors.commit(Offset(4)));
        cursors.wrote(Offset(3));
        cursors.synced(Offset(3));
        assert!(!cursors.drop_before(Offset(1)));
        assert_eq!(
            cursors,
            Cursors { high_watermark: Offset(9), ..Cursors::resumed(Offset(2), Offset(2), Offset(9), Offset(9)) }
        );
    }
}
