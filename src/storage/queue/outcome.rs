//! What becomes of the queue, and what is told, when a job was done.

use super::job::{Done, Outcome};
use super::{LogNews, LogQueue, LogWork, SyncWish, bytes_of};
use crate::storage::Appended;
use crate::storage::error::LogError;
use crate::storage::producer_snapshots::Replay;
use crate::storage::retention::RetentionOutcome;
use crate::types::Offset;

impl<X, P: Replay> LogQueue<X, P> {
    /// A job was done.
    pub fn finish(&mut self, done: Done<X, P>, news: &mut Vec<LogNews<P>>) {
        match done {
            Done::Sync(done) => {
                self.is_syncing = false;
                self.finished_sync = Some(done);
            }
            Done::Side(done) => self.finished_side = Some(done),
            Done::Log { log, outcome } => {
                self.log = Some(log);
                self.take_outcome(outcome, news);
            }
            Done::Scrub { reader, from, result } => {
                self.is_scrubbing = false;
                match result {
                    Ok(next) => {
                        news.push(LogNews::Damage(reader.damaged_ranges()));
                        news.push(LogNews::Scrubbed(from, next));
                    }
                    Err(error) => news.push(LogNews::NotScrubbed(from, error)),
                }
            }
            Done::Closed(result) => news.push(LogNews::Closed(result)),
        }
        self.take_in_sync(news);
    }

    fn take_outcome(&mut self, outcome: Outcome<X, P>, news: &mut Vec<LogNews<P>>) {
        match outcome {
            Outcome::Appended { result, mut group, mut tokens } => {
                if let Err(error @ LogError::NoDescriptor { .. }) = result {
                    let written = self.written_end();
                    let left = group.into_iter().zip(tokens).filter(|(batch, _)| batch.header.base_offset >= written);
                    self.put_back(left.map(|(batch, token)| LogWork::Append(batch, token)).collect(), error, news);
                    return;
                }
                group.clear();
                tokens.clear();
                (self.group, self.tokens) = (group, tokens);
                self.take_append(result, news);
            }
            Outcome::Replicated { result, mut batches, token } => match result {
                Err(error @ LogError::NoDescriptor { .. }) => {
                    let written = self.written_end();
                    batches.retain(|batch| batch.header.base_offset >= written);
                    self.put_back(vec![LogWork::AppendReplicated(batches, token)], error, news);
                }
                Err(
                    error @ (LogError::NotContiguous { .. }
                    | LogError::EpochWentBack { .. }
                    | LogError::InvalidBatch { .. }),
                ) => news.push(LogNews::NotReplicated(error)),
                result => self.take_append(result, news),
            },
            Outcome::Truncated { result: Ok(()), replay } => {
                let Some(log) = self.log.as_ref() else { return };
                let (log_start, end) = (log.log_start(), log.written_end());
                let damaged = log.reader().damaged_ranges();
                if !damaged.is_empty() {
                    news.push(LogNews::Damage(damaged));
                }
                news.push(LogNews::Truncated { log_start, end, replay });
            }
            Outcome::Truncated { result: Err(error), .. } => match error {
                LogError::BelowHighWatermark { .. } | LogError::OffsetOutOfRange { .. } => {
                    news.push(LogNews::NotTruncated(error));
                }
                LogError::Damaged { .. } => {
                    news.extend(self.log.as_ref().map(|log| LogNews::Damage(log.reader().damaged_ranges())));
                    news.push(LogNews::NotTruncated(error));
                }
                error => self.fail(error, news),
            },
            Outcome::Repaired(result) => self.take_repair(result, news),
            Outcome::Verified(result) => {
                news.extend(
                    result
                        .err()
                        .map(|error| LogNews::Trouble("that the log is whole could not be written down", error)),
                );
            }
            Outcome::Retained(Ok(gone)) => self.take_front_gone(gone, news),
            Outcome::Retained(Err(error)) => news.push(LogNews::Trouble("retention could not be applied", error)),
            Outcome::Deleted(_, Ok(gone)) => {
                // What lay past the durable end was synced for it.
                news.extend(self.log.as_ref().map(|log| LogNews::Synced(log.durable_end())));
                self.take_front_gone(gone, news);
            }
            Outcome::Deleted(before, Err(error)) => {
                news.push(LogNews::NotDeleted(before, error));
                // A failed sync is final for the log, whatever it was needed for.
                if let Some(Err(failure)) = self.log.as_ref().map(|log| log.check_alive()) {
                    self.fail(failure, news);
                }
            }
        }
    }

    fn take_repair(&mut self, result: Result<(), LogError>, news: &mut Vec<LogNews<P>>) {
        let Some(log) = self.log.as_ref() else { return };
        // What lay past the durable end was synced for it.
        news.push(LogNews::Synced(log.durable_end()));
        news.push(LogNews::Damage(log.reader().damaged_ranges()));
        match (result, log.check_alive()) {
            (_, Err(failure)) => self.fail(failure, news),
            (Ok(()), Ok(())) => news.push(LogNews::Repaired),
            (Err(error), Ok(())) => news.push(LogNews::NotRepaired(error)),
        }
    }

    fn take_append(&mut self, result: Result<Appended, LogError>, news: &mut Vec<LogNews<P>>) {
        match result {
            Ok(appended) => {
                news.push(LogNews::Written(appended.end));
                if appended.rolled {
                    self.take_roll(news);
                }
            }
            Err(error) => self.fail(error, news),
        }
    }

    fn take_front_gone(&mut self, gone: RetentionOutcome, news: &mut Vec<LogNews<P>>) {
        news.push(LogNews::LogStart(gone.log_start));
        if gone.rolled {
            self.take_roll(news);
        }
    }

    fn take_roll(&mut self, news: &mut Vec<LogNews<P>>) {
        // The closed segment is synced whatever the policy, so that recovery need not read it again.
        self.sync_wish = SyncWish::Now;
        news.push(LogNews::Rolled);
    }

    fn written_end(&self) -> Offset {
        self.log.as_ref().map_or(Offset::ZERO, |log| log.written_end())
    }

    /// Puts appends back to the front of the queue until there may be a descriptor for them.
    fn put_back(&mut self, appends: Vec<LogWork<X, P>>, error: LogError, news: &mut Vec<LogNews<P>>) {
        for append in appends.into_iter().rev() {
            self.queued_bytes += bytes_of(&append);
            self.work.push_front(append);
        }
        // A segment that was closed on the way is synced whatever the policy.
        self.sync_wish = SyncWish::Now;
        self.is_put_off = true;
        news.push(LogNews::PutOff(error));
    }

    pub(super) fn fail(&mut self, error: LogError, news: &mut Vec<LogNews<P>>) {
        if !self.has_failed {
            self.has_failed = true;
            news.push(LogNews::Failed(error));
        }
    }
}
