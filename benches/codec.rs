//! The frame codec: what a frame costs on its way in and out. `cargo bench --bench codec`.
#![allow(missing_docs, reason = "criterion's macros generate public functions")]

use std::hint::black_box;

use bytes::{Buf, Bytes, BytesMut};
use callboard::protocol::frame::{Attachment, FrameCodec, OutFrame, SegmentedBuf, encode_request};
use callboard::protocol::messages::{Acks, Fetch, FetchPartition, Produce, ProducePartition};
use callboard::types::{CorrelationId, Offset, PartitionIndex, TopicId};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio_util::codec::{Decoder, Encoder};

const ATTACHMENT_BYTES: usize = 64 * 1_024;

fn topic() -> TopicId {
    "00000000000000000000000000000009".parse().expect("a UUID")
}

fn produce() -> Produce {
    let partition = ProducePartition { topic: topic(), partition: PartitionIndex(3), leader_epoch: None };
    Produce { acks: Acks::All, timeout_ms: 30_000, partitions: vec![partition] }
}

/// A batch as the broker sends it: a stamped header and the shared records.
fn attachment(body: &Bytes) -> Attachment {
    [Bytes::from_static(&[1; 61]), body.clone()].into_iter().collect()
}

fn fetch() -> Fetch {
    let partition = |n| FetchPartition {
        topic: topic(),
        partition: PartitionIndex(n),
        leader_epoch: None,
        offset: Offset(1 << 33),
        max_bytes: 1 << 20,
    };
    Fetch { max_wait_ms: 500, min_bytes: 1, max_bytes: 8 << 20, partitions: (0..3).map(partition).collect() }
}

fn on_the_wire(frame: OutFrame) -> BytesMut {
    let mut out = BytesMut::new();
    FrameCodec::new(usize::MAX).encode(frame, &mut out).expect("encodes");
    out
}

fn codec(criterion: &mut Criterion) {
    let body = Bytes::from(vec![7; ATTACHMENT_BYTES]);
    let mut group = criterion.benchmark_group("frame of 64 KiB");
    group.throughput(Throughput::Bytes(ATTACHMENT_BYTES as u64));
    let wire = on_the_wire(encode_request(&produce(), CorrelationId(70_000), vec![attachment(&body)]));
    group.bench_function("decode", |bencher| {
        let decode = |mut source: BytesMut| FrameCodec::new(16 << 20).decode(&mut source).expect("a frame");
        bencher.iter_batched(|| wire.clone(), decode, BatchSize::LargeInput);
    });
    group.bench_function("encode", |bencher| {
        let request = produce();
        let mut out = SegmentedBuf::new();
        bencher.iter(|| {
            let frame = encode_request(black_box(&request), CorrelationId(70_000), vec![attachment(&body)]);
            out.put_frame(frame).expect("fits");
            out.advance(black_box(out.remaining()));
        });
    });
    group.finish();
    let wire = on_the_wire(encode_request(&fetch(), CorrelationId(70_000), Vec::new()));
    criterion.bench_function("fetch request of 3 partitions: decode frame and body", |bencher| {
        let decode = |mut source: BytesMut| {
            let frame = FrameCodec::new(16 << 20).decode(&mut source).expect("a frame").expect("whole");
            frame.decode_body::<Fetch>().expect("a fetch request")
        };
        bencher.iter_batched(|| wire.clone(), decode, BatchSize::SmallInput);
    });
    criterion.bench_function("fetch request of 3 partitions: encode", |bencher| {
        let request = fetch();
        let mut out = SegmentedBuf::new();
        bencher.iter(|| {
            out.put_frame(encode_request(black_box(&request), CorrelationId(70_000), Vec::new())).expect("fits");
            out.advance(black_box(out.remaining()));
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
