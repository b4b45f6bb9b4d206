//! Who is silent for too long. Each broker renews a lease; one that does not is fenced.
//!
//! ```text
//!   broker    sends renewal ──────────── lease ────────────► stops acknowledging, reading and listing
//!   controller        gets it ──────────── lease ── drift ──► fences it
//! ```
//!
//! A broker counts from when it sent, the controller from when it got, and waits for as much longer as their clocks may drift
//! apart: when a broker is fenced for silence, it has stopped by itself. Nothing that `acks = all` promises depends on that
//! (rule 3); what a stale leader would answer to readers does.
//!
//! The table is all that a controller remembers beside the image, and it ends with its office. A new one knows of no renewals and
//! waits a full lease and drift before it fences anyone. Whoever answers a renewal must have had its leadership confirmed by a
//! quorum *after* the renewal came: a controller that was replaced must not prolong a lease that its successor lets lapse.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::metadata::ClusterImage;
use crate::types::{BrokerEpoch, MonoTime, Mutant, NodeId};

/// How long leases last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// A lease, from when the broker sent its renewal.
    pub duration: Duration,
    /// How far two clocks may drift apart within a lease.
    pub drift: Duration,
}

impl Leases {
    /// How long the controller hears nothing before it fences.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let drift = if Mutant::ForgetsThatClocksDrift.is_on() { Duration::ZERO } else { self.drift };
        self.duration.saturating_add(drift)
    }
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease runs on, from when the broker sent the renewal.
    Granted {
        /// For how long.
        duration: Duration,
        /// The broker is fenced and has caught up on metadata: unfence it, then answer.
        unfence: bool,
    },
    /// It came too late: nothing was renewed. The broker is about to be fenced, and is counted on again after that. Were the lease
    /// prolonged, it would run on while another leads.
    Lapsed,
    /// The broker has registered since, or is not known: it registers anew. Nothing was renewed.
    StaleEpoch {
        /// Its current registration.
        current: Option<BrokerEpoch>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: BrokerEpoch,
    /// When the last renewal came, or the table began.
    renewed: MonoTime,
    /// A fenced broker is counted on once it has applied this much: all there was when its registration, or its fencing, was first
    /// seen here, that included. With a lease it may answer, so it must know that it leads no more. A goal that moved with
    /// the log could be missed for ever.
    goal: u64,
    /// Whether it was fenced when that was looked at last.
    was_fenced: bool,
}

/// The leases of all brokers, while a controller is in office.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    settings: Leases,
    began: MonoTime,
    leases: BTreeMap<NodeId, Lease>,
}

impl LeaseTable {
    /// The table of a controller that takes office `now`, at the metadata in `image`.
    #[must_use]
    pub fn new(settings: Leases, now: MonoTime, image: &ClusterImage) -> Self {
        let mut table = Self { settings, began: now, leases: BTreeMap::new() };
        table.follow(if Mutant::FencesAtOnceInOffice.is_on() { MonoTime::default() } else { now }, image);
        table
    }

    /// Takes note of registrations and fencings: call it whenever the image has changed. A registration is a sign of life.
    pub fn follow(&mut self, now: MonoTime, image: &ClusterImage) {
        for (node, broker) in &image.brokers {
            let (epoch, was_fenced) = (broker.registration.epoch, broker.fenced);
            match self.leases.get_mut(node).filter(|lease| lease.epoch == epoch) {
                Some(lease) if was_fenced && !lease.was_fenced && !Mutant::GrantsLeasesToTheUnaware.is_on() => {
                    *lease = Lease { goal: image.index, was_fenced, ..*lease };
                }
                Some(lease) => lease.was_fenced = was_fenced,
                None => {
                    self.leases.insert(*node, Lease { epoch, renewed: now, goal: image.index, was_fenced });
                }
            }
        }
    }

    /// A renewal came from a broker that has applied the metadata up to `applied`.
    pub fn on_renewal(
        &mut self,
        now: MonoTime,
        image: &ClusterImage,
        (node, epoch): (NodeId, BrokerEpoch),
        applied: u64,
    ) -> Renewal {
        self.follow(now, image);
        let Some((lease, broker)) = self.leases.get_mut(&node).zip(image.brokers.get(&node)) else {
            return Renewal::StaleEpoch { current: None };
        };
        if lease.epoch != epoch {
            return Renewal::StaleEpoch { current: Some(lease.epoch) };
        }
        let is_late = now.since(lease.renewed) >= self.settings.patience() && !Mutant::RenewsLapsedLeases.is_on();
        if is_late && !broker.fenced {
            return Renewal::Lapsed;
        }
        lease.renewed = now;
        let unfence = broker.fenced && !broker.stopping && applied >= lease.goal;
        Renewal::Granted { duration: self.settings.duration, unfence }
    }

    /// The brokers to fence for silence.
    #[must_use]
    pub fn expired(&self, now: MonoTime, image: &ClusterImage) -> Vec<(NodeId, BrokerEpoch)> {
        let is_silent = |node: &NodeId, epoch: BrokerEpoch| {
            let lease = self.leases.get(node).filter(|lease| lease.epoch == epoch);
            now.since(lease.map_or(self.began, |lease| lease.renewed)) >= self.settings.patience()
        };
        let live = image.brokers.iter().filter(|(_, broker)| !broker.fenced);
        let live = live.map(|(node, broker)| (*node, broker.registration.epoch));
        live.filter(|(node, epoch)| is_silent(node, *epoch)).collect()
    }

    /// How long nothing has been heard of a broker, as far as this table knows.
    #[must_use]
    pub fn silence_of(&self, now: MonoTime, node: NodeId) -> Duration {
        now.since(self.leases.get(&node).map_or(self.began, |lease| lease.renewed))
    }

    /// For how long a broker may be silent from now on before it stops by itself.
    #[must_use]
    pub fn left(&self, now: MonoTime, node: NodeId) -> Duration {
        self.settings.duration.saturating_sub(self.silence_of(now, node))
    }

    /// When to look for silent brokers next, if nothing comes before.
    #[must_use]
    pub fn next_deadline(&self, image: &ClusterImage) -> Option<MonoTime> {
        let live = self.leases.iter().filter(|(node, _)| image.is_live(**node));
        live.map(|(_, lease)| lease.renewed.plus(self.settings.patience())).min()
    }

    /// A connection to the broker was closed, and dialling it back was refused: its process is gone, which is no silence and is
    /// not waited for. The broker to fence, if it is still the one that is counted on.
    #[must_use]
    pub fn on_refused(&self, image: &ClusterImage, node: NodeId, epoch: BrokerEpoch) -> Option<(NodeId, BrokerEpoch)> {
        (image.is_live(node) && image.is_registered(node, epoch)).then_some((node, epoch))
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
