//! The work in front of one log, and who may do what when: the only way in which actors and simulated brokers write to it.
//!
//! ```text
//!   push(work) ─► queue ─► next() ─► Job ── run() here or on another thread ──► Done ─► finish() ─► LogNews
//!                            │ Append, Work   the log goes with it and comes back
//!                            └ Sync, Side, Scrub     beside whatever else is done
//! ```
//!
//! Invariants: work is done in the order of its arrival; while the log is with a job, work waits; at most one sync, one side job
//! and one scrub are under way; after a failed write or sync nothing is appended any more. Without actors, threads and clocks: `next` says
//! what can be done now, its caller says where.

mod job;
mod outcome;
#[cfg(test)]
mod tests;
mod work;

use std::collections::VecDeque;

use super::beside::SideDone;
use super::log::Log;
use super::producer_snapshots::Replay;
use super::sync::SyncDone;
use crate::types::record_batch::RecordBatch;
use crate::types::{FlushPolicy, Offset, TimestampMs};

use job::LentWork;
pub use job::{Done, Job};
pub use work::{LogNews, LogWork};

/// When to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncWish {
    /// When the policy says so.
    ByPolicy,
    /// Now.
    Now,
}

/// See the module page.
#[derive(Debug)]
pub struct LogQueue<X, P> {
    log: Option<Box<Log>>,
    work: VecDeque<LogWork<X, P>>,
    flush: FlushPolicy,
    group_bytes: usize,
    queued_bytes: usize,
    /// Emptied and kept, so that a steady stream of appends allocates nothing.
    group: Vec<RecordBatch>,
    tokens: Vec<X>,
    /// The bytes of the group, which count as queued until they are with a job.
    group_size: usize,
    sync_wish: SyncWish,
    is_syncing: bool,
    finished_sync: Option<SyncDone>,
    checkpoint: Option<Offset>,
    snapshots: VecDeque<(Offset, Vec<u8>)>,
    is_beside: bool,
    finished_side: Option<SideDone>,
    scrubs: VecDeque<Offset>,
    is_scrubbing: bool,
    is_put_off: bool,
    has_failed: bool,
}

impl<X, P: Replay> LogQueue<X, P> {
    /// An empty queue before `log`. One write takes up to `group_bytes` of what waits.
    #[must_use]
    pub fn new(log: Log, flush: FlushPolicy, group_bytes: usize) -> Self {
        Self {
            log: Some(Box::new(log)),
            work: VecDeque::new(),
            flush,
            group_bytes,
            queued_bytes: 0,
            group: Vec::new(),
            tokens: Vec::new(),
            group_size: 0,
            sync_wish: SyncWish::ByPolicy,
            is_syncing: false,
            finished_sync: None,
            checkpoint: None,
            snapshots: VecDeque::new(),
            is_beside: false,
            finished_side: None,
            scrubs: VecDeque::new(),
            is_scrubbing: false,
            is_put_off: false,
            has_failed: false,
        }
    }

    /// Adds work behind what there is.
    pub fn push(&mut self, work: LogWork<X, P>) {
        self.queued_bytes += bytes_of(&work);
        self.work.push_back(work);
    }

    /// Bytes of appends that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether a whole write waits, and can be made.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log.is_some() && self.queued_bytes >= self.group_bytes
    }

    /// Syncs at the next opportunity, whatever the policy.
    pub fn want_sync(&mut self) {
        self.sync_wish = SyncWish::Now;
    }

    /// Whether something is written that no sync has covered. A log that is with a job may have such.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.durable_end() < log.written_end())
    }

    /// Appends that were put off may be tried again.
    pub fn try_again(&mut self) {
        self.is_put_off = false;
    }

    /// The log, while no job has it.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.log.as_deref()
    }

    /// The next thing that can be done now, if there is one. Ask again until there is none.
    pub fn next(&mut self, wall: TimestampMs, news: &mut Vec<LogNews<P>>) -> Option<Job<X, P>> {
        self.take_in_sync(news);
        if let Some(job) = self.next_beside(news).or_else(|| self.next_scrub()) {
            return Some(job);
        }
        while self.log.is_some() && !self.is_put_off {
            if !self.group.is_empty() {
                return self.next_append(wall);
            }
            match self.work.front() {
                Some(LogWork::Append(..) | LogWork::AppendReplicated(..)) if self.has_failed => {
                    self.queued_bytes -= self.work.pop_front().map_or(0, |work| bytes_of(&work));
                }
                Some(LogWork::Append(..)) => return self.next_append(wall),
                Some(LogWork::Reconfigure(..)) => {
                    if let (Some(log), Some(LogWork::Reconfigure(config, flush))) =
                        (self.log.as_mut(), self.work.pop_front())
                    {
                        log.set_config(config);
                        self.flush = flush;
                    }
                }
                Some(LogWork::Checkpoint(_) | LogWork::Snapshot(..) | LogWork::Scrub(_)) => {
                    match self.work.pop_front() {
                        Some(LogWork::Checkpoint(high_watermark)) => self.checkpoint = Some(high_watermark),
                        Some(LogWork::Snapshot(at, payload)) => self.snapshots.push_back((at, payload)),
                        Some(LogWork::Scrub(from)) => self.scrubs.push_back(from),
                        _ => {}
                    }
                    if let Some(job) = self.next_beside(news).or_else(|| self.next_scrub()) {
                        return Some(job);
                    }
                }
                Some(work) if !self.must_wait(work) => return self.lend(wall),
                Some(_) | None => break,
            }
        }
        self.next_sync()
    }

    /// Whether work that is no append cannot be done yet.
    fn must_wait(&self, work: &LogWork<X, P>) -> bool {
        // What writes the small files itself waits for the job that does.
        // The first batch of an empty log may do so, too.
        let is_plain_append = matches!(work, LogWork::AppendReplicated(..)) && !self.is_empty();
        let waits_for_side = self.is_beside && !is_plain_append;
        let waits_for_sync = match work {
            // A log is closed, and its segments are exchanged, only when no sync of it is under way.
            LogWork::Close { .. } | LogWork::Abandon | LogWork::Repair { .. } => true,
            // One that has to sync for itself waits for the sync under way, too.
            LogWork::DeleteRecords(before) => self.is_ahead_of_disk(*before),
            _ => false,
        };
        waits_for_side || (waits_for_sync && self.is_syncing)
    }

    fn is_empty(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.log_start() == log.written_end())
    }

    fn is_ahead_of_disk(&self, offset: Offset) -> bool {
        self.log.as_ref().is_some_and(|log| offset > log.durable_end())
    }

    fn take_in_sync(&mut self, news: &mut Vec<LogNews<P>>) {
        let Some(log) = self.log.as_mut() else { return };
        let Some(done) = self.finished_sync.take() else { return };
        if done.closed_a_segment() {
            self.checkpoint.get_or_insert(log.saved_high_watermark());
        }
        match log.note_synced(done) {
            Ok(end) => news.push(LogNews::Synced(end)),
            Err(error) => self.fail(error, news),
        }
    }

    fn next_beside(&mut self, news: &mut Vec<LogNews<P>>) -> Option<Job<X, P>> {
        let log = self.log.as_mut()?;
        if let Some(done) = self.finished_side.take() {
            self.is_beside = false;
            if let Err(error) = log.finish_side(done) {
                news.push(LogNews::Trouble(
                    "a checkpoint or a producer snapshot could not be written, going on",
                    error,
                ));
            }
        }
        if self.is_beside {
            return None;
        }
        let snapshot = self.snapshots.pop_front().and_then(|(at, payload)| log.begin_producer_snapshot(at, payload));
        let job = snapshot.or_else(|| self.checkpoint.take().and_then(|watermark| log.begin_checkpoint(watermark)))?;
        self.is_beside = true;
        Some(Job::Side(job))
    }

    fn next_scrub(&mut self) -> Option<Job<X, P>> {
        let log = self.log.as_ref().filter(|_| !self.is_scrubbing)?;
        let from = self.scrubs.pop_front()?;
        self.is_scrubbing = true;
        Some(Job::Scrub(log.reader(), from))
    }

    /// One write of what waits at the front of the queue.
    fn next_append(&mut self, wall: TimestampMs) -> Option<Job<X, P>> {
        if self.group.is_empty() {
            self.gather();
        }
        let bytes = self.group_size;
        let may_block = self.log.as_ref()?.append_may_block(wall, bytes);
        // Before the log goes away for long: under a steady load it might never be here when the queue is empty.
        if may_block && let Some(sync) = self.next_sync() {
            return Some(sync);
        }
        self.queued_bytes -= bytes;
        let (group, tokens) = (std::mem::take(&mut self.group), std::mem::take(&mut self.tokens));
        Some(Job::Append { log: self.log.take()?, group, tokens, bytes, may_block, wall })
    }

    /// Takes appends from the front of the queue into the group, up to its limit.
    fn gather(&mut self) {
        self.group_size = 0;
        while self.group_size < self.group_bytes
            && let Some(LogWork::Append(..)) = self.work.front()
            && let Some(LogWork::Append(batch, token)) = self.work.pop_front()
        {
            self.group_size += batch.total_bytes();
            self.group.push(batch);
            self.tokens.push(token);
        }
    }

    /// Lends the log for work that may block.
    fn lend(&mut self, wall: TimestampMs) -> Option<Job<X, P>> {
        let syncs_itself = match self.work.front()? {
            LogWork::Close { .. } | LogWork::Abandon | LogWork::Repair { .. } => true,
            LogWork::DeleteRecords(before) => self.is_ahead_of_disk(*before),
            _ => false,
        };
        if !syncs_itself && let Some(sync) = self.next_sync() {
            return Some(sync);
        }
        let work = self.work.pop_front()?;
        self.queued_bytes -= bytes_of(&work);
        let work = match work {
            LogWork::AppendReplicated(batches, token) => LentWork::AppendReplicated(batches, token),
            LogWork::Truncate { to, leave, replay } => LentWork::Truncate { to, leave, replay, anew: None },
            LogWork::StartAt { offset, leave, producers, replay } => {
                LentWork::Truncate { to: offset, leave, replay, anew: Some(producers) }
            }
            LogWork::Repair { from, to, batches } => LentWork::Repair { range: from..to, batches },
            LogWork::MarkVerified => LentWork::MarkVerified,
            LogWork::Retention(high_watermark) => LentWork::Retention(high_watermark),
            LogWork::DeleteRecords(before) => LentWork::DeleteRecords(before),
            LogWork::Close { high_watermark, producers } => LentWork::Close { high_watermark, producers },
            LogWork::Abandon => LentWork::Abandon,
            LogWork::Append(..)
            | LogWork::Reconfigure(..)
            | LogWork::Checkpoint(_)
            | LogWork::Snapshot(..)
            | LogWork::Scrub(_) => {
                return None;
            }
        };
        Some(Job::Lent { log: self.log.take()?, work, wall })
    }

    fn next_sync(&mut self) -> Option<Job<X, P>> {
        let is_due = self.sync_wish == SyncWish::Now || self.flush == FlushPolicy::Always;
        if self.is_syncing || self.has_failed || !is_due {
            return None;
        }
        let job = self.log.as_mut()?.begin_sync()?;
        self.is_syncing = true;
        self.sync_wish = SyncWish::ByPolicy;
        Some(Job::Sync(job))
    }
}

fn bytes_of<X, P>(work: &LogWork<X, P>) -> usize {
    match work {
        LogWork::Append(batch, _) => batch.total_bytes(),
        LogWork::AppendReplicated(batches, _) | LogWork::Repair { batches, .. } => {
            batches.iter().map(RecordBatch::total_bytes).sum()
        }
        _ => 0,
    }
}
