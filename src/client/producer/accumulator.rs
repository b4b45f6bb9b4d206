//! What a producer holds: topics, their partitions' batches, and how many bytes they take. Behind one lock, which `send`
//! takes once a record, and `send_batch` once for many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ProducerStats;
use super::batch::Batch;
use super::delivery::Completion;
use super::partition::{Landed, Partition};
use super::partitioner::partition_for_key;
use super::spare::Spares;
use crate::client::backoff::Backoff;
use crate::client::known::Topic;
use crate::client::{ClientError, ProducerConfig, RecordRef};
use crate::types::record_batch::{BatchBuilder, HEADER_BYTES, Header};
use crate::types::{TimestampMs, TopicId};

/// What a record takes in a batch besides its key, value and headers: Kafka's own bound.
const RECORD_OVERHEAD_BYTES: usize = 21;
/// What a batch has room for besides its full size: its header, and the numbers that stand after its last record's value.
const BUILDER_SLACK_BYTES: usize = HEADER_BYTES + 128;
/// The same for a header.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// A topic that was not asked about for so long is asked about at once when something fails. Longer than the longest backoff.
const QUIET: Duration = Duration::from_secs(2);

/// Everything behind the producer's lock.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    pub topics: Vec<TopicState>,
    by_name: HashMap<Arc<str>, usize>,
    last_topic: usize,
    /// Memory of batches that were acknowledged, for those to come.
    pub spares: Spares,
    pub partitions: Vec<Partition>,
    /// The partitions that have work. Scanned by the sender; idle ones cost nothing.
    pub active: Vec<usize>,
    pub buffered_bytes: usize,
    /// There is more room than when those who wait for it were last told.
    pub room_freed: bool,
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
    /// How long to wait after one answer before asking again.
    pub backoff: Backoff,
    pub not_before: Option<Instant>,
    /// Nobody knows it any more: the next record asks again.
    pub is_gone: bool,
}

/// What came of offering a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It was taken; what the sender has to be told.
    Taken(News),
    /// The buffer is full.
    NoRoom,
    /// The topic must be looked up first.
    UnknownTopic,
}

/// What changed for the sender when a record was taken, in the order of its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Nothing.
    #[default]
    None,
    /// A batch was begun: its time runs.
    Begun,
    /// A batch is full and can go.
    Filled,
}

/// The limits that hold for a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub frame_bytes: usize,
    pub now: TimestampMs,
}

impl Accumulator {
    pub fn new(spares: Spares) -> Self {
        Self { spares, ..Self::default() }
    }

    /// Takes `record` into the batch of its partition if there is room, and tells `note` of whom it will hear: the batch's
    /// completion, the record's place in the batch and its time.
    pub fn offer(
        &mut self,
        topic: usize,
        record: &RecordRef<'_>,
        config: &ProducerConfig,
        limits: Limits,
        note: impl FnOnce(&Arc<Completion>, u32, TimestampMs),
    ) -> Result<Offered, ClientError> {
        if self.is_closing || self.is_abandoned {
            return Err(ClientError::Closed { what: "producer" });
        }
        let bytes = record_bytes(record);
        check_size(bytes, config, limits.frame_bytes)?;
        if self.topics[topic].is_gone {
            return Ok(Offered::UnknownTopic);
        }
        if self.buffered_bytes + bytes > config.buffer_bytes {
            return Ok(Offered::NoRoom);
        }
        let slot = self.choose_partition(topic, record)?;
        let full_bytes = HEADER_BYTES + config.batch_bytes.min(frame_room(limits.frame_bytes));
        let mut news = News::None;
        if self.partitions[slot].open.as_ref().is_some_and(|batch| batch.plain_bytes() + bytes > full_bytes) {
            self.seal(slot);
            news = News::Filled;
        }
        let timestamp = record.timestamp.unwrap_or(limits.now);
        if self.partitions[slot].open.is_none() {
            self.begin_batch(slot, bytes, full_bytes, config);
            news = news.max(News::Begun);
        }
        self.buffered_bytes += bytes;
        self.stats.sent_records += 1;
        let batch = self.partitions[slot].open.as_mut().expect("a batch was begun if there was none");
        note(&batch.completion, batch.records, timestamp);
        batch.add(record, timestamp, bytes);
        if batch.plain_bytes() >= full_bytes {
            self.seal(slot);
            news = News::Filled;
        }
        Ok(Offered::Taken(news))
    }

    /// Whether the buffer has room for `record` now.
    pub fn has_room(&self, record: &RecordRef<'_>, config: &ProducerConfig) -> bool {
        self.buffered_bytes + record_bytes(record) <= config.buffer_bytes
    }

    fn begin_batch(&mut self, slot: usize, bytes: usize, full_bytes: usize, config: &ProducerConfig) {
        self.activate(slot);
        let partition = &mut self.partitions[slot];
        // A batch that was filled is followed by another, which may be a little longer: it is not to grow, and be copied,
        // for its last record.
        let hint = if partition.size_hint > full_bytes / 2 { full_bytes } else { partition.size_hint };
        let buffer = self.spares.take(hint.max(bytes) + BUILDER_SLACK_BYTES);
        let completion = Completion::new(Arc::clone(&self.topics[partition.topic].name), partition.number);
        let now = Instant::now();
        let builder = BatchBuilder::in_buffer(config.compression, buffer);
        partition.open = Some(Batch::new(builder, completion, now, now + config.delivery_timeout));
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

    /// Where a topic stands in the table, if it was learned before. It stays there.
    pub fn find_topic(&mut self, name: &str) -> Option<usize> {
        let is_last = self.topics.get(self.last_topic).is_some_and(|topic| *topic.name == *name);
        if !is_last {
            self.last_topic = *self.by_name.get(name)?;
        }
        Some(self.last_topic)
    }

    fn choose_partition(&mut self, topic: usize, record: &RecordRef<'_>) -> Result<usize, ClientError> {
        let topic = &self.topics[topic];
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let number = match (record.partition, record.key) {
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

    /// Takes over what the cluster says about a topic. Returns where it stands, and batches that fail because it is another
    /// topic now.
    pub fn learn(&mut self, described: &Topic) -> (usize, Vec<Landed>) {
        let at = self.by_name.get(&described.name).copied().unwrap_or_else(|| self.add_topic(described));
        let mut landed = Vec::new();
        let is_other = self.topics[at].id != described.id;
        let mut has_new_leader = false;
        self.add_partitions(at, described.partitions.len());
        for (known, slot) in described.partitions.iter().zip(&self.topics[at].partitions) {
            let partition = &mut self.partitions[*slot];
            has_new_leader |= partition.follow(known.leader, known.leader_epoch);
            if is_other {
                landed.extend(partition.renew("the topic was deleted and created anew"));
            }
        }
        let missing = described.partitions.iter().any(|partition| partition.leader.is_none());
        let (topic, now) = (&mut self.topics[at], Instant::now());
        // Whoever was told of a new leader has no reason to wait longer for the next one than for this one.
        if has_new_leader || now.duration_since(topic.learned) > QUIET {
            topic.backoff.reset();
        }
        topic.id = described.id;
        topic.learned = now;
        topic.is_gone = false;
        topic.is_stale = missing;
        // Whatever fails now may not be known to the brokers yet: who asks again at once learns the same.
        topic.not_before = Some(now + topic.backoff.next_delay());
        if usize::try_from(topic.sticky).map_or(true, |sticky| sticky >= topic.partitions.len()) {
            self.topics[at].sticky = self.next_sticky(at);
        }
        (at, landed)
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
            backoff: Backoff::while_others_work(),
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
            self.room_freed = true;
            let is_delivered = outcome.is_ok();
            if batch.completion.resolve(outcome) {
                if is_delivered {
                    self.stats.delivered_records += u64::from(batch.records);
                    self.stats.delivered_batches += 1;
                    self.stats.delivered_bytes += batch.plain_bytes() as u64;
                } else {
                    self.stats.failed_records += u64::from(batch.records);
                }
            }
            self.spares.give(batch.into_buffer());
        }
    }
}

fn record_bytes(record: &RecordRef<'_>) -> usize {
    let header_bytes =
        |header: &Header| header.key.len() + header.value.as_ref().map_or(0, bytes::Bytes::len) + HEADER_OVERHEAD_BYTES;
    let field_bytes = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers_bytes: usize = record.headers.iter().map(header_bytes).sum();
    RECORD_OVERHEAD_BYTES + field_bytes(record.key) + field_bytes(record.value) + headers_bytes
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::PartitionMetadata;
    use crate::types::{LeaderEpoch, NodeId, PartitionIndex};

    fn led_by(node: u32, epoch: u32) -> Topic {
        let (leader, leader_epoch) = (Some(NodeId(node)), LeaderEpoch(epoch));
        let (replicas, in_sync) = (Vec::new(), Vec::new());
        let partition = PartitionMetadata { partition: PartitionIndex(0), leader, leader_epoch, replicas, in_sync };
        let id = TopicId(uuid::Uuid::from_u128(7));
        Topic { name: "rides".into(), id, partitions: vec![partition], learned: Instant::now() }
    }

    fn pause(known: &Accumulator) -> Duration {
        known.topics[0].not_before.expect("a pause after each answer").saturating_duration_since(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_questions_grow_until_there_is_a_new_leader() {
        let mut known = Accumulator::new(Spares::default());
        (0..30).for_each(|_| drop(known.learn(&led_by(1, 1))));
        assert!(pause(&known) > Duration::from_millis(200), "{:?}", pause(&known));
        known.learn(&led_by(2, 2));
        assert!(pause(&known) <= Duration::from_millis(5), "{:?}", pause(&known));
    }
}
