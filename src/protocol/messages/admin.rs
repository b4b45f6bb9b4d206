//! Administration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Outcome, Request};
use crate::protocol::Api;
use crate::types::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicName};

/// Creates topics, each on its own: one may fail and the others succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopics {
    /// The topics wanted.
    pub topics: Vec<NewTopic>,
    /// Check only, create nothing.
    pub validate_only: bool,
}

/// A topic to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    /// Its name. Checked by the broker, so that the error can say what is wrong with it.
    pub name: String,
    /// How many partitions; nil for the cluster's default.
    pub partitions: Option<u32>,
    /// How many replicas of each; nil for the cluster's default.
    pub replication_factor: Option<u32>,
    /// Settings that differ from the cluster's defaults.
    pub config: BTreeMap<String, String>,
}

/// The answer to [`CreateTopics`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopicsReply {
    /// What became of each topic.
    pub topics: Vec<Outcome<CreatedTopic>>,
}

/// A topic that was created (or would have been).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTopic {
    /// Its identity. With `validate_only` it is not kept.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many replicas of each.
    pub replication_factor: u32,
}

impl Request for CreateTopics {
    const API: Api = Api::CreateTopics;
    type Reply = CreateTopicsReply;
}

/// Deletes topics by name, their records too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopics {
    /// Their names.
    pub names: Vec<String>,
}

/// The answer to [`DeleteTopics`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopicsReply {
    /// The id that each had.
    pub topics: Vec<Outcome<TopicId>>,
}

impl Request for DeleteTopics {
    const API: Api = Api::DeleteTopics;
    type Reply = DeleteTopicsReply;
}

/// Changes topic settings. All changes of a topic are made, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterTopics {
    /// The changes, topic by topic.
    pub topics: Vec<AlterTopic>,
}

/// The changes to one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterTopic {
    /// Its name.
    pub name: String,
    /// Settings to override.
    pub set: BTreeMap<String, String>,
    /// Settings that shall follow the cluster's default again.
    pub reset: Vec<String>,
}

/// The answer to [`AlterTopics`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterTopicsReply {
    /// The settings in force now.
    pub topics: Vec<Outcome<Vec<ConfigEntry>>>,
}

impl Request for AlterTopics {
    const API: Api = Api::AlterTopics;
    type Reply = AlterTopicsReply;
}

/// One setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntry {
    /// The key.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// Whether the topic overrides the cluster's default.
    pub overridden: bool,
}

/// Asks for topics with their settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopics {
    /// Their names; nil for all.
    pub names: Option<Vec<String>>,
}

/// The answer to [`DescribeTopics`], in the order of the request, or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopicsReply {
    /// The topics.
    pub topics: Vec<Outcome<TopicDescription>>,
}

/// A topic with its settings and partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Every setting, with the value in force.
    pub config: Vec<ConfigEntry>,
    /// Its partitions, by number.
    pub partitions: Vec<super::PartitionMetadata>,
    /// For each of them, who may be elected beside the replicas that are in sync.
    pub eligible: Vec<Vec<NodeId>>,
}

impl Request for DescribeTopics {
    const API: Api = Api::DescribeTopics;
    type Reply = DescribeTopicsReply;
}

/// Asks the leaders of partitions what their logs hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeLogs {
    /// The partitions.
    pub partitions: Vec<(TopicId, PartitionIndex)>,
}

/// The answer to [`DescribeLogs`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeLogsReply {
    /// The logs.
    pub partitions: Vec<Outcome<LogDescription>>,
}

/// What a partition's log holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDescription {
    /// The first offset that it still holds.
    pub log_start_offset: Offset,
    /// The end (exclusive) of what is committed.
    pub high_watermark: Offset,
    /// The end (exclusive) of what is on disk for good.
    pub durable_end_offset: Offset,
    /// The end (exclusive) of what is written.
    pub log_end_offset: Offset,
    /// Bytes of records on disk.
    pub size_bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Ranges (end exclusive) that are damaged and not served.
    pub damaged: Vec<(Offset, Offset)>,
    /// The other replicas, in the order of the partition's.
    pub followers: Vec<FollowerDescription>,
}

/// How far a follower is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerDescription {
    /// Whose replica.
    pub node_id: NodeId,
    /// The end (exclusive) of what it has said that it holds; nil while it has not fetched from this leader.
    pub end_offset: Option<Offset>,
    /// How many milliseconds ago it last said that it holds all that the leader held then; nil while it never did to this leader. One
    /// that is idle says it every few seconds.
    pub caught_up_ms: Option<u64>,
}

impl LogDescription {
    /// How many records that the leader holds the replica on `node` lacks; `None` where nobody knows.
    #[must_use]
    pub fn behind(&self, node: NodeId) -> Option<u64> {
        let end = self.followers.iter().find(|follower| follower.node_id == node)?.end_offset?;
        // Not before the log's start: what is below it nobody needs any more.
        Some(self.log_end_offset.distance_from(end.max(self.log_start_offset).min(self.log_end_offset)))
    }
}

impl Request for DescribeLogs {
    const API: Api = Api::DescribeLogs;
    type Reply = DescribeLogsReply;
}
