//! What a consumer has fetched ahead, and what it reads. Behind one lock, which `recv` takes once a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::choice::Choice;
use super::reading::Reading;
use crate::client::known::Topic;
use crate::client::{ClientError, ConsumerConfig, Damaged};
use crate::protocol::messages::FetchedPartition;
use crate::types::Offset;
use crate::types::record_batch::{BatchHeader, RecordBatch};

/// Everything behind the consumer's lock.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub readings: Vec<Reading>,
    queue: VecDeque<Item>,
    /// The consumer is dropped.
    pub is_closed: bool,
}

/// What was fetched, in the order in which it came.
#[derive(Debug)]
pub(super) enum Item {
    /// `from` is the first offset wanted of it: below the batch's start after a gap, behind it when the batch holds more.
    Batch {
        slot: usize,
        from: Offset,
        batch: RecordBatch,
    },
    Failed {
        slot: usize,
        error: ClientError,
    },
}

impl Item {
    fn slot(&self) -> usize {
        match self {
            Self::Batch { slot, .. } | Self::Failed { slot, .. } => *slot,
        }
    }
}

impl Buffer {
    /// Starts reading a partition at `from`. One that is read already goes on there instead.
    pub fn assign(&mut self, topic: &Topic, number: u32, from: Offset, choice: &Choice) -> usize {
        let same = |reading: &Reading| *reading.topic == *topic.name && reading.number == number;
        let slot = self.readings.iter().position(same).unwrap_or_else(|| {
            self.readings.push(Reading::new(Arc::clone(&topic.name), topic.id, number));
            self.readings.len() - 1
        });
        self.restart(slot, from);
        let reading = &mut self.readings[slot];
        reading.topic_id = topic.id;
        reading.is_assigned = true;
        reading.high_watermark = None;
        reading.follow(topic, choice, Instant::now());
        slot
    }

    /// Drops what was fetched of a partition and goes on at `from`.
    pub fn restart(&mut self, slot: usize, from: Offset) {
        self.queue.retain(|item| item.slot() != slot);
        let reading = &mut self.readings[slot];
        reading.generation += 1;
        reading.fetch_from = from;
        reading.buffered_bytes = 0;
        reading.is_busy = false;
        reading.stopped = None;
        reading.not_before = None;
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, slot: usize) {
        let from = self.readings[slot].fetch_from;
        self.restart(slot, from);
        self.readings[slot].is_assigned = false;
    }

    /// Takes the oldest item, and says whether its partition can be fetched again now.
    pub fn pop(&mut self, config: &ConsumerConfig) -> (Option<Item>, bool) {
        let Some(item) = self.queue.pop_front() else { return (None, false) };
        let mut has_made_room = false;
        let share_bytes = self.share_bytes(config);
        if let Item::Batch { slot, batch, .. } = &item {
            let reading = &mut self.readings[*slot];
            reading.buffered_bytes = reading.buffered_bytes.saturating_sub(batch.total_bytes());
            has_made_room = reading.is_waiting() && reading.has_room(share_bytes);
        }
        (Some(item), has_made_room)
    }

    /// Whether the oldest item is a failure, or there is none.
    pub fn has_batch_next(&self) -> bool {
        matches!(self.queue.front(), Some(Item::Batch { .. }))
    }

    /// Why nothing will ever come, when that is so.
    pub fn dead_end(&self) -> Option<ClientError> {
        let mut assigned = self.readings.iter().filter(|reading| reading.is_assigned).peekable();
        if !self.queue.is_empty() {
            return None;
        }
        if assigned.peek().is_none() {
            return Some(ClientError::NothingAssigned);
        }
        let mut last = None;
        for reading in assigned {
            last = Some(reading.stopped.clone()?);
        }
        last
    }

    /// How many bytes of each partition are fetched ahead: an equal share for each, so that none starves another.
    pub fn share_bytes(&self, config: &ConsumerConfig) -> usize {
        let assigned = self.readings.iter().filter(|reading| reading.is_assigned).count();
        (config.prefetch_bytes / assigned.max(1)).max(1)
    }

    /// Stops a partition, and tells the reader why once it has read what came before.
    pub fn stop(&mut self, slot: usize, error: ClientError) {
        self.readings[slot].stopped = Some(error.clone());
        self.queue.push_back(Item::Failed { slot, error });
    }

    /// Takes over what a fetch brought: whole batches, one after the other.
    pub fn on_fetched(&mut self, slot: usize, state: FetchedPartition, mut bytes: Bytes, config: &ConsumerConfig) {
        let reading = &mut self.readings[slot];
        reading.high_watermark = Some(state.high_watermark);
        reading.backoff.reset();
        while !bytes.is_empty() {
            let reading = &mut self.readings[slot];
            match next_batch(&mut bytes) {
                Ok(batch) if batch.header.end_offset_exclusive() <= reading.fetch_from => {}
                Ok(batch) => {
                    let from = reading.fetch_from;
                    reading.fetch_from = batch.header.end_offset_exclusive();
                    // Control batches hold no records for anybody: only their offsets count.
                    if !batch.header.attributes.is_control() {
                        reading.buffered_bytes += batch.total_bytes();
                        self.queue.push_back(Item::Batch { slot, from, batch });
                    }
                }
                Err(BadBatch { reason, end }) => match end.filter(|end| *end > reading.fetch_from) {
                    Some(end) if config.on_damaged == Damaged::Skip => reading.skip_damage(end, &reason),
                    _ => {
                        let error = reading.damaged(reason);
                        self.stop(slot, error);
                        return;
                    }
                },
            }
        }
    }
}

/// A batch that cannot be used, and where the next one starts if its header can still be believed that far.
struct BadBatch {
    reason: String,
    end: Option<Offset>,
}

/// Splits the next batch off and verifies its checksum: the client's own check, over all that lay between.
fn next_batch(bytes: &mut Bytes) -> Result<RecordBatch, BadBatch> {
    let unusable = |reason: String| BadBatch { reason, end: None };
    let header = BatchHeader::parse(bytes).map_err(|error| unusable(error.to_string()))?;
    let whole = header.total_bytes();
    if bytes.len() < whole {
        return Err(unusable(format!("the batch is cut short: {} bytes of {whole}", bytes.len())));
    }
    if let Err(error) = header.verify_checksum(&bytes[..whole]) {
        // The length led to the end of the batch, so what follows may be whole.
        drop(bytes.split_to(whole));
        return Err(BadBatch { reason: error.to_string(), end: Some(header.end_offset_exclusive()) });
    }
    RecordBatch::split_from(bytes).map_err(|error| unusable(error.to_string()))
}
