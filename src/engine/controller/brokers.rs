//! Brokers that come, are counted on, stop and go: the records of each, and what they do to the partitions there.
//!
//! ```text
//!   register ─► fenced ─► unfence ─► live ─► stopping ─► fence ─► fenced
//!     │ the directory is not the one it was: its replicas leave both sets (rule 14)
//!     │ the machine went down: so do those whose records were not synced (rule 15)
//! ```
//!
//! Between `register` and `unfence` the broker writes its epoch down. A directory that does not hold the epoch of a broker that
//! was counted on is therefore another one, or an older copy.

use super::elections::{change_and_settle, settle, was_synced};
use super::{Decision, Draft, refuse, stale};
use crate::engine::metadata::{
    ApplyError, BrokerImage, BrokerRegistration, ClusterImage, LastStop, MetadataRecord, PartitionImage,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BrokerEpoch, Mutant, NodeId, TopicConfig, TopicPartition};

/// Registers a broker under a new epoch, fenced. Whatever it led it leads no more (rule 5); those of its replicas that may lack
/// what is committed leave both sets. `defaults` are the settings of topics that do not override them. A process registers once:
/// asked again, it is given the epoch that it has.
///
/// # Errors
/// [`ErrorCode::BrokerSuperseded`] for a process that another has taken over from.
/// [`ErrorCode::InvalidRequest`] while a broker of the same id runs on another data directory, or a newer copy of this one. One on
/// the same directory is the old process of this one, and is taken over from.
pub fn register(
    image: &ClusterImage,
    mut registration: BrokerRegistration,
    defaults: &TopicConfig,
) -> Result<Decision<BrokerEpoch>, ApiError> {
    let node = registration.node;
    if let Some(known) = image.brokers.get(&node) {
        // What came twice, or late, was sent before its directory held the epoch, and would pass for an older copy.
        if known.registration.incarnation == registration.incarnation && !Mutant::RegistersTwice.is_on() {
            return Ok(Draft::new(image).decide(known.registration.epoch));
        }
        if known.earlier.contains(&registration.incarnation) && !Mutant::RegistersTwice.is_on() {
            let text = format!("a newer process of broker {node} has registered: this one is over, stop it");
            return refuse(ErrorCode::BrokerSuperseded, text);
        }
        let is_other = known.registration.directory != registration.directory;
        if !known.fenced && (is_other || image.has_lost_its_past(&registration)) {
            let which = if is_other { "another data directory" } else { "a newer copy of this data directory" };
            let (host, port) = (&known.registration.host, known.registration.port);
            let text = format!(
                "a broker with id {node} runs on {which}, at {host}:{port}: stop it, or give this node another node.id; if it has stopped, this one is accepted when its lease is over"
            );
            return refuse(ErrorCode::InvalidRequest, text);
        }
    }
    // Above every epoch that was ever given: the index of the log never goes back.
    let known = image.epoch_of(node).unwrap_or_default();
    let epochs = [known.0, image.index, registration.epoch.0, registration.before.epoch.0];
    let epoch = BrokerEpoch(epochs.into_iter().max().unwrap_or_default() + 1);
    registration.epoch = epoch;
    registration.decided_at = Some(image.index);
    let has_lost_its_past = image.has_lost_its_past(&registration);
    let was_machine = registration.before.stop == LastStop::Machine;
    let synced_from = image.brokers.get(&node).map_or(0, |known| known.synced_from);
    let mut draft = Draft::new(image);
    let take = || {
        draft.push(MetadataRecord::BrokerRegistered(registration))?;
        for partition in touched(image, |state| state.replicas.contains(&node)) {
            let may_lack = was_machine && !was_synced(image, partition, synced_from, defaults);
            change_and_settle(&mut draft, partition, |change, min_in_sync| {
                if has_lost_its_past {
                    change.expel(node, false, min_in_sync);
                } else if may_lack && !Mutant::KeepsUnsyncedReplicas.is_on() {
                    change.expel(node, true, min_in_sync);
                }
            })?;
        }
        Ok(())
    };
    take().map_err(|error: ApplyError| stale(&error))?;
    Ok(draft.decide(epoch))
}

/// Counts on a broker from here on: it has written down its `epoch` and caught up on metadata. `doubtful` are its replicas whose
/// recovery cut a tail that was not all zeros: they stay members only where nobody else was one, since somebody intact, or
/// somebody who kept more, may come back (rule 16). A broker that is counted on already, or is stopping, is left as it is.
///
/// # Errors
/// [`ErrorCode::StaleMetadata`] for another registration than the current one.
pub fn unfence(
    image: &ClusterImage,
    node: NodeId,
    epoch: BrokerEpoch,
    doubtful: &[TopicPartition],
) -> Result<Decision<()>, ApiError> {
    let mut draft = Draft::new(image);
    let broker = current(image, node, epoch)?;
    if !broker.fenced || broker.stopping {
        return Ok(draft.decide(()));
    }
    let has_others = |state: &PartitionImage| {
        let mut known = state.in_sync.iter().chain(&state.eligible).chain(&state.last_members);
        known.any(|other| *other != node)
    };
    let mut take = || {
        draft.push(MetadataRecord::BrokerUnfenced { node, epoch })?;
        for partition in touched(image, |state| state.replicas.contains(&node)) {
            let is_doubtful = doubtful.contains(&partition) && image.partition(partition).is_some_and(has_others);
            change_and_settle(&mut draft, partition, |change, min_in_sync| {
                if is_doubtful && !Mutant::KeepsTheDoubtful.is_on() {
                    change.expel(node, true, min_in_sync);
                }
            })?;
        }
        Ok(())
    };
    take().map_err(|error: ApplyError| stale(&error))?;
    Ok(draft.decide(()))
}

/// Stops counting on a broker: its lease lapsed, its process is gone, or it has stopped. Whatever it led is led by another
/// member, if one may lead. A broker that is fenced already is no decision: each fencing is recorded, and logged, once (rule 19).
///
/// # Errors
/// [`ErrorCode::StaleMetadata`] for another registration than the current one.
pub fn fence(image: &ClusterImage, node: NodeId, epoch: BrokerEpoch) -> Result<Decision<()>, ApiError> {
    let mut draft = Draft::new(image);
    if current(image, node, epoch)?.fenced && !Mutant::FencesTwice.is_on() {
        return Ok(draft.decide(()));
    }
    let mut take = || {
        draft.push(MetadataRecord::BrokerFenced { node, epoch })?;
        touched(image, |state| state.in_sync.contains(&node))
            .into_iter()
            .try_for_each(|partition| settle(&mut draft, partition))
    };
    take().map_err(|error| stale(&error))?;
    Ok(draft.decide(()))
}

/// Notes that a broker is about to stop: it is elected no more, and joins no in-sync set. What it leads it hands over by itself
/// (rule 8, [`super::alter_in_sync`]); when it has stopped it is fenced.
///
/// # Errors
/// [`ErrorCode::StaleMetadata`] for another registration than the current one.
pub fn stopping(image: &ClusterImage, node: NodeId, epoch: BrokerEpoch) -> Result<Decision<()>, ApiError> {
    let mut draft = Draft::new(image);
    if !current(image, node, epoch)?.stopping {
        draft.push(MetadataRecord::BrokerStopping { node, epoch }).map_err(|error| stale(&error))?;
    }
    Ok(draft.decide(()))
}

/// The broker, if `epoch` is its current registration.
pub(super) fn current(image: &ClusterImage, node: NodeId, epoch: BrokerEpoch) -> Result<&BrokerImage, ApiError> {
    match image.brokers.get(&node) {
        Some(broker) if broker.registration.epoch == epoch => Ok(broker),
        _ => Err(stale(&ApplyError::StaleBroker { node, epoch })),
    }
}

fn touched(image: &ClusterImage, is_touched: impl Fn(&PartitionImage) -> bool) -> Vec<TopicPartition> {
    image.partitions().filter(|(_, state)| is_touched(state)).map(|(partition, _)| partition).collect()
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
mod tests;
