//! Replies that must wait, kept as data: ordered by the offset they wait for, each with a deadline and an owner.

use std::collections::VecDeque;

use crate::types::{MonoTime, Offset};

/// Who asked, so that what it waits for can be forgotten when it goes away: a connection's number within the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u64);

/// One reply that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<T> {
    /// Answered when a cursor reaches this end offset (exclusive).
    pub until: Offset,
    /// Answered at this moment at the latest.
    pub deadline: MonoTime,
    /// Who asked.
    pub owner: OwnerId,
    /// What to answer with, or whom.
    pub payload: T,
}

/// Waiting replies in the order of the offsets they wait for. Arrivals are nearly always in order, so a queue suffices:
/// an insertion looks from the back. Bounded by the requests in flight that connections are allowed.
#[derive(Debug)]
pub struct WaiterQueue<T> {
    queue: VecDeque<Waiter<T>>,
    earliest_deadline: Option<MonoTime>,
}

impl<T> Default for WaiterQueue<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), earliest_deadline: None }
    }
}

impl<T> WaiterQueue<T> {
    /// Adds a reply. Those that wait for the same offset keep the order of their arrival.
    pub fn insert(&mut self, waiter: Waiter<T>) {
        self.earliest_deadline =
            Some(self.earliest_deadline.map_or(waiter.deadline, |earliest| earliest.min(waiter.deadline)));
        let after = self.queue.iter().rev().take_while(|other| other.until > waiter.until).count();
        self.queue.insert(self.queue.len() - after, waiter);
    }

    /// Takes the next reply whose offset `end` has reached.
    pub fn pop_reached(&mut self, end: Offset) -> Option<Waiter<T>> {
        if self.queue.front()?.until <= end { self.queue.pop_front() } else { None }
    }

    /// Takes every reply whose deadline is `now` or earlier, in queue order.
    pub fn take_expired(&mut self, now: MonoTime) -> Vec<Waiter<T>> {
        if self.earliest_deadline.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        self.take_where(|waiter| waiter.deadline <= now)
    }

    /// Takes every reply that `matches`.
    pub fn take_where(&mut self, mut matches: impl FnMut(&Waiter<T>) -> bool) -> Vec<Waiter<T>> {
        let mut taken = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(waiter) = self.queue.pop_front() else { break };
            if matches(&waiter) { taken.push(waiter) } else { self.queue.push_back(waiter) }
        }
        self.earliest_deadline = self.queue.iter().map(|waiter| waiter.deadline).min();
        taken
    }

    /// A moment at or before the earliest deadline; `None` when nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        if self.queue.is_empty() { None } else { self.earliest_deadline }
    }

    /// How many replies wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime(Duration::from_millis(ms))
    }

    fn queue(entries: &[(u64, u64, u64)]) -> WaiterQueue<usize> {
        let mut queue = WaiterQueue::default();
        for (payload, &(until, deadline_ms, owner)) in entries.iter().enumerate() {
            let waiter = Waiter { until: Offset(until), deadline: at(deadline_ms), owner: OwnerId(owner), payload };
            queue.insert(waiter);
        }
        queue
    }

    #[test]
    fn replies_leave_in_the_order_of_offset_then_arrival() {
        let mut queue = queue(&[(5, 10, 1), (3, 10, 1), (5, 10, 2), (9, 10, 1)]);
        let order: Vec<usize> = std::iter::from_fn(|| queue.pop_reached(Offset(5))).map(|w| w.payload).collect();
        assert_eq!(order, [1, 0, 2]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn each_is_answered_at_its_deadline_and_forgotten_with_its_owner() {
        let mut queue = queue(&[(5, 30, 1), (6, 10, 2), (7, 20, 1)]);
        assert_eq!(queue.next_deadline(), Some(at(10)));
        assert_eq!(queue.take_expired(at(9)).len(), 0);
        assert_eq!(queue.take_expired(at(20)).iter().map(|w| w.payload).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(queue.next_deadline(), Some(at(30)));
        assert_eq!(queue.take_where(|w| w.owner == OwnerId(1)).len(), 1);
        assert_eq!((queue.is_empty(), queue.next_deadline()), (true, None));
    }
}
