//! What records do to the brokers of the image.

use std::sync::Arc;

use super::{ApplyError, BrokerImage, BrokerRegistration, ClusterImage};
use crate::types::{BrokerEpoch, Mutant, NodeId};

/// How many processes of a broker are remembered.
const EARLIER_PROCESSES: usize = 8;

impl ClusterImage {
    pub(super) fn register(&mut self, registration: &BrokerRegistration) -> Result<(), ApplyError> {
        let (node, epoch) = (registration.node, registration.epoch);
        let found = self.index - 1;
        if let Some(expected) =
            registration.decided_at.filter(|at| *at != found && !Mutant::RegistersOnOldMetadata.is_on())
        {
            return Err(ApplyError::DecidedElsewhere { expected, found });
        }
        if self.brokers.get(&node).is_some_and(|known| known.registration.epoch >= epoch) {
            return Err(ApplyError::StaleBroker { node, epoch });
        }
        if self.has_lost_its_past(registration) {
            self.forget_what_it_opened(node);
        }
        let known = self.brokers.get(&node);
        let unfenced_epoch = known.map_or(BrokerEpoch(0), |known| known.unfenced_epoch);
        let synced_from = known.map_or(0, |known| known.synced_from);
        let mut earlier: Vec<_> = known
            .into_iter()
            .flat_map(|known| known.earlier.iter().copied().chain([known.registration.incarnation]))
            .collect();
        earlier.drain(..earlier.len().saturating_sub(EARLIER_PROCESSES));
        let (registration, fenced, stopping) = (registration.clone(), !Mutant::NewIncarnationsLeadOn.is_on(), false);
        self.brokers.insert(node, BrokerImage { registration, fenced, stopping, unfenced_epoch, synced_from, earlier });
        // A new incarnation may have lost what the old one had only in memory: it leads again only by an election.
        if fenced {
            self.end_leaderships(node);
        }
        Ok(())
    }

    /// Whether the broker comes back on a data directory that is not the one it was counted on with, or not as new: a wiped,
    /// exchanged or rolled back one. Its replicas hold nothing that counts.
    #[must_use]
    pub fn has_lost_its_past(&self, registration: &BrokerRegistration) -> bool {
        self.brokers.get(&registration.node).is_some_and(|known| {
            let is_other = known.registration.directory != registration.directory;
            let is_older = registration.before.epoch < known.unfenced_epoch && !Mutant::TrustsOldDirectories.is_on();
            (is_other || is_older) && !Mutant::TrustsAnyDirectory.is_on()
        })
    }

    /// Directories that are missing there were not lost: they begin anew, as those of a new replica do.
    fn forget_what_it_opened(&mut self, node: NodeId) {
        for topic in self.topics.values_mut().filter(|topic| topic.opened.contains(&node)) {
            let topic = Arc::make_mut(topic);
            topic.opened.remove(&node);
            topic.unopened.retain(|(_, other)| *other != node);
        }
    }

    fn end_leaderships(&mut self, node: NodeId) {
        let level = self.feature_level;
        for topic in self.topics.values_mut() {
            if topic.partitions.iter().any(|partition| partition.leader == Some(node)) {
                let led = Arc::make_mut(topic).partitions.iter_mut().filter(|p| p.leader == Some(node));
                led.for_each(|partition| partition.end_leadership(level));
            }
        }
    }

    pub(super) fn broker_mut(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<&mut BrokerImage, ApplyError> {
        match self.brokers.get_mut(&node) {
            Some(broker) if broker.registration.epoch == epoch => Ok(broker),
            _ => Err(ApplyError::StaleBroker { node, epoch }),
        }
    }

    pub(super) fn unfence(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<(), ApplyError> {
        // In logs of level 1 a broker was counted on before its directory held the epoch: older ones prove nothing there.
        let holds_epoch = self.feature_level >= 2;
        let broker = self.broker_mut(node, epoch)?;
        if broker.stopping {
            return Err(ApplyError::NotLive { node });
        }
        broker.fenced = false;
        broker.synced_from = broker.registration.decided_at.unwrap_or_default();
        if holds_epoch {
            broker.unfenced_epoch = epoch;
        }
        Ok(())
    }

    pub(super) fn fence(&mut self, node: NodeId, epoch: BrokerEpoch) -> Result<(), ApplyError> {
        // Of two decisions at the same time the second says nothing new: each fencing is on record once (rule 19).
        let is_once = self.feature_level >= 2 && !Mutant::FencesTwice.is_on();
        let broker = self.broker_mut(node, epoch)?;
        if broker.fenced && is_once {
            return Err(ApplyError::FencedAlready { node });
        }
        broker.fenced = true;
        self.end_leaderships(node);
        Ok(())
    }
}
