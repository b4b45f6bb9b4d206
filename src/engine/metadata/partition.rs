//! One partition in the image: who holds it, who leads it, and who may.
//!
//! ```text
//!   replicas ⊇ in sync ∪ eligible
//!              │ hold all that is committed, and count for the next commit
//!              │         │ hold all that is committed: when they left, too few were in sync for more (KIP-966)
//!              leader
//! ```
//!
//! The two sets are the *members*. Elections take from them only; when the last member has left, those that may still have
//! its records are noted as `last_members`.

use serde::{Deserialize, Serialize};

use super::{ApplyError, ClusterImage};
use crate::types::{BrokerEpoch, LeaderEpoch, Mutant, NodeId, TopicPartition};

/// A partition in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Who holds a replica, the preferred leader first. During a reassignment: the old ones and the new ones.
    pub replicas: Vec<NodeId>,
    /// Who leads; `None` while nobody does.
    pub leader: Option<NodeId>,
    /// The epoch of the newest election.
    pub leader_epoch: LeaderEpoch,
    /// The committed in-sync set.
    pub in_sync: Vec<NodeId>,
    /// Raised by every [`PartitionChange`], and by another minimum of in-sync replicas.
    pub partition_epoch: u32,
    /// Who may be elected beside the in-sync set.
    #[serde(default)]
    pub eligible: Vec<NodeId>,
    /// Who was a member when the last one left, and still has what was written there, perhaps not all of it.
    #[serde(default)]
    pub last_members: Vec<NodeId>,
    /// A change of replicas that is under way.
    #[serde(default)]
    pub reassignment: Option<Reassignment>,
    /// The newest leader epoch whose leader was elected without being a member: what was committed before it may be
    /// lost, and replicas may truncate below their watermark for it.
    #[serde(default)]
    pub unclean_epoch: Option<LeaderEpoch>,
    /// The index of the newest election: its leader knows all metadata up to there.
    #[serde(default)]
    pub elected_at: u64,
}

/// A change of replicas: it ends in one swap, when all of `to` are in sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    /// The replicas before it, to which a cancellation returns.
    pub from: Vec<NodeId>,
    /// The replicas after it.
    pub to: Vec<NodeId>,
}

/// The state of a partition after a change, and what the change expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChange {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader from here on.
    pub leader: Option<NodeId>,
    /// Its epoch: higher than before for every election.
    pub leader_epoch: LeaderEpoch,
    /// The in-sync set from here on.
    pub in_sync: Vec<NodeId>,
    /// The partition epoch that this change expects to find.
    pub expected_partition_epoch: u32,
    /// The eligible set from here on.
    #[serde(default)]
    pub eligible: Vec<NodeId>,
    /// See [`PartitionImage::last_members`].
    #[serde(default)]
    pub last_members: Vec<NodeId>,
    /// The replicas from here on; `None`: as before.
    #[serde(default)]
    pub replicas: Option<Vec<NodeId>>,
    /// The reassignment under way from here on.
    #[serde(default)]
    pub reassignment: Option<Reassignment>,
    /// Whoever becomes a member of the in-sync set, with the registration under which it does.
    #[serde(default)]
    pub joining: Vec<(NodeId, BrokerEpoch)>,
    /// The new leader was no member.
    #[serde(default)]
    pub is_unclean: bool,
}

impl PartitionImage {
    /// A partition that was just created: all its replicas are empty, and so in sync.
    #[must_use]
    pub fn new(replicas: Vec<NodeId>, leader: Option<NodeId>) -> Self {
        Self {
            in_sync: replicas.clone(),
            replicas,
            leader,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            eligible: Vec::new(),
            last_members: Vec::new(),
            reassignment: None,
            unclean_epoch: None,
            elected_at: 0,
        }
    }

    /// Whether elections may take `node`.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.in_sync.contains(&node) || self.eligible.contains(&node)
    }

    /// A change that changes nothing yet.
    #[must_use]
    pub fn to_change(&self, partition: TopicPartition) -> PartitionChange {
        PartitionChange {
            partition,
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            in_sync: self.in_sync.clone(),
            expected_partition_epoch: self.partition_epoch,
            eligible: self.eligible.clone(),
            last_members: self.last_members.clone(),
            replicas: None,
            reassignment: self.reassignment.clone(),
            joining: Vec::new(),
            is_unclean: false,
        }
    }

    /// Its leader leads no more, since its broker does not count. From feature level 2 on that is no change of its own: the decision
    /// that fences a broker settles its partitions too. If it raised the epoch, a decision on older metadata, where the
    /// broker still led, would expect an epoch that another change has given the partition meanwhile.
    pub(super) fn end_leadership(&mut self, feature_level: u16) {
        self.leader = None;
        self.partition_epoch += u32::from(feature_level < 2);
    }

    fn is_election(&self, change: &PartitionChange) -> bool {
        change.leader.is_some() && (change.leader != self.leader || change.leader_epoch != self.leader_epoch)
    }

    /// What stands against `change`, if something does.
    pub(super) fn check(&self, change: &PartitionChange, image: &ClusterImage) -> Result<(), ApplyError> {
        let PartitionChange { partition, leader_epoch, expected_partition_epoch: expected, .. } = *change;
        let is_election = self.is_election(change);
        let rises = leader_epoch > self.leader_epoch || Mutant::ElectsInTheSameEpoch.is_on();
        let epoch_fits = if is_election { rises } else { leader_epoch == self.leader_epoch };
        let is_current = self.partition_epoch == expected || Mutant::IgnoresPartitionEpochs.is_on();
        if !is_current || !epoch_fits {
            return Err(ApplyError::StalePartition { partition, expected, leader_epoch });
        }
        let replicas = change.replicas.as_ref().unwrap_or(&self.replicas);
        let members = || change.in_sync.iter().chain(&change.eligible);
        let mut seen = Vec::new();
        for node in members() {
            if !replicas.contains(node) || seen.contains(node) {
                return Err(ApplyError::NotAReplica { partition, node: *node });
            }
            seen.push(*node);
        }
        for node in change.in_sync.iter().filter(|node| !self.in_sync.contains(node)) {
            let epoch = change.joining.iter().find(|(joining, _)| joining == node).map_or(BrokerEpoch(0), |(_, e)| *e);
            let is_current = image.is_registered(*node, epoch) || Mutant::JoinsUnderAnyRegistration.is_on();
            if !is_current || !(image.may_lead(*node) || Mutant::JoinsWhileFenced.is_on()) {
                return Err(ApplyError::StaleBroker { node: *node, epoch });
            }
        }
        let Some(leader) = change.leader else { return Ok(()) };
        if !change.in_sync.contains(&leader) {
            return Err(ApplyError::NotAReplica { partition, node: leader });
        }
        if is_election && !image.may_lead(leader) {
            return Err(ApplyError::NotLive { node: leader });
        }
        if is_election && !change.is_unclean && !self.is_member(leader) {
            return Err(ApplyError::NotAMember { partition, node: leader });
        }
        Ok(())
    }

    /// Takes on what `change` says, which was checked and stands at `index`.
    pub(super) fn take(&mut self, change: &PartitionChange, index: u64) {
        if self.is_election(change) {
            self.elected_at = index;
            if change.is_unclean {
                self.unclean_epoch = Some(change.leader_epoch);
            }
        }
        self.leader = change.leader;
        self.leader_epoch = change.leader_epoch;
        self.in_sync.clone_from(&change.in_sync);
        self.eligible.clone_from(&change.eligible);
        self.last_members.clone_from(&change.last_members);
        self.reassignment.clone_from(&change.reassignment);
        if let Some(replicas) = &change.replicas {
            self.replicas.clone_from(replicas);
        }
        self.partition_epoch += 1;
    }
}

impl PartitionChange {
    /// Whether elections may take `node` after it.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.in_sync.contains(&node) || self.eligible.contains(&node)
    }

    /// Lets `stay` be the in-sync set: `min_in_sync` of them suffice to commit. Whoever leaves stays eligible while they do not.
    pub fn shrink_to(&mut self, stay: impl Fn(NodeId) -> bool, min_in_sync: u32) {
        let (stay, leave): (Vec<_>, Vec<_>) = self.in_sync.iter().copied().partition(|node| stay(*node));
        self.in_sync = stay;
        self.eligible.extend(leave.into_iter().filter(|_| !Mutant::ForgetsTheEligible.is_on()));
        self.settle_eligible(min_in_sync);
    }

    /// Lets `node` join the in-sync set under its registration `epoch`.
    pub fn join(&mut self, node: NodeId, epoch: BrokerEpoch, min_in_sync: u32) {
        if !self.in_sync.contains(&node) {
            self.in_sync.push(node);
            self.joining.push((node, epoch));
        }
        self.eligible.retain(|other| *other != node);
        self.last_members.clear();
        self.settle_eligible(min_in_sync);
    }

    /// Lets `node` leave both sets: it may lack what is committed. What it `still_has` matters when nobody leads: if the last
    /// member leaves like this, the best of those who did is all there is.
    pub fn expel(&mut self, node: NodeId, still_has: bool, min_in_sync: u32) {
        let was_member = self.in_sync.contains(&node) || self.eligible.contains(&node);
        let is_led_by_another = self.leader.is_some_and(|leader| leader != node);
        self.in_sync.retain(|other| *other != node);
        self.eligible.retain(|other| *other != node);
        self.last_members.retain(|other| *other != node || still_has);
        if was_member && still_has && !is_led_by_another {
            self.last_members.push(node);
        }
        self.settle_eligible(min_in_sync);
        if !is_led_by_another {
            self.leader = None;
        }
    }

    /// Lets everybody leave who is not among `replicas`; if that is the leader, nobody leads.
    pub fn restrict_to(&mut self, replicas: &[NodeId], min_in_sync: u32) {
        for set in [&mut self.in_sync, &mut self.eligible, &mut self.last_members] {
            set.retain(|node| replicas.contains(node));
        }
        self.joining.retain(|(node, _)| replicas.contains(node));
        self.leader = self.leader.filter(|leader| replicas.contains(leader));
        self.settle_eligible(min_in_sync);
    }

    /// Elects `node`, in a new epoch.
    pub fn elect(&mut self, node: NodeId, epoch: BrokerEpoch, min_in_sync: u32) {
        self.join(node, epoch, min_in_sync);
        self.leader = Some(node);
        if !Mutant::ElectsInTheSameEpoch.is_on() {
            self.leader_epoch = self.leader_epoch.next();
        }
    }

    /// Once enough are in sync, records are committed that those beside them do not have.
    fn settle_eligible(&mut self, min_in_sync: u32) {
        if self.in_sync.len() >= min_in_sync as usize && !Mutant::KeepsTheEligible.is_on() {
            self.eligible.clear();
        }
    }

    /// Whether it would change anything of `image`.
    #[must_use]
    pub fn changes(&self, image: &PartitionImage) -> bool {
        *self != image.to_change(self.partition)
    }
}
