//! One partition that a consumer reads: from where on, whom it asks, and when it asks again.
//!
//! ```text
//!   fetch ─► records ─► fetch …
//!     │ failed at another replica than the leader: that one is avoided for a while
//!     ▼
//!   learn who leads, at once for the first time ─► somebody else, or another epoch: fetch there at once
//!                                               └► the same: fetch after the backoff
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::Choice;
use crate::client::backoff::Backoff;
use crate::client::known::Topic;
use crate::client::{ClientError, ConsumerConfig};
use crate::protocol::messages::FetchPartition;
use crate::types::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};

/// Who leaves a fetch unanswered for so long beyond its waiting time may be gone without a word: another may lead by now.
const OVERDUE: Duration = Duration::from_millis(500);
/// And that is asked again after so long, while it is silent.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A replica that failed is not read for so long.
const AVOIDED_FOR: Duration = Duration::from_secs(5);

/// One partition that is read, or was.
#[derive(Debug)]
pub(super) struct Reading {
    pub topic: Arc<str>,
    pub topic_id: TopicId,
    pub number: u32,
    /// Raised by every seek, and when somebody else is to be asked: what comes for an older one is dropped.
    pub generation: u64,
    pub is_assigned: bool,
    pub fetch_from: Offset,
    pub high_watermark: Option<Offset>,
    pub leader: Option<NodeId>,
    pub leader_epoch: LeaderEpoch,
    /// Who is asked for records: the leader, or another replica.
    pub source: Option<NodeId>,
    /// Replicas that failed, and until when they are not asked.
    avoided: Vec<(NodeId, Instant)>,
    /// When it was last told who leads.
    pub learned: Instant,
    pub buffered_bytes: usize,
    /// A fetch or a look-up for this generation is on its way.
    pub is_busy: bool,
    /// Since when.
    pub asked_at: Instant,
    /// Who leads must be asked before the next fetch.
    pub needs_leader: bool,
    /// When to ask that.
    pub learn_at: Option<Instant>,
    pub backoff: Backoff,
    /// When to fetch again.
    pub not_before: Option<Instant>,
    /// Why nothing more is fetched, until a seek.
    pub stopped: Option<ClientError>,
}

impl Reading {
    pub fn new(topic: Arc<str>, topic_id: TopicId, number: u32) -> Self {
        Self {
            topic,
            topic_id,
            number,
            generation: 0,
            is_assigned: false,
            fetch_from: Offset::ZERO,
            high_watermark: None,
            leader: None,
            leader_epoch: LeaderEpoch(0),
            source: None,
            avoided: Vec::new(),
            learned: Instant::now(),
            buffered_bytes: 0,
            is_busy: false,
            asked_at: Instant::now(),
            needs_leader: false,
            learn_at: None,
            backoff: Backoff::while_others_work(),
            not_before: None,
            stopped: None,
        }
    }

    /// Whether records of it are wanted.
    pub fn is_read(&self) -> bool {
        self.is_assigned && self.stopped.is_none()
    }

    /// Whether it is this reader's turn to do something.
    pub fn is_waiting(&self) -> bool {
        self.is_read() && !self.is_busy
    }

    /// Takes over who leads, and chooses whom to read from. Somebody else than before is asked at once.
    pub fn follow(&mut self, topic: &Topic, choice: &Choice, now: Instant) {
        self.learned = now;
        self.avoided.retain(|(_, until)| *until > now);
        let before = (self.source, self.leader_epoch);
        if let Ok(partition) = topic.partition(self.number) {
            (self.leader, self.leader_epoch) = (partition.leader, partition.leader_epoch);
            self.source = choice.of(partition, |node| self.avoided.iter().any(|(avoided, _)| *avoided == node));
        }
        self.needs_leader = self.source.is_none();
        if before != (self.source, self.leader_epoch) {
            self.not_before = None;
        }
        if before.0 != self.source && self.is_busy {
            // It may never answer. Nothing is lost: reading goes on where it is, elsewhere.
            self.generation += 1;
            self.is_busy = false;
        }
    }

    /// Something failed that may pass: asks who leads, for the first time at once, and waits before it fetches from the same one
    /// again.
    pub fn try_again(&mut self, now: Instant) {
        let is_first = self.backoff.is_fresh();
        let later = now + self.backoff.next_delay();
        self.needs_leader = true;
        self.learn_at = Some(later).filter(|_| !is_first);
        self.not_before = Some(later);
    }

    /// What was asked of `source` failed there, and may succeed later, or elsewhere.
    pub fn failed_at(&mut self, source: NodeId, now: Instant) {
        self.avoid(source, now);
        self.try_again(now);
        if self.source != Some(source) {
            self.not_before = None;
        }
    }

    /// When to ask who leads and who is in sync although nothing has failed: when its fetch is overdue; and every `interval` when it
    /// reads from others than leaders.
    pub fn look_around_at(&self, reads_followers: bool, interval: Duration, max_wait: Duration) -> Option<Instant> {
        let overdue = self.is_busy.then(|| (self.asked_at + max_wait + OVERDUE).max(self.learned + ASK_AGAIN));
        let next = reads_followers.then(|| self.learned + interval);
        overdue.into_iter().chain(next).min()
    }

    /// Reads from another replica than `source` for a while, unless that is the leader.
    pub fn avoid(&mut self, source: NodeId, now: Instant) {
        if self.leader != Some(source) {
            self.avoided.push((source, now + AVOIDED_FOR));
            self.source = self.leader;
        }
    }

    /// Whether so little is unread that more can be fetched.
    pub fn has_room(&self, share_bytes: usize) -> bool {
        self.buffered_bytes <= share_bytes / 2
    }

    /// What to ask for, with room for `share_bytes` of this partition; `None` while half of that is still unread.
    pub fn next_fetch(&self, share_bytes: usize, config: &ConsumerConfig) -> Option<FetchPartition> {
        if !self.has_room(share_bytes) {
            return None;
        }
        let max_bytes = config.partition_max_bytes.min(share_bytes - self.buffered_bytes);
        Some(FetchPartition {
            topic: self.topic_id,
            partition: PartitionIndex(self.number),
            leader_epoch: Some(self.leader_epoch),
            offset: self.fetch_from,
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
        })
    }

    pub fn skip_damage(&mut self, end: Offset, reason: &str) {
        let (topic, partition, from) = (&self.topic, self.number, self.fetch_from);
        tracing::warn!(%topic, partition, %from, %end, reason, "skipped damaged records");
        self.fetch_from = end;
    }

    pub fn damaged(&self, reason: String) -> ClientError {
        ClientError::Damaged { topic: self.topic.to_string(), partition: self.number, offset: self.fetch_from, reason }
    }
}
