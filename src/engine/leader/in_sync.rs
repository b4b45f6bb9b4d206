//! What the leader proposes: another in-sync set, or another leader.
//!
//! ```text
//!   fetch, lag ──► wanted set ≠ committed set ──► Propose ──► controller ──► metadata ──► on_leadership: the set is committed
//!                                                    └── refused, or no answer: proposed again, counted all the while
//! ```
//!
//! One proposal at a time. Whatever was proposed counts for the watermark until the metadata shows a newer state of the
//! partition, because a proposal that seems lost may still be decided (rule 1 of docs/replication.md).

use std::time::Duration;

use super::{Command, LeaderEngine, Output};
use crate::engine::metadata::ClusterImage;
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, LeaderEpoch, MonoTime, Mutant, NodeId, Offset, TopicPartition};

/// A replica as the metadata knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its broker.
    pub node: NodeId,
    /// That broker's registration.
    pub broker_epoch: BrokerEpoch,
    /// Whether it may join the in-sync set: not fenced and not stopping.
    pub may_join: bool,
}

/// What one state of the metadata says of a partition that is led here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// This leader's epoch.
    pub epoch: LeaderEpoch,
    /// Rises with every change of the partition.
    pub partition_epoch: u32,
    /// The committed in-sync set, the leader included.
    pub in_sync: Vec<NodeId>,
    /// All replicas, the leader included.
    pub replicas: Vec<ReplicaView>,
    /// The replicas that a reassignment leads to, while one is under way.
    pub targets: Vec<NodeId>,
    /// It leads back to the replicas before it: whoever of them is there suffices.
    pub returns: bool,
}

impl Leadership {
    /// The leadership of a partition with one replica.
    #[must_use]
    pub fn alone(epoch: LeaderEpoch, node: NodeId, broker_epoch: BrokerEpoch) -> Self {
        let replica = ReplicaView { node, broker_epoch, may_join: true };
        Self {
            epoch,
            partition_epoch: 0,
            in_sync: vec![node],
            replicas: vec![replica],
            targets: Vec::new(),
            returns: false,
        }
    }

    /// What `image` says of a partition; `None` when there is no such partition.
    #[must_use]
    pub fn in_image(image: &ClusterImage, partition: TopicPartition) -> Option<Self> {
        let state = image.partition(partition)?;
        let view = |node: &NodeId| {
            let broker = image.brokers.get(node)?;
            Some(ReplicaView { node: *node, broker_epoch: broker.registration.epoch, may_join: image.may_lead(*node) })
        };
        Some(Self {
            epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            in_sync: state.in_sync.clone(),
            replicas: state.replicas.iter().filter_map(view).collect(),
            returns: state.reassignment.as_ref().is_some_and(|under_way| under_way.from == under_way.to),
            targets: state.reassignment.as_ref().map(|under_way| under_way.to.clone()).unwrap_or_default(),
        })
    }

    /// The registration of a replica's broker; `None` for a broker without a replica.
    #[must_use]
    pub fn epoch_of(&self, node: NodeId) -> Option<BrokerEpoch> {
        self.replicas.iter().find(|replica| replica.node == node).map(|replica| replica.broker_epoch)
    }

    /// Whether a replica's broker may join the in-sync set.
    #[must_use]
    pub fn may_join(&self, node: NodeId) -> bool {
        self.replicas.iter().any(|replica| replica.node == node && replica.may_join)
    }
}

/// A change that the controller is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state of the partition that it starts from.
    pub partition_epoch: u32,
    /// The in-sync set wanted, each with its registration.
    pub members: Vec<(NodeId, BrokerEpoch)>,
    /// Who is to lead from then on, if another.
    pub new_leader: Option<NodeId>,
}

/// A hand-over under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    target: NodeId,
    deadline: MonoTime,
}

impl<R> LeaderEngine<R> {
    /// The metadata says something else about this leadership: of the same epoch, else the leadership is over
    /// ([`LeaderEngine::on_stop`]). Settings that changed in the same step of the metadata come first.
    pub fn on_leadership(&mut self, now: MonoTime, leadership: Leadership, out: &mut Output<R>) {
        debug_assert_eq!(leadership.epoch, self.leadership.epoch, "another epoch is another leadership");
        if leadership.partition_epoch < self.leadership.partition_epoch {
            return;
        }
        let is_newer = leadership.partition_epoch > self.leadership.partition_epoch;
        if is_newer {
            // Whatever was proposed expected the state before: it was decided by now, or never will be.
            self.proposed_again_at = None;
            self.hand_over = None;
            self.may_be_deposed = false;
        }
        self.followers.follow_metadata(&leadership, is_newer);
        self.leadership = leadership;
        self.advance(now, out);
        self.reconsider(now, out);
    }

    /// The controller has refused what was proposed. It still counts: a copy of it may be under way.
    pub fn on_proposal_refused(&mut self, now: MonoTime) {
        self.hand_over = None;
        if Mutant::ForgetsProposalsWhenRefused.is_on() {
            self.followers.follow_metadata(&self.leadership, true);
        }
        if self.proposed_again_at.is_some() {
            self.proposed_again_at = Some(now.plus(self.settings.proposal_backoff));
        }
    }

    /// Proposes the set that is wanted now, unless that is what is committed, or a proposal is under way.
    pub(super) fn reconsider(&mut self, now: MonoTime, out: &mut Output<R>) {
        if self.leadership.replicas.len() == 1 || self.proposed_again_at.is_some_and(|at| at > now) {
            return;
        }
        self.hand_over_to_target(now);
        let start = if Mutant::JoinsBelowTheEpochStart.is_on() { Offset::ZERO } else { self.epoch_start };
        let watermark = self.cursors.high_watermark();
        let needed = if Mutant::JoinsBelowTheWatermark.is_on() { start } else { watermark.max(start) };
        let limits = (self.settings.max_lag, self.config.flush);
        let members = self.followers.wanted(now, &self.leadership, needed, limits);
        let new_leader = self.hand_over_is_ready(&members);
        let settled = members == self.leadership.in_sync
            && !self.followers.is_wider_than(&self.leadership.in_sync)
            && !self.may_be_deposed;
        if settled && new_leader.is_none() {
            self.proposed_again_at = None;
            return;
        }
        if !Mutant::CountsOnlyTheCommittedSet.is_on() {
            self.followers.widen(&members);
        }
        // From here on somebody else may lead, until the metadata shows a newer state of the partition.
        self.may_be_deposed |= new_leader.is_some();
        self.proposed_again_at = Some(now.plus(self.settings.proposal_timeout));
        let members = members.iter().filter_map(|node| Some((*node, self.leadership.epoch_of(*node)?))).collect();
        let Leadership { epoch: leader_epoch, partition_epoch, .. } = self.leadership;
        out.0.push(Command::Propose(Proposal { leader_epoch, partition_epoch, members, new_leader }));
    }

    /// Hands the leadership over to `target`: appends stop, and once `target` holds all there is, it is proposed. At `deadline`
    /// appends go on. That is safe even if the proposal is decided later: what `target` lacks is not committed, for it counts.
    ///
    /// # Errors
    /// [`ErrorCode::NotEnoughReplicas`] for a broker that is not in the in-sync set.
    pub fn on_hand_over(
        &mut self,
        now: MonoTime,
        target: NodeId,
        deadline: MonoTime,
        out: &mut Output<R>,
    ) -> Result<(), ApiError> {
        if target == self.me || !self.leadership.in_sync.contains(&target) || !self.leadership.may_join(target) {
            let text =
                format!("broker {target} is not an in-sync follower: choose one of {:?}", self.leadership.in_sync);
            return Err(ApiError::new(ErrorCode::NotEnoughReplicas, text));
        }
        self.hand_over = Some(HandOver { target, deadline });
        self.reconsider(now, out);
        Ok(())
    }

    /// A reassignment that leads to others waits for this leader to go once all of them are in sync.
    fn hand_over_to_target(&mut self, now: MonoTime) {
        let Leadership { in_sync, targets, returns, .. } = &self.leadership;
        let is_due = !targets.is_empty()
            && !targets.contains(&self.me)
            && (*returns || targets.iter().all(|target| in_sync.contains(target)))
            && self.hand_over.is_none();
        let target =
            targets.iter().copied().find(|target| in_sync.contains(target) && self.leadership.may_join(*target));
        let target = target.filter(|_| is_due);
        if let Some(target) = target {
            self.hand_over = Some(HandOver { target, deadline: now.plus(self.settings.proposal_timeout) });
        }
    }

    /// The next leader, if it is among `members` and holds all that this one holds.
    fn hand_over_is_ready(&self, members: &[NodeId]) -> Option<NodeId> {
        let target = self.hand_over?.target;
        let end = self.cursors.next_offset();
        let own = self.cursors.safe_end(self.config.flush);
        let theirs = self.followers.get(target)?.counted(self.config.flush);
        (members.contains(&target) && own == end && (theirs == end || Mutant::HandsOverTooEarly.is_on()))
            .then_some(target)
    }

    pub(super) fn handing_over_to(&self) -> Option<NodeId> {
        self.hand_over.map(|hand_over| hand_over.target)
    }

    pub(super) fn on_tick_in_sync(&mut self, now: MonoTime, out: &mut Output<R>) {
        if self.hand_over.is_some_and(|hand_over| hand_over.deadline <= now) {
            self.hand_over = None;
        }
        self.reconsider(now, out);
    }

    pub(super) fn next_in_sync_deadline(&self) -> Option<MonoTime> {
        let lag = || self.followers.next_lag(&self.leadership, self.settings.max_lag);
        let again = self.proposed_again_at.or_else(lag);
        again.into_iter().chain(self.hand_over.map(|hand_over| hand_over.deadline)).min()
    }
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self {
            producer_expiry_ms: 86_400_000,
            // Kafka's replica.lag.time.max.ms is 30 s; a third of it keeps producers from waiting that long for a slow disk.
            max_lag: Duration::from_secs(10),
            proposal_timeout: Duration::from_secs(1),
            proposal_backoff: Duration::from_millis(100),
        }
    }
}

/// How a leader judges its followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderSettings {
    /// Idempotent producers that have not written for this long, by the time in the log, are forgotten.
    pub producer_expiry_ms: i64,
    /// A follower that has not held all that the leader holds for this long leaves the in-sync set.
    pub max_lag: Duration,
    /// A proposal without an answer is made again after this long.
    pub proposal_timeout: Duration,
    /// After a refusal the next proposal waits for this long.
    pub proposal_backoff: Duration,
}

#[cfg(test)]
#[path = "in_sync_tests.rs"]
mod tests;
