//! The Python client of docs/protocol.md talks to a node made of nothing but this crate's sockets and frames: what is
//! proven is that page, frames and sockets agree. Needs `python3`.
#![allow(missing_docs, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use callboard::net::{ByteBudget, ConnectionGate, FrameLimit, Listener, NetLimits, Reader, writer};
use callboard::protocol::Api;
use callboard::protocol::frame::{Attachment, Frame, OutFrame, encode_reply};
use callboard::protocol::messages as m;
use callboard::types::record_batch::RecordBatch;
use callboard::types::{ClusterId, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicName};
use tokio::time::timeout;

/// A node with one topic of one partition that already holds 40 records and keeps one batch more.
struct ToyNode {
    cluster: ClusterId,
    topic: TopicId,
    kept: Option<RecordBatch>,
}

impl ToyNode {
    fn answer(&mut self, frame: &Frame) -> OutFrame {
        let end =
            Offset(40 + self.kept.as_ref().map_or(0, |batch| u64::from(batch.header.record_count.unsigned_abs())));
        match Api::from_number(frame.head.api).expect("a known request") {
            Api::Hello => {
                let hello: m::Hello = frame.decode_body().expect("a hello");
                assert_eq!(hello.client_id, "mini-client");
                let apis = Api::ALL.map(Api::versions).to_vec();
                let (cluster_id, node_id, software) = (self.cluster, NodeId(7), "toy".to_owned());
                let reply =
                    m::HelloReply { protocol: 1, cluster_id, node_id, software, max_frame_bytes: 1 << 20, apis };
                encode_reply::<m::Hello>(frame.head, Ok(reply), Vec::new())
            }
            Api::Metadata => {
                let asked: m::Metadata = frame.decode_body().expect("a metadata request");
                assert_eq!(asked.topics, Some(vec!["hello".to_owned()]));
                let (leader, leader_epoch, replicas) = (Some(NodeId(7)), LeaderEpoch(3), vec![NodeId(7)]);
                let partition = PartitionIndex(0);
                let in_sync = replicas.clone();
                let partitions = vec![m::PartitionMetadata { partition, leader, leader_epoch, replicas, in_sync }];
                let name: TopicName = TopicName::new("hello").expect("a name");
                let topic = Ok(m::TopicMetadata { id: self.topic, name, partitions }).into();
                let topics = vec![m::TopicEntry { name: "hello".into(), topic }];
                let reply =
                    m::MetadataReply { cluster_id: self.cluster, controller: None, brokers: Vec::new(), topics };
                encode_reply::<m::Metadata>(frame.head, Ok(reply), Vec::new())
            }
            Api::Produce => {
                let request: m::Produce = frame.decode_body().expect("a produce request");
                assert_eq!((request.acks, request.partitions[0].topic), (m::Acks::All, self.topic));
                let batch = RecordBatch::from_client(frame.attachments[0].clone()).expect("a good batch");
                self.kept = Some(batch.stamped(Offset(40), LeaderEpoch(3), None));
                let produced =
                    m::ProducedBatch { base_offset: Offset(40), append_time: None, log_start_offset: Offset(0) };
                let reply = m::ProduceReply { partitions: vec![Ok(produced).into()] };
                encode_reply::<m::Produce>(frame.head, Ok(reply), Vec::new())
            }
            Api::Fetch => {
                let request: m::Fetch = frame.decode_body().expect("a fetch request");
                assert_eq!(request.partitions[0].offset, Offset(40));
                let log_start_offset = Offset(0);
                let state = m::FetchedPartition { log_start_offset, high_watermark: end, last_stable_offset: end };
                let reply = m::FetchReply { partitions: vec![Ok(state).into()] };
                let batches = Attachment::from(self.kept.as_ref().expect("produced before"));
                encode_reply::<m::Fetch>(frame.head, Ok(reply), vec![batches])
            }
            other => panic!("{other:?} was not expected"),
        }
    }
}

/// Serves one connection.
async fn serve(mut listener: Listener, limits: NetLimits) {
    let connection = listener.accept().await;
    let (read_half, write_half) = connection.stream.into_split();
    let limit = FrameLimit::new(&limits);
    let mut reader = Reader::new(read_half, &limits, limit.clone(), ByteBudget::new(limits.node_bytes_in_flight));
    let (replies, writer) = writer(write_half, &limits);
    tokio::spawn(writer.run());
    let mut node = ToyNode { cluster: ClusterId::random(), topic: TopicId::random(), kept: None };
    while let Ok(received) = reader.next_frame().await {
        limit.raise();
        replies.send(node.answer(&received.frame)).await.expect("the client reads");
    }
}

#[tokio::test]
async fn the_python_client_of_the_protocol_page_produces_and_fetches() {
    let limits = NetLimits::default();
    let listener = Listener::bind("127.0.0.1:0", ConnectionGate::from_limits(&limits)).await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let node = tokio::spawn(serve(listener, limits));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/mini_client.py");
    let client =
        tokio::task::spawn_blocking(move || Command::new("python3").args([program, &address, "hello"]).output());
    let output =
        timeout(Duration::from_secs(60), client).await.expect("in time").expect("joins").expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected = "node 7 toy speaks protocol 1\ntopic hello has 1 partition(s)\nappended at offset 40\n\
                    40 b'greeting' b'hello'\n41 None b'from python'\nhigh watermark 42\n";
    assert_eq!((out.as_ref(), err.as_ref()), (expected, ""));
    timeout(Duration::from_secs(60), node).await.expect("the node ends with the client").expect("no panic");
}
