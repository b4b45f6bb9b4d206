//! What consumers read from a follower: all that it knows to be committed, and no error for what it does not know yet.
//!
//! An offset beyond this replica's watermark may be one that its leader has committed a moment ago. It is waited for, and is out of
//! range only when the leader, asked after the consumer asked, has none such (KIP-392 answers at once that it does not know).

use super::{Command, FollowerEngine, Output};
use crate::engine::leader::{FetchEvent, ReadRange};
use crate::engine::waiters::{OwnerId, Waiter};
use crate::protocol::messages::FetchedPartition;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{MonoTime, Mutant, Offset};

#[derive(Debug)]
pub(super) struct ParkedFetch<R> {
    offset: Offset,
    max_bytes: usize,
    /// The newest fetch when it came: what the leader answers to a later one it knew after this was asked.
    asked_after: u64,
    reply: R,
}

impl<R> FollowerEngine<R> {
    /// A consumer wants to read.
    pub fn on_fetch(&mut self, now: MonoTime, event: FetchEvent<R>, out: &mut Output<R>) {
        let FetchEvent { offset, max_bytes, leader_epoch, wait_until, owner, reply } = event;
        let current = self.following.leader_epoch;
        let refusal = match leader_epoch {
            Some(given) if given < current => Some((ErrorCode::FencedLeaderEpoch, "is over")),
            Some(given) if given > current => Some((ErrorCode::UnknownLeaderEpoch, "is not known here yet")),
            _ => None,
        };
        if let Some((code, what)) = refusal {
            let text = format!(
                "leader epoch {} {what}, here it is {current}: refresh the metadata",
                leader_epoch.unwrap_or_default()
            );
            out.0.push(Command::Fetched { reply, result: Err(ApiError::new(code, text)) });
        } else if let Err(error) = self.check_start(offset) {
            out.0.push(Command::Fetched { reply, result: Err(error) });
        } else if offset < self.cursors.high_watermark() {
            out.0.push(self.read(ParkedFetch { offset, max_bytes, asked_after: 0, reply }));
        } else if let Some(deadline) = wait_until {
            let payload = ParkedFetch { offset, max_bytes, asked_after: self.newest_fetch, reply };
            self.parked.insert(Waiter { until: offset.next(), deadline, owner, payload });
            if self.leader.is_some_and(|(_, leader)| offset > leader.written_end) {
                self.fetch(now, false, out);
            }
        } else {
            out.0.push(Command::Fetched { reply, result: Ok(self.fetch_state()) });
        }
    }

    fn check_start(&self, offset: Offset) -> Result<(), ApiError> {
        let start = self.cursors.log_start();
        let end = if Mutant::RefusesBeyondItsWatermark.is_on() { self.cursors.written_end() } else { Offset::MAX };
        if (start..=end).contains(&offset) {
            return Ok(());
        }
        let text = format!("offset {offset} lies before the partition's first record, {start}: seek to it");
        Err(ApiError::new(ErrorCode::OffsetOutOfRange, text))
    }

    fn read(&self, fetch: ParkedFetch<R>) -> Command<R> {
        let upper_exclusive = self.cursors.high_watermark();
        let range = ReadRange { from: fetch.offset, upper_exclusive, max_bytes: fetch.max_bytes };
        Command::Read { reply: fetch.reply, range, state: self.fetch_state() }
    }

    fn fetch_state(&self) -> FetchedPartition {
        FetchedPartition {
            log_start_offset: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            last_stable_offset: self.cursors.high_watermark(),
        }
    }

    pub(super) fn answer_parked(&mut self, out: &mut Output<R>) {
        while let Some(waiter) = self.parked.pop_reached(self.cursors.high_watermark()) {
            out.0.push(self.read(waiter.payload));
        }
    }

    pub(super) fn answer_below(&mut self, start: Offset, out: &mut Output<R>) {
        for waiter in self.parked.take_where(|waiter| waiter.payload.offset < start) {
            let result = self.check_start(waiter.payload.offset).map(|()| self.fetch_state());
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result });
        }
    }

    /// Refuses what the leader, which knows how much is committed, does not have.
    pub(super) fn refuse_beyond(&mut self, out: &mut Output<R>) {
        let Some((number, leader)) = self.leader else { return };
        if self.parked.is_empty() || !(leader.knows_all || Mutant::BelievesAnyLeader.is_on()) {
            return;
        }
        let is_beyond = |fetch: &ParkedFetch<R>| fetch.offset > leader.written_end && fetch.asked_after < number;
        for waiter in self.parked.take_where(|waiter| is_beyond(&waiter.payload)) {
            let text = format!(
                "offset {} is outside the partition, whose leader holds {} to {} (exclusive): seek to one of these",
                waiter.payload.offset, leader.log_start, leader.written_end
            );
            let result = Err(ApiError::new(ErrorCode::OffsetOutOfRange, text));
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result });
        }
    }

    /// Whoever has waited long enough is told that there is nothing yet.
    pub(super) fn expire_readers(&mut self, now: MonoTime, out: &mut Output<R>) {
        let state = self.fetch_state();
        for waiter in self.parked.take_expired(now) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Ok(state) });
        }
    }

    pub(super) fn refuse_readers(&mut self, cause: &ApiError, out: &mut Output<R>) {
        for waiter in self.parked.take_where(|_| true) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Err(cause.clone()) });
        }
    }

    /// Takes back parked fetches of `owner` that `matches`.
    pub fn on_cancel_fetch(&mut self, owner: OwnerId, mut matches: impl FnMut(&R) -> bool) {
        self.parked.take_where(|waiter| waiter.owner == owner && matches(&waiter.payload.reply));
    }
}
