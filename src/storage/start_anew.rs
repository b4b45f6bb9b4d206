//! Going on at a later offset: what a log does when all that it has lies before the place where it is to go on.
//!
//! ```text
//!    log start          written end                at
//!   ─────┼───────────────────┼─────────────────────┼────►
//!        └──── given up ─────┘   (never had here)  │ the next record
//! ```
//!
//! The new start is written down before a file goes, as with a deletion at the front: a crash between the two leaves files to
//! remove at the next open.

use super::error::LogError;
use super::log::{Log, Tail};
use super::partition_state::{PartitionState, RecoveryPoint};
use crate::types::Offset;

impl Log {
    /// Gives up all records, and goes on at `at`, where the next one is appended. When this returns, that is durable.
    /// An `at` before the written end does nothing: what lies there is deleted with [`Log::advance_log_start`].
    ///
    /// # Errors
    /// [`LogError::SyncOutstanding`] while a side job is in flight; the disk's when the new start cannot be written down.
    pub fn start_anew_at(&mut self, at: Offset) -> Result<(), LogError> {
        self.check_alive()?;
        if at < self.written_end() || (at == self.written_end() && at == self.log_start()) {
            return Ok(());
        }
        let place = RecoveryPoint { offset: at, segment: at, position: 0 };
        let state = PartitionState {
            log_start: at,
            recovery: place,
            high_watermark: self.state.high_watermark.max(at),
            damaged: Vec::new(),
            clean: None,
            ..self.state.clone()
        };
        // What came before says nothing about what comes from elsewhere: its epochs may even be lower.
        self.epochs.truncate_to(Offset::ZERO);
        self.save_state(state)?;
        self.synced = place;
        self.tail = Tail::Sealed;
        self.sealed_unsynced.clear();
        let segments = {
            let mut view = self.shared.write();
            (view.log_start, view.written_end) = (at, at);
            view.damaged.clear();
            view.generation += 1;
            self.truncated_at_generation = view.generation;
            std::mem::take(&mut view.segments)
        };
        for segment in &segments {
            if let Err(error) = self.shared.remove_files(segment.base) {
                // The next open finds it below the log's start and removes it then.
                tracing::warn!(partition = %self.identity, base = %segment.base, %error, "cannot delete a segment's files");
            }
        }
        Ok(self.drop_snapshots_after(Offset::ZERO)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::disk::{Disk, VirtualDisk};
    use super::super::file_cache::FileCache;
    use super::super::{LogConfig, LogError, PartitionIdentity};
    use super::*;
    use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch};
    use crate::types::{ClusterId, LeaderEpoch, PartitionIndex, TimestampMs, TopicConfig, TopicId, TopicName};

    const DIR: &str = "/log";

    fn identity() -> PartitionIdentity {
        PartitionIdentity {
            cluster_id: ClusterId(uuid::Uuid::nil()),
            topic: TopicName::new("rides").unwrap(),
            topic_id: TopicId(uuid::Uuid::nil()),
            partition: PartitionIndex(0),
        }
    }

    fn open(disk: &Arc<VirtualDisk>) -> Result<Log, LogError> {
        let (disk, dir) = (Arc::clone(disk) as Arc<dyn Disk>, Path::new(DIR));
        let config = LogConfig { segment_bytes: 200, ..LogConfig::from(&TopicConfig::default()) };
        let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
        if disk.exists(dir)? {
            Ok(Log::open(disk, files, dir, &identity(), config, &mut ())?.0)
        } else {
            Log::create(disk, files, dir, &identity(), config)
        }
    }

    fn append(log: &mut Log, epoch: u32, count: usize) -> Result<(), LogError> {
        for _ in 0..count {
            let mut builder = BatchBuilder::new(Compression::None, 64);
            builder.append(TimestampMs(1), None, Some(&[7; 40]), &[]);
            let batch = RecordBatch::split_from(&mut builder.build().unwrap()).unwrap();
            log.append(TimestampMs(1), &[batch.stamped(log.written_end(), LeaderEpoch(epoch), None)])?;
        }
        while let Some(job) = log.begin_sync() {
            log.finish_sync(job.run())?;
        }
        Ok(())
    }

    #[test]
    fn what_lies_before_is_gone_and_the_next_record_lies_at_the_new_start() {
        let disk = Arc::new(VirtualDisk::new(1));
        let mut log = open(&disk).unwrap();
        append(&mut log, 7, 5).unwrap();
        log.start_anew_at(Offset(3)).unwrap();
        assert_eq!((log.log_start(), log.written_end()), (Offset(0), Offset(5)), "that is no new start");
        log.start_anew_at(Offset(100)).unwrap();
        assert_eq!((log.log_start(), log.written_end(), log.segment_count()), (Offset(100), Offset(100), 0));
        append(&mut log, 2, 3).unwrap();
        drop(log);
        disk.power_loss_keeping_nothing();
        let log = open(&disk).unwrap();
        assert_eq!((log.log_start(), log.written_end()), (Offset(100), Offset(103)));
        assert_eq!(log.leader_epochs().entries(), [(LeaderEpoch(2), Offset(100))]);
    }

    #[test]
    fn a_power_loss_at_any_operation_leaves_the_old_log_or_the_new_start() {
        for operation in 1..200 {
            let disk = Arc::new(VirtualDisk::new(operation));
            let mut log = open(&disk).unwrap();
            append(&mut log, 7, 5).unwrap();
            disk.crash_after_operations(operation);
            let started = log.start_anew_at(Offset(100));
            let appended = if started.is_ok() { append(&mut log, 8, 2) } else { Ok(()) };
            let done = started.is_ok() && appended.is_ok();
            drop(log);
            disk.power_loss(&mut fastrand::Rng::with_seed(operation));
            let mut log = open(&disk).unwrap();
            let found = (log.log_start(), log.written_end());
            if started.is_ok() {
                assert!(
                    found.0 == Offset(100) && found.1 >= Offset(if done { 102 } else { 100 }),
                    "{operation}: {found:?}"
                );
            } else {
                assert!(
                    [(Offset(0), Offset(5)), (Offset(100), Offset(100))].contains(&found),
                    "{operation}: {found:?}"
                );
            }
            log.start_anew_at(Offset(200)).unwrap();
            append(&mut log, 9, 2).unwrap();
            assert_eq!(
                (log.log_start(), log.written_end(), log.segment_count()),
                (Offset(200), Offset(202), 2),
                "no file of before is left"
            );
            if done {
                return;
            }
        }
        panic!("never done");
    }
}
