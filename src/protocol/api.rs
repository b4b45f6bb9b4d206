//! The requests of the native protocol and the versions served, in one table.

use serde::{Deserialize, Serialize};

/// The version of the frame format and of `Hello` that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// The first request of every connection.
    Hello,
    /// Brokers, topics and partition leaders.
    Metadata,
    /// Append record batches.
    Produce,
    /// Read record batches, waiting for them if asked to.
    Fetch,
    /// Offsets by position or time.
    ListOffsets,
    /// Obtain a producer id.
    InitProducer,
    /// Create topics.
    CreateTopics,
    /// Delete topics.
    DeleteTopics,
    /// Change topic settings.
    AlterTopics,
    /// Topics with their settings.
    DescribeTopics,
    /// What a partition's log holds: offsets, size, damage.
    DescribeLogs,
    /// Controllers and brokers.
    DescribeCluster,
    /// One node's process, disk, replicas and budgets.
    DescribeNode,
    /// Delete the first records of partitions.
    DeleteRecords,
    /// Give topics more partitions.
    AddPartitions,
    /// Move partitions to other replicas.
    ReassignPartitions,
    /// Give leaderships back to the preferred replicas.
    ElectLeaders,
    /// Add, remove or reset a controller.
    ChangeControllers,
}

/// A request kind and the versions of it that are served. Goes out with the answer to `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiVersions {
    /// The request's number.
    pub api: u16,
    /// The oldest version served.
    pub min_version: u16,
    /// The newest version served.
    pub max_version: u16,
}

impl ApiVersions {
    /// Whether `version` is among them.
    #[must_use]
    pub fn contain(self, version: u16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }
}

impl Api {
    /// Every request kind.
    pub const ALL: [Self; 18] = [
        Self::Hello,
        Self::Metadata,
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::InitProducer,
        Self::CreateTopics,
        Self::DeleteTopics,
        Self::AlterTopics,
        Self::DescribeTopics,
        Self::DescribeLogs,
        Self::DescribeCluster,
        Self::DescribeNode,
        Self::DeleteRecords,
        Self::AddPartitions,
        Self::ReassignPartitions,
        Self::ElectLeaders,
        Self::ChangeControllers,
    ];

    /// Its number in a frame. 100 and above are administration; 200 and above are kept for traffic between nodes.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Hello => 0,
            Self::Metadata => 1,
            Self::Produce => 2,
            Self::Fetch => 3,
            Self::ListOffsets => 4,
            Self::InitProducer => 5,
            Self::CreateTopics => 100,
            Self::DeleteTopics => 101,
            Self::AlterTopics => 102,
            Self::DescribeTopics => 103,
            Self::DescribeLogs => 104,
            Self::DescribeCluster => 105,
            Self::DescribeNode => 106,
            Self::DeleteRecords => 107,
            Self::AddPartitions => 108,
            Self::ReassignPartitions => 109,
            Self::ElectLeaders => 110,
            Self::ChangeControllers => 111,
        }
    }

    /// The request kind with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.number() == number)
    }

    /// The versions of it that are served.
    #[must_use]
    pub fn versions(self) -> ApiVersions {
        ApiVersions { api: self.number(), min_version: 1, max_version: 1 }
    }
}
