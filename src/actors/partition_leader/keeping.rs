//! A leader without a log, to measure what everything but storing costs.

use super::actor::PartitionLeader;
use crate::storage::queue::LogNews;
use crate::types::record_batch::RecordBatch;

/// What becomes of the batches that a leader appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// They are written to the log.
    Log,
    /// They count as written and synced at once, and are forgotten when the tail cache lets go of them. Not for records
    /// that anybody needs.
    Nothing,
}

impl PartitionLeader {
    /// With [`Keeping::Nothing`]: what the log writer would have said of `batch`, which is in the tail cache. The log starts
    /// where the tail cache does, so that a consumer that falls behind is told that records are gone.
    pub(super) fn let_go(&mut self, batch: &RecordBatch) {
        let (now, end) = (self.now(), batch.header.end_offset_exclusive());
        self.replica.on_log_news(now, LogNews::Written(end));
        self.replica.on_log_news(now, LogNews::Synced(end));
        if let Some(start) = self.cache.start() {
            self.replica.on_log_news(now, LogNews::LogStart(start));
        }
    }
}
