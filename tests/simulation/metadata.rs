//! Raft as a model, and the controllers on top of it, which decide with the real engine.
//!
//! The model is a log that whoever leads the newest term appends to, if it can reach a majority when the entry would be
//! decided. A controller that was deposed does not know it until an entry of its own is refused; each applies the log at its own
//! pace; whoever asked for a decision may never learn what came of it. Controllers come to the majority and leave it; each
//! forgets, now and then, what lies before a snapshot of its image: whoever is further behind is given that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use callboard::engine::controller::{Balance, Gentleness, LeaseTable, Leases, ReplicaEnd};
use callboard::engine::metadata::{ClusterImage, MetadataRecord};
use callboard::types::{BrokerEpoch, ClusterId, MonoTime, NodeId, TopicPartition};

/// How long a broker may count on its lease, and how far clocks may run apart meanwhile.
pub const LEASE: Leases = Leases { duration: Duration::from_millis(1_000), drift: Duration::from_millis(200) };

pub const GENTLENESS: Gentleness =
    Gentleness { at_most: 2, settling_time: Duration::from_millis(3_000), retry_after: Duration::from_millis(1_500) };

/// The log that the controllers agree on.
pub struct RaftLog {
    pub entries: Vec<Arc<Vec<MetadataRecord>>>,
    /// The newest term, and who leads it.
    pub term: u64,
    pub leader: Option<usize>,
    /// Who counts for a majority.
    pub voters: BTreeSet<usize>,
    /// Who is about to, as soon as it has caught up.
    pub learner: Option<usize>,
}

/// A controller.
pub struct Controller {
    pub up: bool,
    /// Events of an earlier life are not for this one.
    pub life: u64,
    /// The term in which it believes to lead.
    pub term: Option<u64>,
    /// How many entries it has applied.
    pub applied: usize,
    /// Entries before this one it has only in its image.
    pub compacted: usize,
    pub image: ClusterImage,
    pub office: Option<Office>,
    /// When the last of what it has proposed is decided.
    pub decides_until: u64,
}

/// What only a controller in office has, and loses with it.
pub struct Office {
    pub leases: LeaseTable,
    pub balance: Balance,
    /// Brokers that are about to be fenced for their silence.
    pub condemned: BTreeSet<(NodeId, BrokerEpoch)>,
    /// What the last members of partitions without any have told.
    pub ends: BTreeMap<(TopicPartition, NodeId), ReplicaEnd>,
}

impl RaftLog {
    pub fn new() -> Self {
        Self { entries: Vec::new(), term: 0, leader: None, voters: BTreeSet::new(), learner: None }
    }
}

impl Controller {
    pub fn new(cluster: ClusterId) -> Self {
        let image = ClusterImage::empty(cluster);
        Self { up: true, life: 0, term: None, applied: 0, compacted: 0, image, office: None, decides_until: 0 }
    }

    pub fn apply_up_to(&mut self, log: &RaftLog, end: usize) {
        while self.applied < end {
            // What does not fit was refused by every other node, too.
            let _ = self.image.apply_entry(&log.entries[self.applied]);
            self.applied += 1;
        }
    }

    /// Begins to decide, on everything that was decided before its term.
    pub fn take_office(&mut self, now: MonoTime) {
        let (leases, balance) = (LeaseTable::new(LEASE, now, &self.image), Balance::new(GENTLENESS));
        self.office = Some(Office { leases, balance, condemned: BTreeSet::new(), ends: BTreeMap::new() });
    }

    pub fn leave_office(&mut self) {
        self.term = None;
        self.office = None;
    }
}
