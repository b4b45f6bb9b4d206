//! What a producer holds: topics, their partitions' batches, and how many bytes they take. Behind one lock, which `send`
//! takes once a record.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::ProducerStats;
use super::batch::Batch;
use super::delivery::{Completion, Delivery};
use super::partition::{Landed, Partition};
use super::partitioner::partition_for_key;
use crate::client::backoff::Backoff;
use crate::client::cluster::Topic;
use crate::client::{ClientError, OutgoingRecord, ProducerConfig};
use crate::types::record_batch::{BatchBuilder, HEADER_BYTES};
use crate::types::{TimestampMs, TopicId};

/// What a record takes in a batch besides its key, value and headers: Kafka's own bound.
const RECORD_OVERHEAD_BYTES: usize = 21;
/// The same for a header.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// Everything behind the producer's lock.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    pub topics: Vec<TopicState>,
    by_name: HashMap<Arc<str>, usize>,
    last_topic: usize,
    pub partitions: Vec<Partition>,
    /// The partitions that have work. Scanned by the sender; idle ones cost nothing.
    pub active: Vec<usize>,
    pub buffered_bytes: usize,
    /// How many senders wait for room: partial batches go out then.
    pub waiting_for_room: usize,
    pub is_closing: bool,
    /// The last handle is gone.
    pub is_abandoned: bool,
    pub stats: ProducerStats,
}

/// One topic that this producer sends to.
#[derive(Debug)]
pub(super) struct TopicState {
    pub name: Arc<str>,
    pub id: TopicId,
    /// Its partitions, by number, in the table of all.
    partitions: Vec<usize>,
    /// Where records without a key go until their batch is closed.
    sticky: u32,
    pub learned: Instant,
    /// What is known about it is too old: ask again.
    pub is_stale: bool,
    pub is_learning: bool,
    pub backoff: Backoff,
    pub not_before: Option<Instant>,
    /// Nobody knows it any more: the next record asks again.
    pub is_gone: bool,
}

/// What came of offering a record.
pub(super) enum Offered {
    /// It was taken; whether the sender has to be told.
    Taken { delivery: Delivery, wake: bool },
    /// The buffer is full.
    NoRoom,
    /// The topic must be looked up first.
    UnknownTopic,
}

/// The limits that hold for a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub frame_bytes: usize,
    pub now: TimestampMs,
}

impl Accumulator {
    /// Takes `record` into the batch of its partition if there is room.
    pub fn offer(
        &mut self,
        record: &OutgoingRecord,
        config: &ProducerConfig,
        limits: Limits,
    ) -> Result<Offered, ClientError> {
        if self.is_closing || self.is_abandoned {
            return Err(ClientError::Closed { what: "producer" });
        }
        let bytes = record_bytes(record);
        check_size(bytes, config, limits.frame_bytes)?;
        let Some(topic) = self.find_topic(&record.topic) else {
            return Ok(Offered::UnknownTopic);
        };
        if !self.has_room(record, config) {
            return Ok(Offered::NoRoom);
        }
        let slot = self.choose_partition(topic, record)?;
        let mut wake = false;
        let full_bytes = HEADER_BYTES + config.batch_bytes.min(frame_room(limits.frame_bytes));
        let is_full = |batch: &Batch| batch.plain_bytes() + bytes > full_bytes;
        if self.partitions[slot].open.as_ref().is_some_and(is_full) {
            self.seal(slot);
            wake = true;
        }
        wake |= self.partitions[slot].open.is_none();
        let timestamp = record.timestamp.unwrap_or(limits.now);
        let delivery = self.append(slot, record, timestamp, bytes, config);
        let is_full = |batch: &Batch| batch.plain_bytes() >= full_bytes;
        if self.partitions[slot].open.as_ref().is_some_and(is_full) {
            self.seal(slot);
            wake = true;
        }
        self.stats.sent_records += 1;
        Ok(Offered::Taken { delivery, wake })
    }

    /// Whether the buffer has room for `record` now.
    pub fn has_room(&self, record: &OutgoingRecord, config: &ProducerConfig) -> bool {
        self.buffered_bytes + record_bytes(record) <= config.buffer_bytes
    }

    fn append(
        &mut self,
        slot: usize,
        record: &OutgoingRecord,
        timestamp: TimestampMs,
        bytes: usize,
        config: &ProducerConfig,
    ) -> Delivery {
        self.buffered_bytes += bytes;
        self.activate(slot);
        let partition = &mut self.partitions[slot];
        let name = &self.topics[partition.topic].name;
        let (number, size_hint) = (partition.number, partition.size_hint.min(config.batch_bytes));
        let batch = partition.open.get_or_insert_with(|| {
            let now = Instant::now();
            let builder = BatchBuilder::new(config.compression, size_hint.max(bytes));
            Batch::new(builder, Completion::new(Arc::clone(name), number), now, now + config.delivery_timeout)
        });
        let index = batch.records;
        batch.records += 1;
        batch.reserved_bytes += bytes;
        let completion = Arc::clone(&batch.completion);
        batch.builder().expect("an open batch is not built yet").append(
            timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        Delivery::new(completion, index, timestamp)
    }

    fn activate(&mut self, slot: usize) {
        if !self.partitions[slot].is_active {
            self.partitions[slot].is_active = true;
            self.active.push(slot);
        }
    }

    /// Closes a partition's open batch. A topic's records without a key move on to another partition with it.
    pub fn seal(&mut self, slot: usize) {
        self.partitions[slot].seal();
        let (topic, number) = (self.partitions[slot].topic, self.partitions[slot].number);
        if self.topics[topic].sticky == number {
            self.topics[topic].sticky = self.next_sticky(topic);
        }
    }

    fn next_sticky(&self, topic: usize) -> u32 {
        let partitions = &self.topics[topic].partitions;
        let start = fastrand::usize(..partitions.len().max(1));
        let led = |at: &usize| self.partitions[partitions[*at]].leader.is_some();
        let chosen = (0..partitions.len()).map(|step| (start + step) % partitions.len()).find(led).unwrap_or(start);
        u32::try_from(chosen).unwrap_or(0)
    }

    fn find_topic(&mut self, name: &Arc<str>) -> Option<usize> {
        let is_last = self.topics.get(self.last_topic).is_some_and(|topic| topic.name == *name);
        if !is_last {
            self.last_topic = *self.by_name.get(name)?;
        }
        (!self.topics[self.last_topic].is_gone).then_some(self.last_topic)
    }

    fn choose_partition(&mut self, topic: usize, record: &OutgoingRecord) -> Result<usize, ClientError> {
        let topic = &self.topics[topic];
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let number = match (record.partition, &record.key) {
            (Some(number), _) => number,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => topic.sticky,
        };
        let slot = usize::try_from(number).ok().and_then(|at| topic.partitions.get(at));
        slot.copied().ok_or_else(|| ClientError::UnknownPartition {
            topic: topic.name.to_string(),
            partition: number,
            partitions: count,
        })
    }

    /// Takes over what the cluster says about a topic. Returns batches that fail because it is another topic now.
    pub fn learn(&mut self, described: &Topic) -> Vec<Landed> {
        let at = self.by_name.get(&described.name).copied().unwrap_or_else(|| self.add_topic(described));
        let mut landed = Vec::new();
        let is_other = self.topics[at].id != described.id;
        self.add_partitions(at, described.partitions.len());
        for (known, slot) in described.partitions.iter().zip(&self.topics[at].partitions) {
            let partition = &mut self.partitions[*slot];
            (partition.leader, partition.leader_epoch) = (known.leader, known.leader_epoch);
            if is_other {
                landed.extend(partition.renew("the topic was deleted and created anew"));
            }
        }
        let missing = described.partitions.iter().any(|partition| partition.leader.is_none());
        let topic = &mut self.topics[at];
        topic.id = described.id;
        topic.learned = Instant::now();
        topic.is_gone = false;
        topic.is_stale = missing;
        if missing {
            topic.not_before = Some(topic.learned + topic.backoff.next_delay());
        } else {
            topic.backoff.reset();
            topic.not_before = None;
        }
        if usize::try_from(topic.sticky).map_or(true, |sticky| sticky >= topic.partitions.len()) {
            self.topics[at].sticky = self.next_sticky(at);
        }
        landed
    }

    fn add_topic(&mut self, described: &Topic) -> usize {
        self.topics.push(TopicState {
            name: Arc::clone(&described.name),
            id: described.id,
            partitions: Vec::new(),
            sticky: u32::MAX,
            learned: Instant::now(),
            is_stale: false,
            is_learning: false,
            backoff: Backoff::default(),
            not_before: None,
            is_gone: false,
        });
        self.by_name.insert(Arc::clone(&described.name), self.topics.len() - 1);
        self.topics.len() - 1
    }

    fn add_partitions(&mut self, topic: usize, count: usize) {
        let have = self.topics[topic].partitions.len();
        for number in have..count {
            self.topics[topic].partitions.push(self.partitions.len());
            self.partitions.push(Partition::new(topic, u32::try_from(number).unwrap_or(u32::MAX)));
        }
        // A topic created anew may have fewer. Batches of those that are gone are failed by their deadline.
        self.topics[topic].partitions.truncate(count);
    }

    /// The partitions of a topic in the table of all.
    pub fn partitions_of(&self, topic: usize) -> Vec<usize> {
        self.topics[topic].partitions.clone()
    }

    /// Tells the records of each batch what became of them, and frees their room.
    pub fn finish(&mut self, landed: Vec<Landed>) {
        for (batch, outcome) in landed {
            self.buffered_bytes = self.buffered_bytes.saturating_sub(batch.reserved_bytes);
            let is_delivered = outcome.is_ok();
            if !batch.completion.resolve(outcome) {
                continue;
            }
            if is_delivered {
                self.stats.delivered_records += u64::from(batch.records);
                self.stats.delivered_batches += 1;
                self.stats.delivered_bytes += batch.plain_bytes() as u64;
            } else {
                self.stats.failed_records += u64::from(batch.records);
            }
        }
    }
}

fn record_bytes(record: &OutgoingRecord) -> usize {
    let headers = record
        .headers
        .iter()
        .map(|header| header.key.len() + header.value.as_ref().map_or(0, bytes::Bytes::len) + HEADER_OVERHEAD_BYTES);
    let field = |field: &Option<bytes::Bytes>| field.as_ref().map_or(0, bytes::Bytes::len);
    RECORD_OVERHEAD_BYTES + field(&record.key) + field(&record.value) + headers.sum::<usize>()
}

/// What a frame has room for besides the batch header, topic, partition and lengths around the records.
fn frame_room(frame_bytes: usize) -> usize {
    frame_bytes.saturating_sub(1_024)
}

fn check_size(bytes: usize, config: &ProducerConfig, frame_bytes: usize) -> Result<(), ClientError> {
    let frame_room = frame_room(frame_bytes);
    if bytes > config.buffer_bytes {
        return Err(ClientError::RecordTooLarge { bytes, limit: config.buffer_bytes, setting: "buffer_bytes" });
    }
    if bytes > frame_room {
        let setting = "max_frame_bytes (of the client, and limits.max_frame_bytes of the node)";
        return Err(ClientError::RecordTooLarge { bytes, limit: frame_room, setting });
    }
    Ok(())
}
