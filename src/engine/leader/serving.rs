//! What followers are given, and what their fetches say.

use super::{Command, LeaderEngine, Output, ReadRange, ReplicaFetchEvent};
use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaVerdict};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{MonoTime, Mutant, NodeId, Offset};

/// A follower's fetch that waits for news.
#[derive(Debug)]
pub(super) struct ParkedReplica<R> {
    fetch: ReplicaFetch,
    deadline: MonoTime,
    reply: R,
}

impl<R> LeaderEngine<R> {
    /// A follower wants more, and says what it has.
    pub fn on_replica_fetch(&mut self, now: MonoTime, event: ReplicaFetchEvent<R>, out: &mut Output<R>) {
        let ReplicaFetchEvent { fetch, wait_until, reply } = event;
        if let Err(error) = self.check_follower(&fetch) {
            out.0.push(Command::ReplicaFetched { reply, result: Err(error) });
            return;
        }
        // A newer fetch overtakes a parked one: with it comes what was synced meanwhile.
        self.release_parked(now, fetch.replica, out);
        let verdict = self.compare(&fetch);
        if verdict != ReplicaVerdict::Continues {
            out.0.push(Command::ReplicaFetched { reply, result: Ok((verdict, self.leader_state(now))) });
            return;
        }
        self.followers.note(now, &fetch, self.cursors.written_end(), self.cursors.high_watermark(), self.config.flush);
        self.advance(now, out);
        self.reconsider(now, out);
        if fetch.lacks_producers {
            let at = fetch.position;
            let verdict = ReplicaVerdict::Producers { at, producers: self.producers.as_of(at).to_snapshot() };
            out.0.push(Command::ReplicaFetched { reply, result: Ok((verdict, self.leader_state(now))) });
        } else if let Some(range) = self.repair_for(&fetch) {
            out.0.push(Command::ReadForRepair { reply, range, state: self.leader_state(now) });
        } else if fetch.position < self.cursors.written_end() {
            out.0.push(self.read_for_follower(now, &fetch, reply));
        } else if let Some(deadline) = wait_until.filter(|_| !self.has_news_for(&fetch)) {
            self.parked_replicas.push(ParkedReplica { fetch, deadline, reply });
        } else {
            out.0.push(self.nothing_new(now, reply));
        }
    }

    fn check_follower(&self, fetch: &ReplicaFetch) -> Result<(), ApiError> {
        self.check_epoch(Some(fetch.leader_epoch).filter(|_| !Mutant::CountsFetchesOfOtherEpochs.is_on()))?;
        if let Some(cause) = &self.failed {
            return Err(cause.clone());
        }
        let replica = fetch.replica;
        match self.leadership.epoch_of(replica) {
            None => {
                let text = format!(
                    "broker {replica} holds no replica of this partition, as far as is known here: refresh the metadata"
                );
                Err(ApiError::new(ErrorCode::NotLeader, text))
            }
            Some(known) if known != fetch.broker_epoch && !Mutant::CountsFetchesOfOldRegistrations.is_on() => {
                let text = format!(
                    "broker {replica} fetches under registration {}, known here is {known}: refresh the metadata",
                    fetch.broker_epoch
                );
                Err(ApiError::new(ErrorCode::UnknownLeaderEpoch, text))
            }
            Some(_) if self.followers.is_outdated(fetch) => {
                let text = format!("a newer fetch of broker {replica} has overtaken this one");
                Err(ApiError::new(ErrorCode::UnknownLeaderEpoch, text))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether the follower's log is the beginning of this one: they are the same up to `position` if they hold the same
    /// epoch before it.
    fn compare(&self, fetch: &ReplicaFetch) -> ReplicaVerdict {
        let (start, end) = (self.cursors.log_start(), self.cursors.written_end());
        if fetch.position < start {
            return self.starts_at(start);
        }
        let Some(last) = fetch.last_epoch else {
            let is_beyond = fetch.position > end;
            return if is_beyond { self.starts_at(start) } else { ReplicaVerdict::Continues };
        };
        match self.epochs.end_offset_for(last, end) {
            Some((epoch, end)) if (epoch == last || Mutant::CountsAnyHistory.is_on()) && fetch.position <= end => {
                ReplicaVerdict::Continues
            }
            // All there is here is newer than all there is there.
            None => self.starts_at(start),
            differs => ReplicaVerdict::Diverged(differs),
        }
    }

    fn starts_at(&self, offset: Offset) -> ReplicaVerdict {
        let known = if Mutant::StartsAnewWithoutProducers.is_on() { Offset::ZERO } else { offset };
        ReplicaVerdict::StartsAt { offset, producers: self.producers.as_of(known).to_snapshot() }
    }

    fn leader_state(&self, now: MonoTime) -> LeaderState {
        LeaderState {
            leader_epoch: self.leadership.epoch,
            log_start: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            written_end: self.cursors.written_end(),
            knows_all: self.knows_all(now),
        }
    }

    /// Followers get what is written, before it is synced here: the syncs of all replicas overlap.
    fn read_for_follower(&self, now: MonoTime, fetch: &ReplicaFetch, reply: R) -> Command<R> {
        let upper_exclusive = self.cursors.written_end();
        let range = ReadRange { from: fetch.position, upper_exclusive, max_bytes: fetch.max_bytes };
        Command::ReadForFollower { reply, range, state: self.leader_state(now) }
    }

    /// What to read for a follower's damage. What this log does not hold any more the follower will drop, too, when it is told where
    /// this log starts. Nothing past the follower's own end: that it is the beginning of this log was found up to there.
    fn repair_for(&self, fetch: &ReplicaFetch) -> Option<ReadRange> {
        let (from, to) = fetch.repair?;
        let from = from.max(self.cursors.log_start());
        let upper_exclusive = fetch.position.min(self.cursors.written_end());
        let is_here = from < to.min(upper_exclusive);
        is_here.then_some(ReadRange { from, upper_exclusive, max_bytes: fetch.max_bytes })
    }

    fn nothing_new(&self, now: MonoTime, reply: R) -> Command<R> {
        Command::ReplicaFetched { reply, result: Ok((ReplicaVerdict::Continues, self.leader_state(now))) }
    }

    fn has_news_for(&self, fetch: &ReplicaFetch) -> bool {
        let moved = fetch.high_watermark < self.cursors.high_watermark() && !Mutant::WaitsForRecordsOnly.is_on();
        fetch.position < self.cursors.written_end() || moved
    }

    fn release_parked(&mut self, now: MonoTime, replica: NodeId, out: &mut Output<R>) {
        if let Some(at) = self.parked_replicas.iter().position(|parked| parked.fetch.replica == replica) {
            let parked = self.parked_replicas.swap_remove(at);
            out.0.push(self.nothing_new(now, parked.reply));
        }
    }

    /// Answers the parked fetches for which there is news: records, or a higher watermark.
    pub(super) fn answer_followers(&mut self, now: MonoTime, out: &mut Output<R>) {
        let mut at = 0;
        while let Some(parked) = self.parked_replicas.get(at) {
            if !self.has_news_for(&parked.fetch) {
                at += 1;
                continue;
            }
            let ParkedReplica { fetch, reply, .. } = self.parked_replicas.swap_remove(at);
            let has_records = fetch.position < self.cursors.written_end();
            out.0.push(if has_records {
                self.read_for_follower(now, &fetch, reply)
            } else {
                self.nothing_new(now, reply)
            });
        }
    }

    pub(super) fn expire_followers(&mut self, now: MonoTime, out: &mut Output<R>) {
        while let Some(at) = self.parked_replicas.iter().position(|parked| parked.deadline <= now) {
            let parked = self.parked_replicas.swap_remove(at);
            out.0.push(self.nothing_new(now, parked.reply));
        }
    }

    pub(super) fn refuse_followers(&mut self, cause: &ApiError, out: &mut Output<R>) {
        for parked in self.parked_replicas.drain(..) {
            out.0.push(Command::ReplicaFetched { reply: parked.reply, result: Err(cause.clone()) });
        }
    }

    pub(super) fn next_follower_deadline(&self) -> Option<MonoTime> {
        self.parked_replicas.iter().map(|parked| parked.deadline).min()
    }

    /// Where the current epoch starts in the log.
    #[must_use]
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }
}

#[cfg(test)]
#[path = "serving_tests.rs"]
mod tests;
