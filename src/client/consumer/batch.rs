//! A batch of records as it was fetched: read in place.

use std::sync::Arc;

use crate::types::record_batch::{BatchHeader, RecordView, Records};
use crate::types::{Offset, TimestampType};

/// Records of one partition that follow each other, read where they are: see [`super::Consumer::next_batch`]. It holds the memory
/// of the whole fetch that brought it.
///
/// ```
/// # use callboard::client::{Client, ClientConfig, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = callboard::testing::Node::start()?;
/// # let client = Client::connect(ClientConfig::new(node.address())).await?;
/// # client.admin().create_topic("rides", 1).await?;
/// # let producer = client.producer(ProducerConfig::default()).await?;
/// # for value in ["a", "b"] { producer.send(OutgoingRecord::to("rides").value(value)).await?.await?; }
/// let mut consumer = client.consumer(ConsumerConfig::default()).await?;
/// consumer.assign("rides", None, StartAt::Earliest).await?;
/// let batch = consumer.next_batch().await?;
/// for record in batch.iter() {
///     println!("{}-{}@{}: {:?}", batch.topic(), batch.partition(), record.offset, record.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    topic: Arc<str>,
    partition: u32,
    timestamp_type: TimestampType,
    next_offset: Offset,
    pub(super) records: Records,
    /// The first record that is wanted: its byte, and an offset that it has at least.
    from: (usize, Offset),
}

impl FetchedBatch {
    pub(super) fn new(topic: Arc<str>, partition: u32, header: BatchHeader, records: Records) -> Self {
        let is_append_time = header.attributes.is_log_append_time();
        Self {
            topic,
            partition,
            timestamp_type: if is_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            next_offset: header.end_offset_exclusive(),
            records,
            from: (0, Offset::ZERO),
        }
    }

    /// Without what stands before byte `at`, and without offsets below `offset`.
    pub(super) fn starting_at(self, at: usize, offset: Offset) -> Self {
        Self { from: (at, offset), ..self }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Whose clock the timestamps are.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        self.timestamp_type
    }

    /// The offset behind the batch: where reading goes on.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Its records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordView<'_>> {
        let (mut at, first_offset) = self.from;
        let all = std::iter::from_fn(move || self.records.next(&mut at));
        all.skip_while(move |record| record.offset < first_offset)
    }
}
