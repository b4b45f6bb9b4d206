//! What single rules of replication ask for beyond that nothing is lost: checked at the moment when they matter.
//!
//! What a rule protects is often protected by another one, too, and breaking it loses nothing: a leader that answers after its lease, a
//! fetch that waits for too long. So it is asked for directly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use callboard::engine::controller::{DamageOutcome, Decision};
use callboard::engine::cursors::Cursors;
use callboard::engine::leader::{LeaderEngine, Leadership, Proposal};
use callboard::engine::metadata::{
    BrokerRegistration, ClusterImage, LastStop, MetadataRecord, PartitionChange, PartitionImage,
};
use callboard::engine::producer_state::Verdict;
use callboard::engine::replication::{FetchId, ReplicaFetch, ReplicaVerdict};
use callboard::protocol::{ApiError, ErrorCode};
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
    /// The in-sync set when it was last looked at, and who left it and has not been heard since.
    in_sync: Vec<NodeId>,
    left: BTreeSet<NodeId>,
    /// The partition epoch in which it proposed another leader.
    proposes_leader_in: Option<u32>,
    /// The offset that a consumer asks for lies beyond the log's end.
    pub asks_beyond: bool,
    /// The answer of a leader that is being looked at: whether it knew all.
    pub is_unsure: bool,
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
        if fetch.broker_epoch == leadership.epoch_of(fetch.replica).unwrap_or_default() && !is_overtaken {
            self.left.remove(&fetch.replica);
        }
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

    fn note_in_sync(&mut self, in_sync: &[NodeId]) {
        self.left.extend(self.in_sync.iter().filter(|node| !in_sync.contains(node)));
        self.in_sync = in_sync.to_vec();
    }

    /// What was looked at is over.
    pub fn is_at_rest(&mut self) {
        (self.is_unsure, self.asks_beyond) = (false, false);
    }

    pub fn is_refused(&mut self) {
        self.hand_over = None;
    }
}

impl Hosted {
    /// What an answer of its leader changes in a follower.
    pub fn heard(&self) -> Option<(u64, Cursors)> {
        self.replica.follower().map(|follower| (follower.newest_fetch(), *follower.cursors()))
    }

    /// Lets the leader hand over; whether it will.
    pub fn hand_over(&mut self, now: MonoTime, to: NodeId, until: MonoTime) -> bool {
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
fn counts(result: &Result<Answer, ApiError>) -> bool {
    match result {
        Ok(Answer::ReplicaFetched(verdict, _)) => {
            matches!(verdict, ReplicaVerdict::Continues | ReplicaVerdict::Producers { .. })
        }
        result => result.is_ok(),
    }
}

impl World {
    /// Rule 3: a leader answers within its lease only. Rule 13: a fetch that was answered waits no more.
    pub fn check_answer(&mut self, number: usize, reply: ReplyTo, result: &Result<Answer, ApiError>) {
        let is_ok = counts(result);
        let is_refused = matches!(result, Err(error) if error.code == ErrorCode::OffsetOutOfRange);
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
        let is_new = |leader: &LeaderEngine<_>| leader.cursors().high_watermark() < leader.epoch_start();
        if is_refused
            && reply.kind == Kind::Fetch
            && hosted.replica.leader().is_some_and(is_new)
            && hosted.duties.asks_beyond
        {
            self.oracle.fail(format!(
                "broker {node} refuses an offset of {}, and does not know yet what is committed",
                reply.partition
            ));
            return;
        }
        if is_refused && reply.kind == Kind::Fetch && hosted.duties.is_unsure {
            self.oracle.fail(format!(
                "broker {node} refuses an offset of {}, on the word of a leader that may be deposed",
                reply.partition
            ));
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

    /// Rule 2: an answer to an earlier process of the broker is none to this.
    pub fn check_taken(&mut self, number: usize, partition: TopicPartition, epoch: BrokerEpoch, is_taken: bool) {
        let broker = &self.brokers[number];
        let is_earlier = broker.process.as_ref().is_some_and(|process| process.epoch() != Some(epoch));
        self.coverage.count_if(is_earlier, "an answer to an earlier process comes");
        if is_earlier && is_taken {
            let node = broker.node;
            self.oracle.fail(format!("broker {node} takes an answer to an earlier process, for {partition}"));
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
        hosted.duties.note_in_sync(&in_sync);
        if proposal.new_leader.is_some() {
            hosted.duties.proposes_leader_in = Some(proposal.partition_epoch);
        }
        let joins = |node: &NodeId| !in_sync.contains(node) && hosted.duties.left.contains(node);
        if let Some(node) = proposal.members.iter().map(|(node, _)| *node).find(joins) {
            self.oracle.fail(format!(
                "broker {node} left the in-sync set of {partition}, and is to join on what it said before"
            ));
            return;
        }
        let is_in = |node: NodeId| proposal.members.iter().any(|(member, _)| *member == node);
        let left: Vec<_> = in_sync.into_iter().filter(|node| !is_in(*node)).collect();
        for node in &left {
            hosted.duties.left_out.insert(*node, now);
        }
        let end = hosted.replica.cursors().map_or(Offset::ZERO, |cursors| cursors.next_offset());
        if !left.is_empty() {
            self.coverage.count("a member that lags is proposed to leave");
        }
        let node = self.brokers[number].node;
        let leads =
            |state: &PartitionImage| state.leader == Some(node) && state.partition_epoch == proposal.partition_epoch;
        let target = proposal.new_leader.filter(|_| self.plan.newest_state(partition).is_some_and(leads));
        let Some(target) = target else { return };
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
        duties.note_in_sync(&leader.leadership().in_sync);
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
                    self.plan.fenced_at.insert(*node, (*epoch, after.index));
                    self.coverage.count("a broker is fenced");
                    let was_fenced = before.brokers.get(node).is_some_and(|broker| broker.fenced);
                    let broker = &self.brokers[self.broker_of(*node)];
                    let process = broker.process.as_ref().filter(|process| process.epoch() == Some(*epoch));
                    let has_lease = process.is_some_and(|process| process.lease_until > broker.now(self.now));
                    if was_fenced {
                        self.oracle.fail(format!("broker {node} is fenced again"));
                    } else if has_lease {
                        self.oracle.fail(format!("broker {node} is fenced, and holds a lease"));
                    }
                }
                MetadataRecord::BrokerUnfenced { node, epoch } => self.check_unfenced(before, &after, *node, *epoch),
                MetadataRecord::BrokerRegistered(registration) => self.check_registered(&after, registration),
                MetadataRecord::TopicDeleted { topic } => {
                    let holders = after.tombstone_holders.get(topic).cloned().unwrap_or_default();
                    self.plan.holders.insert(*topic, holders);
                }
                MetadataRecord::TombstoneCleared { topic, .. } if !after.tombstones.contains(topic) => {
                    self.check_files_gone(*topic);
                }
                MetadataRecord::PartitionChanged(change) => {
                    self.check_unclean(&after, change);
                    let is_over = |(node, epoch): &&(NodeId, BrokerEpoch)| !after.is_registered(*node, *epoch);
                    if let Some((node, epoch)) = change.joining.iter().find(is_over) {
                        let partition = change.partition;
                        self.oracle
                            .fail(format!("broker {node} joins {partition} under registration {epoch}, which is over"));
                    }
                    self.check_change(before, &after, change.partition, registers);
                }
                _ => {}
            }
        }
    }

    /// Rule 10: what does not fit changes nothing.
    pub fn check_refused_entry(&mut self, before: &ClusterImage) {
        let Some(after) = self.plan.newest.as_ref() else { return };
        if (ClusterImage { index: before.index, ..after.clone() }) != *before {
            self.oracle.fail("a decision that does not fit has changed something".to_owned());
        }
    }

    /// Rules 14 and 15: whoever comes back without its records is no member.
    fn check_registered(&mut self, after: &ClusterImage, registration: &BrokerRegistration) {
        let broker = &self.brokers[self.broker_of(registration.node)];
        let incarnation = registration.incarnation.0.as_u128();
        if broker.process.as_ref().is_none_or(|process| process.incarnation != incarnation) {
            return;
        }
        // A power loss takes nothing that was synced: by a clean stop before it, or because the topic is.
        let is_robbed = |partition: &TopicPartition| {
            let was_never_synced = after.topics.get(&partition.topic).is_some_and(|topic| topic.flush_changed_at == 0);
            broker.is_wiped || registration.before.stop == LastStop::Machine && was_never_synced
        };
        let is_member = |partition: &&TopicPartition| {
            let state = after.partition(**partition).filter(|_| is_robbed(partition));
            state.is_some_and(|state| state.is_member(registration.node))
        };
        // A damaged tail that recovery cut off is told with the first renewal.
        let mut robbed = broker.robbed.difference(&broker.flipped);
        if let Some(partition) = robbed.find(is_member).copied() {
            let node = registration.node;
            self.oracle.fail(format!("broker {node} registers without the records of {partition}, and is a member"));
        }
    }

    /// Rule 12: a leader that lives is replaced by its own hand-over only.
    fn check_replaced(&mut self, after: &ClusterImage, old: &PartitionImage, partition: TopicPartition) {
        let Some(leader) = old.leader.filter(|leader| after.is_live(*leader)) else { return };
        let (number, now) = (self.broker_of(leader), self.local_time(self.broker_of(leader)));
        let Some(process) = self.brokers[number].process.as_ref() else { return };
        let is_leased = process.is_known(leader) && process.lease_until > now;
        let Some(hosted) = process.replicas.get(&partition).filter(|_| is_leased) else { return };
        let leads = |leader: &LeaderEngine<_>| {
            leader.epoch() == old.leader_epoch && leader.failure().is_none() && !leader.was_damaged()
        };
        let goes = hosted.duties.proposes_leader_in == Some(old.partition_epoch);
        if hosted.replica.leader().is_some_and(leads) && !goes {
            self.oracle.fail(format!("broker {leader} leads {partition}, and is replaced without a hand-over"));
        }
    }

    /// Rule 16: a doubtful replica is no member beside others.
    fn check_unfenced(&mut self, before: &ClusterImage, after: &ClusterImage, node: NodeId, epoch: BrokerEpoch) {
        let process =
            self.brokers[self.broker_of(node)].process.as_ref().filter(|process| process.epoch() == Some(epoch));
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

    /// Rule 15: a partition of a topic that is not synced stays offline, unless it has one replica.
    fn check_unclean(&mut self, after: &ClusterImage, change: &PartitionChange) {
        let partition = change.partition;
        let config = after.topics.get(&partition.topic).and_then(|topic| topic.config.resolve(&self.defaults).ok());
        let is_synced = config.is_some_and(|config| config.flush == FlushPolicy::Always);
        let has_others = after.partition(partition).is_some_and(|state| state.replicas.len() > 1);
        if change.is_unclean && !is_synced && has_others {
            self.oracle.fail(format!("the last members of {partition} elect, and nobody asked them to"));
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
        // A fencing that was overtaken by the joining is settled soon, and until then whoever is in sync counts.
        let joins_fenced = |node: &&NodeId| !old.in_sync.contains(node) && !after.is_live(**node);
        if let Some(fenced) = new.in_sync.iter().find(joins_fenced).filter(|_| new.leader.is_some()) {
            self.oracle.fail(format!("broker {fenced} is fenced, and joins the in-sync set of {partition}"));
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
            self.check_replaced(after, old, partition);
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
