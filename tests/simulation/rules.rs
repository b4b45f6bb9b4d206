//! What single rules of replication ask for beyond that nothing is lost: checked at the moment when they matter.
//!
//! What a rule protects is often protected by another one, too, and breaking it loses nothing: a leader that answers after its lease, a
//! fetch that waits for too long. So it is asked for directly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::engine::controller::{DamageOutcome, Decision};
use callboard::engine::leader::{Leadership, Proposal};
use callboard::engine::metadata::{ClusterImage, MetadataRecord, PartitionImage};
use callboard::engine::producer_state::Verdict;
use callboard::engine::replication::{FetchId, ReplicaFetch, ReplicaVerdict};
use callboard::protocol::ApiError;
use callboard::replica::Answer;
use callboard::types::record_batch::RecordBatch;
use callboard::types::{BrokerEpoch, FlushPolicy, LeaderEpoch, MonoTime, NodeId, Offset, TopicPartition};

use crate::broker::Hosted;
use crate::net::{Kind, Place, ReplyTo};
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
    leads_since: Option<(LeaderEpoch, u64)>,
    /// When each follower was last heard.
    heard: BTreeMap<NodeId, u64>,
    /// When it last proposed a set without them.
    left_out: BTreeMap<NodeId, u64>,
    /// The newest fetch of each that counted, in that epoch.
    counted: BTreeMap<NodeId, FetchId>,
    /// The fetch that is being looked at, if it must not count, and why.
    void: Option<(FetchId, &'static str)>,
}

impl Duties {
    /// A fetch comes. What must not count says why.
    pub fn asked(
        &mut self,
        fetch: &ReplicaFetch,
        leader: Option<(LeaderEpoch, &Leadership)>,
        now_us: u64,
    ) -> Option<&'static str> {
        self.waiting.push(*fetch);
        self.heard.insert(fetch.replica, now_us);
        let (epoch, leadership) = leader?;
        if self.leads_since.is_none_or(|(known, _)| known != epoch) {
            self.counted.clear();
        }
        self.counted.retain(|node, id| leadership.epoch_of(*node) == Some(id.broker_epoch));
        let is_overtaken = self.counted.get(&fetch.replica).is_some_and(|newest| newest.number >= fetch.number);
        let why = match () {
            () if fetch.leader_epoch != epoch => "a fetch for another epoch comes",
            () if leadership.epoch_of(fetch.replica) != Some(fetch.broker_epoch) => {
                "a fetch of an earlier registration comes"
            }
            () if is_overtaken => "a fetch is overtaken",
            () => return None,
        };
        self.void = Some((fetch.id(), why));
        Some(why)
    }

    /// A fetch of `node` was answered: its end if it counted. Says why it must not have, if that is so.
    fn answered(&mut self, node: NodeId, id: FetchId, counted: bool) -> Option<&'static str> {
        self.waiting.retain(|fetch| fetch.id() != id || fetch.replica != node);
        let void = self.void.take_if(|(void, _)| *void == id);
        if counted && void.is_none() {
            let newest = self.counted.entry(node).or_insert(id);
            *newest = if newest.number < id.number { id } else { *newest };
        }
        void.filter(|_| counted).map(|(_, why)| why)
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

/// Whether a batch is the retry of one that is appended, and not committed yet.
pub fn is_early_retry(hosted: &Hosted, batch: &RecordBatch) -> bool {
    let Some(leader) = hosted.replica.leader() else { return false };
    let watermark = leader.cursors().high_watermark();
    matches!(leader.producers().judge(&batch.header), Verdict::Duplicate { end_offset_exclusive, .. } if end_offset_exclusive > watermark)
}

/// Whether an answer says that what was asked counts: a follower that is told to cut its log has said nothing of this one.
pub fn counts(result: &Result<Answer, ApiError>) -> bool {
    match result {
        Ok(Answer::ReplicaFetched(verdict, _)) => *verdict == ReplicaVerdict::Continues,
        result => result.is_ok(),
    }
}

impl World {
    /// Rule 3: a leader answers within its lease only. Rule 13: a fetch that was answered waits no more.
    pub fn check_answer(&mut self, number: usize, reply: ReplyTo, is_ok: bool) {
        let (node, now) = (self.brokers[number].node, self.local_time(number));
        let Some(process) = self.brokers[number].process.as_mut() else { return };
        let lease_until = process.lease_until;
        let Some(hosted) = process.replicas.get_mut(&reply.partition) else { return };
        if let (Kind::Replica(broker_epoch), Place::Broker(from)) = (reply.kind, reply.place) {
            let id = FetchId { broker_epoch, number: reply.request };
            if let Some(why) = hosted.duties.answered(NodeId(from as u32 + 1), id, is_ok) {
                self.oracle.fail(format!("{why} to broker {node}, and counts for {}", reply.partition));
            }
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
        if holds < end && !broker.robbed.contains(&partition) {
            self.oracle.fail(format!("{partition} is handed over at {end} to broker {target}, which holds {holds}"));
        }
    }

    /// Rules 9 and 13: what a leader owes its followers after each step.
    pub fn check_duties(&mut self, number: usize, partition: TopicPartition) {
        let (node, now) = (self.brokers[number].node, self.now);
        // Whoever stands still goes on when its time is over, or everything works again.
        let resumed = if self.plan.is_over { self.plan.ends_at } else { self.brokers[number].paused_until };
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
        let watermark_only =
            |fetch: &ReplicaFetch| fetch.position == cursors.written_end() && fetch.high_watermark < fetch.position;
        let waits_for_watermark = duties.waiting.iter().any(watermark_only);
        let is_failed = leader.failure().is_some();
        let is_silent = |member: &&NodeId| {
            let heard = |times: &BTreeMap<NodeId, u64>| times.get(member).copied().unwrap_or_default();
            let last = heard(&duties.heard).max(heard(&duties.left_out)).max(since).max(resumed);
            !is_failed && **member != node && now.saturating_sub(last) > SILENCE_US
        };
        if let Some(member) = leader.leadership().in_sync.iter().find(is_silent).copied() {
            self.oracle.fail(format!("broker {member} is silent, and the leader of {partition} proposes nothing"));
        }
        self.coverage.count_if(waits_for_watermark, "a follower waits when only the watermark moves");
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
        let registers = matches!(entry.first(), Some(MetadataRecord::BrokerRegistered(_)));
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
                MetadataRecord::PartitionChanged(change) => {
                    self.check_change(before, &after, change.partition, registers)
                }
                _ => {}
            }
        }
    }

    /// Rule 16: a doubtful replica is no member beside others.
    fn check_unfenced(&mut self, before: &ClusterImage, after: &ClusterImage, node: NodeId, epoch: BrokerEpoch) {
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
    fn check_change(
        &mut self,
        before: &ClusterImage,
        after: &ClusterImage,
        partition: TopicPartition,
        registers: bool,
    ) {
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
        let have = new.in_sync.len() as u32;
        let is_below = after.topics.get(&partition.topic).is_some_and(|topic| have < topic.min_in_sync());
        self.coverage.count_if(new.leader.is_some() && is_below, "the minimum holds the watermark back");
        let has_left = old.replicas.iter().any(|node| old.is_member(*node) && !new.is_member(*node));
        let is_unsynced = self.plan.flush_of(partition) != FlushPolicy::Always;
        self.coverage.count_if(has_left && registers && is_unsynced, "a replica leaves for what was not synced");
        if new.leader_epoch > old.leader_epoch {
            let last = self.oracle.history(partition).last_leader.replace(new.leader);
            self.coverage.count_if(last == Some(new.leader), "a broker is elected again");
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
