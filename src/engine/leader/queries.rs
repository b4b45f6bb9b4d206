//! Questions to a leader that change nothing.

use super::LeaderEngine;
use crate::protocol::ApiError;
use crate::protocol::messages::{ListedOffset, LogDescription, OffsetAt};
use crate::types::Offset;

impl<R> LeaderEngine<R> {
    /// A look-up by position. `None` for one by time, which has to read the log.
    #[must_use]
    pub fn on_list_offsets(&self, at: OffsetAt) -> Option<ListedOffset> {
        let offset = match at {
            OffsetAt::Earliest => self.cursors.log_start(),
            OffsetAt::Latest => self.cursors.high_watermark(),
            OffsetAt::MaxTimestamp | OffsetAt::Timestamp(_) => return None,
        };
        Some(ListedOffset { offset: Some(offset), timestamp: None, leader_epoch: self.leadership.epoch })
    }

    /// Why this replica takes no more appends, if it does not.
    #[must_use]
    pub fn failure(&self) -> Option<&ApiError> {
        self.failed.as_ref()
    }

    /// What the log holds; the shell adds what only the files know.
    #[must_use]
    pub fn describe(&self, size_bytes: u64, segments: u32, damaged: Vec<(Offset, Offset)>) -> LogDescription {
        LogDescription {
            log_start_offset: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            durable_end_offset: self.cursors.durable_end(),
            log_end_offset: self.cursors.written_end(),
            size_bytes,
            segments,
            leader_epoch: self.leadership.epoch,
            damaged,
        }
    }
}
