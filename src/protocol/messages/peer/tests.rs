//! The bytes between nodes. Written by hand from docs/protocol.md: changing one is changing the protocol.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};
use uuid::Uuid;

use super::*;
use crate::protocol::frame::{
    Attachment, Frame, FrameCodec, FrameHead, OutFrame, decode_outcome, encode_outcome, encode_peer_request,
};
use crate::types::{ClusterId, CorrelationId, DirectoryId, NodeId};

fn encode(frame: OutFrame) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameCodec::new(1 << 20).encode(frame, &mut out).expect("encodes");
    out.to_vec()
}

fn decode(bytes: &[u8]) -> Frame {
    FrameCodec::new(1 << 20).decode(&mut BytesMut::from(bytes)).expect("a frame").expect("whole")
}

/// The request has these bytes, and they are read back as it; likewise the reply.
pub(super) fn golden<R: PeerRequest + PartialEq + std::fmt::Debug>(
    id: u32,
    (request, attachments, request_bytes): (R, &[&'static [u8]], &[u8]),
    (reply, reply_bytes): (R::Reply, &[u8]),
) where
    R::Reply: PartialEq + std::fmt::Debug + Clone,
{
    let id = CorrelationId(id);
    let attached = attachments.iter().map(|bytes| Attachment::from(Bytes::from_static(bytes))).collect();
    assert_eq!(encode(encode_peer_request(&request, id, attached)), request_bytes, "{:?}", R::API);
    let frame = decode(request_bytes);
    assert_eq!(frame.head, FrameHead { api: R::API.number(), version: 1, correlation_id: id });
    assert_eq!(frame.attachments, attachments);
    assert_eq!(frame.decode_body::<R>(), Ok(request));
    assert_eq!(encode(encode_outcome(frame.head, Ok(reply.clone()), Vec::new())), reply_bytes, "{:?}", R::API);
    assert_eq!(decode_outcome::<R::Reply>(&decode(reply_bytes)), Ok(reply));
}

const VOTE: WireVote = WireVote { term: 7, candidate: 2, granted: true };
const ENTRY: WireLogId = WireLogId { term: 6, leader: 1, index: 4 };

#[test]
fn golden_bytes_of_the_hello() {
    let request = PeerHello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: Some(ClusterId(Uuid::from_u128(9))),
        node: NodeId(3),
        directory: DirectoryId(Uuid::from_u128(33)),
        connection: PeerConnection::Control,
        expected_node: Some(NodeId(2)),
        expected_directory: None,
        software: "x 1".to_owned(),
    };
    let reply = PeerHelloReply {
        protocol: 1,
        cluster: None,
        node: NodeId(2),
        directory: DirectoryId(Uuid::from_u128(22)),
        software: "x 1".to_owned(),
        max_frame_bytes: 16 << 20,
    };
    let request_bytes = [
        0, 0, 0, 53, // length
        0x95, 0xcc, 200, 1, 1, // api 200, version 1, correlation id 1
        0x99, 1, 1, // protocol 1 to 1
        0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, // cluster
        3, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33, // node and directory
        0, 2, 0xc0, // control, looks for node 2 with any directory
        0xa3, b'x', b' ', b'1', // software
        0x90, // no attachments
    ];
    let reply_bytes = [
        0, 0, 0, 39, // length
        0x95, 0xcc, 200, 1, 1, // the head of the request
        0x92, 0xc0, 0x96, 1, 0xc0, // no error, protocol 1, no cluster
        2, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22, // node and directory
        0xa3, b'x', b' ', b'1', 0xce, 1, 0, 0, 0,    // software, frames of 16 MiB
        0x90, // no attachments
    ];
    golden(1, (request, &[], &request_bytes), (reply, &reply_bytes));
    let ping = [0, 0, 0, 7, 0x95, 0xcc, 201, 1, 5, 0x90, 0x90];
    let pong = [0, 0, 0, 9, 0x95, 0xcc, 201, 1, 5, 0x92, 0xc0, 0x90, 0x90];
    golden(5, (Ping {}, &[], &ping), (Pong {}, &pong));
}

#[test]
fn golden_bytes_of_raft() {
    let append = RaftAppend { vote: VOTE, previous: Some(ENTRY), committed: None };
    let append_bytes = [
        0, 0, 0, 25, // length
        0x95, 0xcc, 210, 1, 2, // api 210
        0x93, 0x93, 7, 2, 0xc3, 0x93, 6, 1, 4, 0xc0, // vote, previous entry, nothing committed
        0x92, 0xc4, 3, b'a', b'b', b'c', 0xc4, 2, b'd', b'e', // two entries
    ];
    let higher = RaftAppendReply::HigherVote(WireVote { term: 8, candidate: 1, granted: false });
    let higher_bytes = [
        0, 0, 0, 15, // length
        0x95, 0xcc, 210, 1, 2, // the head of the request
        0x92, 0xc0, 0x93, 3, 0xc0, 0x93, 8, 1, 0xc2, // no error; higher vote
        0x90, // no attachments
    ];
    golden(2, (append, &[b"abc", b"de"], &append_bytes), (higher, &higher_bytes));

    let ask = RaftVote { vote: WireVote { granted: false, ..VOTE }, last: Some(ENTRY) };
    let ask_bytes = [
        0, 0, 0, 15, // length
        0x95, 0xcc, 211, 1, 3, // api 211
        0x92, 0x93, 7, 2, 0xc2, 0x93, 6, 1, 4,    // vote, last entry
        0x90, // no attachments
    ];
    let voted = RaftVoteReply { vote: WireVote { granted: false, ..VOTE }, granted: true, last: None };
    let voted_bytes = [
        0, 0, 0, 15, // length
        0x95, 0xcc, 211, 1, 3, // the head of the request
        0x92, 0xc0, 0x93, 0x93, 7, 2, 0xc2, 0xc3, 0xc0, // no error; vote, granted, no entry
        0x90, // no attachments
    ];
    golden(3, (ask, &[], &ask_bytes), (voted, &voted_bytes));

    let member = WireMember {
        id: 1,
        node: NodeId(3),
        directory: DirectoryId(Uuid::from_u128(33)),
        host: "h".to_owned(),
        port: 9_644,
    };
    let members = WireMembers { at: None, voters: vec![vec![1, 2]], members: vec![member] };
    let (snapshot, offset) = ("s".to_owned(), 100);
    let chunk = RaftSnapshot { vote: VOTE, last: Some(ENTRY), members, snapshot, offset, done: true };
    let chunk_bytes = [
        0, 0, 0, 57, // length
        0x95, 0xcc, 212, 1, 4, // api 212
        0x96, 0x93, 7, 2, 0xc3, 0x93, 6, 1, 4, // vote, last entry
        0x93, 0xc0, 0x91, 0x92, 1, 2, // members: since when, voters
        0x91, 0x95, 1, 3, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33, // a member
        0xa1, b'h', 0xcd, 0x25, 0xac, // its host and port
        0xa1, b's', 100, 0xc3, // snapshot, offset, the last chunk
        0x91, 0xc4, 3, b'a', b'b', b'c', // the chunk
    ];
    let mismatch = WireMismatch {
        expected_snapshot: "s".to_owned(),
        expected_offset: 0,
        found_snapshot: "t".to_owned(),
        found_offset: 100,
    };
    let mismatch = RaftSnapshotReply { vote: None, mismatch: Some(mismatch) };
    let mismatch_bytes = [
        0, 0, 0, 17, // length
        0x95, 0xcc, 212, 1, 4, // the head of the request
        0x92, 0xc0, 0x92, 0xc0, 0x94, 0xa1, b's', 0, 0xa1, b't', 100,  // no error; no vote, a mismatch
        0x90, // no attachments
    ];
    golden(4, (chunk, &[b"abc"], &chunk_bytes), (mismatch, &mismatch_bytes));
}

#[test]
fn an_answer_to_an_append_that_says_two_things_or_nothing_is_refused() {
    let answers = [
        RaftAppendReply::Appended,
        RaftAppendReply::AppendedUpTo(Some(ENTRY)),
        RaftAppendReply::AppendedUpTo(None),
        RaftAppendReply::Conflict,
        RaftAppendReply::HigherVote(VOTE),
    ];
    for answer in answers {
        let bytes = rmp_serde::to_vec(&answer).expect("encodes");
        assert_eq!(rmp_serde::from_slice::<RaftAppendReply>(&bytes).expect("decodes"), answer);
    }
    for wrong in [&[0x93, 3, 0xc0, 0xc0][..], &[0x93, 4, 0xc0, 0xc0], &[0x93, 0, 0x93, 1, 1, 1, 0xc0]] {
        assert!(rmp_serde::from_slice::<RaftAppendReply>(wrong).is_err(), "{wrong:?}");
    }
    assert!(PeerConnection::try_from(2).expect_err("refused").contains("0 (control) or 1 (data)"));
}
