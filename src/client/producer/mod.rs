//! Sending records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Client, ClientError, OutgoingRecord, ProducerConfig, RecordMetadata};

/// Sends records.
#[derive(Clone, Debug)]
pub struct Producer {
    client: Client,
}

/// What became of one record: a future.
#[derive(Debug)]
pub struct Delivery {}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ClientError>;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(ClientError::Closed { what: "producer" }))
    }
}

/// Counters of a producer since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records that were taken by [`Producer::send`].
    pub sent_records: u64,
    /// Records that were acknowledged (with `acks = 0`: written to the connection).
    pub delivered_records: u64,
    /// Records that failed.
    pub failed_records: u64,
    /// Bytes of encoded records that were acknowledged, as batches on the wire.
    pub delivered_bytes: u64,
    /// Batches that were acknowledged.
    pub delivered_batches: u64,
    /// Attempts after the first, counted in batches.
    pub retries: u64,
    /// Bytes of records waiting or on their way now.
    pub buffered_bytes: u64,
}

impl Producer {
    pub(super) fn start(client: Client, config: ProducerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        Ok(Self { client })
    }

    /// Takes a record; waits for room in the buffer only. The answer is a future that tells what became of it.
    ///
    /// # Errors
    /// [`ClientError::RecordTooLarge`], [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`].
    pub async fn send(&self, record: OutgoingRecord) -> Result<Delivery, ClientError> {
        let _ = (record, &self.client);
        Err(ClientError::NothingAssigned)
    }

    /// Sends all that was taken so far without lingering, and waits until it is acknowledged or failed.
    ///
    /// # Errors
    /// The first failure among these records.
    pub async fn flush(&self) -> Result<(), ClientError> {
        Err(ClientError::NothingAssigned)
    }

    /// Takes no more records, and flushes. Other handles of this producer are closed, too.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<(), ClientError> {
        Err(ClientError::NothingAssigned)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        ProducerStats::default()
    }
}
