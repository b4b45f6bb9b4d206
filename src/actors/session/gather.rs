//! Requests that ask several partitions and answer once all have: produce, offsets, log descriptions, deletions.

use std::sync::Arc;

use actix::Addr;
use bytes::Bytes;

use super::actor::{InWork, Session};
use super::fetch::distinct;
use crate::actors::codec::{Held, ReplyBody, RequestPermit};
use crate::actors::partition_leader::{Answer, DeleteRecords, DescribeLog, ListOffset, PartitionLeader, Produce};
use crate::actors::send::post;
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{
    self, Acks, DeleteRecordsReply, DescribeLogsReply, ListOffsetsReply, Outcome, ProducePartition, ProduceReply,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::record_batch::RecordBatch;
use crate::types::record_batch::header::BatchError;
use crate::types::{TopicAction, TopicPartition};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Produce,
    /// A produce request with acks = 0: no reply, but its bytes count until they are written.
    ProduceUnanswered,
    ListOffsets,
    DescribeLogs,
    DeleteRecords,
}

/// A request whose partitions have not all answered.
pub(super) struct Gather {
    kind: Kind,
    head: FrameHead,
    permit: RequestPermit,
    answers: Vec<Option<Result<Answer, ApiError>>>,
    missing: usize,
    asked: Vec<Addr<PartitionLeader>>,
}

impl Gather {
    fn new(kind: Kind, head: FrameHead, permit: RequestPermit, items: usize) -> Self {
        let answers = std::iter::repeat_with(|| None).take(items).collect();
        Self { kind, head, permit, answers, missing: items, asked: Vec::new() }
    }

    pub(super) fn put(&mut self, item: usize, answer: Result<Answer, ApiError>) {
        if let Some(slot @ None) = self.answers.get_mut(item) {
            *slot = Some(answer);
            self.missing -= 1;
        }
    }

    pub(super) fn leaders(&self) -> &[Addr<PartitionLeader>] {
        &self.asked
    }

    fn outcomes<T>(&mut self, pick: impl Fn(Answer) -> Option<T>) -> Vec<Outcome<T>> {
        let missing = || ApiError::new(ErrorCode::Unknown, "a partition gave an answer of another kind");
        let outcome = |answer: Option<Result<Answer, ApiError>>| {
            answer.unwrap_or_else(|| Err(missing())).and_then(|answer| pick(answer).ok_or_else(missing)).into()
        };
        std::mem::take(&mut self.answers).into_iter().map(outcome).collect()
    }
}

impl Session {
    pub(super) fn produce(
        &mut self,
        head: FrameHead,
        request: messages::Produce,
        attachments: Vec<Bytes>,
        mut permit: RequestPermit,
    ) {
        let messages::Produce { acks, timeout_ms, partitions } = request;
        if partitions.len() != attachments.len() {
            let text = format!(
                "{} partitions are named and {} batches attached: one for each",
                partitions.len(),
                attachments.len()
            );
            let held = Held { permit: Some(permit), room: None };
            self.send(head, Err(ApiError::new(ErrorCode::InvalidRequest, text)), Vec::new(), held);
            return;
        }
        let kind = if acks == Acks::None { Kind::ProduceUnanswered } else { Kind::Produce };
        // Without a reply the request still counts as one in flight until it is written.
        let acks = if acks == Acks::None { Acks::Leader } else { acks };
        let (id, deadline) = (self.next_request(), self.deadline(timeout_ms));
        // The room of the frame goes with its batches: it is taken until they are written, whether anybody still waits.
        let frame_room = permit.take_room().map(Arc::new);
        let mut gather = Gather::new(kind, head, permit, partitions.len());
        let frame_bytes: usize = attachments.iter().map(Bytes::len).sum();
        for (item, (entry, bytes)) in partitions.into_iter().zip(attachments).enumerate() {
            // A batch may be kept for long in the tail cache. It must not keep a much larger frame alive.
            let bytes = if bytes.len() * 2 < frame_bytes { Bytes::copy_from_slice(&bytes) } else { bytes };
            match self.batch_for(&entry, bytes) {
                Ok((leader, batch)) => {
                    let reply = self.reply_to(id, item);
                    let (leader_epoch, owner, room) = (entry.leader_epoch, self.owner, frame_room.clone());
                    post(&leader, Produce { batch, room, leader_epoch, acks, deadline, owner, reply });
                    gather.asked.push(leader);
                }
                Err(error) => gather.put(item, Err(error)),
            }
        }
        self.in_work.insert(id, InWork::Gather(gather));
        self.finish_gather(id);
    }

    fn batch_for(
        &mut self,
        entry: &ProducePartition,
        bytes: Bytes,
    ) -> Result<(Addr<PartitionLeader>, RecordBatch), ApiError> {
        let leader = self.leader_of(TopicPartition::new(entry.topic, entry.partition), TopicAction::Write)?;
        let batch = RecordBatch::from_client(bytes).map_err(|error| batch_error(&error))?;
        Ok((leader, batch))
    }

    pub(super) fn list_offsets(&mut self, head: FrameHead, request: &messages::ListOffsets, permit: RequestPermit) {
        let places = request.partitions.iter().map(|entry| (entry.topic, entry.partition, i64::from(entry.at)));
        if let Err(error) = distinct(places, request.partitions.len(), "place") {
            self.send(head, Err(error), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        let id = self.next_request();
        let mut gather = Gather::new(Kind::ListOffsets, head, permit, request.partitions.len());
        for (item, entry) in request.partitions.iter().enumerate() {
            match self.leader_of(TopicPartition::new(entry.topic, entry.partition), TopicAction::Read) {
                Ok(leader) => {
                    post(&leader, ListOffset { at: entry.at, reply: self.reply_to(id, item) });
                    gather.asked.push(leader);
                }
                Err(error) => gather.put(item, Err(error)),
            }
        }
        self.in_work.insert(id, InWork::Gather(gather));
        self.finish_gather(id);
    }

    pub(super) fn describe_logs(&mut self, head: FrameHead, request: &messages::DescribeLogs, permit: RequestPermit) {
        if let Err(error) = distinct(request.partitions.iter(), request.partitions.len(), "partition") {
            self.send(head, Err(error), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        let id = self.next_request();
        let mut gather = Gather::new(Kind::DescribeLogs, head, permit, request.partitions.len());
        for (item, (topic, partition)) in request.partitions.iter().enumerate() {
            match self.leader_of(TopicPartition::new(*topic, *partition), TopicAction::Describe) {
                Ok(leader) => {
                    post(&leader, DescribeLog { reply: self.reply_to(id, item) });
                    gather.asked.push(leader);
                }
                Err(error) => gather.put(item, Err(error)),
            }
        }
        self.in_work.insert(id, InWork::Gather(gather));
        self.finish_gather(id);
    }

    pub(super) fn delete_records(&mut self, head: FrameHead, request: &messages::DeleteRecords, permit: RequestPermit) {
        let places = request.partitions.iter().map(|entry| (entry.topic, entry.partition));
        if let Err(error) = distinct(places, request.partitions.len(), "partition") {
            self.send(head, Err(error), Vec::new(), Held { permit: Some(permit), room: None });
            return;
        }
        let (id, deadline) = (self.next_request(), self.deadline(request.timeout_ms));
        let mut gather = Gather::new(Kind::DeleteRecords, head, permit, request.partitions.len());
        for (item, entry) in request.partitions.iter().enumerate() {
            match self.leader_of(TopicPartition::new(entry.topic, entry.partition), TopicAction::DeleteRecords) {
                Ok(leader) => {
                    let (owner, reply) = (self.owner, self.reply_to(id, item));
                    post(&leader, DeleteRecords { before: entry.before, deadline, owner, reply });
                    gather.asked.push(leader);
                }
                Err(error) => gather.put(item, Err(error)),
            }
        }
        self.in_work.insert(id, InWork::Gather(gather));
        self.finish_gather(id);
    }

    /// Replies to request `id` if all its partitions have answered.
    pub(super) fn finish_gather(&mut self, id: u64) {
        if !matches!(self.in_work.get(&id), Some(InWork::Gather(gather)) if gather.missing == 0) {
            return;
        }
        let Some(InWork::Gather(mut gather)) = self.in_work.remove(&id) else { return };
        let body = match gather.kind {
            Kind::ProduceUnanswered => {
                self.log_unanswered(&gather);
                return;
            }
            Kind::Produce => ReplyBody::Produce(ProduceReply {
                partitions: gather.outcomes(|answer| match answer {
                    Answer::Produced(batch) => Some(batch),
                    _ => None,
                }),
            }),
            Kind::ListOffsets => ReplyBody::ListOffsets(ListOffsetsReply {
                partitions: gather.outcomes(|answer| match answer {
                    Answer::Listed(listed) => Some(listed),
                    _ => None,
                }),
            }),
            Kind::DeleteRecords => ReplyBody::DeleteRecords(DeleteRecordsReply {
                partitions: gather.outcomes(|answer| match answer {
                    Answer::RecordsDeleted(log_start) => Some(log_start),
                    _ => None,
                }),
            }),
            Kind::DescribeLogs => ReplyBody::DescribeLogs(DescribeLogsReply {
                partitions: gather.outcomes(|answer| match answer {
                    Answer::Described(log) => Some(log),
                    _ => None,
                }),
            }),
        };
        self.send(gather.head, Ok(body), Vec::new(), Held { permit: Some(gather.permit), room: None });
    }

    fn log_unanswered(&self, gather: &Gather) {
        for error in gather.answers.iter().flatten().filter_map(|answer| answer.as_ref().err()) {
            let client = self.context.as_ref().map_or("", |context| &context.client_id);
            tracing::debug!(client, %error, "a batch sent with acks = 0 was not appended");
        }
    }
}

fn batch_error(error: &BatchError) -> ApiError {
    let code = match error {
        BatchError::UnsupportedMagic { .. } | BatchError::UnknownAttributes { .. } => ErrorCode::UnsupportedFormat,
        _ => ErrorCode::InvalidBatch,
    };
    ApiError::new(code, error.to_string())
}
