//! A producer's handle for one topic: the quickest way to send.

use std::sync::Arc;

use super::accumulator::{News, Offered};
use super::deliveries::Deliveries;
use super::delivery::{Completion, Delivery};
use super::{Producer, TopicAt};
use crate::client::connection::lock;
use crate::client::{ClientError, RecordRef};
use crate::types::TimestampMs;

/// How many records [`TopicProducer::send_batch`] takes under one lock. Enough that the lock costs nothing, few enough that
/// other senders and the task that sends need not wait for long.
const RECORDS_A_LOCK: usize = 64;

/// Sends records to one topic. Nothing is looked up and nothing allocated for a record. Cheap to clone; shares everything with
/// the [`Producer`] that it came from, and keeps that alive.
///
/// ```
/// # use callboard::client::{Client, ClientConfig, ProducerConfig, RecordRef};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = callboard::testing::Node::start()?;
/// # let client = Client::connect(ClientConfig::new(node.address())).await?;
/// # client.admin().create_topic("rides", 1).await?;
/// let producer = client.producer(ProducerConfig::default()).await?;
/// let rides = producer.topic("rides").await?;
/// rides.send(RecordRef::new("52.52,13.40").key("alice")).await?.await?;
///
/// let positions: Vec<String> = (0..10_000).map(|number| format!("position {number}")).collect();
/// rides.send_batch(positions.iter().map(|position| RecordRef::new(position))).await.all().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TopicProducer {
    producer: Producer,
    topic: TopicAt,
}

impl TopicProducer {
    pub(super) fn new(producer: Producer, topic: TopicAt) -> Self {
        Self { producer, topic }
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.topic.name
    }

    /// The producer that this came from.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Takes a record, which is copied before this returns; otherwise as [`Producer::send`].
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send(&self, record: RecordRef<'_>) -> Result<Delivery, ClientError> {
        self.producer.take(&self.topic.name, Some(self.topic.at), record).await
    }

    /// Takes records in their order, waiting for room where there is none. One that cannot be taken (too large, for a
    /// partition that does not exist) has that as its outcome, and the others are sent all the same.
    ///
    /// Dropped before it is ready, this has taken some of them.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = RecordRef<'a>>) -> Deliveries {
        let (mut records, mut deliveries) = (records.into_iter(), Deliveries::default());
        // Gathered first: the caller's iterator may do anything, so it does not run under the lock.
        let mut waiting = Vec::with_capacity(RECORDS_A_LOCK);
        loop {
            waiting.clear();
            waiting.extend(records.by_ref().take(RECORDS_A_LOCK));
            if waiting.is_empty() {
                return deliveries;
            }
            let mut rest = waiting.as_slice();
            while !rest.is_empty() {
                self.producer.pause().await;
                let (taken, stopped) = self.offer_all(rest, &mut deliveries);
                rest = &rest[taken..];
                if let (Some(stopped), Some(next)) = (stopped, rest.first())
                    && let Err(error) = self.make_way(stopped, next).await
                {
                    self.refuse(next, error, &mut deliveries);
                    rest = &rest[1..];
                }
            }
        }
    }

    /// Takes as many as can be without waiting. Returns how many, and what stands against the next one.
    fn offer_all(
        &self,
        records: &[RecordRef<'_>],
        deliveries: &mut Deliveries,
    ) -> (usize, Option<Result<Offered, ClientError>>) {
        let (shared, limits) = (&*self.producer.handle.shared, self.producer.limits());
        let (mut news, mut stopped, mut taken) = (News::None, None, 0);
        let mut state = lock(&shared.state);
        for record in records {
            let note = |completion: &Arc<Completion>, index, time| deliveries.push(completion, index, time);
            match state.offer(self.topic.at, record, &shared.config, limits, note) {
                Ok(Offered::Taken(more)) => news = news.max(more),
                other => {
                    stopped = Some(other);
                    break;
                }
            }
            taken += 1;
        }
        drop(state);
        shared.tell(news);
        (taken, stopped)
    }

    /// Waits for what keeps `record` from being taken.
    async fn make_way(&self, stopped: Result<Offered, ClientError>, record: &RecordRef<'_>) -> Result<(), ClientError> {
        match stopped? {
            Offered::Taken(_) => {}
            Offered::NoRoom => self.producer.wait_for_room(record).await,
            Offered::UnknownTopic => drop(self.producer.learn(&self.topic.name).await?),
        }
        Ok(())
    }

    fn refuse(&self, record: &RecordRef<'_>, error: ClientError, deliveries: &mut Deliveries) {
        let completion = Completion::new(Arc::clone(&self.topic.name), record.partition.unwrap_or(0));
        completion.resolve(Err(error));
        deliveries.push(&completion, 0, record.timestamp.unwrap_or(TimestampMs::NONE));
    }
}
