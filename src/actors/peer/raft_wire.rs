//! Between Raft's messages and those on the wire.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::error::{Fatal, InstallSnapshotError, RaftError, SnapshotMismatch};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, CommittedLeaderId, ErrorSubject, ErrorVerb, Membership, SnapshotSegmentId, StorageIOError};

use crate::protocol::frame::Attachment;
use crate::protocol::messages::peer::{
    RaftAppend, RaftAppendReply, RaftSnapshot, RaftSnapshotReply, RaftVote, RaftVoteReply, WireLogId, WireMember,
    WireMembers, WireMismatch, WireVote,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::raft::{
    ControllerNode, LogId, RaftId, RaftStorageError, SnapshotMeta, StoredMembership, TypeConfig, Vote, decode_entry,
    encode_entry,
};

/// What one message of replication carries of the log, in bytes, unless a single entry has more. The log store reads about so
/// much at a time; here it is held whatever that does.
pub const MAX_APPEND_BYTES: usize = 1 << 20;

type Append = AppendEntriesRequest<TypeConfig>;
type Appended = AppendEntriesResponse<RaftId>;
type Chunk = InstallSnapshotRequest<TypeConfig>;
type Installed = InstallSnapshotResponse<RaftId>;

fn log_id(id: LogId) -> WireLogId {
    WireLogId { term: id.leader_id.term, leader: id.leader_id.node_id.0, index: id.index }
}

fn read_log_id(id: WireLogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, RaftId(id.leader)), id.index)
}

fn vote(vote: &Vote) -> WireVote {
    WireVote { term: vote.leader_id.term, candidate: vote.leader_id.node_id.0, granted: vote.committed }
}

fn read_vote(vote: WireVote) -> Vote {
    let (term, candidate) = (vote.term, RaftId(vote.candidate));
    if vote.granted { Vote::new_committed(term, candidate) } else { Vote::new(term, candidate) }
}

/// An append as it goes out.
#[derive(Debug)]
pub(super) struct OutgoingAppend {
    pub message: RaftAppend,
    pub entries: Vec<Attachment>,
    /// The last entry that goes, when not all of them do.
    pub cut_after: Option<LogId>,
}

/// As many entries as fit in `max_bytes`, at least one.
pub(super) fn append(request: Append, max_bytes: usize) -> Result<OutgoingAppend, RaftStorageError> {
    let message = RaftAppend {
        vote: vote(&request.vote),
        previous: request.prev_log_id.map(log_id),
        committed: request.leader_commit.map(log_id),
    };
    let (mut entries, mut bytes, mut last) = (Vec::new(), 0, None);
    for entry in request.entries {
        let id = entry.log_id;
        let batch = encode_entry(entry)?;
        bytes += batch.total_bytes();
        if bytes > max_bytes && last.is_some() {
            return Ok(OutgoingAppend { message, entries, cut_after: last });
        }
        entries.push(Attachment::from(&batch));
        last = Some(id);
    }
    Ok(OutgoingAppend { message, entries, cut_after: None })
}

/// Decodes an append.
pub fn read_append(message: RaftAppend, entries: Vec<Bytes>) -> Result<Append, ApiError> {
    let unreadable = |error: crate::raft::EntryError| ApiError::new(ErrorCode::InvalidRequest, error.to_string());
    Ok(Append {
        vote: read_vote(message.vote),
        prev_log_id: message.previous.map(read_log_id),
        entries: entries.into_iter().map(|entry| decode_entry(entry).map_err(unreadable)).collect::<Result<_, _>>()?,
        leader_commit: message.committed.map(read_log_id),
    })
}

/// Encodes the answer to an append.
pub fn appended(answer: &Appended) -> RaftAppendReply {
    match answer {
        Appended::Success => RaftAppendReply::Appended,
        Appended::PartialSuccess(upto) => RaftAppendReply::AppendedUpTo(upto.map(log_id)),
        Appended::Conflict => RaftAppendReply::Conflict,
        Appended::HigherVote(higher) => RaftAppendReply::HigherVote(vote(higher)),
    }
}

/// Decodes the answer to an append of which only a part was sent, up to `cut_after`.
pub(super) fn read_appended(reply: RaftAppendReply, cut_after: Option<LogId>) -> Appended {
    match (reply, cut_after) {
        (RaftAppendReply::Appended, None) => Appended::Success,
        (RaftAppendReply::Appended, Some(last)) => Appended::PartialSuccess(Some(last)),
        (RaftAppendReply::AppendedUpTo(upto), _) => Appended::PartialSuccess(upto.map(read_log_id)),
        (RaftAppendReply::Conflict, _) => Appended::Conflict,
        (RaftAppendReply::HigherVote(higher), _) => Appended::HigherVote(read_vote(higher)),
    }
}

pub(super) fn ask_vote(request: &VoteRequest<RaftId>) -> RaftVote {
    RaftVote { vote: vote(&request.vote), last: request.last_log_id.map(log_id) }
}

/// Decodes a request for a vote.
pub fn read_ask_vote(message: RaftVote) -> VoteRequest<RaftId> {
    VoteRequest { vote: read_vote(message.vote), last_log_id: message.last.map(read_log_id) }
}

/// Encodes the answer to a request for a vote.
pub fn voted(answer: &VoteResponse<RaftId>) -> RaftVoteReply {
    let last = answer.last_log_id.map(log_id);
    RaftVoteReply { vote: vote(&answer.vote), granted: answer.vote_granted, last }
}

pub(super) fn read_voted(reply: RaftVoteReply) -> VoteResponse<RaftId> {
    let last_log_id = reply.last.map(read_log_id);
    VoteResponse { vote: read_vote(reply.vote), vote_granted: reply.granted, last_log_id }
}

fn members(membership: &StoredMembership) -> WireMembers {
    let numbers = |set: &BTreeSet<RaftId>| set.iter().map(|id| id.0).collect();
    let member = |(id, node): (&RaftId, &ControllerNode)| WireMember {
        id: id.0,
        node: node.node,
        directory: node.directory,
        host: node.host.clone(),
        port: node.port,
    };
    WireMembers {
        at: membership.log_id().map(log_id),
        voters: membership.membership().get_joint_config().iter().map(numbers).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

fn read_members(members: WireMembers) -> StoredMembership {
    let ids = |set: Vec<u64>| set.into_iter().map(RaftId).collect::<BTreeSet<_>>();
    let nodes = members.members.into_iter().map(|member| {
        let WireMember { id, node, directory, host, port } = member;
        (RaftId(id), ControllerNode { node, directory, host, port })
    });
    let voters = members.voters.into_iter().map(ids).collect();
    StoredMembership::new(members.at.map(read_log_id), Membership::new(voters, nodes.collect::<BTreeMap<_, _>>()))
}

pub(super) fn snapshot(chunk: Chunk) -> (RaftSnapshot, Attachment) {
    let SnapshotMeta { last_log_id, last_membership, snapshot_id } = chunk.meta;
    let message = RaftSnapshot {
        vote: vote(&chunk.vote),
        last: last_log_id.map(log_id),
        members: members(&last_membership),
        snapshot: snapshot_id,
        offset: chunk.offset,
        done: chunk.done,
    };
    (message, Bytes::from(chunk.data).into())
}

/// Decodes a chunk of a snapshot.
pub fn read_snapshot(message: RaftSnapshot, chunks: &[Bytes]) -> Result<Chunk, ApiError> {
    let [data] = chunks else {
        let text = format!("a RaftSnapshot has one attachment, the chunk, this one has {}", chunks.len());
        return Err(ApiError::new(ErrorCode::InvalidRequest, text));
    };
    let meta = SnapshotMeta {
        last_log_id: message.last.map(read_log_id),
        last_membership: read_members(message.members),
        snapshot_id: message.snapshot,
    };
    let (offset, done) = (message.offset, message.done);
    Ok(Chunk { vote: read_vote(message.vote), meta, offset, data: data.to_vec(), done })
}

/// Encodes what became of a chunk.
pub fn installed(
    answer: Result<Installed, RaftError<RaftId, InstallSnapshotError>>,
) -> Result<RaftSnapshotReply, ApiError> {
    match answer {
        Ok(installed) => Ok(RaftSnapshotReply { vote: Some(vote(&installed.vote)), mismatch: None }),
        Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(SnapshotMismatch { expect, got }))) => {
            let mismatch = WireMismatch {
                expected_snapshot: expect.id,
                expected_offset: expect.offset,
                found_snapshot: got.id,
                found_offset: got.offset,
            };
            Ok(RaftSnapshotReply { vote: None, mismatch: Some(mismatch) })
        }
        Err(RaftError::Fatal(fatal)) => Err(ended(&fatal)),
    }
}

/// Decodes what became of a chunk. `None` for an answer that is neither.
pub(super) fn read_installed(reply: RaftSnapshotReply) -> Option<Result<Installed, InstallSnapshotError>> {
    match reply {
        RaftSnapshotReply { mismatch: Some(mismatch), .. } => {
            let WireMismatch { expected_snapshot, expected_offset, found_snapshot, found_offset } = mismatch;
            let expect = SnapshotSegmentId { id: expected_snapshot, offset: expected_offset };
            let got = SnapshotSegmentId { id: found_snapshot, offset: found_offset };
            Some(Err(SnapshotMismatch { expect, got }.into()))
        }
        RaftSnapshotReply { vote: Some(vote), .. } => Some(Ok(Installed { vote: read_vote(vote) })),
        RaftSnapshotReply { vote: None, mismatch: None } => None,
    }
}

/// What a member says whose Raft has ended.
pub fn ended(fatal: &Fatal<RaftId>) -> ApiError {
    let code = match fatal {
        Fatal::Stopped => ErrorCode::ShuttingDown,
        Fatal::StorageError(_) => ErrorCode::StorageFailed,
        Fatal::Panicked => ErrorCode::Unknown,
    };
    ApiError::new(code, format!("this controller takes no part any more: {fatal}"))
}

/// How another member's Raft ended, if that is what its error says.
pub(super) fn read_ended(error: &ApiError) -> Option<Fatal<RaftId>> {
    match error.code {
        ErrorCode::ShuttingDown => Some(Fatal::Stopped),
        ErrorCode::StorageFailed => {
            let cause = AnyError::error(&error.message);
            Some(Fatal::StorageError(StorageIOError::new(ErrorSubject::Store, ErrorVerb::Write, cause).into()))
        }
        ErrorCode::Unknown => Some(Fatal::Panicked),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use openraft::{Entry, EntryPayload, StorageError};

    use super::*;
    use crate::engine::metadata::MetadataRecord;
    use crate::raft::Decision;
    use crate::types::{DirectoryId, NodeId, ProducerId};

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(7, RaftId(2)), index)
    }

    fn membership() -> Membership<RaftId, ControllerNode> {
        let directory = DirectoryId(uuid::Uuid::from_u128(33));
        let node = ControllerNode { node: NodeId(3), directory, host: "h".to_owned(), port: 9_645 };
        let learner = ControllerNode { port: 9_646, ..node.clone() };
        let nodes: BTreeMap<_, _> = [(RaftId(1), node), (RaftId(4), learner)].into();
        Membership::new(vec![[RaftId(1)].into(), [RaftId(1), RaftId(4)].into()], nodes)
    }

    fn request() -> Append {
        let records = vec![MetadataRecord::ProducerIdsReserved { next: ProducerId(5) }];
        let payloads =
            [EntryPayload::Blank, EntryPayload::Normal(Decision { records }), EntryPayload::Membership(membership())];
        let entries = (5..).zip(payloads).map(|(index, payload)| Entry { log_id: id(index), payload }).collect();
        let vote = Vote::new_committed(7, RaftId(2));
        Append { vote, prev_log_id: Some(id(4)), entries, leader_commit: Some(id(3)) }
    }

    fn flat(entries: &[Attachment]) -> Vec<Bytes> {
        use crate::protocol::frame::{FrameCodec, FrameHead, OutFrame};
        use bytes::BytesMut;
        use tokio_util::codec::{Decoder, Encoder};
        let head = FrameHead { api: 210, version: 1, correlation_id: crate::types::CorrelationId(1) };
        let (mut codec, mut bytes) = (FrameCodec::new(1 << 20), BytesMut::new());
        codec.encode(OutFrame::new(head, vec![0xc0], entries.to_vec()), &mut bytes).expect("encodable");
        codec.decode(&mut bytes).expect("a frame").expect("whole").attachments
    }

    #[test]
    fn entries_of_every_kind_arrive_as_they_were_sent() {
        let OutgoingAppend { message, entries, cut_after } = append(request(), MAX_APPEND_BYTES).expect("encodes");
        assert_eq!((entries.len(), cut_after), (3, None));
        let arrived = read_append(message, flat(&entries)).expect("decodes");
        assert_eq!(format!("{arrived:?}"), format!("{:?}", request()));
        let heartbeat = Append { entries: Vec::new(), prev_log_id: None, leader_commit: None, ..request() };
        let OutgoingAppend { message, entries, .. } = append(heartbeat.clone(), 0).expect("encodes");
        assert_eq!(format!("{:?}", read_append(message, flat(&entries)).expect("decodes")), format!("{heartbeat:?}"));
    }

    #[test]
    fn an_append_is_cut_to_what_a_message_may_carry_and_the_leader_is_told_how_far_it_came() {
        let sizes: Vec<_> =
            append(request(), usize::MAX).expect("encodes").entries.iter().map(Attachment::len).collect();
        for (limit, fit) in [(0, 1), (sizes[0], 1), (sizes[0] + sizes[1] - 1, 1), (sizes[0] + sizes[1], 2)] {
            let OutgoingAppend { entries, cut_after, .. } = append(request(), limit).expect("encodes");
            assert_eq!((entries.len(), cut_after), (fit, Some(id(4 + fit as u64))), "{limit} bytes");
            assert_eq!(read_appended(RaftAppendReply::Appended, cut_after), Appended::PartialSuccess(cut_after));
        }
        let whole = append(request(), sizes.iter().sum()).expect("encodes");
        assert_eq!((whole.entries.len(), whole.cut_after), (3, None));
    }

    #[test]
    fn an_entry_that_is_damaged_cut_doubled_or_at_another_place_is_refused() {
        let OutgoingAppend { message, entries, .. } = append(request(), MAX_APPEND_BYTES).expect("encodes");
        let good = flat(&entries).swap_remove(1);
        let refused = |bytes: Vec<u8>| {
            let error = read_append(message, vec![bytes.into()]).expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
        };
        for at in 0..good.len() {
            // The leader epoch is outside the checksum, and nobody reads it.
            if !(12..16).contains(&at) {
                let mut damaged = good.to_vec();
                damaged[at] ^= 1;
                refused(damaged);
            }
            refused(good[..at].to_vec());
        }
        refused([good.clone(), good.clone()].concat());
        assert!(read_append(message, vec![good]).is_ok());
    }

    #[test]
    fn every_answer_of_raft_survives_the_trip() {
        let vote = Vote::new(9, RaftId(1));
        for answer in
            [Appended::Success, Appended::PartialSuccess(Some(id(2))), Appended::Conflict, Appended::HigherVote(vote)]
        {
            assert_eq!(read_appended(appended(&answer), None), answer);
        }
        let asked = VoteRequest { vote, last_log_id: Some(id(3)) };
        assert_eq!(read_ask_vote(ask_vote(&asked)), asked);
        for granted in [true, false] {
            let answer = VoteResponse { vote, vote_granted: granted, last_log_id: Some(id(3)) };
            assert_eq!(read_voted(voted(&answer)), answer);
        }
        let installed_it = Installed { vote };
        let reply = installed(Ok(Installed { vote })).expect("an answer");
        assert_eq!(read_installed(reply), Some(Ok(installed_it)));
        let segment = |id: &str, offset| SnapshotSegmentId { id: id.to_owned(), offset };
        let mismatch = InstallSnapshotError::from(SnapshotMismatch { expect: segment("a", 0), got: segment("b", 100) });
        let reply = installed(Err(RaftError::APIError(mismatch.clone()))).expect("an answer");
        assert_eq!(read_installed(reply), Some(Err(mismatch)));
        assert_eq!(read_installed(RaftSnapshotReply { vote: None, mismatch: None }), None);
    }

    #[test]
    fn a_snapshot_keeps_its_members_and_a_chunk_is_one_attachment() {
        let meta = SnapshotMeta {
            last_log_id: Some(id(8)),
            last_membership: StoredMembership::new(Some(id(6)), membership()),
            snapshot_id: "s".to_owned(),
        };
        let chunk =
            Chunk { vote: Vote::new_committed(7, RaftId(2)), meta, offset: 100, data: vec![1, 2, 3], done: true };
        let (message, data) = snapshot(chunk.clone());
        let chunks = flat(&[data]);
        assert_eq!(read_snapshot(message.clone(), &chunks), Ok(chunk));
        for chunks in [Vec::new(), [chunks.clone(), chunks].concat()] {
            assert_eq!(read_snapshot(message.clone(), &chunks).expect_err("refused").code, ErrorCode::InvalidRequest);
        }
    }

    #[test]
    fn how_a_members_raft_ended_survives_the_trip() {
        assert_eq!(read_ended(&ended(&Fatal::Stopped)), Some(Fatal::Stopped));
        assert_eq!(read_ended(&ended(&Fatal::Panicked)), Some(Fatal::Panicked));
        let cause = StorageIOError::new(ErrorSubject::Logs, ErrorVerb::Read, AnyError::error("a hole"));
        let failed = Fatal::StorageError(StorageError::from(cause));
        let arrived = read_ended(&ended(&failed)).expect("an end");
        assert!(matches!(&arrived, Fatal::StorageError(error) if error.to_string().contains("a hole")), "{arrived}");
        assert_eq!(read_ended(&ApiError::new(ErrorCode::NotController, "no")), None);
    }
}
