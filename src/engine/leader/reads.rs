//! What consumers read, and the offsets that they ask for.
//!
//! A new leader holds all that is committed, but learns only from its followers how much that is: until its watermark has come to
//! where its epoch starts, offsets beyond it are not judged, and listings wait (rule 7 of docs/replication.md, KIP-207).

use super::{Command, FetchEvent, LeaderEngine, ListOffsetsEvent, Output, ReadRange};
use crate::engine::waiters::Waiter;
use crate::protocol::messages::{FetchedPartition, ListedOffset, OffsetAt};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{MonoTime, Mutant, Offset};

#[derive(Debug)]
pub(super) struct ParkedFetch<R> {
    pub(super) offset: Offset,
    max_bytes: usize,
    pub(super) reply: R,
}

/// A look-up that waits for the watermark.
#[derive(Debug)]
pub(super) struct Listing<R> {
    at: OffsetAt,
    reply: R,
}

impl<R> LeaderEngine<R> {
    /// Somebody wants to read.
    pub fn on_fetch(&mut self, now: MonoTime, event: FetchEvent<R>, out: &mut Output<R>) {
        let lease =
            self.check_lease(now).or_else(|error| if Mutant::ReadsAfterItsLease.is_on() { Ok(()) } else { Err(error) });
        let epoch = self.check_epoch(event.leader_epoch).and(lease);
        if let Err(error) = epoch.and_then(|()| self.check_range(now, event.offset)) {
            out.0.push(Command::Fetched { reply: event.reply, result: Err(error) });
            return;
        }
        let fetch = ParkedFetch { offset: event.offset, max_bytes: event.max_bytes, reply: event.reply };
        if event.offset < self.cursors.high_watermark() {
            out.0.push(self.read(fetch));
        } else if let Some(deadline) = event.wait_until {
            self.parked.insert(Waiter { until: event.offset.next(), deadline, owner: event.owner, payload: fetch });
        } else {
            out.0.push(Command::Fetched { reply: fetch.reply, result: Ok(self.fetch_state()) });
        }
    }

    pub(super) fn knows_what_is_committed(&self) -> bool {
        self.cursors.high_watermark() >= self.epoch_start
    }

    /// Whether what lies beyond this log's end is no offset of the partition: another leader may have committed it.
    pub(super) fn knows_all(&self, now: MonoTime) -> bool {
        self.knows_what_is_committed() && self.check_sole(now).is_ok()
    }

    fn check_range(&self, now: MonoTime, offset: Offset) -> Result<(), ApiError> {
        let (start, end) = (self.cursors.log_start(), self.cursors.next_offset());
        let is_sure = self.knows_all(now) || Mutant::JudgesWhatItDoesNotKnow.is_on();
        if (start..=end).contains(&offset) || (offset > end && !is_sure) {
            return Ok(());
        }
        Err(self.out_of_range(offset))
    }

    pub(super) fn out_of_range(&self, offset: Offset) -> ApiError {
        let (start, end) = (self.cursors.log_start(), self.cursors.next_offset());
        ApiError::new(
            ErrorCode::OffsetOutOfRange,
            format!(
                "offset {offset} is outside the partition, which holds {start} to {end} (exclusive): seek to one of these"
            ),
        )
    }

    /// Somebody asks for an offset.
    pub fn on_list_offsets(&mut self, now: MonoTime, event: ListOffsetsEvent<R>, out: &mut Output<R>) {
        let ListOffsetsEvent { at, deadline, owner, reply } = event;
        if let Err(error) = self.check_sole(now) {
            out.0.push(Command::Listed { reply, result: Err(error) });
            return;
        }
        let listing = Listing { at, reply };
        if at == OffsetAt::Earliest || self.knows_what_is_committed() || Mutant::ListsWhatItDoesNotKnow.is_on() {
            out.0.push(self.list(listing));
        } else {
            self.listings.insert(Waiter { until: self.epoch_start, deadline, owner, payload: listing });
        }
    }

    /// Whether nobody else can lead now. A leader that has asked to be replaced, because it hands over or because its log failed or
    /// is damaged, does not know when it is.
    pub(super) fn check_sole(&self, now: MonoTime) -> Result<(), ApiError> {
        self.check_lease(now).or_else(|error| if Mutant::ListsAfterItsLease.is_on() { Ok(()) } else { Err(error) })?;
        let is_leaving = self.may_be_deposed
            || ((self.log_failure.is_some() || self.was_damaged) && self.leadership.replicas.len() > 1);
        if !is_leaving {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::NotLeader,
            "the leadership is passing to another broker: refresh the metadata and try again",
        ))
    }

    fn list(&self, Listing { at, reply }: Listing<R>) -> Command<R> {
        let offset = match at {
            OffsetAt::Earliest => self.cursors.log_start(),
            OffsetAt::Latest => self.cursors.high_watermark(),
            OffsetAt::MaxTimestamp | OffsetAt::Timestamp(_) => {
                return Command::LookUp { reply, at, upper_exclusive: self.cursors.high_watermark() };
            }
        };
        let listed = ListedOffset { offset: Some(offset), timestamp: None, leader_epoch: self.leadership.epoch };
        Command::Listed { reply, result: Ok(listed) }
    }

    fn read(&self, fetch: ParkedFetch<R>) -> Command<R> {
        let upper_exclusive = self.cursors.high_watermark();
        let range = ReadRange { from: fetch.offset, upper_exclusive, max_bytes: fetch.max_bytes };
        Command::Read { reply: fetch.reply, range, state: self.fetch_state() }
    }

    pub(super) fn fetch_state(&self) -> FetchedPartition {
        FetchedPartition {
            log_start_offset: self.cursors.log_start(),
            high_watermark: self.cursors.high_watermark(),
            last_stable_offset: self.cursors.high_watermark(),
        }
    }

    pub(super) fn answer_parked(&mut self, now: MonoTime, out: &mut Output<R>) {
        if now >= self.lease_until || self.parked.is_empty() {
            return;
        }
        // A fetch at offset N waits for the end N + 1.
        while let Some(waiter) = self.parked.pop_reached(self.cursors.high_watermark()) {
            out.0.push(self.read(waiter.payload));
        }
        let end = self.cursors.next_offset();
        if self.knows_all(now) {
            for waiter in self.parked.take_where(|waiter| waiter.payload.offset > end) {
                let error = self.out_of_range(waiter.payload.offset);
                out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Err(error) });
            }
        }
    }

    pub(super) fn answer_listings(&mut self, now: MonoTime, out: &mut Output<R>) {
        if self.listings.is_empty() || self.check_sole(now).is_err() {
            return;
        }
        while let Some(waiter) = self.listings.pop_reached(self.cursors.high_watermark()) {
            out.0.push(self.list(waiter.payload));
        }
    }

    pub(super) fn expire_readers(&mut self, now: MonoTime, out: &mut Output<R>) {
        let result = self.check_lease(now).map(|()| self.fetch_state());
        for waiter in self.parked.take_expired(now) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: result.clone() });
        }
        for waiter in self.listings.take_expired(now) {
            let text = "a new leader does not know yet how much is committed: its followers have not fetched since its election; try again";
            let error = ApiError::new(ErrorCode::TimedOut, text);
            out.0.push(Command::Listed { reply: waiter.payload.reply, result: Err(error) });
        }
    }

    pub(super) fn refuse_readers(&mut self, cause: &ApiError, out: &mut Output<R>) {
        for waiter in self.parked.take_where(|_| true) {
            out.0.push(Command::Fetched { reply: waiter.payload.reply, result: Err(cause.clone()) });
        }
        for waiter in self.listings.take_where(|_| true) {
            out.0.push(Command::Listed { reply: waiter.payload.reply, result: Err(cause.clone()) });
        }
    }
}
