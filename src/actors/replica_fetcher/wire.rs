//! Fetches and their answers as they go over the wire, for both ends.

use bytes::Bytes;

use super::damage::RecordsDamaged;
use crate::actors::partition_leader::RecordsForFollower;
use crate::engine::replication::{LeaderState, ReplicaFetch, ReplicaVerdict};
use crate::protocol::frame::Attachment;
use crate::protocol::messages::peer::{FetchReplica, FetchReplicas, LeaderAnswer, Verdict};
use crate::types::TopicPartition;
use crate::types::record_batch::RecordBatch;

/// What a follower asks, as the leader's node is told.
pub(crate) fn fetch_to_wire(
    partition: TopicPartition,
    fetch: &ReplicaFetch,
    max_bytes: usize,
    may_wait: bool,
) -> FetchReplica {
    FetchReplica {
        partition,
        leader_epoch: fetch.leader_epoch,
        number: fetch.number,
        position: fetch.position,
        last_epoch: fetch.last_epoch,
        durable_end: fetch.durable_end,
        high_watermark: fetch.high_watermark,
        max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
        may_wait,
        lacks_producers: fetch.lacks_producers,
        is_damaged: fetch.is_damaged,
        repair: fetch.repair,
    }
}

/// What a follower asks, as the leader is told.
pub(crate) fn fetch_from_wire(request: &FetchReplicas, fetch: &FetchReplica) -> ReplicaFetch {
    ReplicaFetch {
        replica: request.replica,
        broker_epoch: request.broker_epoch,
        leader_epoch: fetch.leader_epoch,
        number: fetch.number,
        position: fetch.position,
        last_epoch: fetch.last_epoch,
        lacks_producers: fetch.lacks_producers,
        durable_end: fetch.durable_end,
        high_watermark: fetch.high_watermark,
        max_bytes: fetch.max_bytes.min(request.max_bytes) as usize,
        is_damaged: fetch.is_damaged,
        repair: fetch.repair,
    }
}

/// What a leader answers, and what goes beside it.
pub(crate) fn answer_to_wire(records: RecordsForFollower) -> (LeaderAnswer, Attachment) {
    let RecordsForFollower { verdict, state, chunks } = records;
    let (verdict, attached) = match verdict {
        ReplicaVerdict::Continues => (Verdict::Continues, chunks.into_iter().collect()),
        ReplicaVerdict::Repairs => (Verdict::Repairs, chunks.into_iter().collect()),
        ReplicaVerdict::Producers { at, producers } => (Verdict::Producers(at), Bytes::from(producers).into()),
        ReplicaVerdict::Diverged(theirs) => (Verdict::Diverged(theirs), Attachment::new()),
        ReplicaVerdict::StartsAt { offset, producers } => (Verdict::StartsAt(offset), Bytes::from(producers).into()),
    };
    let LeaderState { leader_epoch, log_start, high_watermark, written_end, knows_all } = state;
    (LeaderAnswer { verdict, leader_epoch, log_start, high_watermark, written_end, knows_all }, attached)
}

/// An answer, with its batches in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub verdict: ReplicaVerdict,
    pub state: LeaderState,
    /// Verified: checksums, and that each follows the one before.
    pub batches: Vec<RecordBatch>,
    /// The bytes of records.
    pub bytes: usize,
}

/// What a leader has answered, with what came beside it.
pub(crate) fn answer_from_wire(answer: LeaderAnswer, attached: Bytes) -> Result<Taken, RecordsDamaged> {
    let LeaderAnswer { verdict, leader_epoch, log_start, high_watermark, written_end, knows_all } = answer;
    let state = LeaderState { leader_epoch, log_start, high_watermark, written_end, knows_all };
    let nothing = |verdict| Taken { verdict, state, batches: Vec::new(), bytes: 0 };
    let with_records = |verdict, attached: Bytes| {
        let bytes = attached.len();
        Ok(Taken { verdict, state, batches: split(attached)?, bytes })
    };
    match verdict {
        Verdict::Continues => with_records(ReplicaVerdict::Continues, attached),
        Verdict::Repairs => with_records(ReplicaVerdict::Repairs, attached),
        Verdict::Producers(at) => Ok(nothing(ReplicaVerdict::Producers { at, producers: attached.to_vec() })),
        Verdict::StartsAt(offset) => Ok(nothing(ReplicaVerdict::StartsAt { offset, producers: attached.to_vec() })),
        Verdict::Diverged(_) if !attached.is_empty() => Err(RecordsDamaged::Unexpected { bytes: attached.len() }),
        Verdict::Diverged(theirs) => Ok(nothing(ReplicaVerdict::Diverged(theirs))),
    }
}

/// The batches of an attachment. Position and epoch of a batch are under no checksum: they must fit what stands beside them.
fn split(mut attached: Bytes) -> Result<Vec<RecordBatch>, RecordsDamaged> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    while !attached.is_empty() {
        let batch = RecordBatch::split_from(&mut attached)?;
        batch.verify_checksum()?;
        let (offset, epoch) = (batch.header.base_offset, batch.header.leader_epoch);
        if let Some(before) = batches.last().map(|before| before.header) {
            let expected = before.end_offset_exclusive();
            if offset != expected || epoch < before.leader_epoch {
                return Err(RecordsDamaged::OutOfPlace { offset, epoch, expected });
            }
        }
        batches.push(batch);
    }
    Ok(batches)
}
