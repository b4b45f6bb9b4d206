//! Frames and batches that are not what they should be: each gets its error, and the node serves on.

use std::time::Duration;

use bytes::Bytes;
use callboard::client::{ClientError, ConsumerConfig, Damaged, StartAt};
use callboard::protocol::ErrorCode;
use callboard::protocol::frame::{Attachment, encode_request};
use callboard::protocol::messages::{Acks, DescribeCluster, DescribeClusterReply, Hello, Produce};
use callboard::testing::Node;
use callboard::types::record_batch::header::HEADER_BYTES;
use callboard::types::record_batch::{BatchBuilder, BatchHeader, Compression};
use callboard::types::{CorrelationId, ProducerEpoch, ProducerId, TimestampMs};

use crate::support::*;

/// `[api, version, id, body, attachments]`, with small numbers.
fn payload(api: u8, version: u8, id: u8, body: &[u8]) -> Vec<u8> {
    [&[0x95, api, version, id], body, &[0x90]].concat()
}

/// One frame that no peer should send: its bytes, the error it gets and whether the connection ends.
struct Bad {
    story: &'static str,
    bytes: Vec<u8>,
    code: ErrorCode,
    says: &'static str,
    ends: bool,
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

fn bad(story: &'static str, bytes: Vec<u8>, code: ErrorCode, says: &'static str, ends: bool) -> Bad {
    Bad { story, bytes, code, says, ends }
}

fn bad_frames() -> Vec<Bad> {
    use ErrorCode::{FrameTooLarge, InvalidRequest, UnknownApi, UnsupportedVersion};
    // Nested deeper than any message, and deep enough to overflow the stack of whoever recurses.
    let deep = [vec![0x91; 200_000], vec![0xc0]].concat();
    let many = [&[0xdd, 0x00, 0x06, 0x00, 0x00][..], &vec![0xc0; 0x60000]].concat();
    vec![
        bad("length 0", vec![0, 0, 0, 0], InvalidRequest, "below 6", true),
        bad("length 5", vec![0, 0, 0, 5, 1, 2, 3, 4, 5], InvalidRequest, "below 6", true),
        bad("length 4 GiB", vec![0xff; 8], FrameTooLarge, "limits.max_frame_bytes", true),
        bad("one byte too long", ((16_u32 << 20) + 1).to_be_bytes().to_vec(), FrameTooLarge, "16777217", true),
        bad("not an array", framed(&[0xc0; 6]), InvalidRequest, "array", true),
        bad("an array of four", framed(&[0x94, 1, 1, 7, 0x90, 0x90]), InvalidRequest, "array of five", true),
        bad("a negative api", framed(&[0x95, 0xff, 1, 7, 0x90, 0x90]), InvalidRequest, "api", true),
        bad("the byte that MessagePack never uses", framed(&payload(1, 1, 7, &[0xc1])), InvalidRequest, "", true),
        bad(
            "4 billion elements in 5 bytes",
            framed(&payload(1, 1, 7, &[0xdd, 0xff, 0xff, 0xff, 0xff])),
            InvalidRequest,
            "",
            true,
        ),
        bad(
            "4 billion pairs in 5 bytes",
            framed(&payload(1, 1, 7, &[0xdf, 0xff, 0xff, 0xff, 0xff])),
            InvalidRequest,
            "",
            true,
        ),
        bad(
            "a text of 4 GiB in 5 bytes",
            framed(&payload(1, 1, 7, &[0xdb, 0xff, 0xff, 0xff, 0xff])),
            InvalidRequest,
            "",
            true,
        ),
        bad(
            "more attachments than bytes",
            framed(&[0x95, 1, 1, 7, 0x90, 0xdd, 0x7f, 0xff, 0xff, 0xff]),
            InvalidRequest,
            "more attachments",
            true,
        ),
        bad("more values than a frame may have", framed(&payload(1, 1, 7, &many)), InvalidRequest, "values", true),
        bad(
            "bytes after the attachments",
            framed(&[0x95, 1, 1, 7, 0x90, 0x90, 0x00]),
            InvalidRequest,
            "bytes follow",
            true,
        ),
        bad("a body nested without end", framed(&payload(1, 1, 7, &deep)), InvalidRequest, "", true),
        bad("an unknown request", framed(&payload(99, 1, 7, &[0x90])), UnknownApi, "99", false),
        bad("an unknown version", framed(&payload(1, 9, 7, &[0x90])), UnsupportedVersion, "versions 1 to 1", false),
        bad("a text for a body", framed(&payload(3, 1, 7, &[0xa2, b'h', b'i'])), InvalidRequest, "Fetch", false),
        bad("a body that lacks fields", framed(&payload(3, 1, 7, &[0x91, 0x00])), InvalidRequest, "Fetch", false),
        bad("acks of 7", framed(&payload(2, 1, 7, &[0x93, 0x07, 0x00, 0x90])), InvalidRequest, "acks", false),
    ]
}

#[test]
fn each_frame_that_lies_gets_its_error_and_the_node_serves_on() {
    let node = Node::start().unwrap();
    for Bad { story, bytes, code, says, ends } in bad_frames() {
        let mut client = RawClient::greeted(&node.address());
        client.send_bytes(&bytes);
        let (id, error) = client.error();
        assert_eq!(error.code, code, "{story}: {error}");
        assert!(error.message.contains(says), "{story}: {error}");
        if ends {
            client.expect_closed();
        } else {
            assert_eq!(id, CorrelationId(7), "{story}");
            client.ask(&DescribeCluster {}).unwrap_or_else(|error| panic!("{story}: {error}"));
        }
        serves_others(&node);
    }
}

#[test]
fn who_sends_far_too_much_still_hears_why() {
    let node = Node::start().unwrap();
    let mut client = RawClient::greeted(&node.address());
    client.send_bytes(&(40_u32 << 20).to_be_bytes());
    let chunk = vec![0; 1 << 20];
    (0..40).for_each(|_| client.send_bytes(&chunk));
    assert_eq!(client.error().1.code, ErrorCode::FrameTooLarge);
    client.expect_closed();
    serves_others(&node);
}

#[test]
fn a_frame_that_is_cut_short_is_told_so_if_anyone_still_listens() {
    let node = Node::start().unwrap();
    let whole = framed(&payload(1, 1, 7, &[0x91, 0xc0]));
    for cut in 1..whole.len() {
        let mut client = RawClient::greeted(&node.address());
        client.send_bytes(&whole[..cut]);
        client.hang_up();
        let (id, error) = client.error();
        assert_eq!((id, error.code), (CorrelationId(0), ErrorCode::InvalidRequest), "cut at {cut}");
        assert!(error.message.contains("ended inside a frame"), "{error}");
        client.expect_closed();
    }
    serves_others(&node);
}

#[test]
fn a_frame_that_comes_a_byte_at_a_time_is_a_frame() {
    let node = Node::start().unwrap();
    let mut client = RawClient::connect(&node.address());
    for request in [
        encode(encode_request(&hello("slow"), CorrelationId(1), Vec::new())),
        encode(encode_request(&DescribeCluster {}, CorrelationId(2), Vec::new())),
    ] {
        request.iter().for_each(|byte| client.send_bytes(&[*byte]));
    }
    assert_eq!(client.frame().head.correlation_id, CorrelationId(1));
    let described = client.frame();
    assert_eq!(described.head.correlation_id, CorrelationId(2));
    let reply: DescribeClusterReply =
        callboard::protocol::frame::decode_reply::<DescribeCluster>(&described).expect("an answer");
    assert_eq!(reply.brokers.len(), 1);
}

#[test]
fn a_frame_that_never_ends_ends_its_connection_even_if_bytes_keep_coming() {
    let node = Node::start_with(|config| config.limits.partial_frame_timeout_ms = 150).unwrap();
    for beginning in [&[0_u8, 0][..], &[0, 0, 1, 0, 0x95, 1, 1]] {
        let mut silent = RawClient::greeted(&node.address());
        silent.send_bytes(beginning);
        silent.expect_closed();
        let mut dripping = RawClient::greeted(&node.address());
        dripping.send_bytes(beginning);
        wait_until("the dripping connection is closed", || {
            dripping.send_bytes(&[0]);
            matches!(dripping.hear_within(Duration::from_millis(20)), Heard::Closed)
        });
    }
    serves_others(&node);
}

#[test]
fn a_connection_that_asks_nothing_is_closed_and_one_that_waits_is_not() {
    let node = Node::start_with(|config| config.limits.idle_timeout_ms = 200).unwrap();
    let mut waiting = RawClient::greeted(&node.address());
    let topic = {
        let created =
            callboard::protocol::messages::CreateTopics { topics: vec![new_topic("t", 1, &[])], validate_only: false };
        waiting.ask(&created).unwrap().topics.remove(0).into_result().unwrap().id
    };
    let mut idle = RawClient::greeted(&node.address());
    let parked = callboard::protocol::messages::Fetch { max_wait_ms: 700, ..fetch(topic, 0, 0) };
    let id = waiting.send(&parked, Vec::new());
    idle.expect_closed();
    assert_eq!(
        waiting.frame().head.correlation_id,
        id,
        "a fetch that is parked for longer than the idle timeout is answered"
    );
}

#[test]
fn before_hello_little_is_taken_and_nothing_is_answered() {
    let node = Node::start().unwrap();
    let mut large = RawClient::connect(&node.address());
    large.send_bytes(&((16 << 10) + 1_u32).to_be_bytes());
    let (_, error) = large.error();
    assert_eq!(error.code, ErrorCode::FrameTooLarge);
    assert!(error.message.contains("limits.max_frame_bytes_before_hello"), "{error}");
    large.expect_closed();

    let mut rude = RawClient::connect(&node.address());
    let error = rude.ask(&DescribeCluster {}).unwrap_err();
    assert_eq!(error.code, ErrorCode::HelloRequired);
    rude.expect_closed();

    let wrong: [(Hello, ErrorCode, &str); 4] = [
        (Hello { protocol_min: 2, protocol_max: 9, ..hello("new") }, ErrorCode::UnsupportedVersion, "2 to 9"),
        (Hello { protocol_min: 0, protocol_max: 0, ..hello("old") }, ErrorCode::UnsupportedVersion, "0 to 0"),
        (Hello { protocol_min: 9, protocol_max: 0, ..hello("odd") }, ErrorCode::UnsupportedVersion, "9 to 0"),
        (hello(&"x".repeat(256)), ErrorCode::InvalidRequest, "255"),
    ];
    for (greeting, code, says) in wrong {
        let mut client = RawClient::connect(&node.address());
        let error = client.ask(&greeting).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(says), "{error}");
        client.expect_closed();
    }
    RawClient::connect(&node.address()).ask(&hello(&"x".repeat(255))).expect("255 bytes are legal");

    let mut twice = RawClient::greeted(&node.address());
    let error = twice.hello().unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    twice.expect_closed();
    serves_others(&node);
}

/// A batch whose header was changed, with the checksum made to fit again.
fn altered(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let good = batch(&["a", "b"]);
    let mut header = BatchHeader::parse(&good).unwrap();
    change(&mut header);
    let header = header.with_checksum_over(&good[HEADER_BYTES..]);
    [&header.to_bytes()[..], &good[HEADER_BYTES..]].concat().into()
}

fn with_byte(at: usize, value: u8) -> Bytes {
    let mut bytes = batch(&["a", "b"]).to_vec();
    bytes[at] = value;
    bytes.into()
}

fn bad_batches() -> Vec<(&'static str, Bytes, ErrorCode)> {
    use ErrorCode::{BatchTooLarge, InvalidBatch, UnsupportedFormat};
    let good = batch(&["a", "b"]);
    let large = batch(&["x".repeat(2_000).as_str()]);
    let attributes = |bits: i16| altered(|h| h.attributes.0 |= bits);
    vec![
        ("nothing", Bytes::new(), InvalidBatch),
        ("half a header", good.slice(..30), InvalidBatch),
        ("half a batch", good.slice(..good.len() - 1), InvalidBatch),
        ("two batches in one attachment", [&good[..], &good[..]].concat().into(), InvalidBatch),
        ("one byte too many", [&good[..], &[0]].concat().into(), InvalidBatch),
        ("a flipped bit", with_byte(good.len() - 1, good[good.len() - 1] ^ 1), InvalidBatch),
        ("another checksum", with_byte(17, good[17] ^ 1), InvalidBatch),
        ("a length that lies", with_byte(11, good[11] + 1), InvalidBatch),
        ("a negative length", with_byte(8, 0xff), InvalidBatch),
        ("a negative base offset", with_byte(0, 0xff), InvalidBatch),
        ("magic 1", with_byte(16, 1), UnsupportedFormat),
        ("magic 3", with_byte(16, 3), UnsupportedFormat),
        ("no records", altered(|h| (h.record_count, h.last_offset_delta) = (0, -1)), InvalidBatch),
        ("more records than bytes", altered(|h| (h.record_count, h.last_offset_delta) = (1_000, 999)), InvalidBatch),
        (
            "a count of 2 billion",
            altered(|h| (h.record_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1)),
            InvalidBatch,
        ),
        ("a count that is not the delta's", altered(|h| h.last_offset_delta = 5), InvalidBatch),
        ("a negative count", altered(|h| h.record_count = -1), InvalidBatch),
        ("unknown attributes", attributes(1 << 8), UnsupportedFormat),
        ("an unknown compression", attributes(0b111), UnsupportedFormat),
        ("a control batch", attributes(1 << 5), InvalidBatch),
        ("a transaction", attributes(1 << 4), InvalidBatch),
        ("a producer without an epoch", altered(|h| h.producer_id = ProducerId(5)), InvalidBatch),
        (
            "a negative sequence",
            altered(|h| (h.producer_id, h.producer_epoch, h.base_sequence) = (ProducerId(5), ProducerEpoch(0), -2)),
            InvalidBatch,
        ),
        ("more than max_batch_bytes", large, BatchTooLarge),
    ]
}

#[tokio::test]
async fn each_batch_that_lies_is_refused_and_leaves_no_trace() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "strict", 1, &[("max_batch_bytes", "1024")]).await;
    let mut raw = RawClient::greeted(&node.address());
    for (story, bytes, code) in bad_batches() {
        let error = raw.produce(topic, bytes).expect_err(story);
        assert_eq!(error.code, code, "{story}: {error}");
    }
    let placed = raw.produce(topic, batch(&["good"])).expect("a good one is taken on the same connection");
    assert_eq!(placed.base_offset.0, 0, "nothing of the others was appended");
    assert_eq!(read_all(&client, "strict").await, [(0, "good".to_owned())]);
    serves_others(&node);
}

#[tokio::test]
async fn as_many_batches_as_partitions_and_each_on_its_own() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "two", 2, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    for attached in [0, 2, 3] {
        let error = raw.ask_with(&produce(topic, 0, None, Acks::All), vec![batch(&["x"]); attached]).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
        assert!(error.message.contains(&format!("{attached} batches")), "{error}");
    }
    let entry = |partition| produce(topic, partition, None, Acks::All).partitions.remove(0);
    let request =
        Produce { acks: Acks::All, timeout_ms: 10_000, partitions: vec![entry(0), entry(1), entry(7), entry(0)] };
    let broken = with_byte(17, 0);
    let (reply, _) = raw.ask_with(&request, vec![batch(&["a"]), broken, batch(&["b"]), batch(&["c", "d"])]).unwrap();
    let outcomes: Vec<_> =
        reply.partitions.into_iter().map(|o| o.into_result().map(|b| b.base_offset.0).map_err(|e| e.code)).collect();
    let expected = [Ok(0), Err(ErrorCode::InvalidBatch), Err(ErrorCode::UnknownTopicOrPartition), Ok(1)];
    assert_eq!(outcomes, expected, "one that is refused takes no other with it");
    let nothing = Produce { acks: Acks::All, timeout_ms: 0, partitions: Vec::new() };
    assert_eq!(raw.ask(&nothing).unwrap().partitions.len(), 0, "nothing to do is done at once");
}

#[tokio::test]
async fn a_batch_that_inflates_without_end_stops_only_the_consumer_that_would_inflate_it() {
    let node = Node::start().unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "bombs", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    let zeros = vec![0; 80 << 20];
    let mut bomb = BatchBuilder::new(Compression::Zstd, 81 << 20);
    bomb.append(TimestampMs(5_000), None, Some(&zeros), &[]);
    let bomb = bomb.build().unwrap();
    assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
    raw.produce(topic, batch(&["before"])).unwrap();
    raw.produce(topic, bomb).expect("the broker never inflates what it is given to keep");
    raw.produce(topic, batch(&["after"])).unwrap();

    let strict = ConsumerConfig::default().inflate_limit_bytes(1 << 20);
    let mut reader = consumer(&client, "bombs", strict.clone(), StartAt::Earliest).await;
    assert_eq!(take(&mut reader, 1).await, [(0, "before".to_owned())]);
    let error = soon("the refusal", reader.recv()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Damaged { offset, .. } if offset.0 == 1), "{error:?}");
    assert!(error.to_string().contains("1048576"), "{error}");

    let mut skipping = consumer(&client, "bombs", strict.on_damaged(Damaged::Skip), StartAt::Earliest).await;
    assert_eq!(take(&mut skipping, 2).await, [(0, "before".to_owned()), (2, "after".to_owned())]);

    // A look-up by time that lands in it answers with the batch's own times, without inflating it whole.
    let found = client
        .admin()
        .list_offsets(&[(
            "bombs".to_owned(),
            0,
            callboard::protocol::messages::OffsetAt::Timestamp(TimestampMs(4_000)),
        )])
        .await
        .unwrap();
    assert_eq!(found[0].as_ref().unwrap().offset.map(|o| o.0), Some(1));
    serves_others(&node);
}

#[tokio::test]
async fn a_frame_of_the_largest_size_is_served_and_only_one_more_byte_is_too_much() {
    let node = Node::start_with(|config| {
        config.limits.max_frame_bytes = 64 << 10;
        config.topic_defaults.max_batch_bytes = 60 << 10;
    })
    .unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let request = || produce(topic, 0, None, Acks::All);
    let payload_bytes = |attached: usize| {
        let attachment = Attachment::from(Bytes::from(vec![0; attached]));
        encode(encode_request(&request(), CorrelationId(1), vec![attachment])).len() - 4
    };
    let room = (64 << 10) - (payload_bytes(1_000) - 1_000);
    let mut raw = RawClient::greeted(&node.address());
    raw.next_is(1);
    let error = raw.ask_with(&request(), vec![vec![0; room].into()]).unwrap();
    assert_eq!(code_of(error.0.partitions.into_iter().next().unwrap().into_result()), ErrorCode::UnsupportedFormat);
    raw.next_is(1);
    raw.send(&request(), vec![vec![0; room + 1].into()]);
    assert_eq!(raw.error().1.code, ErrorCode::FrameTooLarge);
}
