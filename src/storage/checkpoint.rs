//! Writing down how far the log is good: now and then, and at a clean stop.

use super::disk::SyncPoint;
use super::error::LogError;
use super::log::{Log, Tail};
use super::partition_state::{CleanStop, PartitionState};
use crate::types::{Mutant, Offset};

impl Log {
    /// Writes down the log's start, the high watermark and how far everything is synced: recovery after a crash starts
    /// there. Writes nothing when nothing has changed. An untouched log stays cleanly stopped.
    ///
    /// # Errors
    /// The disk's; what was written down before still holds then, and the log goes on.
    pub fn save_checkpoint(&mut self, high_watermark: Offset) -> Result<(), LogError> {
        self.check_alive()?;
        let state = self.state_now(high_watermark);
        self.save_state(state)
    }

    /// Whether records that had been synced may be missing: see [`OpenReport::doubtful`](super::OpenReport).
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.state.doubtful
    }

    /// The log was compared with an intact replica, or is the best there is: it is not doubtful any more. Durable when this
    /// returns.
    ///
    /// # Errors
    /// [`LogError::SyncOutstanding`] while a side job is in flight; the disk's. The log is still doubtful then.
    pub fn mark_verified(&mut self) -> Result<(), LogError> {
        self.check_alive()?;
        let state = PartitionState { doubtful: false, ..self.state_now(self.state.high_watermark) };
        self.save_state(state)
    }

    /// Syncs everything, writes the producer snapshot at the log's end and says in `partition.state` that the stop was
    /// clean: the next open reads no record data.
    ///
    /// # Errors
    /// [`LogError::SyncOutstanding`] while a sync or a side job is in flight. After any error the next open recovers.
    pub fn close_cleanly(mut self, high_watermark: Offset, producer_snapshot: &[u8]) -> Result<(), LogError> {
        self.check_alive()?;
        if self.sync_in_flight || self.side_in_flight {
            return Err(LogError::SyncOutstanding);
        }
        if self.state.clean.is_some() {
            let state = self.state_now(high_watermark);
            return self.save_state(state);
        }
        if !Mutant::MarksAnUnsyncedStopClean.is_on() {
            self.sync_everything().map_err(|error| self.fail(error))?;
        }
        self.write_producer_snapshot(self.written_end(), producer_snapshot)?;
        self.synced = self.written_place();
        let clean = Some(self.clean_stop());
        let state = PartitionState { clean, ..self.state_now(high_watermark) };
        self.save_state(state)
    }

    fn sync_everything(&mut self) -> std::io::Result<()> {
        if let Tail::Open(handles) = &self.tail {
            let handles = handles.clone();
            if let Some(active) = self.shared.write().segments.back_mut() {
                active.index_largest_time();
            }
            self.flush_indexes(&handles)?;
            self.sealed_unsynced.extend([handles.log, handles.index, handles.time_index]);
        }
        for file in self.sealed_unsynced.drain(..) {
            file.sync_data(SyncPoint::LogData)?;
        }
        // The names of new segments become durable with the producer snapshot's, which comes next.
        Ok(())
    }

    fn clean_stop(&self) -> CleanStop {
        let view = self.shared.read();
        let newest = view.segments.back();
        CleanStop {
            end: view.written_end,
            newest: newest.map(|newest| (newest.base, newest.size)),
            largest: newest.and_then(|newest| newest.largest),
            opened_at: newest.and_then(|newest| newest.opened_at),
        }
    }

    pub(super) fn state_now(&self, high_watermark: Offset) -> PartitionState {
        let view = self.shared.read();
        PartitionState {
            log_start: view.log_start,
            // One that a leader told may lie past what is here.
            high_watermark: high_watermark.min(view.written_end),
            recovery: self.synced,
            damaged: view.damaged.clone(),
            ..self.state.clone()
        }
    }

    pub(super) fn save_state(&mut self, mut state: PartitionState) -> Result<(), LogError> {
        if self.side_in_flight {
            // Of two that write the same file the older one could be the last.
            return Err(LogError::SyncOutstanding);
        }
        // The epochs first: a recovery from the new recovery point does not see the batches before it.
        self.epochs.save(&*self.shared.disk, &self.shared.dir)?;
        if state != self.state {
            // Written under this boot: the next open under the same one cannot be sure that it is durable.
            state.boot_id = self.shared.disk.boot_id()?;
            state.write(&*self.shared.disk, &self.shared.dir)?;
            self.state = state;
        }
        Ok(())
    }
}
