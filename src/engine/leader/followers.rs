//! How far the followers have come, and whom the leader wants in the in-sync set.
//!
//! What counts for the watermark is the *union* of the committed set and everything proposed since the last change of the
//! partition that is known here. An answer to a proposal does not change that, only the metadata does: an answer can overtake the
//! change of the minimum that came before it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Leadership;
use crate::engine::replication::ReplicaFetch;
use crate::protocol::messages::FollowerDescription;
use crate::types::{BrokerEpoch, FlushPolicy, MonoTime, Mutant, NodeId, Offset};

/// How far one follower has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    broker_epoch: BrokerEpoch,
    newest_fetch: u64,
    position: Offset,
    durable_end: Offset,
    heard_at: MonoTime,
    /// When it last held all that the leader held at that time or later.
    caught_up_at: MonoTime,
    /// Where the leader's log ended at some fetch since, and when: with that much it has caught up with that moment. Compared
    /// with the end at the fetch before, a follower that acknowledges what it writes and what it syncs apart never would.
    goal: (Offset, MonoTime),
    /// It left the in-sync set after its newest fetch: what it said before counts no more.
    is_outdated: bool,
    /// It asked for records that it had acknowledged before.
    has_lost_records: bool,
    /// It said that part of what it holds is damaged.
    is_damaged: bool,
}

impl Progress {
    /// What counts of it towards a commit: nothing of a log with damage, so that nothing is committed on its word until it has left
    /// or is whole.
    pub(super) fn counted(&self, flush: FlushPolicy) -> Offset {
        match flush {
            _ if self.is_damaged => Offset::ZERO,
            FlushPolicy::Always if !Mutant::CountsWhatFollowersOnlyWrote.is_on() => self.durable_end,
            FlushPolicy::Always | FlushPolicy::Interval | FlushPolicy::Os => self.position,
        }
    }
}

/// See the module page.
#[derive(Debug)]
pub(super) struct Followers {
    me: NodeId,
    progress: BTreeMap<NodeId, Progress>,
    /// Everybody but the leader who is in the committed set or was proposed since.
    union: Vec<NodeId>,
    /// Members that have not fetched yet count as caught up at the start of the leadership.
    started_at: MonoTime,
}

impl Followers {
    pub(super) fn new(me: NodeId, started_at: MonoTime) -> Self {
        Self { me, progress: BTreeMap::new(), union: Vec::new(), started_at }
    }

    pub(super) fn counts(&self, node: NodeId) -> bool {
        self.union.contains(&node)
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Progress> {
        self.progress.get(&node).filter(|progress| !progress.is_outdated)
    }

    /// Takes on what the metadata says. What a follower reported under another registration counts for nothing.
    pub(super) fn follow_metadata(&mut self, leadership: &Leadership, is_newer: bool) {
        if is_newer {
            for node in self.union.drain(..).filter(|node| !leadership.in_sync.contains(node)) {
                // It may have left because it is damaged: it comes in again only by what it says from here on.
                self.progress
                    .entry(node)
                    .and_modify(|progress| progress.is_outdated = !Mutant::JoinsOnWhatItSaidBefore.is_on());
            }
        }
        self.widen(&leadership.in_sync);
        self.progress.retain(|node, progress| leadership.epoch_of(*node) == Some(progress.broker_epoch));
    }

    /// Lets `members` count, because they are or may become the in-sync set.
    pub(super) fn widen(&mut self, members: &[NodeId]) {
        for node in members {
            if *node != self.me && !self.union.contains(node) {
                self.union.push(*node);
            }
        }
    }

    /// How many count, the leader among them.
    pub(super) fn union_size(&self) -> usize {
        self.union.len() + 1
    }

    /// Whether somebody counts who is not in the committed set.
    pub(super) fn is_wider_than(&self, in_sync: &[NodeId]) -> bool {
        self.union.iter().any(|node| !in_sync.contains(node))
    }

    /// Up to where everybody who counts holds the log; `None` while somebody has not said.
    pub(super) fn least(&self, own: Offset, flush: FlushPolicy) -> Option<Offset> {
        self.union.iter().try_fold(own, |least, node| Some(least.min(self.get(*node)?.counted(flush))))
    }

    /// Whether a newer fetch of that registration has come before.
    pub(super) fn is_outdated(&self, fetch: &ReplicaFetch) -> bool {
        let known = self.progress.get(&fetch.replica);
        known.is_some_and(|known| known.newest_fetch >= fetch.number) && !Mutant::CountsOvertakenFetches.is_on()
    }

    /// Takes note of a fetch whose position was found to be in the leader's log.
    pub(super) fn note(
        &mut self,
        now: MonoTime,
        fetch: &ReplicaFetch,
        leader_end: Offset,
        high_watermark: Offset,
        flush: FlushPolicy,
    ) {
        let known = self.progress.get(&fetch.replica);
        let mut progress = Progress {
            broker_epoch: fetch.broker_epoch,
            newest_fetch: fetch.number,
            position: fetch.position,
            durable_end: fetch.durable_end.min(fetch.position),
            heard_at: now,
            caught_up_at: known.map_or(self.started_at, |known| known.caught_up_at),
            goal: known.map_or((leader_end, now), |known| known.goal),
            is_outdated: false,
            // A member has all that is committed. One that asks for part of it again has lost it.
            has_lost_records: self.union.contains(&fetch.replica) && fetch.position < high_watermark,
            is_damaged: fetch.is_damaged && !Mutant::CountsTheDamaged.is_on(),
        };
        let counted = progress.counted(flush);
        if counted >= leader_end {
            progress.caught_up_at = now;
        }
        if counted >= progress.goal.0 {
            progress.caught_up_at = progress.caught_up_at.max(progress.goal.1);
            progress.goal = (leader_end, now);
        }
        self.progress.insert(fetch.replica, progress);
    }

    /// How far the replica on `node` is, in sync or not.
    pub(super) fn describe(&self, now: MonoTime, node: NodeId) -> FollowerDescription {
        let known = self.progress.get(&node);
        let caught_up_at = known.map(|known| known.caught_up_at).filter(|at| *at > self.started_at);
        FollowerDescription {
            node_id: node,
            end_offset: known.map(|known| known.position),
            caught_up_ms: caught_up_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whether another replica than this may soon be in sync: it holds the log up to `past`, or nobody knows yet what it holds.
    pub(super) fn may_take_over(
        &self,
        now: MonoTime,
        leadership: &Leadership,
        past: Offset,
        max_lag: Duration,
    ) -> bool {
        leadership.replicas.iter().map(|replica| replica.node).filter(|node| *node != self.me).any(|node| {
            let heard =
                self.progress.get(&node).map_or((self.started_at, past), |known| (known.heard_at, known.position));
            now.since(heard.0) < max_lag && heard.1 >= past
        })
    }

    /// Whom the leader wants in the in-sync set: the members that keep up, and whoever has caught up since.
    pub(super) fn wanted(
        &self,
        now: MonoTime,
        leadership: &Leadership,
        needed: Offset,
        limits: (Duration, FlushPolicy),
    ) -> Vec<NodeId> {
        let (max_lag, flush) = limits;
        let keeps_up = |node: &NodeId| {
            let progress = self.progress.get(node);
            let caught_up_at = progress.map_or(self.started_at, |progress| progress.caught_up_at);
            let lags = now.since(caught_up_at) >= max_lag && !Mutant::KeepsLaggards.is_on();
            !lags && !progress.is_some_and(|progress| progress.has_lost_records || progress.is_damaged)
        };
        let joins = |node: NodeId| {
            (leadership.may_join(node) || Mutant::JoinsWhileFenced.is_on())
                && self.get(node).is_some_and(|progress| progress.counted(flush) >= needed)
                && keeps_up(&node)
        };
        let members = leadership.in_sync.iter().copied().filter(|node| *node == self.me || keeps_up(node));
        let others =
            leadership.replicas.iter().map(|replica| replica.node).filter(|node| !leadership.in_sync.contains(node));
        members.chain(others.filter(|node| joins(*node))).collect()
    }

    /// When the next member would have lagged for too long.
    pub(super) fn next_lag(&self, leadership: &Leadership, max_lag: Duration) -> Option<MonoTime> {
        let members = leadership.in_sync.iter().filter(|node| **node != self.me);
        members
            .map(|node| self.progress.get(node).map_or(self.started_at, |progress| progress.caught_up_at).plus(max_lag))
            .min()
    }
}
