//! What single rules of replication ask for beyond that nothing is lost: checked at the moment when they matter.
//!
//! What a rule protects is often protected by another one, too, and breaking it loses nothing: a leader that answers after its lease, a
//! fetch that waits for too long. So it is asked for directly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::engine::controller::{DamageOutcome, Decision};
use callboard::engine::leader::Proposal;
use callboard::engine::metadata::{ClusterImage, MetadataRecord, PartitionImage};
use callboard::engine::replication::ReplicaFetch;
use callboard::types::{FlushPolicy, MonoTime, NodeId, Offset, TopicPartition};

use crate::broker::Hosted;
use crate::net::{Kind, ReplyTo};
use crate::world::World;

/// After so long without a fetch a member is proposed to leave: the lag that is allowed, a proposal that was under way, clocks.
const SILENCE_US: u64 = 1_600_000;

/// What a leader was told and has answered, and what it may not do meanwhile.
#[derive(Default)]
pub struct Duties {
    /// Fetches of followers that wait.
    waiting: Vec<ReplicaFetch>,
    /// A hand-over in this partition epoch: until then nothing is appended.
    hand_over: Option<(u32, MonoTime)>,
    /// The epoch that it leads in, and since when.
    leads_since: Option<(callboard::types::LeaderEpoch, u64)>,
    /// When each follower was last heard.
    heard: BTreeMap<NodeId, u64>,
    /// When it last proposed a set without them.
    left_out: BTreeMap<NodeId, u64>,
}

impl Duties {
    pub fn asked(&mut self, fetch: &ReplicaFetch, now_us: u64) {
        self.waiting.push(*fetch);
        self.heard.insert(fetch.replica, now_us);
    }

    pub fn is_refused(&mut self) {
        self.hand_over = None;
    }
}

impl Hosted {
    /// Lets the leader hand over; whether it will.
    pub fn hand_over(&mut self, now: MonoTime, to: NodeId) -> bool {
        let until = now.plus(Duration::from_millis(400));
        let epoch = self.replica.leader().map(|leader| leader.leadership().partition_epoch);
        let begins = self.replica.on_hand_over(now, to, until).is_ok();
        if begins {
            self.duties.hand_over = epoch.map(|epoch| (epoch, until));
        }
        begins
    }
}

impl World {
    /// Rule 3: a leader answers within its lease only. Rule 13: a fetch that was answered waits no more.
    pub fn check_answer(&mut self, number: usize, reply: ReplyTo, is_ok: bool) {
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let lease_until = process.lease_until;
        let Some(hosted) = process.replicas.get_mut(&reply.partition) else { return };
        if let Kind::Replica(epoch) = reply.kind {
            let is_it = |fetch: &ReplicaFetch| fetch.number == reply.request && fetch.broker_epoch == epoch;
            hosted.duties.waiting.retain(|fetch| !is_it(fetch));
            return;
        }
        let is_bound =
            matches!(reply.kind, Kind::Produce | Kind::Fetch | Kind::List) && hosted.replica.leader().is_some();
        if is_bound && now >= lease_until {
            self.coverage.count("a leader is asked after its lease");
            if is_ok {
                let kind = reply.kind;
                self.oracle.fail(format!(
                    "broker {node} answers after its lease: {kind:?}, as a leader of {}",
                    reply.partition
                ));
            }
        }
    }

    /// Rule 8: nothing is appended while the leadership is handed over.
    pub fn check_append(&mut self, number: usize, partition: TopicPartition) {
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let Some(hosted) = self.hosted(number, partition) else { return };
        let Some((epoch, until)) = hosted.duties.hand_over else { return };
        let is_same = hosted.replica.leader().is_some_and(|leader| leader.leadership().partition_epoch == epoch);
        if is_same && now < until {
            self.oracle.fail(format!("broker {node} appends to {partition} while it hands it over"));
        }
    }

    /// Rule 8: whoever is to take over holds all there is.
    pub fn check_proposal(&mut self, number: usize, partition: TopicPartition, proposal: &Proposal) {
        let now = self.now;
        let flush = self.plan.flush_of(partition);
        let Some(hosted) = self.hosted(number, partition) else { return };
        let in_sync: Vec<_> =
            hosted.replica.leader().map(|leader| leader.leadership().in_sync.clone()).unwrap_or_default();
        let is_in = |node: NodeId| proposal.members.iter().any(|(member, _)| *member == node);
        let left: Vec<_> = in_sync.into_iter().filter(|node| !is_in(*node)).collect();
        for node in &left {
            hosted.duties.left_out.insert(*node, now);
        }
        let end = hosted.replica.cursors().map_or(Offset::ZERO, |cursors| cursors.next_offset());
        if !left.is_empty() {
            self.coverage.count("a member that lags is proposed to leave");
        }
        let Some(target) = proposal.new_leader else { return };
        let broker = &self.brokers[self.broker_of(target)];
        let (durable, written) = broker.last_seen.get(&partition).copied().unwrap_or_default();
        let holds = if flush == FlushPolicy::Always { durable } else { written };
        if holds < end && self.is_intact(broker.node, partition) {
            self.oracle.fail(format!("{partition} is handed over at {end} to broker {target}, which holds {holds}"));
        }
    }

    /// Rules 9 and 13: what a leader owes its followers after each step.
    pub fn check_duties(&mut self, number: usize, partition: TopicPartition) {
        let (node, now) = (self.brokers[number].node, self.now);
        let resumed = self.brokers[number].paused_until;
        let Some(hosted) = self.hosted(number, partition) else { return };
        let Some(leader) = hosted.replica.leader() else { return };
        let (epoch, cursors) = (leader.epoch(), *leader.cursors());
        let duties = &mut hosted.duties;
        let (_, since) = duties.leads_since.filter(|(known, _)| *known == epoch).unwrap_or((epoch, now));
        duties.leads_since = Some((epoch, since));
        let due = |fetch: &&ReplicaFetch| {
            fetch.leader_epoch == epoch && fetch.high_watermark < cursors.high_watermark()
                || fetch.position < cursors.written_end()
        };
        if let Some(fetch) = duties.waiting.iter().find(due) {
            let ReplicaFetch { replica, position, high_watermark: knows, .. } = *fetch;
            let is = cursors.high_watermark();
            self.oracle.fail(format!(
                "broker {replica} waits at {position} for news of {partition}, knows the watermark {knows}, and it is {is}"
            ));
            return;
        }
        if leader.failure().is_some() {
            return;
        }
        let is_silent = |member: &&NodeId| {
            let heard = |times: &BTreeMap<NodeId, u64>| times.get(member).copied().unwrap_or_default();
            let last = heard(&duties.heard).max(heard(&duties.left_out)).max(since).max(resumed);
            **member != node && now.saturating_sub(last) > SILENCE_US
        };
        if let Some(member) = leader.leadership().in_sync.iter().find(is_silent).copied() {
            self.oracle.fail(format!("broker {member} is silent, and the leader of {partition} proposes nothing"));
        }
    }

    /// Rule 16: whoever reports damage leaves both sets, if another may lead.
    pub fn check_damage(
        &mut self,
        image: &ClusterImage,
        partition: TopicPartition,
        node: NodeId,
        decision: &Decision<DamageOutcome>,
    ) {
        let mut after = image.clone();
        let _ = after.apply_entry(&decision.records);
        let Some(state) = after.partition(partition) else { return };
        let may_lead = |other: &NodeId| *other != node && after.may_lead(*other);
        let has_another =
            state.leader.is_some_and(|leader| leader != node) || members(state).any(|other| may_lead(&other));
        self.coverage.count("a damaged replica is reported");
        if has_another && state.is_member(node) {
            self.oracle.fail(format!("broker {node} reports damage of {partition}, and stays a member beside others"));
        }
    }

    /// What an entry of the metadata log may do to what was there `before`.
    pub fn check_entry(&mut self, before: &ClusterImage, entry: &Arc<Vec<MetadataRecord>>) {
        let Some(after) = self.plan.newest.clone() else { return };
        for record in entry.iter() {
            match record {
                MetadataRecord::BrokerFenced { node, epoch } => {
                    self.coverage.count("a broker is fenced");
                    let was_fenced = before.brokers.get(node).is_some_and(|broker| broker.fenced);
                    let broker = &self.brokers[self.broker_of(*node)];
                    let process = broker.process.as_ref().filter(|process| process.epoch == Some(*epoch));
                    let has_lease = process.is_some_and(|process| process.lease_until > broker.now(self.now));
                    if was_fenced {
                        self.oracle.fail(format!("broker {node} is fenced again"));
                    } else if has_lease {
                        self.oracle.fail(format!("broker {node} is fenced, and holds a lease"));
                    }
                }
                MetadataRecord::BrokerUnfenced { node, epoch } => self.check_unfenced(before, &after, *node, *epoch),
                MetadataRecord::PartitionChanged(change) => self.check_change(before, &after, change.partition),
                _ => {}
            }
        }
    }

    /// Rule 16: a doubtful replica is no member beside others.
    fn check_unfenced(
        &mut self,
        before: &ClusterImage,
        after: &ClusterImage,
        node: NodeId,
        epoch: callboard::types::BrokerEpoch,
    ) {
        let process =
            self.brokers[self.broker_of(node)].process.as_ref().filter(|process| process.epoch == Some(epoch));
        let doubtful = process.map(|process| process.doubtful.clone()).unwrap_or_default();
        for partition in doubtful {
            let (Some(before), Some(after)) = (before.partition(partition), after.partition(partition)) else {
                continue;
            };
            let has_others = members(before).chain(before.last_members.iter().copied()).any(|other| other != node);
            self.coverage.count("a doubtful replica is counted on again");
            if has_others && after.is_member(node) {
                self.oracle
                    .fail(format!("the doubtful replica of {partition} on broker {node} is a member beside others"));
            }
        }
    }

    /// Rule 9: whoever is in sync is counted on. Rule 12: a reassignment ends when all targets are in sync.
    fn check_change(&mut self, before: &ClusterImage, after: &ClusterImage, partition: TopicPartition) {
        let (Some(old), Some(new)) = (before.partition(partition), after.partition(partition)) else { return };
        if let Some(fenced) = new.in_sync.iter().find(|node| new.leader.is_some() && !after.is_live(**node)) {
            self.oracle.fail(format!("broker {fenced} is fenced, and in sync for {partition}"));
        }
        if let Some(moved) =
            old.reassignment.as_ref().filter(|moved| new.reassignment.is_none() && moved.from != moved.to)
        {
            self.coverage.count("a reassignment is complete");
            if let Some(missing) = moved.to.iter().find(|node| new.replicas == moved.to && !new.in_sync.contains(node))
            {
                self.oracle.fail(format!("{partition} is moved, and broker {missing} is not in sync"));
            }
        }
        if new.leader_epoch > old.leader_epoch {
            self.coverage.count(if new.leader.is_some_and(|leader| old.eligible.contains(&leader)) {
                "an eligible replica is elected"
            } else {
                "a leader is elected"
            });
        }
        if new.in_sync.iter().any(|node| !old.in_sync.contains(node)) {
            self.coverage.count("a replica comes into the in-sync set");
        }
    }
}

fn members(state: &PartitionImage) -> impl Iterator<Item = NodeId> {
    state.in_sync.iter().chain(&state.eligible).copied()
}
