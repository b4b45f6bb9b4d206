//! What leaders propose: who is in sync from here on, and who takes over.
//!
//! Only the controller changes an in-sync set (rules 8 to 12). A proposal names the state that it was made in, and every member
//! with its registration, so that one that was overtaken by an election, a fencing or a restart is refused by name. Leaders
//! send many at once; each is decided on what those before it leave.

use super::elections::settle;
use super::{Decision, Draft};
use crate::engine::metadata::{ApplyError, ClusterImage, MetadataRecord, PartitionImage};
use crate::types::{BrokerEpoch, LeaderEpoch, Mutant, NodeId, TopicPartition};

/// A replica that is to be in sync, with the registration under which it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The broker.
    pub node: NodeId,
    /// Its registration.
    pub epoch: BrokerEpoch,
}

/// A leader's wish for its in-sync set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSyncProposal {
    /// The partition.
    pub partition: TopicPartition,
    /// Who proposes, and leads.
    pub leader: NodeId,
    /// The leader's registration.
    pub broker_epoch: BrokerEpoch,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch in which it was made up.
    pub partition_epoch: u32,
    /// The whole set from here on, the leader included unless it hands over.
    pub members: Vec<Member>,
    /// To whom the leadership goes: a member whose log ends where the leader's does (rule 8).
    pub new_leader: Option<NodeId>,
}

/// A proposal that is in force once its records are in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSyncAccepted {
    /// The partition epoch after it.
    pub partition_epoch: u32,
    /// Who leads after it.
    pub leader: Option<NodeId>,
    /// The leader epoch after it.
    pub leader_epoch: LeaderEpoch,
}

/// Why a proposal was refused: nothing of its partition has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InSyncRefusal {
    /// No such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(TopicPartition),
    /// Another broker leads, or none.
    #[error("the partition is led by {}", leader.map_or("nobody".to_owned(), |leader| format!("broker {leader}")))]
    NotLeader {
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// The proposal comes from an older registration of the leader, or a fenced one.
    #[error("broker {leader} has registered again, or is fenced")]
    StaleLeader {
        /// Who proposed.
        leader: NodeId,
    },
    /// There was an election since.
    #[error("the leader epoch is {current}")]
    StaleLeaderEpoch {
        /// The epoch there is.
        current: LeaderEpoch,
    },
    /// The partition changed since.
    #[error("the partition epoch is {current}")]
    StalePartitionEpoch {
        /// The epoch there is.
        current: u32,
    },
    /// The set holds somebody without a replica, or somebody twice.
    #[error("broker {node} holds no replica, or is named twice")]
    NotAReplica {
        /// Who.
        node: NodeId,
    },
    /// A member is fenced, registered again, or, if it is to join, stopping.
    #[error("broker {node} is fenced, stopping, or registered again")]
    FencedMember {
        /// Who.
        node: NodeId,
    },
    /// The leader is not in its own set, and hands over to nobody.
    #[error("a leader leaves the in-sync set only by handing over")]
    LeaderLeaves,
    /// Whoever is to take over was not in sync before, or may not lead.
    #[error("broker {node} cannot take over: it was not in sync, is fenced or stopping, or leads already")]
    CannotTakeOver {
        /// Who.
        node: NodeId,
    },
    /// The image refused the change.
    #[error(transparent)]
    Outdated(#[from] ApplyError),
}

impl InSyncRefusal {
    /// Whether the same leader may propose again once it has followed the metadata.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::StalePartitionEpoch { .. }
            | Self::FencedMember { .. }
            | Self::CannotTakeOver { .. }
            | Self::Outdated(_) => true,
            Self::UnknownPartition(_)
            | Self::NotLeader { .. }
            | Self::StaleLeader { .. }
            | Self::StaleLeaderEpoch { .. }
            | Self::NotAReplica { .. }
            | Self::LeaderLeaves => false,
        }
    }
}

/// Decides each of `proposals`, and answers each in their order. Those that are refused leave no record.
///
/// Whoever leaves stays eligible while fewer than the topic's minimum are in sync (KIP-966). A reassignment whose targets are
/// all in sync now is completed by the same record.
#[must_use]
pub fn alter_in_sync(
    image: &ClusterImage,
    proposals: &[InSyncProposal],
) -> Decision<Vec<Result<InSyncAccepted, InSyncRefusal>>> {
    let mut draft = Draft::new(image);
    let answers = proposals.iter().map(|proposal| decide(&mut draft, proposal)).collect();
    draft.decide(answers)
}

fn decide(draft: &mut Draft, proposal: &InSyncProposal) -> Result<InSyncAccepted, InSyncRefusal> {
    let (image, partition) = (&draft.image, proposal.partition);
    let unknown = InSyncRefusal::UnknownPartition(partition);
    let Some((topic, state)) = image.topics.get(&partition.topic).zip(image.partition(partition)) else {
        return Err(unknown);
    };
    check_leader(image, state, proposal)?;
    check_members(image, state, proposal)?;
    let min_in_sync = topic.min_in_sync();
    let mut change = state.to_change(partition);
    // In this order: were they counted together for a moment, that could look like enough, and clear the eligible set.
    change.shrink_to(|node| proposal.members.iter().any(|member| member.node == node), min_in_sync);
    for member in &proposal.members {
        change.join(member.node, member.epoch, min_in_sync);
    }
    if let Some(node) = proposal.new_leader {
        let epoch = image.epoch_of(node).unwrap_or_default();
        change.elect(node, epoch, min_in_sync);
    }
    // Also where nothing changes: the partition epoch rises, and with it ends whatever was proposed in this one before. A leader
    // that got no answer, or a refusal, gets rid of a proposal like that: a copy of it may still be under way.
    draft.push(MetadataRecord::PartitionChanged(change))?;
    // On its own, after the set is what it is: a reassignment may be complete now, and elect whoever has just come in.
    settle(draft, partition)?;
    let after = draft.image.partition(partition).ok_or(unknown)?;
    let PartitionImage { partition_epoch, leader, leader_epoch, .. } = *after;
    Ok(InSyncAccepted { partition_epoch, leader, leader_epoch })
}

fn check_leader(image: &ClusterImage, state: &PartitionImage, proposal: &InSyncProposal) -> Result<(), InSyncRefusal> {
    let leader = proposal.leader;
    if state.leader != Some(leader) {
        return Err(InSyncRefusal::NotLeader { leader: state.leader });
    }
    if !image.is_registered(leader, proposal.broker_epoch) || !image.is_live(leader) {
        return Err(InSyncRefusal::StaleLeader { leader });
    }
    if state.leader_epoch != proposal.leader_epoch {
        return Err(InSyncRefusal::StaleLeaderEpoch { current: state.leader_epoch });
    }
    if state.partition_epoch != proposal.partition_epoch {
        return Err(InSyncRefusal::StalePartitionEpoch { current: state.partition_epoch });
    }
    Ok(())
}

fn check_members(image: &ClusterImage, state: &PartitionImage, proposal: &InSyncProposal) -> Result<(), InSyncRefusal> {
    let members = &proposal.members;
    for (at, Member { node, epoch }) in members.iter().enumerate() {
        if !state.replicas.contains(node) || members[..at].iter().any(|other| other.node == *node) {
            return Err(InSyncRefusal::NotAReplica { node: *node });
        }
        // One that is stopping stays in sync until it has handed over, but it comes in no more.
        let may_be_in = if state.in_sync.contains(node) { image.is_live(*node) } else { image.may_lead(*node) };
        let is_current = image.is_registered(*node, *epoch) || Mutant::JoinsUnderAnyRegistration.is_on();
        if !is_current || !(may_be_in || Mutant::JoinsWhileFenced.is_on()) {
            return Err(InSyncRefusal::FencedMember { node: *node });
        }
    }
    let holds = |node: NodeId| members.iter().any(|member| member.node == node);
    match proposal.new_leader {
        None if holds(proposal.leader) => Ok(()),
        None => Err(InSyncRefusal::LeaderLeaves),
        Some(node) => {
            let may_take_over = node != proposal.leader && holds(node) && state.in_sync.contains(&node);
            if may_take_over && image.may_lead(node) { Ok(()) } else { Err(InSyncRefusal::CannotTakeOver { node }) }
        }
    }
}

#[cfg(test)]
#[path = "in_sync_tests.rs"]
mod tests;
