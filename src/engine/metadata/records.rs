//! The records of the metadata log.

use serde::{Deserialize, Serialize};

use super::PartitionChange;
use crate::types::{
    BrokerEpoch, DirectoryId, IncarnationId, NodeId, PartitionIndex, ProducerId, TopicConfigOverrides, TopicId,
    TopicName,
};

/// The version of the record format, raised when older software could not apply what newer software writes.
///
/// * 1: one node.
/// * 2: the sets of each partition beside the in-sync set, histories of data directories, reassignments, added partitions.
pub const FEATURE_LEVEL: u16 = 2;

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataRecord {
    /// The first record of every log: what all that follow need of the software.
    FeatureLevel {
        /// See [`FEATURE_LEVEL`].
        level: u16,
    },
    /// A broker came (back). Fenced until [`MetadataRecord::BrokerUnfenced`]; it leads nothing from here on.
    BrokerRegistered(BrokerRegistration),
    /// A broker may lead and join in-sync sets.
    BrokerUnfenced {
        /// The broker.
        node: NodeId,
        /// The registration that is meant.
        epoch: BrokerEpoch,
    },
    /// A broker is not to be counted on: its lease is over, or it has stopped. It leads nothing from here on.
    BrokerFenced {
        /// The broker.
        node: NodeId,
        /// The registration that is meant.
        epoch: BrokerEpoch,
    },
    /// A broker is about to stop: it is not elected any more.
    BrokerStopping {
        /// The broker.
        node: NodeId,
        /// The registration that is meant.
        epoch: BrokerEpoch,
    },
    /// A topic came to be.
    TopicCreated {
        /// Its identity.
        topic: TopicId,
        /// Its name.
        name: TopicName,
        /// The replicas of each partition, the preferred leader first.
        replicas: Vec<Vec<NodeId>>,
        /// Its settings.
        config: TopicConfigOverrides,
    },
    /// A topic got more partitions, after those it had.
    TopicPartitionsAdded {
        /// The topic.
        topic: TopicId,
        /// The first that is new: the topic must have that many.
        first: PartitionIndex,
        /// The replicas of each new one, the preferred leader first.
        replicas: Vec<Vec<NodeId>>,
    },
    /// A broker holds its replicas of a topic on disk. From here on a directory that is missing there was lost.
    TopicOpened {
        /// The topic.
        topic: TopicId,
        /// The broker.
        node: NodeId,
        /// The replicas meant: those that it knew of. `None`, in logs of a single node: all there are.
        #[serde(default)]
        partitions: Option<Vec<PartitionIndex>>,
    },
    /// A topic's settings changed.
    TopicConfigChanged {
        /// The topic.
        topic: TopicId,
        /// All its settings from here on.
        config: TopicConfigOverrides,
    },
    /// A topic is gone. Its id stays as a tombstone until its files are gone too.
    TopicDeleted {
        /// The topic.
        topic: TopicId,
    },
    /// A broker holds no files of a deleted topic any more. The tombstone goes with the last of them.
    TombstoneCleared {
        /// The topic.
        topic: TopicId,
        /// The broker; `None`, in logs of a single node: all there are.
        #[serde(default)]
        node: Option<NodeId>,
    },
    /// A partition has another leader, other sets or other replicas.
    PartitionChanged(PartitionChange),
    /// Producer ids below this have been handed out.
    ProducerIdsReserved {
        /// The first that has not.
        next: ProducerId,
    },
}

/// A broker as it registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    /// The broker.
    pub node: NodeId,
    /// This registration: higher than any before it.
    pub epoch: BrokerEpoch,
    /// The run of its process.
    pub incarnation: IncarnationId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// Where other nodes reach it; nowhere, if it was registered where there were no others.
    #[serde(default)]
    pub peer: Option<PeerEndpoint>,
    /// Its rack.
    pub rack: Option<String>,
    /// Its software version.
    pub software: String,
    /// What its data directory says of the time before.
    #[serde(default)]
    pub before: DirectoryHistory,
    /// The index of the metadata at which it was decided what becomes of the broker's replicas: it holds only there, or a
    /// partition that came between would keep a replica that is gone. Set by the decision.
    #[serde(default)]
    pub decided_at: Option<u64>,
}

/// Where a node listens for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEndpoint {
    /// The host.
    pub host: String,
    /// The port there.
    pub port: u16,
}

/// What a data directory says of the time before a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHistory {
    /// The newest registration that it holds; 0 in a new directory. A broker writes it down before it is counted on.
    pub epoch: BrokerEpoch,
    /// How its last process ended.
    pub stop: LastStop,
}

/// How the last process on a data directory ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastStop {
    /// It closed all its files: the marker for that registration is there.
    #[default]
    Clean,
    /// It ended while the machine went on: what was written is in the page cache or on disk.
    Process,
    /// The machine went down: what was not synced may be lost.
    Machine,
}
