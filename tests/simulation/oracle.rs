//! What must be so after every step, whatever went wrong before it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use callboard::types::record_batch::RecordBatch;
use callboard::types::{LeaderEpoch, NodeId, Offset, ProducerId, TopicPartition};

/// What a batch holds, whoever passed it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content(u64);

/// A batch at its place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub end: Offset,
    pub epoch: LeaderEpoch,
    pub content: Content,
}

/// What is known of one partition.
#[derive(Default)]
pub struct History {
    /// By the epoch that wrote it and the offset: one content.
    written: BTreeMap<(LeaderEpoch, Offset), Placed>,
    /// What some replica has shown as committed.
    pub committed: BTreeMap<Offset, Placed>,
    /// Where each idempotent batch was committed.
    idempotent: BTreeMap<Content, Offset>,
    /// Acknowledged: as committed, or (with `acks = 1`) not.
    pub acknowledged: BTreeMap<Offset, Content>,
    /// The largest end that some client knows to be committed.
    pub known_end: Offset,
    /// Every member lost what it had, before the controller could know of the first: the partition stays offline, as it should.
    pub is_given_up: bool,
    /// Whom the newest election made the leader.
    pub last_leader: Option<Option<NodeId>>,
    /// Records below this were deleted on request.
    pub deleted_before: Offset,
}

/// See the module page.
#[derive(Default)]
pub struct Oracle {
    pub partitions: BTreeMap<TopicPartition, History>,
    pub violation: Option<String>,
}

impl Content {
    pub fn of(batch: &RecordBatch) -> Self {
        let mut hasher = DefaultHasher::new();
        let header = &batch.header;
        (&batch.body[..], header.producer_id.0, header.base_sequence, header.record_count).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The batches in `bytes`.
pub fn batches_of(mut bytes: Bytes) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while let Ok(batch) = RecordBatch::split_from(&mut bytes) {
        batches.push(batch);
    }
    batches
}

impl Oracle {
    pub fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// Something is not as it should be in a partition; of one that is given up no more is asked.
    pub fn fail_in(&mut self, partition: TopicPartition, text: String) {
        if !self.history(partition).is_given_up {
            self.fail(text);
        }
    }

    pub fn history(&mut self, partition: TopicPartition) -> &mut History {
        self.partitions.entry(partition).or_default()
    }

    pub fn committed_end(&self, partition: TopicPartition) -> Offset {
        self.partitions.get(&partition).map_or(Offset::ZERO, History::committed_end)
    }

    /// A replica puts a batch into its log.
    pub fn on_append(&mut self, partition: TopicPartition, node: NodeId, batch: &RecordBatch) {
        let (content, header) = (Content::of(batch), &batch.header);
        let place = (header.leader_epoch, header.base_offset);
        let placed = Placed { end: header.end_offset_exclusive(), epoch: header.leader_epoch, content };
        let known = *self.history(partition).written.entry(place).or_insert(placed);
        if known.content != content {
            let text =
                format!("broker {node} has other records in {partition} at epoch {}, offset {}", place.0, place.1);
            self.fail_in(partition, text);
        }
    }

    /// A replica's watermark has passed these.
    pub fn on_committed(&mut self, partition: TopicPartition, node: NodeId, batches: &[RecordBatch]) {
        for batch in batches {
            let (content, header) = (Content::of(batch), &batch.header);
            let (base, end) = (header.base_offset, header.end_offset_exclusive());
            let placed = Placed { end, epoch: header.leader_epoch, content };
            let history = self.history(partition);
            let is_idempotent = header.producer_id != ProducerId::NONE;
            let doubled = is_idempotent && *history.idempotent.entry(content).or_insert(base) != base;
            let known = *history.committed.entry(base).or_insert(placed);
            if known.content != content || known.end != end {
                self.fail_in(
                    partition,
                    format!("broker {node} shows other committed records in {partition} at offset {base}"),
                );
            } else if doubled {
                self.fail_in(
                    partition,
                    format!("a retry of an idempotent batch was committed twice in {partition}, again at {base}"),
                );
            }
        }
    }

    /// A client was told that its batch is committed.
    pub fn on_acknowledged(&mut self, partition: TopicPartition, base: Offset, content: Content, what: &str) {
        let history = self.history(partition);
        history.acknowledged.insert(base, content);
        let found = history.committed.get(&base).map(|placed| (placed.content, placed.end));
        match found {
            Some((found, end)) if found == content => history.known_end = history.known_end.max(end),
            // Deleted before anybody could see it.
            None if base < history.deleted_before => {}
            found => self.fail_in(
                partition,
                format!("{what} was acknowledged at offset {base} of {partition}, where there is {found:?}"),
            ),
        }
    }

    /// A consumer was given these.
    pub fn on_read(&mut self, partition: TopicPartition, reader: &str, batches: &[RecordBatch]) {
        for batch in batches {
            let base = batch.header.base_offset;
            let known = self.history(partition).committed.get(&base).map(|placed| placed.content);
            if known != Some(Content::of(batch)) {
                self.fail_in(
                    partition,
                    format!("{reader} was given records of {partition} at offset {base} that are not committed there"),
                );
            }
        }
    }
}

impl History {
    /// What was written at that offset in that epoch.
    pub fn written_at(&self, epoch: LeaderEpoch, base: Offset) -> Option<Placed> {
        self.written.get(&(epoch, base)).copied()
    }

    pub fn committed_end(&self) -> Offset {
        self.committed.last_key_value().map_or(Offset::ZERO, |(_, placed)| placed.end)
    }
}
