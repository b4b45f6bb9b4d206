//! What is asked of one leader, as data: fetches that wait to be sent, fetches that wait for their answer, and whose turn it is.

use std::collections::{HashMap, VecDeque};

use super::wire;
use crate::engine::replication::{FetchId, ReplicaFetch};
use crate::protocol::messages::peer::{FetchReplica, FetchReplicas};
use crate::types::{BrokerEpoch, NodeId, TopicPartition};

/// Requests that may be under way: one that waits at the leader, and one whose acknowledgements overtake it.
pub(super) const MAX_UNDER_WAY: usize = 2;
/// Partitions that are far behind and are asked for at a time: with 1 MiB each they fill half of a reply.
pub(super) const MAX_CATCHING_UP: usize = 4;
/// Fetches in a request, which may have 262,144 values: one has about 20.
const MAX_FETCHES: usize = 5_000;
/// What a partition asks for of which nothing is known: a thousand that come back at once must not ask for a thousand times 1 MiB.
const FIRST_BYTES: usize = 64 << 10;
/// About how many bytes a reply may have: half a frame, since one answer may be a batch that is larger than what was asked for.
const MAX_REPLY_BYTES: u32 = 8 << 20;

/// A fetch that is not sent yet. `A` is whom to answer.
#[derive(Clone, Debug)]
pub(super) struct Wanted<A> {
    pub fetch: ReplicaFetch,
    pub may_wait: bool,
    pub answer_to: A,
}

#[derive(Debug)]
struct Sent<A> {
    id: FetchId,
    /// The oldest fetch of the same registration whose answer may still come.
    oldest: u64,
    /// The request that it went with.
    request: u64,
    max_bytes: usize,
    is_catching_up: bool,
    answer_to: A,
}

/// What the last answer to a partition was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    KeepsUp,
    /// It was full: there is more.
    IsBehind,
}

/// See the module page.
#[derive(Debug)]
pub(super) struct Lane<A> {
    wanted: HashMap<TopicPartition, Wanted<A>>,
    /// The partitions of `wanted` in the order in which they came, those that are far behind apart.
    live: VecDeque<TopicPartition>,
    behind: VecDeque<TopicPartition>,
    sent: HashMap<TopicPartition, Sent<A>>,
    pace: HashMap<TopicPartition, Pace>,
    catching_up: usize,
    under_way: usize,
    newest_request: u64,
    /// The follower and its newest registration.
    follower: (NodeId, BrokerEpoch),
}

impl<A> Default for Lane<A> {
    fn default() -> Self {
        Self {
            wanted: HashMap::new(),
            live: VecDeque::new(),
            behind: VecDeque::new(),
            sent: HashMap::new(),
            pace: HashMap::new(),
            catching_up: 0,
            under_way: 0,
            newest_request: 0,
            follower: Default::default(),
        }
    }
}

impl<A: Clone> Lane<A> {
    /// A replica asks. A fetch of the same partition that is not sent yet is replaced, in its place.
    pub fn want(&mut self, partition: TopicPartition, wanted: Wanted<A>) {
        let epoch = self.follower.1.max(wanted.fetch.broker_epoch);
        self.follower = (wanted.fetch.replica, epoch);
        if self.wanted.insert(partition, wanted).is_some() {
            return;
        }
        let has_turn = self.sent.get(&partition).is_some_and(|sent| sent.is_catching_up);
        let waits_for_turn = self.pace.get(&partition) == Some(&Pace::IsBehind) && !has_turn;
        if waits_for_turn { &mut self.behind } else { &mut self.live }.push_back(partition);
    }

    /// The request to send now, under its number: one with fetches, or, if `may_be_empty`, one that only carries answers.
    pub fn next_request(&mut self, may_be_empty: bool) -> Option<(u64, FetchReplicas)> {
        if self.under_way >= MAX_UNDER_WAY {
            return None;
        }
        let fetches = self.take_wanted();
        if fetches.is_empty() && !(may_be_empty && self.lacks_carrier()) {
            return None;
        }
        self.under_way += 1;
        self.newest_request += 1;
        let (replica, broker_epoch) = self.follower;
        let max_wait_ms = u32::try_from(super::MAX_WAIT.as_millis()).unwrap_or(u32::MAX);
        let request = FetchReplicas { replica, broker_epoch, max_wait_ms, max_bytes: MAX_REPLY_BYTES, fetches };
        Some((self.newest_request, request))
    }

    /// Whether fetches wait at the leader, and no request that their answers could come with.
    pub fn lacks_carrier(&self) -> bool {
        self.under_way == 0 && !self.sent.is_empty()
    }

    fn take_wanted(&mut self) -> Vec<FetchReplica> {
        let mut fetches = Vec::new();
        while fetches.len() < MAX_FETCHES
            && let Some(partition) = self.live.pop_front()
        {
            fetches.extend(self.send(partition, false));
        }
        while fetches.len() < MAX_FETCHES
            && self.catching_up < MAX_CATCHING_UP
            && let Some(partition) = self.behind.pop_front()
        {
            fetches.extend(self.send(partition, true));
        }
        fetches
    }

    fn send(&mut self, partition: TopicPartition, takes_turn: bool) -> Option<FetchReplica> {
        let Wanted { fetch, may_wait, answer_to } = self.wanted.remove(&partition)?;
        if fetch.broker_epoch < self.follower.1 {
            // Of an earlier registration, which counts for nothing.
            return None;
        }
        let before = self.remove_sent(partition);
        let is_catching_up = takes_turn || before.as_ref().is_some_and(|before| before.is_catching_up);
        self.catching_up += usize::from(is_catching_up);
        let id = fetch.id();
        let is_same = |before: &Sent<A>| before.id.broker_epoch == id.broker_epoch;
        let oldest = before.filter(is_same).map_or(id.number, |before| before.oldest);
        let is_known = self.pace.contains_key(&partition);
        let max_bytes = if is_known { fetch.max_bytes } else { fetch.max_bytes.min(FIRST_BYTES) };
        let request = self.newest_request + 1;
        self.sent.insert(partition, Sent { id, oldest, request, max_bytes, is_catching_up, answer_to });
        // Whoever has its turn must not spend it waiting for news.
        Some(wire::fetch_to_wire(partition, &fetch, max_bytes, may_wait && !is_catching_up))
    }

    fn remove_sent(&mut self, partition: TopicPartition) -> Option<Sent<A>> {
        let sent = self.sent.remove(&partition)?;
        self.catching_up -= usize::from(sent.is_catching_up);
        Some(sent)
    }

    /// A request was answered, or failed.
    pub fn ended(&mut self) {
        self.under_way -= 1;
    }

    /// The leader has answered fetch `number` of `partition`, with so many bytes of records, or (`None`) with an error. Says whose it is;
    /// `None` for one that nobody waits for.
    pub fn answered(&mut self, partition: TopicPartition, number: u64, bytes: Option<usize>) -> Option<(FetchId, A)> {
        let sent = self.sent.get(&partition)?;
        if !(sent.oldest..=sent.id.number).contains(&number) {
            return None;
        }
        match bytes {
            Some(bytes) if bytes * 2 >= sent.max_bytes => self.pace.insert(partition, Pace::IsBehind),
            Some(_) => self.pace.insert(partition, Pace::KeepsUp),
            None => self.pace.remove(&partition),
        };
        let (id, answer_to) = (FetchId { number, ..sent.id }, sent.answer_to.clone());
        if number == sent.id.number {
            self.remove_sent(partition);
        } else if let Some(sent) = self.sent.get_mut(&partition) {
            sent.oldest = number + 1;
        }
        Some((id, answer_to))
    }

    /// Request `number` has failed: takes the fetches that went with it, or before it, and have no newer one on its way.
    pub fn take_failed(&mut self, number: u64) -> Vec<(FetchId, A)> {
        // Nobody knows how far behind they will be.
        self.pace.clear();
        let failed: Vec<_> =
            self.sent.iter().filter(|(_, sent)| sent.request <= number).map(|(partition, _)| *partition).collect();
        let taken = failed.into_iter().filter_map(|partition| self.remove_sent(partition));
        taken.map(|sent| (sent.id, sent.answer_to)).collect()
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
