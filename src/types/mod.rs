//! The vocabulary: ids, offsets, epochs, names, topic settings and the record batch. No I/O, no clock reads.
//!
//! ```text
//!   ids ─ offset ─ epoch ─ time        numbers that cross a boundary, each a newtype
//!        topic_name ─ topic_config     what a topic may be called and what can be set on it
//!        record_batch/                 the unit that producers send, disks keep and consumers read
//!        context                       who asks
//!        cluster_health                how a cluster is, in figures
//!        buffer_pool                   memory that frames and reads are put into
//!        mutants                       for tests only: rules of replication that can be broken
//! ```
//!
//! Reading order: [`ids`], [`offset`], [`record_batch`].

pub mod buffer_pool;
pub mod clock;
pub mod cluster_health;
pub mod context;
pub mod epoch_history;
pub mod ids;
pub mod mutants;
pub mod offset;
pub mod record_batch;
pub mod topic_config;
pub mod topic_name;

pub use buffer_pool::{Buffer, BufferPool};
pub use clock::{Clock, MonoTime, SystemClock, TimestampMs};
pub use cluster_health::ClusterHealth;
pub use context::{ListenerKind, Operation, Principal, RequestContext, TopicAction, authorize};
pub use epoch_history::EpochHistory;
pub use ids::{
    BrokerEpoch, ClusterId, CorrelationId, DirectoryId, IncarnationId, LeaderEpoch, NodeId, PartitionIndex,
    ProducerEpoch, ProducerId, TopicId, TopicPartition,
};
pub use mutants::Mutant;
pub use offset::Offset;
pub use topic_config::{FlushPolicy, TimestampType, TopicConfig, TopicConfigOverrides, UncleanRecovery};
pub use topic_name::TopicName;
