//! Who says what to whom, and what the network makes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use callboard::engine::broker::{Answer, Request};
use callboard::engine::metadata::MetadataRecord;
use callboard::engine::replication::{FetchId, LeaderState, ReplicaFetch, ReplicaVerdict};
use callboard::protocol::ApiError;
use callboard::protocol::messages::{Acks, FetchedPartition, ProducedBatch};
use callboard::types::{BrokerEpoch, NodeId, Offset, TopicPartition};

/// A place that messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Controller(usize),
    Broker(usize),
    Client(usize),
}

/// Whom a replica answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub place: Place,
    pub request: u64,
    pub partition: TopicPartition,
    pub kind: Kind,
}

/// What was asked, and so how to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Produce,
    Fetch,
    List,
    Delete,
    Replica(BrokerEpoch),
}

#[derive(Clone, Debug)]
pub enum Message {
    // Broker to controller.
    Ask(Request),
    FetchMetadata {
        entries: usize,
    },
    // Controller to broker.
    Answer(Answer),
    HandOver {
        partition: TopicPartition,
        to: NodeId,
    },
    Metadata {
        from: usize,
        entries: Vec<Arc<Vec<MetadataRecord>>>,
    },
    /// All metadata up to there, for whoever is too far behind.
    Image {
        entries: usize,
        image: Arc<Vec<u8>>,
    },
    // Broker to broker.
    ReplicaFetch {
        partition: TopicPartition,
        fetch: ReplicaFetch,
        may_wait: bool,
    },
    ReplicaFetched {
        partition: TopicPartition,
        id: FetchId,
        result: Result<(ReplicaVerdict, LeaderState), ApiError>,
        records: Bytes,
    },
    // Client to broker, and back.
    Produce {
        partition: TopicPartition,
        request: u64,
        batch: Bytes,
        acks: Acks,
    },
    Fetch {
        partition: TopicPartition,
        request: u64,
        offset: Offset,
        waits: bool,
    },
    List {
        partition: TopicPartition,
        request: u64,
    },
    Delete {
        partition: TopicPartition,
        request: u64,
        before: Offset,
    },
    WhoLeads {
        partition: TopicPartition,
        request: u64,
    },
    Produced {
        request: u64,
        result: Result<ProducedBatch, ApiError>,
    },
    Fetched {
        request: u64,
        result: Result<(FetchedPartition, Bytes), ApiError>,
    },
    Listed {
        request: u64,
        result: Result<Offset, ApiError>,
    },
    Deleted {
        request: u64,
        result: Result<Offset, ApiError>,
    },
    Leads {
        request: u64,
        leader: Option<NodeId>,
        replicas: Vec<NodeId>,
    },
}

/// The network between places.
pub struct Network {
    pub cut: BTreeSet<(Place, Place)>,
    /// In thousandths.
    pub drops: u64,
    pub doubles: u64,
    /// The longest that a message is usually under way, in microseconds.
    pub delay_us: u64,
}

impl Network {
    pub fn is_cut(&self, a: Place, b: Place) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub fn cut(&mut self, a: Place, b: Place) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// When the copies of a message arrive, after how many microseconds.
    pub fn carry(&self, from: Place, to: Place, rng: &mut fastrand::Rng) -> Vec<u64> {
        if self.is_cut(from, to) || rng.u64(0..1_000) < self.drops {
            return Vec::new();
        }
        let delay = |rng: &mut fastrand::Rng| {
            let usual = rng.u64(50..=self.delay_us);
            if rng.u64(0..100) == 0 { usual + rng.u64(0..50 * self.delay_us) } else { usual }
        };
        let copies = 1 + usize::from(rng.u64(0..1_000) < self.doubles);
        (0..copies).map(|_| delay(rng)).collect()
    }
}
