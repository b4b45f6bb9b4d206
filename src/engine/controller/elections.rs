//! Who leads: what becomes of a partition when a broker comes, goes, or loses something.
//!
//! ```text
//!   nobody leads ─► the first replica in sync that may lead
//!                   else the first eligible one               (it holds all that is committed: KIP-966)
//!                   else, once all last members are back,
//!                        the one that kept most               (unclean: on record, and said aloud)
//!                   else nobody
//! ```
//!
//! Every election raises the leader epoch, of the same broker too (rule 5), so that no (epoch, offset) names two contents.
//!
//! The last members of a partition elect by themselves
//! * when it has a single replica: nobody else could ever lead;
//! * when the topic is flushed `always`, and was when its last leader was elected: a member leaves such a partition only when its
//!   disk let it down (a torn tail, a hole), never for an unclean stop, and no intact member is left to wait for (rule 16).
//!
//! Of all other topics they elect when `unclean_recovery = "last_members"` says so (rule 15).

use super::reassignment;
use super::{Decision, Draft, stale};
use crate::engine::metadata::{ApplyError, ClusterImage, MetadataRecord, PartitionChange, PartitionImage};
use crate::protocol::ApiError;
use crate::types::{
    BrokerEpoch, FlushPolicy, LeaderEpoch, Mutant, NodeId, Offset, TopicConfig, TopicPartition, UncleanRecovery,
};

/// How far the log of a last member reaches, as its broker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaEnd {
    /// The partition.
    pub partition: TopicPartition,
    /// The broker.
    pub node: NodeId,
    /// Its registration: a report of an older one says nothing.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch of its last record.
    pub leader_epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// What came of electing from the last members of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The one that kept most leads, uncleanly.
    Elected {
        /// The broker.
        leader: NodeId,
        /// Its epoch.
        leader_epoch: LeaderEpoch,
    },
    /// These last members are not back, or have not reported: they may have kept more.
    Waits {
        /// The brokers.
        missing: Vec<NodeId>,
    },
    /// The topic's `unclean_recovery` wants it to stay offline.
    Forbidden,
    /// There is a leader, or a member to wait for, or nobody who has anything.
    NotCalledFor,
}

/// Lets `alter` change the partition, then settles it: brokers that are not live leave the in-sync set, and somebody leads if
/// anybody may. Records nothing where nothing changes.
pub(super) fn change_and_settle(
    draft: &mut Draft,
    partition: TopicPartition,
    alter: impl FnOnce(&mut PartitionChange, u32),
) -> Result<(), ApplyError> {
    let Some(topic) = draft.image.topics.get(&partition.topic) else {
        return Err(ApplyError::UnknownTopic { topic: partition.topic });
    };
    let (current, min_in_sync) = (draft.image.partition(partition), topic.min_in_sync());
    let current = current.ok_or(ApplyError::UnknownTopic { topic: partition.topic })?;
    let mut change = current.to_change(partition);
    alter(&mut change, min_in_sync);
    settle_change(&draft.image, current, &mut change, min_in_sync);
    if !change.changes(current) {
        return Ok(());
    }
    draft.push(MetadataRecord::PartitionChanged(change))
}

/// See [`change_and_settle`].
pub(super) fn settle(draft: &mut Draft, partition: TopicPartition) -> Result<(), ApplyError> {
    change_and_settle(draft, partition, |_, _| {})
}

/// Settles a change in the making. A leader that is about to stop leads on until it hands over or is fenced: taking the
/// leadership from it earlier would refuse what it is just acknowledging.
pub(super) fn settle_change(
    image: &ClusterImage,
    current: &PartitionImage,
    change: &mut PartitionChange,
    min_in_sync: u32,
) {
    change.shrink_to(|node| image.is_live(node), min_in_sync);
    change.leader = change.leader.filter(|leader| change.in_sync.contains(leader));
    reassignment::complete(image, change, min_in_sync);
    if change.leader.is_some() {
        return;
    }
    let replicas = change.replicas.as_ref().unwrap_or(&current.replicas);
    let first_of = |set: &[NodeId]| replicas.iter().copied().find(|node| set.contains(node) && image.may_lead(*node));
    let member = first_of(&change.in_sync).or_else(|| first_of(&change.eligible));
    let has_no_members = change.in_sync.is_empty() && change.eligible.is_empty();
    // With one replica there is nobody to compare it with, and nothing to wait for.
    let sole = || if has_no_members && replicas.len() == 1 { first_of(&change.last_members) } else { None };
    let anybody = || first_of(replicas).filter(|_| Mutant::ElectsAnybody.is_on());
    change.is_unclean = member.is_none();
    match member.or_else(sole).or_else(anybody).and_then(|node| Some((node, image.epoch_of(node)?))) {
        Some((node, epoch)) => change.elect(node, epoch, min_in_sync),
        None => change.is_unclean = false,
    }
}

/// Settles every partition: what a decision that was overtaken by another left undone. Decides nothing where all is well.
///
/// # Errors
/// Never on an image that was built by `apply`.
pub fn settle_all(image: &ClusterImage) -> Result<Decision<()>, ApiError> {
    let mut draft = Draft::new(image);
    for (partition, _) in image.partitions() {
        settle(&mut draft, partition).map_err(|error| stale(&error))?;
    }
    Ok(draft.decide(()))
}

/// Partitions that nobody can lead but their last members: of which [`elect_from_last_members`] wants reports.
pub fn without_members(image: &ClusterImage) -> impl Iterator<Item = (TopicPartition, &[NodeId])> {
    let is_without = |state: &PartitionImage| {
        state.leader.is_none()
            && state.in_sync.is_empty()
            && state.eligible.is_empty()
            && !state.last_members.is_empty()
    };
    let without = image.partitions().filter(move |(_, state)| is_without(state));
    without.map(|(partition, state)| (partition, state.last_members.as_slice()))
}

/// Elects leaders for partitions whose last members all left: the one that kept most, by (leader epoch, end offset), once all
/// of them are live and have reported. `reports` are those at hand, of any partitions; the answer has each partition that they
/// name once. `defaults` are the settings of topics that do not override them.
///
/// # Errors
/// Never on an image that was built by `apply`.
pub fn elect_from_last_members(
    image: &ClusterImage,
    defaults: &TopicConfig,
    reports: &[ReplicaEnd],
) -> Result<Decision<Vec<(TopicPartition, Recovery)>>, ApiError> {
    let mut partitions: Vec<_> = reports.iter().map(|report| report.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let mut draft = Draft::new(image);
    let mut answers = Vec::new();
    for partition in partitions {
        let best = match best_of_last_members(image, defaults, partition, reports) {
            Ok(best) => best,
            Err(recovery) => {
                answers.push((partition, recovery));
                continue;
            }
        };
        let elected = change_and_settle(&mut draft, partition, |change, min_in_sync| {
            change.elect(best.node, best.broker_epoch, min_in_sync);
            change.is_unclean = true;
        });
        elected.map_err(|error| stale(&error))?;
        let leader_epoch = draft.image.partition(partition).map_or(LeaderEpoch(0), |state| state.leader_epoch);
        answers.push((partition, Recovery::Elected { leader: best.node, leader_epoch }));
    }
    Ok(draft.decide(answers))
}

/// The last member to elect, or why there is none yet.
fn best_of_last_members<'a>(
    image: &ClusterImage,
    defaults: &TopicConfig,
    partition: TopicPartition,
    reports: &'a [ReplicaEnd],
) -> Result<&'a ReplicaEnd, Recovery> {
    let state = image.partition(partition).ok_or(Recovery::NotCalledFor)?;
    let has_members = state.leader.is_some() || !state.in_sync.is_empty() || !state.eligible.is_empty();
    if has_members || state.last_members.is_empty() {
        return Err(Recovery::NotCalledFor);
    }
    let config = config_of(image, partition, defaults);
    let is_allowed = state.replicas.len() == 1
        || was_synced(image, partition, u64::MAX, defaults)
        || config.unclean_recovery == UncleanRecovery::LastMembers
        || Mutant::ElectsLastMembersUnasked.is_on();
    if !is_allowed {
        return Err(Recovery::Forbidden);
    }
    let counts = |report: &&ReplicaEnd| {
        report.partition == partition
            && image.is_registered(report.node, report.broker_epoch)
            && image.may_lead(report.node)
    };
    let report_of = |node: &NodeId| reports.iter().rev().filter(counts).find(|report| report.node == *node);
    let missing: Vec<_> = state.last_members.iter().copied().filter(|node| report_of(node).is_none()).collect();
    if !missing.is_empty() {
        return Err(Recovery::Waits { missing });
    }
    // Of equals the last is taken by `max_by_key`: reversed, the first in the order of the replicas.
    let in_order = state.replicas.iter().rev().filter(|node| state.last_members.contains(node)).filter_map(report_of);
    in_order.max_by_key(|report| (report.leader_epoch, report.end_offset)).ok_or(Recovery::NotCalledFor)
}

/// The topic's settings in force. An override that does not resolve was checked by other software: the defaults stand.
pub(super) fn config_of(image: &ClusterImage, partition: TopicPartition, defaults: &TopicConfig) -> TopicConfig {
    let overrides = image.topics.get(&partition.topic).map(|topic| topic.config.resolve(defaults));
    overrides.and_then(Result::ok).unwrap_or_else(|| defaults.clone())
}

/// Whether whatever was committed on a replica was synced there before. A broker whose process opened the log before `flush` became
/// `always` may have written something that it had not synced when it went down; a leader that was elected before may not have
/// known. `synced_from` is that of the broker.
pub(super) fn was_synced(
    image: &ClusterImage,
    partition: TopicPartition,
    synced_from: u64,
    defaults: &TopicConfig,
) -> bool {
    let changed_at = image.topics.get(&partition.topic).map_or(0, |topic| topic.flush_changed_at);
    let elected_at = image.partition(partition).map_or(0, |state| state.elected_at);
    config_of(image, partition, defaults).flush == FlushPolicy::Always && changed_at <= synced_from.min(elected_at)
}

#[cfg(test)]
#[path = "elections_tests.rs"]
mod tests;
