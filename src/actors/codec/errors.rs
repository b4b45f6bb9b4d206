//! What went wrong inside a reply: errors of single topics and partitions, to be counted.

use super::messages::ReplyBody;
use crate::protocol::ErrorCode;
use crate::protocol::messages::Outcome;

impl ReplyBody {
    /// Tells `count` of the error of every item that has one.
    pub(super) fn count_errors(&self, mut count: impl FnMut(ErrorCode)) {
        match self {
            Self::Produce(reply) => each(&reply.partitions, count),
            Self::Fetch(reply) => each(&reply.partitions, count),
            Self::ListOffsets(reply) => each(&reply.partitions, count),
            Self::DescribeLogs(reply) => each(&reply.partitions, count),
            Self::DeleteRecords(reply) => each(&reply.partitions, count),
            Self::CreateTopics(reply) => each(&reply.topics, count),
            Self::DeleteTopics(reply) => each(&reply.topics, count),
            Self::AlterTopics(reply) => each(&reply.topics, count),
            Self::AddPartitions(reply) => each(&reply.topics, count),
            Self::ReassignPartitions(reply) => each(&reply.partitions, count),
            Self::ElectLeaders(reply) => each(&reply.partitions, count),
            Self::DescribeTopics(reply) => each(&reply.topics, count),
            Self::Metadata(reply) => {
                let errors = reply.topics.iter().filter_map(|entry| entry.topic.error.as_ref());
                errors.for_each(|error| count(error.code));
            }
            Self::Hello(_)
            | Self::InitProducer(_)
            | Self::DescribeCluster(_)
            | Self::DescribeNode(_)
            | Self::ChangeControllers(_) => {}
        }
    }
}

fn each<T>(outcomes: &[Outcome<T>], count: impl FnMut(ErrorCode)) {
    outcomes.iter().filter_map(|outcome| outcome.error.as_ref()).map(|error| error.code).for_each(count);
}
