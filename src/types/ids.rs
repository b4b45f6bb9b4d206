//! Identities and epochs. Each is a newtype so that one cannot be passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random identity (UUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_simple())
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

number_id!(
    /// A node of the cluster: a broker, a controller, or both. Chosen in the node's config.
    NodeId(u32)
);
number_id!(
    /// The position of a partition within its topic, from 0.
    PartitionIndex(u32)
);
number_id!(
    /// Raised by every election of a partition's leader. No (epoch, offset) ever names two contents.
    LeaderEpoch(u32)
);
number_id!(
    /// Raised by every registration of a broker.
    BrokerEpoch(u64)
);
number_id!(
    /// Names an idempotent producer. Handed out by the controller.
    ProducerId(i64)
);
number_id!(
    /// Fences older instances of the same producer id.
    ProducerEpoch(i16)
);
number_id!(
    /// Matches a reply to its request on one connection. Chosen by the client.
    CorrelationId(u32)
);

impl LeaderEpoch {
    /// The epoch of the next election.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ProducerId {
    /// What a batch of a producer that is not idempotent carries.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// What a batch of a producer that is not idempotent carries.
    pub const NONE: Self = Self(-1);
}

uuid_id!(
    /// Names one incarnation of a topic: deleting and creating a topic under the same name gives a new id.
    TopicId
);
uuid_id!(
    /// Names a cluster. A data directory belongs to one cluster for life.
    ClusterId
);
uuid_id!(
    /// Names a data directory, so that a wiped or copied one is recognised.
    DirectoryId
);
uuid_id!(
    /// Names one run of a node's process.
    IncarnationId
);

/// One partition of one topic incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's identity.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Names a partition.
    #[must_use]
    pub fn new(topic: TopicId, partition: PartitionIndex) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
