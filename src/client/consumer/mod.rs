//! Reading records.

use super::{Client, ClientError, ConsumedRecord, ConsumerConfig, StartAt};
use crate::types::Offset;

/// Reads records of the partitions assigned to it.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
}

impl Consumer {
    pub(super) fn start(client: Client, config: ConsumerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        Ok(Self { client })
    }

    /// Adds partitions of `topic` (`None`: all), to be read from `start`. Partitions that were assigned before start anew.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`], or when a leader did not answer.
    pub async fn assign(
        &mut self,
        topic: &str,
        partitions: Option<Vec<u32>>,
        start: StartAt,
    ) -> Result<(), ClientError> {
        let _ = (topic, partitions, start, &self.client);
        Err(ClientError::NothingAssigned)
    }

    /// The next record, of whichever partition has one; waits for it. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::OffsetOutOfRange`], [`ClientError::Damaged`], [`ClientError::TopicDeleted`] stop one partition; the
    /// others go on with the next call.
    pub async fn recv(&mut self) -> Result<ConsumedRecord, ClientError> {
        Err(ClientError::NothingAssigned)
    }

    /// Between 1 and `max_records` records of one partition; waits for the first only. May be dropped while it waits.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn recv_batch(&mut self, max_records: usize) -> Result<Vec<ConsumedRecord>, ClientError> {
        let _ = max_records;
        Err(ClientError::NothingAssigned)
    }

    /// Goes on reading an assigned partition from elsewhere.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`], or when the leader did not answer.
    pub async fn seek(&mut self, topic: &str, partition: u32, to: StartAt) -> Result<(), ClientError> {
        let _ = (topic, partition, to);
        Err(ClientError::NothingAssigned)
    }

    /// The offset of the next record of this partition; `None` when it is not assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        let _ = (topic, partition);
        None
    }

    /// Where each partition of `topic` ends now: the offset (exclusive) that its next committed record gets.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or when a leader did not answer.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<(u32, Offset)>, ClientError> {
        let _ = topic;
        Err(ClientError::NothingAssigned)
    }

    /// How many records lie between the position and the end of this partition, as far as the last fetch knew.
    #[must_use]
    pub fn lag(&self, topic: &str, partition: u32) -> Option<u64> {
        let _ = (topic, partition);
        None
    }
}
