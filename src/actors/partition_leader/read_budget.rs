//! The memory that cold reads share, dealt out so that those who take their replies slowly leave room for the others.
//!
//! ```text
//!   a connection may hold    64 KiB ── taken within 100 ms ──► twice as much ──► … ──► a quarter of what is free
//!                              ▲                                  │
//!                              └────────── taken later ───────────┘
//! ```
//!
//! Trust grows as a connection takes what it is sent, as the window of a TCP connection does: a consumer that reads on has
//! all it wants after eight reads, and one that takes nothing holds 64 KiB. A thousand of those leave half of the default
//! budget to the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::waiters::OwnerId;

/// A connection may hold one part in so many of what is free.
const PARTS: usize = 4;
/// What a connection may hold at first. A read of less is not worth a trip to the disk: it waits for room instead.
const FIRST_BYTES: usize = 64 << 10;
/// What is sent within this time was taken promptly.
const PROMPT: Duration = Duration::from_millis(100);
/// How many connections are remembered that hold nothing now. Who is forgotten starts anew.
const REMEMBERED: usize = 4_096;

/// The memory that cold reads of the whole node may hold until it has been sent. Clones share it.
#[derive(Clone, Debug)]
pub struct ReadBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    books: Mutex<Books>,
    freed: Notify,
}

#[derive(Debug)]
struct Books {
    free: usize,
    accounts: HashMap<OwnerId, Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    held: usize,
    /// What it may hold.
    allowance: usize,
}

impl Default for Account {
    fn default() -> Self {
        Self { held: 0, allowance: FIRST_BYTES }
    }
}

/// Room in a [`ReadBudget`], given back when dropped.
#[derive(Debug)]
pub(super) struct ReadRoom {
    shared: Arc<Shared>,
    owner: OwnerId,
    taken_at: Instant,
    pub(super) bytes: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Books> {
        // Plain sums, which nothing between two of them can interrupt.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, owner: OwnerId, bytes: usize, after: Option<Duration>) {
        let mut books = self.lock();
        books.free += bytes;
        let account = books.accounts.entry(owner).or_default();
        account.held = account.held.saturating_sub(bytes);
        if let Some(after) = after {
            account.allowance = if after <= PROMPT { (account.allowance * 2).min(self.total) } else { FIRST_BYTES };
        }
        if books.accounts.len() > REMEMBERED {
            books.accounts.retain(|_, account| account.held > 0);
        }
        drop(books);
        self.freed.notify_waiters();
    }
}

impl ReadBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let books = Mutex::new(Books { free: bytes, accounts: HashMap::new() });
        Self(Arc::new(Shared { total: bytes, books, freed: Notify::new() }))
    }

    /// Bytes that reads hold now, and may hold.
    #[must_use]
    pub fn used_and_total_bytes(&self) -> (usize, usize) {
        (self.0.total - self.0.lock().free, self.0.total)
    }

    /// Room for `wanted` bytes or fewer, but at least `least`, if `owner` may hold that much now. What is larger than all
    /// of it gets all of it: it passes alone.
    fn try_take(&self, owner: OwnerId, wanted: usize, least: usize) -> Option<ReadRoom> {
        let mut books = self.0.lock();
        let Account { held, allowance } = books.accounts.get(&owner).copied().unwrap_or_default();
        let share = (books.free / PARTS).saturating_sub(held);
        let bytes = if books.free == self.0.total && least > share {
            least.min(self.0.total)
        } else if least > allowance && held == 0 {
            // One batch that is larger than the allowance.
            wanted.min(share)
        } else {
            wanted.min(share).min(allowance.saturating_sub(held))
        };
        if bytes < least.min(self.0.total) {
            return None;
        }
        books.free -= bytes;
        books.accounts.entry(owner).or_default().held += bytes;
        Some(ReadRoom { shared: Arc::clone(&self.0), owner, taken_at: Instant::now(), bytes })
    }

    /// Waits up to `wait` for room for about `wanted` bytes, which may turn out to be less.
    pub(super) async fn acquire(&self, owner: OwnerId, wanted: usize, wait: Duration) -> Option<ReadRoom> {
        self.acquire_at_least(owner, wanted.max(1), wanted.clamp(1, FIRST_BYTES), wait).await
    }

    /// Likewise, for at least `least`.
    pub(super) async fn acquire_at_least(
        &self,
        owner: OwnerId,
        wanted: usize,
        least: usize,
        wait: Duration,
    ) -> Option<ReadRoom> {
        let taking = async {
            loop {
                // Listening before looking: what is freed in between is not missed.
                let mut freed = std::pin::pin!(self.0.freed.notified());
                freed.as_mut().enable();
                if let Some(room) = self.try_take(owner, wanted, least) {
                    return room;
                }
                freed.await;
            }
        };
        tokio::time::timeout(wait, taking).await.ok()
    }
}

impl ReadRoom {
    /// Gives back what is beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(excess) = self.bytes.checked_sub(bytes).filter(|excess| *excess > 0) {
            self.shared.give_back(self.owner, excess, None);
            self.bytes = bytes;
        }
    }
}

impl Drop for ReadRoom {
    fn drop(&mut self) {
        self.shared.give_back(self.owner, self.bytes, Some(self.taken_at.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn a_thousand_readers_that_take_nothing_leave_room_for_the_next_one() {
        let budget = ReadBudget::new(128 * MIB);
        let mut held = Vec::new();
        for _ in 0..3 {
            for slow in 0..1_000 {
                held.extend(budget.try_take(OwnerId(slow), 16 * MIB, FIRST_BYTES));
            }
        }
        assert_eq!(held.len(), 1_000, "each has something");
        let (prompt, mut most) = (OwnerId(5_000), 0);
        for turn in 0..20 {
            let room = budget.acquire(prompt, 16 * MIB, SHORT).await;
            most = most.max(room.unwrap_or_else(|| panic!("no room in turn {turn}")).bytes);
        }
        assert!(most > 12 * MIB, "whoever takes what it is sent gets all it wants, not {most}");
        drop(held);
        assert_eq!(budget.0.lock().free, 128 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn trust_grows_with_each_reply_that_is_taken_and_ends_with_one_that_is_not() {
        let budget = ReadBudget::new(128 * MIB);
        let mut granted = Vec::new();
        for turn in 0..10 {
            let room = budget.acquire(OwnerId(1), 16 * MIB, SHORT).await.expect("room");
            granted.push(room.bytes >> 10);
            if turn == 8 {
                tokio::time::sleep(PROMPT * 2).await;
            }
        }
        assert_eq!(granted, [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 64]);
        let first = budget.acquire(OwnerId(2), 16 * MIB, SHORT).await.expect("room");
        assert!(budget.acquire(OwnerId(2), 16 * MIB, SHORT).await.is_none(), "what it has is all it may have");
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_budget_passes_alone() {
        let budget = ReadBudget::new(MIB);
        let all = budget.acquire_at_least(OwnerId(1), 2 * MIB, 2 * MIB, SHORT).await.expect("alone");
        assert_eq!(all.bytes, MIB);
        assert!(budget.acquire(OwnerId(2), 1, SHORT).await.is_none());
        let waiting = budget.clone();
        let next = tokio::spawn(async move { waiting.acquire(OwnerId(2), MIB, SHORT).await.is_some() });
        tokio::task::yield_now().await;
        drop(all);
        assert!(next.await.expect("does not panic"), "it is woken when there is room");
    }
}
