//! Fetches: several partitions, a minimum to wait for, and replies that stay within the connection's room.
//!
//! ```text
//!   probe every partition ── enough, an error, or no time ──► reply
//!        │ too little
//!        ▼
//!   park at every partition ── each answer adds up ── enough, an error, or the deadline ──► cancel the rest, reply
//! ```
//! A fetch of a single partition parks at once.

use std::collections::HashSet;

use actix::Addr;

use super::actor::{Deferred, InWork, LargeRequest, Session};
use crate::actors::codec::{Held, ReplyBody, ReplyRoom, RequestPermit};
use crate::actors::partition_leader::{Answer, CancelFetch, Fetch, FetchedRecords, PartitionLeader};
use crate::actors::send::post;
use crate::protocol::frame::{Attachment, FrameHead};
use crate::protocol::messages::{self, FetchReply, FetchedPartition, Outcome};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{LeaderEpoch, MonoTime, Offset, TopicPartition};

/// However small a share of `max_bytes` a partition gets, it may answer with this much: fewer round trips for many
/// partitions.
const MIN_SHARE_BYTES: usize = 4_096;

/// What a topic and a partition take in a listing with their settings: generous, because it is an upper bound of memory.
const BYTES_PER_TOPIC: usize = 1_024;
const BYTES_PER_PARTITION: usize = 96;

/// Refuses a request that names a topic or partition more than once: a small frame must not ask for the same large answer
/// a hundred thousand times.
fn refuse_repeats(request: &LargeRequest) -> Result<(), ApiError> {
    let names = match request {
        LargeRequest::Fetch(fetch) => {
            let places = fetch.partitions.iter().map(|entry| TopicPartition::new(entry.topic, entry.partition));
            return distinct(places, fetch.partitions.len(), "partition");
        }
        LargeRequest::Metadata(metadata) => &metadata.topics,
        LargeRequest::DescribeTopics(describe) => &describe.names,
    };
    names.as_ref().map_or(Ok(()), |names| distinct(names.iter(), names.len(), "topic"))
}

/// Whether `items`, of which there are `count`, are all different.
pub(super) fn distinct<T: Eq + std::hash::Hash>(
    items: impl Iterator<Item = T>,
    count: usize,
    what: &str,
) -> Result<(), ApiError> {
    if items.collect::<HashSet<T>>().len() == count {
        return Ok(());
    }
    Err(ApiError::new(ErrorCode::InvalidRequest, format!("a {what} is named more than once: name each once")))
}

struct Part {
    leader: Option<Addr<PartitionLeader>>,
    leader_epoch: Option<LeaderEpoch>,
    next_offset: Offset,
    max_bytes: usize,
    state: Option<Result<FetchedPartition, ApiError>>,
    records: Attachment,
    awaited: bool,
}

/// A fetch that is not answered yet.
pub(super) struct FetchInWork {
    head: FrameHead,
    permit: RequestPermit,
    room: Option<ReplyRoom>,
    deadline: MonoTime,
    min_bytes: usize,
    parts: Vec<Part>,
    awaited: usize,
    bytes: usize,
    failed: bool,
    parked: bool,
    asked: Vec<Addr<PartitionLeader>>,
}

impl FetchInWork {
    pub(super) fn leaders(&self) -> &[Addr<PartitionLeader>] {
        &self.asked
    }

    fn put(&mut self, item: usize, result: Result<Answer, ApiError>) {
        let Some(part) = self.parts.get_mut(item).filter(|part| part.awaited) else { return };
        part.awaited = false;
        self.awaited -= 1;
        match result {
            Ok(Answer::Fetched(FetchedRecords { state, chunks, next_offset })) => {
                part.state = Some(Ok(state));
                part.next_offset = next_offset.unwrap_or(part.next_offset);
                let before = part.records.len();
                chunks.into_iter().for_each(|chunk| part.records.push(chunk));
                self.bytes += part.records.len() - before;
            }
            // Records that came before are worth more than the error: the client meets it when it asks on.
            Err(_) if !part.records.is_empty() => self.failed = true,
            Err(error) => {
                part.state = Some(Err(error));
                self.failed = true;
            }
            Ok(_) => {
                part.state = Some(Err(ApiError::new(ErrorCode::Unknown, "a partition gave an answer of another kind")));
                self.failed = true;
            }
        }
    }

    fn is_enough(&self, now: MonoTime) -> bool {
        self.failed || self.bytes >= self.min_bytes || now >= self.deadline
    }
}

impl Session {
    /// Takes a request whose reply may be large: it starts when there is room for the reply.
    pub(super) fn defer(&mut self, head: FrameHead, body: LargeRequest, mut permit: RequestPermit) {
        if let Err(error) = refuse_repeats(&body) {
            self.send(head, Err(error), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        // Nothing in the frame is kept; a fetch that is parked must not hold room for others' records.
        permit.release_bytes();
        // What a client is willing to wait counts from now, whenever there is room.
        let deadline = match &body {
            LargeRequest::Fetch(fetch) => self.deadline(fetch.max_wait_ms),
            LargeRequest::Metadata(_) | LargeRequest::DescribeTopics(_) => self.now(),
        };
        self.deferred.push_back(Deferred { head, body, deadline, permit });
        self.start_deferred();
    }

    /// Starts the requests that have room for their replies, in order. One always has.
    pub(super) fn start_deferred(&mut self) {
        while let Some(next) = self.deferred.front() {
            let need = match &next.body {
                LargeRequest::Fetch(fetch) => fetch.max_bytes.min(self.settings.limits.fetch_max_bytes) as usize,
                LargeRequest::Metadata(_) | LargeRequest::DescribeTopics(_) => self.listing_bytes(),
            };
            if self.room_taken > 0 && self.room_taken + need > self.settings.limits.write_queue_bytes {
                return;
            }
            let Some(Deferred { head, body, deadline, permit }) = self.deferred.pop_front() else { return };
            self.room_taken += need;
            let room = ReplyRoom::new(need, self.room_to.clone());
            match body {
                LargeRequest::Fetch(fetch) => self.start_fetch(head, &fetch, deadline, (permit, room), need),
                LargeRequest::Metadata(metadata) => {
                    let reply = self.metadata(&metadata).map(ReplyBody::Metadata);
                    self.send(head, reply, Vec::new(), Held { permit: Some(permit), room: Some(room) });
                }
                LargeRequest::DescribeTopics(describe) => {
                    let reply = self.describe_topics(&describe).map(ReplyBody::DescribeTopics);
                    self.send(head, reply, Vec::new(), Held { permit: Some(permit), room: Some(room) });
                }
            }
        }
    }

    /// About how large a reply about all topics is.
    fn listing_bytes(&mut self) -> usize {
        let view = self.view();
        BYTES_PER_TOPIC * view.image.topics.len() + BYTES_PER_PARTITION * view.partitions
    }

    fn start_fetch(
        &mut self,
        head: FrameHead,
        body: &messages::Fetch,
        deadline: MonoTime,
        (permit, room): (RequestPermit, ReplyRoom),
        max_bytes: usize,
    ) {
        let share = (max_bytes / body.partitions.len().max(1)).max(MIN_SHARE_BYTES);
        let mut fetch = FetchInWork {
            head,
            permit,
            room: Some(room),
            deadline,
            min_bytes: (body.min_bytes as usize).min(max_bytes),
            parts: Vec::with_capacity(body.partitions.len()),
            awaited: 0,
            bytes: 0,
            failed: false,
            parked: false,
            asked: Vec::new(),
        };
        for entry in &body.partitions {
            let leader = self.reader_of(TopicPartition::new(entry.topic, entry.partition));
            fetch.failed |= leader.is_err();
            let (leader, state) = match leader {
                Ok(leader) => (Some(leader), None),
                Err(error) => (None, Some(Err(error))),
            };
            fetch.asked.extend(leader.clone());
            fetch.parts.push(Part {
                leader,
                leader_epoch: entry.leader_epoch,
                next_offset: entry.offset,
                // One batch comes whatever the limit, so a limit of zero is one of one byte.
                max_bytes: (entry.max_bytes as usize).clamp(1, share),
                state,
                records: Attachment::new(),
                awaited: false,
            });
        }
        let id = self.next_request();
        let park = fetch.parts.len() == 1 && !fetch.is_enough(self.now());
        self.ask(id, &mut fetch, park);
        self.in_work.insert(id, InWork::Fetch(fetch));
        self.finish_fetch(id);
    }

    /// Asks every partition that is led here and not asked already.
    fn ask(&self, id: u64, fetch: &mut FetchInWork, park: bool) {
        fetch.parked = park;
        if park && fetch.bytes == 0 {
            // What it will be answered with is not there yet: meanwhile the room is for others. When records come, they are
            // few and lie in the tail cache.
            fetch.room = None;
        }
        let wait_until = park.then_some(fetch.deadline);
        for (item, part) in fetch.parts.iter_mut().enumerate() {
            let Some(leader) = part.leader.as_ref().filter(|_| !part.awaited) else { continue };
            let max_bytes = part.max_bytes.saturating_sub(part.records.len());
            if max_bytes == 0 {
                continue;
            }
            let (offset, leader_epoch, owner) = (part.next_offset, part.leader_epoch, self.owner);
            let reply = self.reply_to(fetch.head, id, item);
            post(leader, Fetch { offset, max_bytes, leader_epoch, wait_until, owner, reply });
            part.awaited = true;
            fetch.awaited += 1;
        }
    }

    pub(super) fn fetched(&mut self, id: u64, item: usize, result: Result<Answer, ApiError>) {
        if let Some(InWork::Fetch(fetch)) = self.in_work.get_mut(&id) {
            fetch.put(item, result);
            self.finish_fetch(id);
        }
    }

    /// Replies to fetch `id` if it has enough, or asks on.
    fn finish_fetch(&mut self, id: u64) {
        let now = self.now();
        let Some(InWork::Fetch(fetch)) = self.in_work.get(&id) else { return };
        let enough = fetch.is_enough(now);
        // A probe waits for every partition, so that none is left out; a parked fetch for the first that suffices.
        if fetch.awaited > 0 && !(enough && fetch.parked) {
            return;
        }
        let Some(InWork::Fetch(mut fetch)) = self.in_work.remove(&id) else { return };
        if !enough {
            self.ask(id, &mut fetch, true);
            if fetch.awaited > 0 {
                self.in_work.insert(id, InWork::Fetch(fetch));
                return;
            }
        }
        self.answer_fetch(id, fetch);
    }

    fn answer_fetch(&self, id: u64, fetch: FetchInWork) {
        let mut partitions = Vec::with_capacity(fetch.parts.len());
        let mut attachments = Vec::with_capacity(fetch.parts.len());
        for part in fetch.parts {
            if let Some(leader) = part.leader.as_ref().filter(|_| part.awaited) {
                post(leader, CancelFetch { owner: self.owner, request: id });
            }
            let unasked = || Err(ApiError::new(ErrorCode::TimedOut, "the partition did not answer in time: try again"));
            partitions.push(Outcome::from(part.state.unwrap_or_else(unasked)));
            attachments.push(part.records);
        }
        let held = Held { permit: Some(fetch.permit), room: fetch.room };
        self.send(fetch.head, Ok(ReplyBody::Fetch(FetchReply { partitions })), attachments, held);
    }
}
