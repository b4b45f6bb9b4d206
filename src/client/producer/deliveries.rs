//! What became of many records: as many entries as batches took them.

use std::sync::Arc;

use super::delivery::{Completion, Delivery};
use crate::client::ClientError;
use crate::types::TimestampMs;

/// What became of each record of one [`super::TopicProducer::send_batch`], in their order.
///
/// ```
/// # use callboard::client::{Client, ClientConfig, ProducerConfig, RecordRef};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = callboard::testing::Node::start()?;
/// # let client = Client::connect(ClientConfig::new(node.address())).await?;
/// # client.admin().create_topic("rides", 1).await?;
/// # let producer = client.producer(ProducerConfig::default()).await?;
/// let rides = producer.topic("rides").await?;
/// let deliveries = rides.send_batch(["a", "b", "c"].iter().map(RecordRef::new)).await;
/// for delivery in deliveries.each() {
///     println!("{:?}", delivery.await?.offset);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use = "records are only known to be delivered once their deliveries say so"]
pub struct Deliveries {
    runs: Vec<Run>,
    records: usize,
}

/// Records that follow each other in one batch.
#[derive(Debug)]
struct Run {
    completion: Arc<Completion>,
    first_index: u32,
    records: u32,
    timestamp: TimestampMs,
}

impl Deliveries {
    pub(super) fn push(&mut self, completion: &Arc<Completion>, index: u32, timestamp: TimestampMs) {
        self.records += 1;
        if let Some(last) = self.runs.last_mut()
            && Arc::ptr_eq(&last.completion, completion)
            && last.first_index + last.records == index
            && last.timestamp == timestamp
        {
            last.records += 1;
            return;
        }
        self.runs.push(Run { completion: Arc::clone(completion), first_index: index, records: 1, timestamp });
    }

    /// How many records they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there was no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether every outcome is known.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.runs.iter().all(|run| run.completion.is_resolved())
    }

    /// Waits until every record is acknowledged or has failed.
    ///
    /// # Errors
    /// The failure of the first record that failed.
    pub async fn all(&self) -> Result<(), ClientError> {
        let mut first_failure = Ok(());
        for run in &self.runs {
            let outcome = Delivery::new(Arc::clone(&run.completion), run.first_index, run.timestamp).await;
            if first_failure.is_ok() {
                first_failure = outcome.map(drop);
            }
        }
        first_failure
    }

    /// The delivery of each record.
    pub fn each(&self) -> impl Iterator<Item = Delivery> + '_ {
        self.runs.iter().flat_map(|run| {
            let indexes = run.first_index..run.first_index + run.records;
            indexes.map(|index| Delivery::new(Arc::clone(&run.completion), index, run.timestamp))
        })
    }
}
