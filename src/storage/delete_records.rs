//! Giving up records at the front because somebody asked for it.
//!
//! ```text
//!   sync up to `to` ──► seal the active segment, if it goes too ──► new start written down ──► files removed
//! ```

use super::error::LogError;
use super::log::{Log, Tail};
use super::retention::RetentionOutcome;
use crate::types::Offset;

impl Log {
    /// Deletes the records before `to`: the log starts there, for good, when this returns. Segments that lie before it as a
    /// whole are removed, the active one too. The caller keeps `to` at or below the high watermark. Moving the start back
    /// does nothing.
    ///
    /// What is not durable yet is synced first where `to` lies past it: else a power loss would leave a log that ends
    /// before it starts, and give offsets away again that were deleted.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] beyond the written end, [`LogError::SyncOutstanding`] when a sync is in flight that
    /// `to` has to wait for; the disk's. A failed sync is final.
    pub fn delete_records_before(&mut self, to: Offset) -> Result<RetentionOutcome, LogError> {
        self.check_alive()?;
        if to > self.written_end() {
            return Err(self.shared.read().out_of_range(to));
        }
        if to > self.durable_end() {
            let job = self.begin_sync().ok_or(LogError::SyncOutstanding)?;
            self.finish_sync(job.run())?;
        }
        let rolled = self.active_ends_by(to);
        if rolled {
            self.mark_written().and_then(|()| self.roll()).map_err(|error| self.fail(error))?;
        }
        let deleted = self.advance_log_start(to)?;
        Ok(RetentionOutcome { deleted, log_start: self.log_start(), rolled })
    }

    fn active_ends_by(&self, to: Offset) -> bool {
        let view = self.shared.read();
        let active = view.segments.back().filter(|_| !matches!(self.tail, Tail::Sealed));
        active.is_some_and(|active| active.size > 0 && active.end <= to)
    }
}
