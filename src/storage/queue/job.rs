//! What is done with a log, on whatever thread.

use std::ops::Range;

use crate::storage::beside::{SideDone, SideJob};
use crate::storage::producer_snapshots::Replay;
use crate::storage::sync::{SyncDone, SyncJob};
use crate::storage::truncate::TruncateLeave;
use crate::storage::{Appended, Log, LogError, LogReader, RetentionOutcome};
use crate::types::record_batch::RecordBatch;
use crate::types::{Mutant, Offset, TimestampMs};

/// Something to be run, and then handed to [`super::LogQueue::finish`].
#[derive(Debug)]
#[must_use = "the queue waits for it"]
pub enum Job<X, P> {
    /// One write.
    Append {
        /// The log.
        log: Box<Log>,
        /// What is written.
        group: Vec<RecordBatch>,
        /// What goes with each.
        tokens: Vec<X>,
        /// How many bytes that are.
        bytes: usize,
        /// Whether more than the page cache may be touched.
        may_block: bool,
        /// The time by the wall clock.
        wall: TimestampMs,
    },
    /// Work that may block.
    Lent {
        /// The log.
        log: Box<Log>,
        /// What is done.
        work: LentWork<X, P>,
        /// The time by the wall clock.
        wall: TimestampMs,
    },
    /// A sync, beside the appends.
    Sync(SyncJob),
    /// A checkpoint or a producer snapshot, beside the appends.
    Side(SideJob),
    /// A look through the segment that holds this offset, beside the appends.
    Scrub(LogReader, Offset),
}

/// What a log is lent for.
#[derive(Debug)]
pub enum LentWork<X, P> {
    /// A leader's batches.
    AppendReplicated(Vec<RecordBatch>, X),
    /// Cutting, or emptying.
    Truncate {
        /// The end from then on.
        to: Offset,
        /// What that may give up.
        leave: TruncateLeave,
        /// Told about the producers that are left.
        replay: P,
        /// Whether the log is emptied, and the producers that it begins with.
        anew: Option<Vec<u8>>,
    },
    /// Exchanging what is damaged.
    Repair {
        /// What part of the log.
        range: Range<Offset>,
        /// What fills it.
        batches: Vec<RecordBatch>,
    },
    /// Noting that the log is whole.
    MarkVerified,
    /// Retention below this high watermark.
    Retention(Offset),
    /// Deletion of the records before this offset.
    DeleteRecords(Offset),
    /// The clean end.
    Close {
        /// The end of what is committed.
        high_watermark: Offset,
        /// The producers at the end.
        producers: Vec<u8>,
    },
    /// The end without ceremony.
    Abandon,
}

/// A job that was done.
#[derive(Debug)]
#[must_use = "the queue does not know until it is told"]
pub enum Done<X, P> {
    /// The log comes back.
    Log {
        /// The log.
        log: Box<Log>,
        /// What came of it.
        outcome: Outcome<X, P>,
    },
    /// A sync.
    Sync(SyncDone),
    /// A side job.
    Side(SideDone),
    /// A scrub.
    Scrub {
        /// Who read.
        reader: LogReader,
        /// From where.
        from: Offset,
        /// Up to where the segment goes.
        result: Result<Offset, LogError>,
    },
    /// The log is closed.
    Closed(Result<(), LogError>),
}

/// What came of work with a log.
#[derive(Debug)]
pub enum Outcome<X, P> {
    /// Of a write.
    Appended {
        /// What came of it.
        result: Result<Appended, LogError>,
        /// What was written.
        group: Vec<RecordBatch>,
        /// What goes with each.
        tokens: Vec<X>,
    },
    /// Of a leader's batches.
    Replicated {
        /// What came of it.
        result: Result<Appended, LogError>,
        /// What was to be written.
        batches: Vec<RecordBatch>,
        /// What goes with it.
        token: X,
    },
    /// Of cutting.
    Truncated {
        /// What came of it.
        result: Result<(), LogError>,
        /// Who was told about the producers.
        replay: P,
    },
    /// Of exchanging what was damaged.
    Repaired(Result<(), LogError>),
    /// Of noting that the log is whole.
    Verified(Result<(), LogError>),
    /// Of retention.
    Retained(Result<RetentionOutcome, LogError>),
    /// Of a deletion up to this offset.
    Deleted(Offset, Result<RetentionOutcome, LogError>),
}

impl<X, P: Replay> Job<X, P> {
    /// Whether the log does not come back from it.
    #[must_use]
    pub fn is_the_last(&self) -> bool {
        matches!(self, Self::Lent { work: LentWork::Close { .. } | LentWork::Abandon, .. })
    }

    /// Does it. Blocks for as long as the disk takes.
    pub fn run(self) -> Done<X, P> {
        match self {
            Self::Append { mut log, group, tokens, wall, .. } => {
                let result = log.append(wall, &group);
                Done::Log { log, outcome: Outcome::Appended { result, group, tokens } }
            }
            Self::Lent { log, work, wall } => run_lent(log, work, wall),
            Self::Sync(job) => Done::Sync(job.run()),
            Self::Side(job) => Done::Side(job.run()),
            Self::Scrub(reader, from) => {
                let result = scrub(&reader, from);
                Done::Scrub { reader, from, result }
            }
        }
    }
}

/// Scrubs the segment that holds `from`, or the first one there is, and says where the next begins.
fn scrub(reader: &LogReader, from: Offset) -> Result<Offset, LogError> {
    match reader.scrub(from.max(reader.log_start())) {
        // Cut, or deleted, meanwhile: there is nothing there to look through.
        Err(LogError::OffsetOutOfRange { end, .. }) if from >= end => Ok(end),
        scrubbed => scrubbed.map(|scrubbed| scrubbed.next),
    }
}

fn run_lent<X, P: Replay>(mut log: Box<Log>, work: LentWork<X, P>, wall: TimestampMs) -> Done<X, P> {
    let outcome = match work {
        LentWork::AppendReplicated(batches, token) => {
            Outcome::Replicated { result: log.append_replicated(wall, &batches), batches, token }
        }
        LentWork::Truncate { to, leave, mut replay, anew } => {
            let cut = match anew {
                None => log.truncate_to(to, leave).map(drop),
                Some(producers) => log.truncate_fully_and_start_at(to, leave, Some(&producers)),
            };
            let result = cut.and_then(|()| log.replay_producers(&mut replay));
            Outcome::Truncated { result, replay }
        }
        LentWork::Repair { range, batches } => Outcome::Repaired(log.repair(range, &batches)),
        LentWork::MarkVerified => Outcome::Verified(log.mark_verified()),
        LentWork::Retention(high_watermark) => {
            let kept_to = log.producers_are_kept_to(high_watermark);
            let keep_from = if Mutant::RetainsWithoutASnapshot.is_on() { Offset::MAX } else { kept_to };
            Outcome::Retained(log.apply_retention(wall, high_watermark, keep_from))
        }
        LentWork::DeleteRecords(before)
            if log.producers_are_kept_to(before) < before && !Mutant::DeletesWithoutASnapshot.is_on() =>
        {
            Outcome::Deleted(before, Err(LogError::ProducersNotKept { before }))
        }
        LentWork::DeleteRecords(before) => Outcome::Deleted(before, log.delete_records_before(before)),
        LentWork::Close { high_watermark, producers } => {
            return Done::Closed(log.close_cleanly(high_watermark, &producers));
        }
        LentWork::Abandon => {
            drop(log);
            return Done::Closed(Ok(()));
        }
    };
    Done::Log { log, outcome }
}
