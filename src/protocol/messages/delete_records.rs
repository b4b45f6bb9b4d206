//! Deleting the first records of partitions.

use serde::{Deserialize, Serialize};

use super::{Outcome, Request};
use crate::protocol::Api;
use crate::types::{Offset, PartitionIndex, TopicId};

/// Deletes everything before an offset, partition by partition. The log's start moves there for good, and never back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRecords {
    /// How long the broker may take until it is on disk, in milliseconds.
    pub timeout_ms: u32,
    /// What to delete.
    pub partitions: Vec<DeleteRecordsPartition>,
}

/// What to delete of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRecordsPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first record that stays.
    pub before: DeleteBefore,
}

/// Where the records to delete end. On the wire an offset, or -1 for the high watermark, as in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum DeleteBefore {
    /// All that is committed when the broker gets to it.
    HighWatermark,
    /// Everything before this offset, which is committed.
    Offset(Offset),
}

impl From<DeleteBefore> for i64 {
    fn from(before: DeleteBefore) -> Self {
        match before {
            DeleteBefore::HighWatermark => -1,
            // Offsets end at `Offset::MAX`, which fits.
            DeleteBefore::Offset(offset) => Self::try_from(offset.0).unwrap_or(Self::MAX),
        }
    }
}

impl TryFrom<i64> for DeleteBefore {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match u64::try_from(value) {
            Ok(offset) => Ok(Self::Offset(Offset(offset))),
            Err(_) if value == -1 => Ok(Self::HighWatermark),
            Err(_) => Err(format!("{value} is no offset: use 0 or more, or -1 for the high watermark")),
        }
    }
}

/// The answer to [`DeleteRecords`], in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRecordsReply {
    /// The log start offset of each partition afterwards: on disk, and at or past what was asked for.
    pub partitions: Vec<Outcome<Offset>>,
}

impl Request for DeleteRecords {
    const API: Api = Api::DeleteRecords;
    type Reply = DeleteRecordsReply;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_offset_or_minus_one() {
        for (number, before) in [(-1, DeleteBefore::HighWatermark), (0, DeleteBefore::Offset(Offset(0)))] {
            assert_eq!(DeleteBefore::try_from(number), Ok(before));
            assert_eq!(i64::from(before), number);
        }
        assert_eq!(i64::from(DeleteBefore::Offset(Offset::MAX)), i64::MAX);
        let error = DeleteBefore::try_from(-2).expect_err("no place");
        assert_eq!(error, "-2 is no offset: use 0 or more, or -1 for the high watermark");
    }
}
