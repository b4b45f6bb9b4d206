//! Who waits, until when, and who does no more.

use super::{Command, LeaderEngine, Output};
use crate::engine::waiters::OwnerId;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::MonoTime;

impl<R> LeaderEngine<R> {
    /// The broker gives its lease up: another may lead at any moment, and whoever waits for what a lease is needed for waits in vain.
    pub fn on_lease_given_up(&mut self) {
        self.lease_until = MonoTime::default();
    }

    /// Time passed: answers those whose deadline is over.
    pub fn on_tick(&mut self, now: MonoTime, out: &mut Output<R>) {
        for queue in [&mut self.unwritten, &mut self.uncommitted] {
            for waiter in queue.take_expired(now) {
                out.0.push(Command::Produced { reply: waiter.payload.reply, result: Err(timed_out()) });
            }
        }
        self.expire_readers(now, out);
        self.expire_deletions(now, out);
        self.expire_followers(now, out);
        self.on_tick_in_sync(now, out);
    }

    /// When [`LeaderEngine::on_tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        let acks = [self.unwritten.next_deadline(), self.uncommitted.next_deadline()];
        let others = [self.parked.next_deadline(), self.listings.next_deadline(), self.deletions.next_deadline()];
        let followers = [self.next_follower_deadline(), self.next_in_sync_deadline()];
        acks.into_iter().chain(others).chain(followers).flatten().min()
    }

    /// A connection is gone: nothing of it needs an answer any more.
    pub fn on_owner_gone(&mut self, owner: OwnerId) {
        self.unwritten.take_where(|waiter| waiter.owner == owner);
        self.uncommitted.take_where(|waiter| waiter.owner == owner);
        self.parked.take_where(|waiter| waiter.owner == owner);
        self.listings.take_where(|waiter| waiter.owner == owner);
        self.deletions.take_where(|waiter| waiter.owner == owner);
    }

    /// Takes back parked fetches of `owner` that `matches`.
    pub fn on_cancel_fetch(&mut self, owner: OwnerId, mut matches: impl FnMut(&R) -> bool) {
        self.parked.take_where(|waiter| waiter.owner == owner && matches(&waiter.payload.reply));
    }
}

fn timed_out() -> ApiError {
    ApiError::new(
        ErrorCode::TimedOut,
        "the records were appended but not committed within the request's timeout: a retry of an idempotent producer is safe",
    )
}
