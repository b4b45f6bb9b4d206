//! The bytes of followers' fetches. Written by hand from docs/protocol.md: changing one is changing the protocol.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};
use uuid::Uuid;

use super::*;
use crate::protocol::frame::{
    Attachment, Frame, FrameCodec, OutFrame, decode_outcome, encode_outcome, encode_peer_request,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{CorrelationId, PartitionIndex, TopicId};

fn encode(frame: OutFrame) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameCodec::new(1 << 20).encode(frame, &mut out).expect("encodes");
    out.to_vec()
}

fn decode(bytes: &[u8]) -> Frame {
    FrameCodec::new(1 << 20).decode(&mut BytesMut::from(bytes)).expect("a frame").expect("whole")
}

fn place(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionIndex(partition))
}

#[test]
fn golden_bytes_of_a_request() {
    let keeps_up = FetchReplica {
        partition: place(3),
        leader_epoch: LeaderEpoch(4),
        number: 9,
        position: Offset(100),
        last_epoch: Some(LeaderEpoch(3)),
        durable_end: Offset(90),
        high_watermark: Offset(80),
        max_bytes: 1 << 20,
        may_wait: true,
        lacks_producers: false,
        is_damaged: false,
        repair: None,
    };
    let is_damaged = FetchReplica {
        partition: place(0),
        number: 10,
        position: Offset(5),
        last_epoch: None,
        durable_end: Offset(5),
        high_watermark: Offset(4),
        max_bytes: 64 << 10,
        may_wait: false,
        lacks_producers: true,
        is_damaged: true,
        repair: Some((Offset(1), Offset(2))),
        ..keeps_up
    };
    let request = FetchReplicas {
        replica: NodeId(2),
        broker_epoch: BrokerEpoch(5),
        max_wait_ms: 4_000,
        max_bytes: 8 << 20,
        fetches: vec![keeps_up, is_damaged],
    };
    let bytes = [
        0, 0, 0, 92, // length
        0x95, 0xcc, 240, 1, 6, // api 240, version 1, correlation id 6
        0x95, 2, 5, 0xcd, 0x0f, 0xa0, 0xce, 0, 0x80, 0, 0,    // broker and registration, 4,000 ms, 8 MiB
        0x92, // two fetches
        0x9c, 0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 3, // topic and partition
        4, 9, 100, 3, 90, 80, // epoch, number, position, its epoch, what is synced, watermark
        0xce, 0, 0x10, 0, 0, 0xc3, 0xc2, 0xc2, 0xc0, // 1 MiB, may wait, lacks nothing, is whole, repairs nothing
        0x9c, 0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, // topic and partition
        4, 10, 5, 0xc0, 5, 4, // epoch, number, position, no epoch, what is synced, watermark
        0xce, 0, 1, 0, 0, 0xc2, 0xc3, 0xc3, 0x92, 1, 2,    // 64 KiB, at once, lacks producers, damaged, from 1 to 2
        0x90, // no attachments
    ];
    assert_eq!(encode(encode_peer_request(&request, CorrelationId(6), Vec::new())), bytes);
    assert_eq!(decode(&bytes).decode_body::<FetchReplicas>(), Ok(request));
}

#[test]
fn golden_bytes_of_a_reply() {
    let continues = LeaderAnswer {
        verdict: Verdict::Continues,
        leader_epoch: LeaderEpoch(4),
        log_start: Offset(1),
        high_watermark: Offset(80),
        written_end: Offset(110),
        knows_all: true,
    };
    let diverged =
        LeaderAnswer { verdict: Verdict::Diverged(Some((LeaderEpoch(3), Offset(50)))), knows_all: false, ..continues };
    let refused = Err(ApiError::new(ErrorCode::NotLeader, "x"));
    let outcomes = [(3, 9, Ok(continues)), (0, 10, Ok(diverged)), (1, 11, refused)];
    let answers = outcomes.map(|(partition, number, outcome)| ReplicaFetched {
        partition: place(partition),
        number,
        outcome: Outcome::from(outcome),
    });
    let reply = FetchReplicasReply { answers: answers.to_vec() };
    // The records of the first lie in two pieces.
    let records: Attachment = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")].into_iter().collect();
    let bytes = [
        0, 0, 0, 115, // length
        0x95, 0xcc, 240, 1, 6, // the head of the request
        0x92, 0xc0, 0x91, 0x93, // no error, three answers
        0x93, 0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 3, 9, // topic and partition, number
        0x92, 0xc0, 0x96, 0x93, 0, 0xc0, 0xc0, 4, 1, 80, 110,
        0xc3, // continues; epoch, start, watermark, end, knows all
        0x93, 0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0,
        10, // topic and partition, number
        0x92, 0xc0, 0x96, 0x93, 3, 50, 3, 4, 1, 80, 110, 0xc2, // parts at 50, the end of epoch 3
        0x93, 0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1,
        11, // topic and partition, number
        0x92, 0x92, 30, 0xa1, b'x', 0xc0, // an error
        0x93, 0xc4, 3, b'a', b'b', b'c', 0xc4, 0, 0xc4, 0, // attachments: records, nothing, nothing
    ];
    let head = decode(&encode(encode_peer_request(&request(), CorrelationId(6), Vec::new()))).head;
    let attached = vec![records, Attachment::new(), Attachment::new()];
    assert_eq!(encode(encode_outcome(head, Ok(reply.clone()), attached)), bytes);
    let frame = decode(&bytes);
    assert_eq!(decode_outcome::<FetchReplicasReply>(&frame), Ok(reply));
    assert_eq!(frame.attachments, [&b"abc"[..], b"", b""]);
}

fn request() -> FetchReplicas {
    FetchReplicas {
        replica: NodeId(2),
        broker_epoch: BrokerEpoch(5),
        max_wait_ms: 0,
        max_bytes: 0,
        fetches: Vec::new(),
    }
}

#[test]
fn a_verdict_with_fields_of_another_is_refused() {
    let verdicts = [
        Verdict::Continues,
        Verdict::Repairs,
        Verdict::Producers(Offset(7)),
        Verdict::Diverged(None),
        Verdict::Diverged(Some((LeaderEpoch(1), Offset(7)))),
        Verdict::StartsAt(Offset(7)),
    ];
    for verdict in verdicts {
        let bytes = rmp_serde::to_vec(&verdict).expect("encodes");
        assert_eq!(rmp_serde::from_slice::<Verdict>(&bytes).expect("decodes"), verdict);
    }
    for wrong in [[0x93, 0, 7, 0xc0], [0x93, 2, 0xc0, 0xc0], [0x93, 3, 7, 0xc0], [0x93, 4, 7, 1], [0x93, 5, 0xc0, 0xc0]]
    {
        assert!(rmp_serde::from_slice::<Verdict>(&wrong).is_err(), "{wrong:?}");
    }
}
