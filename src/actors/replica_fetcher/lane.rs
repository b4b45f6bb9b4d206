//! What is asked of one leader, as data: fetches that wait to be sent, fetches that wait for their answer, and whose turn it is.
//!
//! ```text
//!   want ──► live ───────────────────────────────────────────────► sent
//!        ├─► behind: without a limit ──┬── who came first, while ──┘
//!        └─► behind: of each topic     │   there are turns left
//!            that is throttled ────────┘   and its budget allows it
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::wire;
use crate::engine::replication::{FetchId, ReplicaFetch};
use crate::protocol::messages::peer::{FetchReplica, FetchReplicas};
use crate::types::{BrokerEpoch, NodeId, TopicId, TopicPartition};

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
    /// What was taken from its topic's budget for it.
    taken: usize,
    answer_to: A,
}

/// An answer, or the news that there will be none, for whoever asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended<A> {
    pub id: FetchId,
    /// What goes back into its topic's budget, which pays for what came.
    pub taken: usize,
    pub answer_to: A,
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
    /// The partitions of `wanted` in the order in which they came, those that are far behind apart: under their topic where it is
    /// throttled, and all others together. Each of those with its number in the order of all.
    live: VecDeque<TopicPartition>,
    behind: BTreeMap<Option<TopicId>, VecDeque<(u64, TopicPartition)>>,
    newest_behind: u64,
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
            behind: BTreeMap::new(),
            newest_behind: 0,
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
    /// A replica asks. A fetch of the same partition that is not sent yet is replaced, in its place. `is_throttled` is asked where it
    /// may bring much.
    pub fn want(
        &mut self,
        partition: TopicPartition,
        wanted: Wanted<A>,
        is_throttled: impl Fn(TopicPartition) -> bool,
    ) {
        let epoch = self.follower.1.max(wanted.fetch.broker_epoch);
        self.follower = (wanted.fetch.replica, epoch);
        if self.wanted.insert(partition, wanted).is_some() {
            return;
        }
        self.queue(partition, is_throttled);
    }

    fn queue(&mut self, partition: TopicPartition, is_throttled: impl Fn(TopicPartition) -> bool) {
        let has_turn = self.sent.get(&partition).is_some_and(|sent| sent.is_catching_up);
        let pace = self.pace.get(&partition);
        // Who keeps up is not held up: it may count for the watermark before it is known here that it is in sync.
        if has_turn || pace == Some(&Pace::KeepsUp) {
            return self.live.push_back(partition);
        }
        let throttled = is_throttled(partition).then_some(partition.topic);
        if throttled.is_none() && pace.is_none() {
            return self.live.push_back(partition);
        }
        self.newest_behind += 1;
        self.behind.entry(throttled).or_default().push_back((self.newest_behind, partition));
    }

    /// A fetch has ended for which so much was taken. One that was to go with that and is not sent yet needs a budget of its own.
    fn queue_without(&mut self, partition: TopicPartition, taken: usize) {
        if taken > 0 && self.wanted.contains_key(&partition) {
            self.live.retain(|queued| *queued != partition);
            self.queue(partition, |_| true);
        }
    }

    /// Whether fetches wait for the budget of their topic, or for those before them that do.
    pub fn waits_for_budget(&self) -> bool {
        self.behind.keys().any(Option::is_some)
    }

    /// Who is throttled may have changed.
    pub fn queue_anew(&mut self, is_throttled: impl Fn(TopicPartition) -> bool) {
        let mut waiting: Vec<_> = std::mem::take(&mut self.behind).into_values().flatten().collect();
        waiting.sort_unstable();
        for (_, partition) in waiting {
            self.queue(partition, &is_throttled);
        }
    }

    /// The request to send now, under its number: one with fetches, or, if `may_be_empty`, one that only carries answers. `take` takes what
    /// a fetch may bring from the budget of a throttled topic: as much as it wants or less, and nothing (`None`) where it has to wait.
    pub fn next_request(
        &mut self,
        may_be_empty: bool,
        take: impl FnMut(TopicId, usize) -> Option<usize>,
    ) -> Option<(u64, FetchReplicas)> {
        if self.under_way >= MAX_UNDER_WAY {
            return None;
        }
        let fetches = self.take_wanted(take);
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

    fn take_wanted(&mut self, mut take: impl FnMut(TopicId, usize) -> Option<usize>) -> Vec<FetchReplica> {
        let mut fetches = Vec::new();
        while fetches.len() < MAX_FETCHES
            && let Some(partition) = self.live.pop_front()
        {
            fetches.extend(self.send(partition, false, 0));
        }
        let mut without_budget = Vec::new();
        while fetches.len() < MAX_FETCHES
            && self.catching_up < MAX_CATCHING_UP
            && let Some((throttled, partition)) = self.first_behind(&without_budget)
        {
            let taken = match throttled.zip(self.wanted_bytes(partition)) {
                // Without a limit, or not to be sent at all.
                None => 0,
                Some((topic, bytes)) => match take(topic, bytes) {
                    Some(taken) => taken,
                    None => {
                        without_budget.push(topic);
                        continue;
                    }
                },
            };
            self.drop_first(throttled);
            fetches.extend(self.send(partition, true, taken));
        }
        fetches
    }

    /// Whose turn it is of those that are far behind.
    fn first_behind(&self, without_budget: &[TopicId]) -> Option<(Option<TopicId>, TopicPartition)> {
        let may_go = |throttled: &Option<TopicId>| throttled.is_none_or(|topic| !without_budget.contains(&topic));
        let firsts = self.behind.iter().filter(|(throttled, _)| may_go(throttled));
        let firsts = firsts.filter_map(|(throttled, queue)| Some((*throttled, *queue.front()?)));
        firsts.min_by_key(|(_, (number, _))| *number).map(|(throttled, (_, partition))| (throttled, partition))
    }

    fn drop_first(&mut self, throttled: Option<TopicId>) {
        if let Some(queue) = self.behind.get_mut(&throttled) {
            queue.pop_front();
            if queue.is_empty() {
                self.behind.remove(&throttled);
            }
        }
    }

    /// What the fetch that is not sent yet asks for; `None` for one of an earlier registration, which counts for nothing.
    fn wanted_bytes(&self, partition: TopicPartition) -> Option<usize> {
        let fetch = &self.wanted.get(&partition)?.fetch;
        let is_known = self.pace.contains_key(&partition);
        let bytes = if is_known { fetch.max_bytes } else { fetch.max_bytes.min(FIRST_BYTES) };
        (fetch.broker_epoch >= self.follower.1).then_some(bytes)
    }

    /// `taken`, if not 0, is what the budget allows it.
    fn send(&mut self, partition: TopicPartition, takes_turn: bool, taken: usize) -> Option<FetchReplica> {
        let wanted_bytes = self.wanted_bytes(partition);
        let Wanted { fetch, may_wait, answer_to } = self.wanted.remove(&partition)?;
        let wanted_bytes = wanted_bytes?;
        let before = self.remove_sent(partition);
        let (has_turn, held) = before.as_ref().map_or((false, 0), |before| (before.is_catching_up, before.taken));
        let is_catching_up = takes_turn || has_turn;
        self.catching_up += usize::from(is_catching_up);
        let id = fetch.id();
        let is_same = |before: &Sent<A>| before.id.broker_epoch == id.broker_epoch;
        let oldest = before.filter(is_same).map_or(id.number, |before| before.oldest);
        // What was taken for the one before serves this one.
        let taken = taken + held;
        let max_bytes = if taken > 0 { wanted_bytes.min(taken) } else { wanted_bytes };
        let request = self.newest_request + 1;
        self.sent.insert(partition, Sent { id, oldest, request, max_bytes, is_catching_up, taken, answer_to });
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

    /// The leader has answered fetch `number` of `partition`, with so many bytes of records, or (`None`) with something that does not tell
    /// how far behind it is. Says whose it is; `None` for one that nobody waits for.
    pub fn answered(&mut self, partition: TopicPartition, number: u64, bytes: Option<usize>) -> Option<Ended<A>> {
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
        let mut taken = 0;
        if number == sent.id.number {
            taken = self.remove_sent(partition).map_or(0, |sent| sent.taken);
            self.queue_without(partition, taken);
        } else if let Some(sent) = self.sent.get_mut(&partition) {
            sent.oldest = number + 1;
        }
        Some(Ended { id, taken, answer_to })
    }

    /// Request `number` has failed: takes the fetches that went with it, or before it, and have no newer one on its way.
    pub fn take_failed(&mut self, number: u64) -> Vec<(TopicPartition, Ended<A>)> {
        // Nobody knows how far behind they will be.
        self.pace.clear();
        let failed: Vec<_> =
            self.sent.iter().filter(|(_, sent)| sent.request <= number).map(|(partition, _)| *partition).collect();
        let ended = |Sent { id, taken, answer_to, .. }: Sent<A>| Ended { id, taken, answer_to };
        let mut taken = Vec::with_capacity(failed.len());
        for partition in failed {
            if let Some(sent) = self.remove_sent(partition) {
                self.queue_without(partition, sent.taken);
                taken.push((partition, ended(sent)));
            }
        }
        taken
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
