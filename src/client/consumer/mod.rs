//! Reading records: fetched ahead in the background, decoded when they are asked for.
//!
//! ```text
//!   brokers ─ parked fetches ─► fetcher task ─ checksums ─► buffer, bounded by bytes ─► recv(): decode, hand out
//!                                    ▲                                                     │
//!                                    └────────────────────── room ◄────────────────────────┘
//! ```
//!
//! Records of one partition come in the order of their offsets; partitions come as their batches do. Reading order:
//! `choice`, `reading`, `buffer`, `fetcher`, [`batch`], this file.

pub mod batch;
mod buffer;
mod choice;
mod fetcher;
mod reading;

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::connection::lock;
use super::{Client, ClientError, ConsumedRecord, ConsumerConfig, Damaged, StartAt};
use crate::protocol::messages::OffsetAt;
use crate::types::Offset;
use crate::types::record_batch::{RecordBatch, Records};
pub use batch::FetchedBatch;
use buffer::{Buffer, Item};
use choice::Choice;
use fetcher::Fetcher;

/// Reads records of the partitions assigned to it. Fetching goes on in the background from the first [`Consumer::assign`]
/// until this is dropped.
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
/// for record in consumer.recv_batch(100).await? {
///     println!("{}-{}@{}: {:?}", record.topic, record.partition, record.offset, record.value);
/// }
/// consumer.seek("rides", 0, StartAt::Earliest).await?; // and once more
/// assert_eq!(consumer.recv().await?.offset.0, 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    /// Where the reader is in each partition, by the buffer's slots.
    places: Vec<Place>,
    current: Option<Current>,
}

/// What the consumer and its fetcher share.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ConsumerConfig,
    buffer: Mutex<Buffer>,
    choice: Mutex<Choice>,
    /// Tells the fetcher that there is room, or another assignment.
    wake: Notify,
    /// Tells the reader that something came.
    arrived: Notify,
}

#[derive(Debug)]
struct Place {
    topic: Arc<str>,
    number: u32,
    is_assigned: bool,
    position: Offset,
}

/// The batch that is being handed out.
#[derive(Debug)]
struct Current {
    slot: usize,
    batch: FetchedBatch,
    /// Where the next record is in it.
    at: usize,
}

impl Consumer {
    pub(super) fn start(client: Client, config: ConsumerConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let choice = Mutex::new(Choice::new(config.read_from.clone(), fastrand::usize(..)));
        let shared = Arc::new(Shared {
            client,
            config,
            buffer: Mutex::default(),
            choice,
            wake: Notify::default(),
            arrived: Notify::default(),
        });
        tokio::spawn(Fetcher::new(Arc::clone(&shared)).run());
        Ok(Self { shared, places: Vec::new(), current: None })
    }

    /// Adds partitions of `topic` (`None`: all), to be read from `start`. Partitions that were assigned before start anew.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`], or when a leader did not answer. Nothing is
    /// assigned then.
    pub async fn assign(
        &mut self,
        topic: &str,
        partitions: Option<Vec<u32>>,
        start: StartAt,
    ) -> Result<(), ClientError> {
        // Asked anew, because an assignment stays: it must not start from what was true minutes ago.
        let described = self.shared.client.learn_topic(topic).await?;
        let all = || described.partitions.iter().map(|partition| partition.partition.0).collect();
        let numbers: Vec<u32> = partitions.unwrap_or_else(all);
        for number in &numbers {
            described.partition(*number)?;
        }
        let starts = self.resolve(topic, &numbers, start).await?;
        self.shared.learn_brokers();
        for (number, from) in numbers.into_iter().zip(starts) {
            let slot = lock(&self.shared.buffer).assign(&described, number, from, &lock(&self.shared.choice));
            let place = Place { topic: Arc::clone(&described.name), number, is_assigned: true, position: from };
            match self.places.get_mut(slot) {
                Some(known) => *known = place,
                None => self.places.push(place),
            }
            self.drop_current_of(slot);
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Stops reading all partitions of `topic`. What was fetched of them and not yet handed out is dropped.
    pub fn unassign(&mut self, topic: &str) {
        for slot in 0..self.places.len() {
            if *self.places[slot].topic == *topic {
                self.places[slot].is_assigned = false;
                lock(&self.shared.buffer).unassign(slot);
                self.drop_current_of(slot);
            }
        }
    }

    /// The partitions that are assigned, as (topic, number).
    #[must_use]
    pub fn assignment(&self) -> Vec<(Arc<str>, u32)> {
        let assigned = self.places.iter().filter(|place| place.is_assigned);
        assigned.map(|place| (Arc::clone(&place.topic), place.number)).collect()
    }

    /// The next record, of whichever partition has one; waits for it. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::OffsetOutOfRange`], [`ClientError::Damaged`], [`ClientError::TopicDeleted`] and refusals stop one
    /// partition; the others go on with the next call, and [`Consumer::seek`] or [`Consumer::assign`] revive the stopped
    /// one. [`ClientError::NothingAssigned`] when there is nothing to wait for.
    pub async fn recv(&mut self) -> Result<ConsumedRecord, ClientError> {
        loop {
            if let Some(record) = self.next_of_current() {
                return Ok(record);
            }
            if !self.advance()? {
                self.wait().await?;
            }
        }
    }

    /// Between 1 and `max_records` records; waits for the first only. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// As [`Consumer::recv`]; records that came before the failure are handed out first.
    pub async fn recv_batch(&mut self, max_records: usize) -> Result<Vec<ConsumedRecord>, ClientError> {
        let mut records = vec![self.recv().await?];
        while records.len() < max_records {
            match self.next_of_current() {
                Some(record) => records.push(record),
                None if lock(&self.shared.buffer).has_batch_next() => match self.advance() {
                    Ok(_) => {}
                    Err(error) => {
                        // Stands in line again for the next call: what was read already comes first.
                        self.stop_at_current_error(error);
                        break;
                    }
                },
                None => break,
            }
        }
        Ok(records)
    }

    /// The next batch as it was fetched, of whichever partition has one; waits for it. Its records borrow from it, so that
    /// nothing is allocated or copied for a record: the quickest way to read. May be dropped while it waits: nothing is lost.
    ///
    /// The position moves behind the whole batch at once. What [`Consumer::recv`] has handed out of it before is left out.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn next_batch(&mut self) -> Result<FetchedBatch, ClientError> {
        loop {
            if let Some(batch) = self.rest_of_current() {
                return Ok(batch);
            }
            if !self.advance()? {
                self.wait().await?;
            }
        }
    }

    /// Goes on reading an assigned partition from elsewhere.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`], or when the leader did not answer.
    pub async fn seek(&mut self, topic: &str, partition: u32, to: StartAt) -> Result<(), ClientError> {
        let slot = self.slot_of(topic, partition);
        let slot = slot.ok_or_else(|| ClientError::NotAssigned { topic: topic.to_owned(), partition })?;
        let starts = self.resolve(topic, &[partition], to).await?;
        if let Some(from) = starts.first() {
            lock(&self.shared.buffer).restart(slot, *from);
            self.places[slot].position = *from;
            self.drop_current_of(slot);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// The offset of the next record of this partition; `None` when it is not assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<Offset> {
        self.slot_of(topic, partition).map(|slot| self.places[slot].position)
    }

    /// Where each partition of `topic` ends now: the offset (exclusive) that its next committed record gets.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or when a leader did not answer.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<(u32, Offset)>, ClientError> {
        let described = self.shared.client.topic(topic).await?;
        let numbers: Vec<u32> = described.partitions.iter().map(|partition| partition.partition.0).collect();
        let ends = self.resolve(topic, &numbers, StartAt::Latest).await?;
        Ok(numbers.into_iter().zip(ends).collect())
    }

    /// How many offsets lie between the position and the end of this partition, as far as the last fetch knew; `None`
    /// when it is not assigned or not fetched yet.
    #[must_use]
    pub fn lag(&self, topic: &str, partition: u32) -> Option<u64> {
        let slot = self.slot_of(topic, partition)?;
        let end = lock(&self.shared.buffer).readings[slot].high_watermark?;
        Some(end.distance_from(self.places[slot].position))
    }

    fn slot_of(&self, topic: &str, partition: u32) -> Option<usize> {
        self.places.iter().position(|place| place.is_assigned && place.number == partition && *place.topic == *topic)
    }

    async fn resolve(&self, topic: &str, numbers: &[u32], start: StartAt) -> Result<Vec<Offset>, ClientError> {
        let at = match start {
            StartAt::Offset(offset) => return Ok(vec![offset; numbers.len()]),
            StartAt::Earliest => OffsetAt::Earliest,
            StartAt::Latest => OffsetAt::Latest,
            StartAt::Timestamp(time) => OffsetAt::Timestamp(time),
        };
        let found = self.list(topic, numbers, at).await?;
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
        // No record is that new: the next one to come will be.
        let ends = self.list(topic, numbers, OffsetAt::Latest).await?;
        Ok(found.into_iter().zip(ends).map(|(found, end)| found.or(end).unwrap_or_default()).collect())
    }

    async fn list(&self, topic: &str, numbers: &[u32], at: OffsetAt) -> Result<Vec<Option<Offset>>, ClientError> {
        let places: Vec<_> = numbers.iter().map(|number| (topic.to_owned(), *number, at)).collect();
        let listed = self.shared.client.admin().list_offsets(&places).await?;
        let refused =
            |error| ClientError::Refused { what: format!("offsets of topic '{topic}' cannot be listed"), error };
        listed.into_iter().map(|each| each.map(|listed| listed.offset).map_err(refused)).collect()
    }

    fn drop_current_of(&mut self, slot: usize) {
        self.current.take_if(|current| current.slot == slot);
    }

    fn next_of_current(&mut self) -> Option<ConsumedRecord> {
        let Current { slot, batch, at } = self.current.as_mut()?;
        let place = &mut self.places[*slot];
        while let Some(view) = batch.records.next(at) {
            // The first batch of a fetch may start before the offset that was asked for.
            if view.offset < place.position {
                continue;
            }
            place.position = view.offset.next();
            return Some(ConsumedRecord {
                topic: Arc::clone(&place.topic),
                partition: place.number,
                offset: view.offset,
                timestamp: view.timestamp,
                timestamp_type: batch.timestamp_type(),
                key: batch.records.share(view.key),
                value: batch.records.share(view.value),
                headers: batch.records.to_headers(&view),
            });
        }
        // Offsets at the end may have been compacted away.
        place.position = place.position.max(batch.next_offset());
        self.current = None;
        None
    }

    /// What is left of the batch that is being handed out, with all its records at once.
    fn rest_of_current(&mut self) -> Option<FetchedBatch> {
        let Current { slot, batch, at } = self.current.take()?;
        let place = &mut self.places[slot];
        let batch = batch.starting_at(at, place.position);
        place.position = place.position.max(batch.next_offset());
        Some(batch).filter(|batch| batch.iter().next().is_some())
    }

    /// Takes the next item of the buffer; false when there is none.
    fn advance(&mut self) -> Result<bool, ClientError> {
        let (item, has_made_room) = lock(&self.shared.buffer).pop(&self.shared.config);
        match item {
            None => Ok(false),
            Some(Item::Failed { error, .. }) => Err(error),
            Some(Item::Batch { slot, from, batch }) => {
                if has_made_room {
                    self.shared.wake.notify_one();
                }
                // Where fetching went on, which lies before the position when that was beyond the end.
                self.places[slot].position = from;
                self.open(slot, &batch)?;
                Ok(true)
            }
        }
    }

    fn open(&mut self, slot: usize, batch: &RecordBatch) -> Result<(), ClientError> {
        let end_exclusive = batch.header.end_offset_exclusive();
        let place = &mut self.places[slot];
        match Records::open(batch, self.shared.config.inflate_limit_bytes) {
            Ok(records) => {
                let batch = FetchedBatch::new(Arc::clone(&place.topic), place.number, batch.header, records);
                self.current = Some(Current { slot, batch, at: 0 });
                Ok(())
            }
            Err(error) if self.shared.config.on_damaged == Damaged::Skip => {
                let (topic, partition, from) = (&place.topic, place.number, place.position);
                tracing::warn!(%topic, partition, %from, end = %end_exclusive, %error, "skipped damaged records");
                place.position = place.position.max(end_exclusive);
                Ok(())
            }
            Err(error) => {
                let (topic, partition) = (place.topic.to_string(), place.number);
                let error =
                    ClientError::Damaged { topic, partition, offset: place.position, reason: error.to_string() };
                let mut buffer = lock(&self.shared.buffer);
                // What was fetched behind it would come out of order after a seek.
                buffer.restart(slot, batch.header.base_offset);
                buffer.readings[slot].stopped = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Puts a failure back in line.
    fn stop_at_current_error(&self, error: ClientError) {
        let ClientError::Damaged { topic, partition, .. } = &error else { return };
        if let Some(slot) = self.slot_of(topic, *partition) {
            lock(&self.shared.buffer).stop(slot, error);
        }
    }

    async fn wait(&self) -> Result<(), ClientError> {
        if let Some(error) = lock(&self.shared.buffer).dead_end() {
            return Err(error);
        }
        // A notification that came since the buffer was looked at is kept for this.
        self.shared.arrived.notified().await;
        Ok(())
    }
}

impl Shared {
    fn learn_brokers(&self) {
        lock(&self.choice).learn(self.client.brokers());
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        lock(&self.shared.buffer).is_closed = true;
        self.shared.wake.notify_one();
    }
}
