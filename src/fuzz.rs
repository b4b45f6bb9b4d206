//! Fuzz bodies: plain functions over bytes that panic when a promise about bad input is broken. tests/fuzz.rs runs them
//! through proptest with a kept corpus, fuzz/ wraps the same functions for cargo-fuzz.
//!
//! ```text
//!   tests/corpus ─► tests/fuzz.rs (proptest: stable Rust, part of every test run) ─┐
//!   tests/corpus ─► fuzz/ (cargo-fuzz: nightly, coverage-guided) ──────────────────┴─► a body: bytes in, a panic or nothing
//! ```

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::protocol::Api;
use crate::protocol::frame::{Attachment, Frame, FrameCodec, OutFrame};
use crate::protocol::messages as m;
use crate::types::record_batch::{HEADER_BYTES, RecordBatch, decode_records};

/// Frames are the same however the stream is cut, survive encoding, and no body can do harm.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz_frame_codec(bytes: &[u8]) {
    let whole = decode_stream(bytes, bytes.len());
    let cut = decode_stream(bytes, 1 + bytes.first().map_or(0, |first| usize::from(*first % 16)));
    assert_eq!(whole, cut, "the same frames and the same error however the stream is cut");
    for frame in whole.0 {
        assert!(frame.body.len() + frame.attachments.iter().map(Bytes::len).sum::<usize>() < bytes.len());
        decode_as_every_message(&frame);
        let attachments = frame.attachments.iter().cloned().map(Attachment::from).collect();
        let again = OutFrame::new(frame.head, frame.body.to_vec(), attachments);
        let (wire_bytes, mut encoded) = (again.wire_bytes(), BytesMut::new());
        let mut codec = FrameCodec::new(bytes.len());
        codec.encode(again, &mut encoded).expect("what was decoded can be encoded");
        assert_eq!(encoded.len(), wire_bytes);
        let decoded = codec.decode(&mut encoded).expect("what was encoded can be decoded");
        assert_eq!(decoded, Some(frame));
        assert!(encoded.is_empty());
    }
}

/// All frames until the end or the first error, fed in pieces.
fn decode_stream(bytes: &[u8], piece_bytes: usize) -> (Vec<Frame>, Option<String>) {
    let mut codec = FrameCodec::new(1 << 20);
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece_bytes.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    let error = codec.decode_eof(&mut buffer).err().map(|error| error.to_string());
    (frames, error)
}

/// Decodes the body as the request and as the reply of its api; what can be decoded can be encoded and decoded again.
fn decode_as_every_message(frame: &Frame) {
    fn both<R: m::Request>(frame: &Frame) {
        again::<R>(frame);
        again::<m::Outcome<R::Reply>>(frame);
    }
    fn again<T: serde::Serialize + serde::de::DeserializeOwned>(frame: &Frame) {
        if let Ok(message) = frame.decode_body::<T>() {
            let encoded = rmp_serde::to_vec(&message).expect("what was decoded can be encoded");
            let decoded = crate::protocol::frame::decode_body::<T>(&encoded).expect("and decoded again");
            assert_eq!(rmp_serde::to_vec(&decoded).expect("encodes"), encoded);
        }
    }
    match Api::from_number(frame.head.api) {
        None | Some(Api::Hello) => both::<m::Hello>(frame),
        Some(Api::Metadata) => both::<m::Metadata>(frame),
        Some(Api::Produce) => both::<m::Produce>(frame),
        Some(Api::Fetch) => both::<m::Fetch>(frame),
        Some(Api::ListOffsets) => both::<m::ListOffsets>(frame),
        Some(Api::InitProducer) => both::<m::InitProducer>(frame),
        Some(Api::CreateTopics) => both::<m::CreateTopics>(frame),
        Some(Api::DeleteTopics) => both::<m::DeleteTopics>(frame),
        Some(Api::AlterTopics) => both::<m::AlterTopics>(frame),
        Some(Api::DescribeTopics) => both::<m::DescribeTopics>(frame),
        Some(Api::DescribeLogs) => both::<m::DescribeLogs>(frame),
        Some(Api::DescribeCluster) => both::<m::DescribeCluster>(frame),
        Some(Api::DeleteRecords) => both::<m::DeleteRecords>(frame),
        Some(Api::AddPartitions) => both::<m::AddPartitions>(frame),
        Some(Api::ReassignPartitions) => both::<m::ReassignPartitions>(frame),
        Some(Api::ElectLeaders) => both::<m::ElectLeaders>(frame),
        Some(Api::ChangeControllers) => both::<m::ChangeControllers>(frame),
        Some(Api::DescribeNode) => both::<m::DescribeNode>(frame),
    }
}

/// A batch header that is accepted says what its bytes say, and no record in it can do harm.
///
/// # Panics
/// When this does not hold.
pub fn fuzz_batch_header(bytes: &[u8]) {
    const LIMIT_BYTES: usize = 1 << 20;
    let mut rest = Bytes::copy_from_slice(bytes);
    while let Ok(batch) = RecordBatch::split_from(&mut rest) {
        let encoded = batch.to_vec();
        assert_eq!(encoded.len(), batch.header.total_bytes());
        let mut again = Bytes::from(encoded.clone());
        let parsed = RecordBatch::split_from(&mut again).expect("what was encoded can be parsed");
        assert_eq!(parsed, batch);
        assert!(again.is_empty());
        assert!(batch.header.end_offset_exclusive() >= batch.header.base_offset);
        if batch.header.check_for_append().is_ok() {
            assert!(batch.header.record_count > 0);
            assert_eq!(batch.header.last_offset_delta, batch.header.record_count - 1);
        }
        if let Ok(records) = decode_records(&batch, LIMIT_BYTES) {
            assert_eq!(records.len(), usize::try_from(batch.header.record_count).unwrap_or(0));
        }
        // With its checksum made true it gets past the client check exactly if the header's own checks allow it.
        let fixed = RecordBatch { header: batch.header.with_checksum_over(&batch.body), body: batch.body };
        let accepted = RecordBatch::from_client(fixed.to_vec().into());
        assert_eq!(accepted.is_ok(), fixed.header.check_for_append().is_ok());
        assert!(fixed.total_bytes() >= HEADER_BYTES);
    }
}

/// Any bytes can be scanned as a segment: the scan ends, passes bad places, and finds no batch beyond the end.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz_segment_scan(bytes: &[u8]) {
    let _whole_batches = crate::storage::fuzz_segment_scan(bytes);
}
