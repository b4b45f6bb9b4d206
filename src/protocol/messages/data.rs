//! Appending and reading.

use serde::{Deserialize, Serialize};

use super::{Outcome, Request};
use crate::protocol::Api;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicId};

/// When an append is acknowledged. On the wire 0, 1 or -1, as in Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i8", into = "i8")]
pub enum Acks {
    /// Never: no reply is sent.
    None,
    /// Once the leader has written it.
    Leader,
    /// Once it is committed: safe, by the topic's flush policy, at every in-sync replica.
    #[default]
    All,
}

impl From<Acks> for i8 {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

impl TryFrom<i8> for Acks {
    type Error = String;
    fn try_from(value: i8) -> Result<Self, String> {
        match value {
            0 => Ok(Self::None),
            1 => Ok(Self::Leader),
            -1 => Ok(Self::All),
            other => Err(format!("acks is 0, 1 or -1 (all), not {other}")),
        }
    }
}

/// Appends batches. Attachments: one record batch for each entry of `partitions`, in that order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produce {
    /// When to answer.
    pub acks: Acks,
    /// How long the broker may wait for the acknowledgement, in milliseconds.
    pub timeout_ms: u32,
    /// Where each attachment goes. A partition may appear more than once; its batches are appended in order.
    pub partitions: Vec<ProducePartition>,
}

/// Where one batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducePartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader epoch that the client believes in; nil for whichever is current.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// The answer to [`Produce`]: one outcome for each entry, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProduceReply {
    /// What became of each batch.
    pub partitions: Vec<Outcome<ProducedBatch>>,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducedBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The broker's time for it, with log-append time.
    pub append_time: Option<TimestampMs>,
    /// The first offset that the partition still holds.
    pub log_start_offset: Offset,
}

impl Request for Produce {
    const API: Api = Api::Produce;
    type Reply = ProduceReply;
}

/// Reads batches, long-polling if asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// How long to wait for `min_bytes`, in milliseconds. 0 answers at once.
    pub max_wait_ms: u32,
    /// Answer as soon as this many bytes are there.
    pub min_bytes: u32,
    /// About how many bytes to answer with in all. One batch comes even when it alone is larger.
    pub max_bytes: u32,
    /// What to read.
    pub partitions: Vec<FetchPartition>,
}

/// Where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader epoch that the client believes in; nil for whichever is current.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The first offset wanted. The first batch of the answer contains it and may start before it.
    pub offset: Offset,
    /// About how many bytes of this partition to answer with.
    pub max_bytes: u32,
}

/// The answer to [`Fetch`]. Attachments: for each entry of the request, in that order, whole record batches one after
/// the other, or empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReply {
    /// What was found, in the order of the request.
    pub partitions: Vec<Outcome<FetchedPartition>>,
}

/// The state of a partition that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedPartition {
    /// The first offset that the partition still holds.
    pub log_start_offset: Offset,
    /// The end (exclusive) of what is committed.
    pub high_watermark: Offset,
    /// The end (exclusive) of what no open transaction holds back. Equal to the high watermark without transactions.
    pub last_stable_offset: Offset,
}

impl Request for Fetch {
    const API: Api = Api::Fetch;
    type Reply = FetchReply;
}

/// Asks for offsets by position or time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsets {
    /// What to look up.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// One look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsetsPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// What is wanted.
    pub at: OffsetAt,
}

/// A place in a partition. On the wire a timestamp, or -1 latest, -2 earliest, -3 newest timestamp, as in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum OffsetAt {
    /// The log start offset.
    Earliest,
    /// The high watermark: where the next committed record will be.
    Latest,
    /// The record with the newest timestamp.
    MaxTimestamp,
    /// The first record whose timestamp is this or later.
    Timestamp(TimestampMs),
}

impl From<OffsetAt> for i64 {
    fn from(at: OffsetAt) -> Self {
        match at {
            OffsetAt::Latest => -1,
            OffsetAt::Earliest => -2,
            OffsetAt::MaxTimestamp => -3,
            OffsetAt::Timestamp(time) => time.0,
        }
    }
}

impl TryFrom<i64> for OffsetAt {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match value {
            -1 => Ok(Self::Latest),
            -2 => Ok(Self::Earliest),
            -3 => Ok(Self::MaxTimestamp),
            time if time >= 0 => Ok(Self::Timestamp(TimestampMs(time))),
            other => Err(format!("{other} is no timestamp and no position: use -1 latest, -2 earliest, -3 newest")),
        }
    }
}

/// The answer to [`ListOffsets`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOffsetsReply {
    /// What was found.
    pub partitions: Vec<Outcome<ListedOffset>>,
}

/// A place that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedOffset {
    /// The offset; nil when no record is that new.
    pub offset: Option<Offset>,
    /// The timestamp of the record there, for look-ups by time.
    pub timestamp: Option<TimestampMs>,
    /// The epoch of the leader that answered.
    pub leader_epoch: LeaderEpoch,
}

impl Request for ListOffsets {
    const API: Api = Api::ListOffsets;
    type Reply = ListOffsetsReply;
}

/// Asks for a producer id: a new one, or the next epoch of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProducer {
    /// The id and epoch in use so far; nil for a new producer.
    pub current: Option<(ProducerId, ProducerEpoch)>,
}

/// The answer to [`InitProducer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProducerReply {
    /// The producer's id.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
}

impl Request for InitProducer {
    const API: Api = Api::InitProducer;
    type Reply = InitProducerReply;
}
