use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};
use uuid::Uuid;

use super::*;
use crate::protocol::messages::{
    Acks, DeleteBefore, DeleteRecords, DeleteRecordsPartition, DeleteRecordsReply, DescribeCluster, Fetch, Hello,
    ListOffsets, Metadata, Produce, ProducePartition, ProduceReply, Request,
};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

const LIMIT: usize = 1 << 20;

/// A Produce request for two partitions, with an attachment of one slice and one of two. Written by hand from
/// docs/protocol.md: changing it is changing the protocol.
const GOLDEN_PRODUCE: &[u8] = &[
    0, 0, 0, 63, // length
    0x95, 2, 1, 1, // five elements: api 2, version 1, correlation id 1
    0x93, 0xff, 0xcd, 0x75, 0x30, 0x92, // acks -1, timeout 30000, two partitions
    0x93, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0xc0, // topic, partition 0, no epoch
    0x93, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1, 7, // topic, partition 1, epoch 7
    0x92, 0xc4, 3, b'a', b'b', b'c', 0xc4, 3, b'd', b'e', b'f', // two attachments
];

/// The error for it.
const GOLDEN_ERROR: &[u8] = &[
    0, 0, 0, 18, // length
    0x95, 2, 1, 1, // the head of the request
    0x92, 0x92, 30, 0xa8, b'g', b'o', b' ', b'a', b'w', b'a', b'y', b'!', 0xc0, // [[30, "go away!"], nil]
    0x90, // no attachments
];

fn produce() -> Produce {
    let topic = TopicId(Uuid::from_u128(9));
    let partition = |n, leader_epoch| ProducePartition { topic, partition: PartitionIndex(n), leader_epoch };
    let partitions = vec![partition(0, None), partition(1, Some(LeaderEpoch(7)))];
    Produce { acks: Acks::All, timeout_ms: 30_000, partitions }
}

fn produce_frame() -> OutFrame {
    let split: Attachment = [Bytes::from_static(b"de"), Bytes::from_static(b"f")].into_iter().collect();
    encode_request(&produce(), CorrelationId(1), vec![Bytes::from_static(b"abc").into(), split])
}

fn encode(frame: OutFrame) -> BytesMut {
    let mut out = BytesMut::new();
    FrameCodec::new(LIMIT).encode(frame, &mut out).expect("encodes");
    out
}

fn decode_one(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    FrameCodec::new(LIMIT).decode(&mut BytesMut::from(bytes))
}

/// A frame with this payload and a true length.
fn with_length(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn refusal(payload: &[u8]) -> String {
    decode_one(&with_length(payload)).expect_err("refused").to_string()
}

#[test]
fn golden_bytes_of_a_request_with_two_attachments() {
    let frame = produce_frame();
    assert_eq!(frame.wire_bytes(), GOLDEN_PRODUCE.len());
    assert_eq!(&encode(frame)[..], GOLDEN_PRODUCE);
    let frame = decode_one(GOLDEN_PRODUCE).expect("a frame").expect("whole");
    assert_eq!((frame.head.api, frame.head.version, frame.head.correlation_id), (2, 1, CorrelationId(1)));
    assert_eq!(frame.decode_body::<Produce>(), Ok(produce()));
    assert_eq!(frame.attachments, [Bytes::from_static(b"abc"), Bytes::from_static(b"def")]);
}

#[test]
fn golden_bytes_of_a_reply_with_an_error() {
    let head = FrameHead { api: 2, version: 1, correlation_id: CorrelationId(1) };
    let error = ApiError::new(ErrorCode::NotLeader, "go away!");
    assert_eq!(&encode(encode_reply::<Produce>(head, Err(error.clone()), Vec::new()))[..], GOLDEN_ERROR);
    assert_eq!(&encode(OutFrame::error(head, error.clone()))[..], GOLDEN_ERROR);
    let frame = decode_one(GOLDEN_ERROR).expect("a frame").expect("whole");
    assert_eq!(frame.head, head);
    assert_eq!(decode_reply::<Produce>(&frame), Err(error));
}

/// A DeleteRecords request, and an answer to it. Written by hand from docs/protocol.md.
const GOLDEN_DELETE_RECORDS: &[u8] = &[
    0, 0, 0, 54, // length
    0x95, 107, 1, 2, // five elements: api 107, version 1, correlation id 2
    0x92, 0xcd, 0x75, 0x30, 0x92, // timeout 30000, two partitions
    0x93, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0xcd, 0x03,
    0xe8, // partition 0, before 1000
    0x93, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0xff, // partition 1, the high watermark
    0x90, // no attachments
];
const GOLDEN_RECORDS_DELETED: &[u8] = &[
    0, 0, 0, 22, // length
    0x95, 107, 1, 2, // the head of the request
    0x92, 0xc0, 0x91, 0x92, // [nil, [[outcome, outcome]]]
    0x92, 0xc0, 0xcd, 0x03, 0xe8, // [nil, 1000]
    0x92, 0x92, 40, 0xa3, b'n', b'o', b'!', 0xc0, // [[40, "no!"], nil]
    0x90, // no attachments
];

#[test]
fn golden_bytes_of_a_deletion_of_records() {
    let topic = TopicId(Uuid::from_u128(9));
    let place = |n, before| DeleteRecordsPartition { topic, partition: PartitionIndex(n), before };
    let partitions = vec![place(0, DeleteBefore::Offset(Offset(1_000))), place(1, DeleteBefore::HighWatermark)];
    let request = DeleteRecords { timeout_ms: 30_000, partitions };
    assert_eq!(&encode(encode_request(&request, CorrelationId(2), Vec::new()))[..], GOLDEN_DELETE_RECORDS);
    let frame = decode_one(GOLDEN_DELETE_RECORDS).expect("a frame").expect("whole");
    assert_eq!(frame.decode_body::<DeleteRecords>(), Ok(request));
    let refused = Err(ApiError::new(ErrorCode::OffsetOutOfRange, "no!"));
    let reply = DeleteRecordsReply { partitions: vec![Ok(Offset(1_000)).into(), refused.into()] };
    let head = FrameHead { api: 107, version: 1, correlation_id: CorrelationId(2) };
    let encoded = encode(encode_reply::<DeleteRecords>(head, Ok(reply.clone()), Vec::new()));
    assert_eq!(&encoded[..], GOLDEN_RECORDS_DELETED);
    let frame = decode_one(GOLDEN_RECORDS_DELETED).expect("a frame").expect("whole");
    assert_eq!(decode_reply::<DeleteRecords>(&frame), Ok(reply));
}

#[test]
fn a_reply_comes_back_as_it_was_sent_and_one_with_neither_answer_nor_error_is_refused() {
    let head = FrameHead { api: 2, version: 1, correlation_id: CorrelationId(u32::MAX) };
    let reply = ProduceReply { partitions: Vec::new() };
    let frame = decode_one(&encode(encode_reply::<Produce>(head, Ok(reply.clone()), Vec::new())));
    assert_eq!(decode_reply::<Produce>(&frame.expect("a frame").expect("whole")), Ok(reply));
    let neither = Frame { head, body: Bytes::from_static(&[0x92, 0xc0, 0xc0]), attachments: Vec::new() };
    assert_eq!(decode_reply::<Produce>(&neither).expect_err("refused").code, ErrorCode::InvalidRequest);
}

#[test]
fn a_frame_cut_at_any_byte_waits_for_more_and_ends_as_cut_short() {
    for cut in 0..GOLDEN_PRODUCE.len() {
        let mut codec = FrameCodec::new(LIMIT);
        let mut bytes = BytesMut::from(&GOLDEN_PRODUCE[..cut]);
        assert!(codec.decode(&mut bytes).expect("no error yet").is_none(), "cut at {cut}");
        assert_eq!(bytes.len(), cut, "an incomplete frame is left alone");
        match codec.decode_eof(&mut bytes) {
            Ok(None) => assert_eq!(cut, 0),
            Err(FrameError::CutShort { have }) => assert_eq!(have, cut),
            other => panic!("{other:?} at {cut}"),
        }
    }
}

#[test]
fn the_payload_cut_at_any_byte_with_a_true_length_is_malformed() {
    for cut in 1..GOLDEN_PRODUCE.len() - LENGTH_BYTES {
        let payload = &GOLDEN_PRODUCE[LENGTH_BYTES..LENGTH_BYTES + cut];
        let error = decode_one(&with_length(payload)).expect_err("refused");
        assert!(matches!(error, FrameError::Malformed { .. }), "cut at {cut}: {error}");
    }
}

#[test]
fn two_frames_a_byte_at_a_time_come_out_as_two_frames() {
    let mut codec = FrameCodec::new(LIMIT);
    let mut bytes = BytesMut::new();
    let mut frames = Vec::new();
    for byte in [GOLDEN_PRODUCE, GOLDEN_ERROR].concat() {
        bytes.extend_from_slice(&[byte]);
        frames.extend(codec.decode(&mut bytes).expect("good so far"));
    }
    let whole = [GOLDEN_PRODUCE, GOLDEN_ERROR].map(|bytes| decode_one(bytes).expect("a frame").expect("whole"));
    assert_eq!(frames, whole);
    assert!(bytes.is_empty());
}

#[test]
fn a_decoded_frame_shares_the_bytes_that_came_in() {
    let mut source = BytesMut::from(GOLDEN_PRODUCE);
    let range = source.as_ptr_range();
    let frame = FrameCodec::new(LIMIT).decode(&mut source).expect("a frame").expect("whole");
    for part in [&frame.body, &frame.attachments[0], &frame.attachments[1]] {
        assert!(range.contains(&part.as_ptr()));
    }
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_reserved() {
    for length in [0u32, 1, 5] {
        let error = decode_one(&length.to_be_bytes()).expect_err("too short").to_string();
        assert!(error.contains("shortest frame"), "{error}");
    }
    let mut bytes = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
    let error = FrameCodec::new(LIMIT).decode(&mut bytes).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "a frame of 4294967295 bytes is above the limit of 1048576 bytes: send smaller frames or raise \
         limits.max_frame_bytes"
    );
    assert_eq!(error.to_api_error().1.code, ErrorCode::FrameTooLarge);
    assert!(bytes.capacity() < 1_024, "nothing was reserved for it");
    // At the limit is allowed; the decoder reserves what it lacks.
    assert!(decode_one(&(LIMIT as u32).to_be_bytes()).expect("allowed").is_none());
}

#[test]
fn counts_beyond_the_frame_are_refused() {
    let many = 0xffff_ffffu32.to_be_bytes();
    let cases: [(&str, Vec<u8>); 5] = [
        ("more elements", [&[0x95, 2, 1, 1, 0xdd], &many[..], &[0, 0]].concat()),
        ("more elements", [&[0x95, 2, 1, 1, 0xdf], &many[..], &[0, 0]].concat()),
        ("more attachments", [&[0x95, 2, 1, 1, 0xc0, 0xdd], &many[..], &[0xc4, 0]].concat()),
        ("past the end", [&[0x95, 2, 1, 1, 0xc0, 0x91, 0xc6], &many[..], &[0, 0]].concat()),
        ("past the end", [&[0x95, 2, 1, 1, 0xdb], &many[..], &[0, 0]].concat()),
    ];
    for (reason, payload) in cases {
        let text = refusal(&payload);
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn deep_nesting_is_refused_at_32_and_not_earlier() {
    let nested = |depth: usize| [&[0x95, 2, 1, 1][..], &vec![0x91; depth], &[0xc0, 0x90]].concat();
    assert!(decode_one(&with_length(&nested(MAX_DEPTH))).is_ok());
    assert!(refusal(&nested(MAX_DEPTH + 1)).contains("deeper than 32"));
    assert!(refusal(&nested(1_000_000)).contains("deeper than 32"));
}

#[test]
fn a_body_of_more_values_than_allowed_is_refused_though_its_bytes_would_fit() {
    let count = u32::try_from(MAX_REQUEST_VALUES).expect("fits");
    let body = [&[0x95, 2, 1, 1, 0xdd][..], &count.to_be_bytes(), &vec![0xa0; MAX_REQUEST_VALUES], &[0x90]].concat();
    assert!(refusal(&body).contains("split the request"));
    let empty_bins = [0xc4, 0].repeat(MAX_REQUEST_VALUES);
    let attachments = [&[0x95, 2, 1, 1, 0xc0, 0xdd][..], &count.to_be_bytes(), &empty_bins].concat();
    assert!(refusal(&attachments).contains("split the request"));
    assert!(FrameCodec::for_replies(LIMIT).decode(&mut BytesMut::from(&with_length(&body)[..])).is_ok());
}

#[test]
fn what_is_not_a_frame_is_refused_with_the_place_and_the_correlation_id() {
    let cases: [(&str, u32, &[u8]); 8] = [
        ("array of five", 0, &[0x94, 2, 1, 9, 0xc0, 0x90]),
        ("an array is expected", 0, &[0xc0, 2, 1, 9, 0xc0, 0x90]),
        ("the api is no number", 0, &[0x95, 0xff, 1, 9, 0xc0, 0x90]),
        ("the version is no number", 0, &[0x95, 2, 0xce, 0, 1, 0, 0, 9, 0xc0, 0x90]),
        ("the correlation id is no number", 0, &[0x95, 2, 1, 0xa0, 0xc0, 0x90]),
        ("0xc1", 9, &[0x95, 2, 1, 9, 0xc1, 0x90]),
        ("an attachment is a bin", 9, &[0x95, 2, 1, 9, 0xc0, 0x91, 0xa1, b'x']),
        ("bytes follow", 9, &[0x95, 2, 1, 9, 0xc0, 0x90, 0]),
    ];
    for (reason, id, payload) in cases {
        let error = decode_one(&with_length(payload)).expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}");
        let (told_to, told) = error.to_api_error();
        assert_eq!((told_to, told.code), (CorrelationId(id), ErrorCode::InvalidRequest));
    }
}

#[test]
fn numbers_in_any_width_and_ext_values_are_stepped_over() {
    let ext = [0xc9, 0, 0, 0, 2, 5, 1, 1];
    let floats = [[0xcb; 9].to_vec(), vec![0xca, 0, 0, 0, 0], vec![0xd8; 18], ext.to_vec()].concat();
    let body = [&[0x94][..], &floats].concat();
    let head = [0x95, 0xd1, 0, 2, 0xd3, 0, 0, 0, 0, 0, 0, 0, 1, 0xcf, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let frame = decode_one(&with_length(&[&head[..], &body, &[0xdc, 0, 0]].concat())).expect("a frame").expect("whole");
    assert_eq!(frame.head, FrameHead { api: 2, version: 1, correlation_id: CorrelationId(u32::MAX) });
    assert_eq!(frame.body, body);
}

#[test]
fn a_body_with_too_few_fields_too_many_or_trailing_bytes_is_an_invalid_request() {
    let whole = rmp_serde::to_vec(&produce()).expect("encodes");
    assert!(decode_body::<Produce>(&whole).is_ok());
    let fewer = [&[0x92][..], &whole[1..5]].concat();
    let more = [&[0x94][..], &whole[1..], &[0xc0]].concat();
    let trailing = [&whole[..], &[0xc0]].concat();
    let wrong_acks = [&[0x93, 5][..], &whole[2..]].concat();
    for body in [&fewer[..], &more, &trailing, &wrong_acks, &whole[..10], &[], &[0xc0], &[0xdd, 0xff, 0xff, 0xff, 0xff]]
    {
        let error = decode_body::<Produce>(body).expect_err("refused");
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        assert!(error.message.starts_with("the body is not a Produce as docs/protocol.md describes it: "), "{error}");
    }
}

#[test]
fn each_kind_of_body_survives_its_round_trip() {
    fn check<R: Request + PartialEq + std::fmt::Debug>(request: R) {
        let frame = decode_one(&encode(encode_request(&request, CorrelationId(300), Vec::new())));
        let frame = frame.expect("a frame").expect("whole");
        assert_eq!(frame.head, FrameHead { api: R::API.number(), version: 1, correlation_id: CorrelationId(300) });
        assert_eq!(frame.decode_body::<R>(), Ok(request));
    }
    let (client_id, software) = ("é".repeat(100), String::new());
    check(Hello { protocol_min: 1, protocol_max: 70, client_id, software });
    check(Metadata { topics: None });
    check(Metadata { topics: Some(vec!["a".into(); 70_000]) });
    check(Fetch { max_wait_ms: u32::MAX, min_bytes: 1, max_bytes: 1, partitions: Vec::new() });
    check(ListOffsets { partitions: Vec::new() });
    check(DescribeCluster {});
}

#[test]
fn large_slices_stay_where_they_are_and_small_ones_join_the_head() {
    let large = Bytes::from(vec![7u8; 100_000]);
    let small = Bytes::from(vec![8u8; 61]);
    let attachment: Attachment = [small.clone(), large.clone(), small].into_iter().collect();
    let frame = encode_request(&produce(), CorrelationId(70_000), vec![attachment, Attachment::new()]);
    let expected = encode(frame.clone());
    let mut segments = SegmentedBuf::new();
    segments.put_frame(frame.clone()).expect("fits");
    segments.put_frame(frame).expect("fits");
    assert_eq!(segments.segment_count(), 5, "head, large, rest and head, large, rest");
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    assert_eq!(segments.chunks_vectored(&mut slices), 5);
    assert_eq!(slices[1].as_ptr(), large.as_ptr(), "not copied");
    assert_eq!(segments.remaining(), expected.len() * 2);
    // Odd steps cross every boundary.
    let mut written = Vec::new();
    while segments.has_remaining() {
        let step = segments.remaining().min(777);
        written.extend_from_slice(&segments.copy_to_bytes(step));
    }
    assert_eq!(written, [&expected[..], &expected[..]].concat());
    segments.release_memory();
    assert_eq!(segments.segment_count(), 0);
}
