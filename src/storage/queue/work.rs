//! What is asked of a log, and what it tells.

use crate::storage::error::LogError;
use crate::storage::log::LogConfig;
use crate::storage::truncate::TruncateLeave;
use crate::types::record_batch::RecordBatch;
use crate::types::{FlushPolicy, Offset};

/// Something to be done with a log. `X` goes with an append and is dropped when it was written; `P` is told about producers.
#[derive(Debug)]
pub enum LogWork<X, P> {
    /// Append a batch that the leader has stamped.
    Append(RecordBatch, X),
    /// Append batches that came from a leader, as they are.
    AppendReplicated(Vec<RecordBatch>, X),
    /// Cut the log.
    Truncate {
        /// Its end from then on.
        to: Offset,
        /// What that may give up.
        leave: TruncateLeave,
        /// Told about the producers that are left.
        replay: P,
    },
    /// Empty the log.
    StartAt {
        /// Its start and end from then on.
        offset: Offset,
        /// What that may give up.
        leave: TruncateLeave,
        /// The producers there, opaque here: kept before anything is appended.
        producers: Vec<u8>,
        /// Told about them.
        replay: P,
    },
    /// Store a snapshot of the producers at this end offset, opaque here.
    Snapshot(Offset, Vec<u8>),
    /// Delete what retention says, below this high watermark.
    Retention(Offset),
    /// Delete the records before this offset, which are committed.
    DeleteRecords(Offset),
    /// Write down how far recovery can trust the log, and this high watermark.
    Checkpoint(Offset),
    /// Put batches of another replica in the place of what is damaged.
    Repair {
        /// From where.
        from: Offset,
        /// Up to where, exclusive.
        to: Offset,
        /// What fills that.
        batches: Vec<RecordBatch>,
    },
    /// Look through the segment that holds this offset. How often is for whoever asks to say: it reads all of it.
    Scrub(Offset),
    /// Note that the log is whole: an intact replica was compared with it, or it is the best there is.
    MarkVerified,
    /// Keep the log like that from now on, and sync it when that says.
    Reconfigure(LogConfig, FlushPolicy),
    /// Close the log, so that the next start reads no record data.
    Close {
        /// The end of what is committed.
        high_watermark: Offset,
        /// The producers at the log's end.
        producers: Vec<u8>,
    },
    /// Let go of the log as it is: its files are about to be deleted, or the process ends.
    Abandon,
}

/// What became of a log.
#[derive(Debug)]
pub enum LogNews<P> {
    /// Written up to this end offset.
    Written(Offset),
    /// Synced up to this end offset.
    Synced(Offset),
    /// A segment was closed.
    Rolled,
    /// Records below this offset are gone.
    LogStart(Offset),
    /// The log was cut or emptied.
    Truncated {
        /// Its first offset.
        log_start: Offset,
        /// Its end, written and synced.
        end: Offset,
        /// Who was told about the producers.
        replay: P,
    },
    /// The log was not cut: that would have given up more than was allowed, or lies within damage. It is as it was.
    NotTruncated(LogError),
    /// Batches from a leader were not appended, because they do not follow on the log or are damaged. It is as it was.
    NotReplicated(LogError),
    /// These ranges (start, end exclusive), and no others, are known to be damaged now. Comes before what led to it.
    Damage(Vec<(Offset, Offset)>),
    /// Batches of another replica are in the place of what was damaged, synced.
    Repaired,
    /// They are not: they do not fit there, or the disk had no room for a copy. The log is as it was.
    NotRepaired(LogError),
    /// The segment that holds the first offset was looked through; the next one begins at the second, or the log ends there.
    Scrubbed(Offset, Offset),
    /// The segment that holds this offset could not be looked through.
    NotScrubbed(Offset, LogError),
    /// The records before this offset could not be deleted.
    NotDeleted(Offset, LogError),
    /// For want of a descriptor appends wait until [`LogQueue::try_again`](super::LogQueue::try_again).
    PutOff(LogError),
    /// Nothing that matters could be done: worth a warning.
    Trouble(&'static str, LogError),
    /// A write or sync failed: nothing will be appended any more.
    Failed(LogError),
    /// The log is closed or let go. Nothing comes after this.
    Closed(Result<(), LogError>),
}
