//! The records of the metadata log.

use serde::{Deserialize, Serialize};

use crate::types::{
    BrokerEpoch, DirectoryId, IncarnationId, LeaderEpoch, NodeId, ProducerId, TopicConfigOverrides, TopicId, TopicName,
    TopicPartition,
};

/// The version of the record format, raised when older software could not apply what newer software writes.
pub const FEATURE_LEVEL: u16 = 1;

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
    /// A broker holds all its replicas of a topic on disk. From here on a directory that is missing there was lost.
    TopicOpened {
        /// The topic.
        topic: TopicId,
        /// The broker.
        node: NodeId,
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
    /// No broker holds files of a deleted topic any more.
    TombstoneCleared {
        /// The topic.
        topic: TopicId,
    },
    /// A partition has another leader or in-sync set.
    PartitionChanged {
        /// The partition.
        partition: TopicPartition,
        /// The leader from here on.
        leader: Option<NodeId>,
        /// Its epoch: one more than before for every election.
        leader_epoch: LeaderEpoch,
        /// The in-sync set from here on.
        in_sync: Vec<NodeId>,
        /// The partition epoch that this change expects to find.
        expected_partition_epoch: u32,
    },
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
    /// Its rack.
    pub rack: Option<String>,
    /// Its software version.
    pub software: String,
}
