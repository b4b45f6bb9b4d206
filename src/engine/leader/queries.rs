//! Questions to a leader that change nothing.

use super::LeaderEngine;
use crate::protocol::ApiError;
use crate::protocol::messages::LogDescription;
use crate::types::Offset;

impl<R> LeaderEngine<R> {
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
