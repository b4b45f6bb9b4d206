//! The other side of the client's benchmark: a server in blocking code that acknowledges what it is sent, keeps nothing, and
//! answers each fetch at once with batches that it made before. What the client costs is then all that a profile shows.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::{Buf, BytesMut};
use callboard::protocol::frame::{Attachment, Frame, OutFrame, SegmentedBuf, encode_reply};
use callboard::protocol::messages::*;
use callboard::protocol::{Api, ApiError, ErrorCode};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::*;

/// What every fetch is answered with, until `max_bytes`.
#[derive(Clone)]
pub struct Template {
    batch: RecordBatch,
}

impl Template {
    /// A batch of `records` values of `value_bytes`, each different.
    pub fn new(records: usize, value_bytes: usize) -> Self {
        let mut builder = BatchBuilder::new(Compression::None, records * (value_bytes + 16));
        let mut value = vec![b'x'; value_bytes];
        for number in 0..records {
            value[..8].copy_from_slice(&number.to_be_bytes());
            builder.append(TimestampMs(1_700_000_000_000), None, Some(&value), &[]);
        }
        let batch = RecordBatch::from_client(builder.build().expect("small enough")).expect("a good batch");
        Self { batch }
    }
}

/// Serves each connection on a thread of its own.
pub fn serve(listener: &TcpListener, template: &Template) {
    let address = listener.local_addr().expect("bound");
    for stream in listener.incoming() {
        let (stream, template) = (stream.expect("a connection"), template.clone());
        let port = address.port();
        std::thread::spawn(move || serve_one(stream, &template, port));
    }
}

fn serve_one(mut stream: TcpStream, template: &Template, port: u16) {
    stream.set_nodelay(true).expect("tcp");
    let (mut payload, mut length) = (BytesMut::new(), [0; 4]);
    while stream.read_exact(&mut length).is_ok() {
        payload.resize(u32::from_be_bytes(length) as usize, 0);
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        let frame = Frame::decode(&payload.split().freeze(), usize::MAX).expect("the client sends frames");
        let mut out = SegmentedBuf::new();
        out.put_frame(answer(&frame, template, port)).expect("not that large");
        drop(frame);
        while out.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = out.chunks_vectored(&mut slices);
            match stream.write_vectored(&slices[..count]) {
                Ok(written) => out.advance(written),
                Err(_) => return,
            }
        }
    }
}

fn answer(frame: &Frame, template: &Template, port: u16) -> OutFrame {
    let (head, nothing) = (frame.head, Vec::new());
    match Api::from_number(head.api) {
        Some(Api::Hello) => encode_reply::<Hello>(head, Ok(hello()), nothing),
        Some(Api::Metadata) => {
            let asked: Metadata = frame.decode_body().expect("a request");
            encode_reply::<Metadata>(head, Ok(metadata(asked, port)), nothing)
        }
        Some(Api::InitProducer) => {
            let reply = InitProducerReply { producer_id: ProducerId(1), producer_epoch: ProducerEpoch(0) };
            encode_reply::<InitProducer>(head, Ok(reply), nothing)
        }
        Some(Api::Produce) => {
            let asked: Produce = frame.decode_body().expect("a request");
            let produced =
                ProducedBatch { base_offset: Offset::ZERO, append_time: None, log_start_offset: Offset::ZERO };
            let partitions = asked.partitions.iter().map(|_| Ok(produced).into()).collect();
            encode_reply::<Produce>(head, Ok(ProduceReply { partitions }), nothing)
        }
        Some(Api::Fetch) => {
            let asked: Fetch = frame.decode_body().expect("a request");
            let (partitions, attachments) = asked.partitions.iter().map(|place| fetched(place, template)).unzip();
            encode_reply::<Fetch>(head, Ok(FetchReply { partitions }), attachments)
        }
        other => OutFrame::error(head, ApiError::new(ErrorCode::UnknownApi, format!("{other:?} is not served"))),
    }
}

fn fetched(place: &FetchPartition, template: &Template) -> (Outcome<FetchedPartition>, Attachment) {
    let mut attachment = Attachment::new();
    let mut batch = template.batch.clone();
    batch.header.base_offset = place.offset;
    while attachment.is_empty() || attachment.len() + batch.total_bytes() <= place.max_bytes as usize {
        attachment.push_batch(&batch);
        batch.header.base_offset = batch.header.end_offset_exclusive();
    }
    let end = batch.header.base_offset;
    let state = FetchedPartition { log_start_offset: Offset::ZERO, high_watermark: end, last_stable_offset: end };
    (Ok(state).into(), attachment)
}

fn hello() -> HelloReply {
    HelloReply {
        protocol: 1,
        cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
        node_id: NodeId(1),
        software: "sink".into(),
        max_frame_bytes: 64 << 20,
        apis: Vec::new(),
    }
}

fn metadata(asked: Metadata, port: u16) -> MetadataReply {
    let topics = asked.topics.unwrap_or_default().into_iter().map(|name| {
        let partition = PartitionMetadata {
            partition: PartitionIndex(0),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(0),
            replicas: vec![NodeId(1)],
            in_sync: vec![NodeId(1)],
        };
        let id = TopicId(uuid::Uuid::from_u128(9));
        let topic = TopicMetadata { id, name: TopicName::new(&name).expect("a name"), partitions: vec![partition] };
        TopicEntry { name, topic: Ok(topic).into() }
    });
    MetadataReply {
        cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
        controller: Some(NodeId(1)),
        topics: topics.collect(),
        brokers: vec![BrokerAddress { node_id: NodeId(1), host: "127.0.0.1".into(), port, rack: None }],
    }
}

/// A bare echo of `bytes` at a time, for the ping-pong.
pub fn echo(listener: &TcpListener, bytes: usize) {
    let mut buffer = vec![0; bytes];
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("tcp");
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer[..32]).is_ok() {}
    }
}
