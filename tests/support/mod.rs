//! The vocabulary of the stories: a client that speaks raw frames by hand, conditions with deadlines, batches, topics.

#![allow(dead_code, reason = "each story uses its part of the vocabulary")]
#![allow(clippy::disallowed_methods, reason = "stories wait for real sockets and real files")]
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

pub mod http;
pub mod proxy;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use callboard::client::{Client, ClientConfig, Consumer, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::protocol::frame::{Attachment, Frame, FrameCodec, OutFrame, decode_reply, encode_request};
use callboard::protocol::messages::{
    Acks, DescribeCluster, Fetch, FetchPartition, FetchReply, FetchedPartition, Hello, HelloReply, NewTopic, Outcome,
    Produce, ProducePartition, ProducedBatch, Request,
};
use callboard::protocol::{ApiError, ErrorCode};
use callboard::testing::Node;
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch, decode_records};
use callboard::types::{
    CorrelationId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicId,
};
use serde::de::IgnoredAny;
use tokio_util::codec::{Decoder, Encoder};

/// Longer than anything takes here, short enough to notice a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; fails with `what` after [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Like [`wait_until`], for a condition that has to ask.
pub async fn wait_until_async<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets a future take no longer than [`PATIENCE`].
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// A client of the library.
pub async fn connect(address: &str) -> Client {
    let config = ClientConfig::new(address).unknown_topic_wait(Duration::from_millis(50));
    Client::connect(config).await.expect("the node answers")
}

/// What a new topic shall be.
pub fn new_topic(name: &str, partitions: u32, settings: &[(&str, &str)]) -> NewTopic {
    let config: BTreeMap<String, String> =
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    NewTopic { name: name.to_owned(), partitions: Some(partitions), replication_factor: None, config }
}

/// Creates a topic and returns its id.
pub async fn create(client: &Client, name: &str, partitions: u32, settings: &[(&str, &str)]) -> TopicId {
    let wanted = [new_topic(name, partitions, settings)];
    let created = client.admin().create_topics(&wanted, false).await.expect("the node answers");
    created.into_iter().next().expect("one outcome").expect("created").id
}

/// Deletes a topic.
pub async fn delete(client: &Client, name: &str) -> TopicId {
    let deleted = client.admin().delete_topics(&[name.to_owned()]).await.expect("the node answers");
    deleted.into_iter().next().expect("one outcome").expect("deleted")
}

/// Sends one record a value to partition 0 with acks = all, each in a batch of its own, and waits for all.
pub async fn send_each(client: &Client, topic: &str, values: impl IntoIterator<Item = String>) {
    let producer = client.producer(ProducerConfig::default()).await.expect("a producer");
    for value in values {
        let record = OutgoingRecord::to(topic).partition(0).value(value);
        producer.send(record).await.expect("taken").await.expect("acknowledged");
    }
    producer.close().await.expect("closed");
}

/// Sends all values to partition 0 with acks = all, batched, and waits for all.
pub async fn send_all(client: &Client, topic: &str, values: impl IntoIterator<Item = String>) {
    let producer = client.producer(ProducerConfig::default()).await.expect("a producer");
    let mut deliveries = Vec::new();
    for value in values {
        let record = OutgoingRecord::to(topic).partition(0).value(value);
        deliveries.push(producer.send(record).await.expect("taken"));
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
    producer.close().await.expect("closed");
}

/// A consumer of partition 0.
pub async fn consumer(client: &Client, topic: &str, config: ConsumerConfig, from: StartAt) -> Consumer {
    let mut consumer = client.consumer(config).await.expect("a consumer");
    consumer.assign(topic, Some(vec![0]), from).await.expect("assigned");
    consumer
}

/// The next `count` records: offset and value.
pub async fn take(consumer: &mut Consumer, count: usize) -> Vec<(u64, String)> {
    let mut records = Vec::new();
    while records.len() < count {
        let record = soon("the next record", consumer.recv()).await.expect("a record");
        records.push((record.offset.0, text(&record.value.unwrap_or_default())));
    }
    records
}

/// All that partition 0 of `topic` holds: offset and value.
pub async fn read_all(client: &Client, topic: &str) -> Vec<(u64, String)> {
    let described = client.admin().describe_logs(&[(topic.to_owned(), 0)]).await.expect("the node answers");
    let log = described.into_iter().next().expect("one outcome").expect("described");
    let mut reader = consumer(client, topic, ConsumerConfig::default(), StartAt::Earliest).await;
    let count = log.high_watermark.0 - log.log_start_offset.0;
    take(&mut reader, count as usize).await
}

/// Numbered values.
pub fn numbered(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, format!("value {n}"))).collect()
}

/// The values of [`numbered`].
pub fn values(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("value {n}"))
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A plain batch of one record a value.
pub fn batch(values: &[&str]) -> Bytes {
    compressed_batch(Compression::None, values)
}

/// A batch of one record a value.
pub fn compressed_batch(compression: Compression, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 64);
    values.iter().for_each(|value| builder.append(TimestampMs(1_000), None, Some(value.as_bytes()), &[]));
    builder.build().expect("small")
}

/// A batch of an idempotent producer.
pub fn sequenced_batch(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 64);
    builder.set_producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
    values.iter().for_each(|value| builder.append(TimestampMs(1_000), None, Some(value.as_bytes()), &[]));
    builder.build().expect("small")
}

/// A directory that goes with the story.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(format!("callboard-story-{}", uuid::Uuid::new_v4().as_simple())))
    }
}

impl std::ops::Deref for Directory {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed is the temporary directory's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The directories of a topic's partitions in a data directory, those on their way out included.
pub fn partition_dirs(data_dir: &Path, topic: TopicId) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir).expect("a data directory").map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| text_of(path).contains(&topic.to_string())).collect();
    found.sort();
    found
}

fn text_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The segment files of a partition's directory, oldest first.
pub fn segments(partition: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(partition).expect("a partition").map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    found.sort();
    found
}

/// What came over a raw connection.
#[derive(Debug)]
pub enum Heard {
    /// A frame.
    Frame(Frame),
    /// The node closed the connection.
    Closed,
    /// Nothing in time.
    Silence,
}

/// A client that speaks frames by hand. Every wait has a deadline.
pub struct RawClient {
    socket: TcpStream,
    received: BytesMut,
    next_id: u32,
}

impl RawClient {
    /// Connects and says nothing.
    pub fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).expect("the node listens");
        socket.set_nodelay(true).unwrap();
        Self { socket, received: BytesMut::new(), next_id: 1 }
    }

    /// Connects and says hello.
    pub fn greeted(address: &str) -> Self {
        let mut client = Self::connect(address);
        client.hello().expect("welcome");
        client
    }

    pub fn hello(&mut self) -> Result<HelloReply, ApiError> {
        self.ask(&hello("story"))
    }

    /// Sends bytes as they are. A node that has hung up already is not this client's problem.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends a payload with its true length.
    pub fn send_payload(&mut self, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(payload);
        self.send_bytes(&frame);
    }

    /// Sends a request and returns the id that its answer will carry.
    pub fn send<R: Request>(&mut self, request: &R, attachments: Vec<Bytes>) -> CorrelationId {
        let id = CorrelationId(self.next_id);
        self.next_id += 1;
        let bytes = encode(encode_request(request, id, attachments.into_iter().map(Attachment::from).collect()));
        self.send_bytes(&bytes);
        id
    }

    /// The next request gets this id.
    pub fn next_is(&mut self, id: u32) {
        self.next_id = id;
    }

    /// Closes the sending direction.
    pub fn hang_up(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// What comes next, within `patience`.
    pub fn hear_within(&mut self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        let mut codec = FrameCodec::for_replies(256 << 20);
        loop {
            if let Some(frame) = codec.decode(&mut self.received).expect("the node sends well-formed frames") {
                return Heard::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 64 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Heard::Closed,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A reset is how a connection looks that was closed while bytes of this side were unread.
                Err(_) => return Heard::Closed,
            }
        }
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        match self.hear_within(PATIENCE) {
            Heard::Frame(frame) => frame,
            other => panic!("a frame was due, there is {other:?}"),
        }
    }

    /// Asks and waits for the answer, without attachments.
    pub fn ask<R: Request>(&mut self, request: &R) -> Result<R::Reply, ApiError> {
        self.ask_with(request, Vec::new()).map(|(reply, _)| reply)
    }

    /// Asks with attachments and waits for the answer and its attachments.
    pub fn ask_with<R: Request>(
        &mut self,
        request: &R,
        attachments: Vec<Bytes>,
    ) -> Result<(R::Reply, Vec<Bytes>), ApiError> {
        let id = self.send(request, attachments);
        let frame = self.frame();
        assert_eq!(frame.head.correlation_id, id);
        Ok((decode_reply::<R>(&frame)?, frame.attachments))
    }

    /// The next frame, which is an error, and the id it came under.
    pub fn error(&mut self) -> (CorrelationId, ApiError) {
        let frame = self.frame();
        let outcome: Outcome<IgnoredAny> = frame.decode_body().expect("a reply's body");
        (frame.head.correlation_id, outcome.error.expect("an error"))
    }

    /// Waits for the node to close the connection, with nothing more said.
    pub fn expect_closed(&mut self) {
        match self.hear_within(PATIENCE) {
            Heard::Closed => {}
            other => panic!("the connection should be closed, there is {other:?}"),
        }
    }

    /// Nothing comes for a while.
    pub fn expect_silence(&mut self, for_this_long: Duration) {
        match self.hear_within(for_this_long) {
            Heard::Silence => {}
            other => panic!("silence was due, there is {other:?}"),
        }
    }

    /// Appends one batch to partition 0 with acks = all.
    pub fn produce(&mut self, topic: TopicId, batch: Bytes) -> Result<ProducedBatch, ApiError> {
        let (reply, _) = self.ask_with(&produce(topic, 0, None, Acks::All), vec![batch])?;
        reply.partitions.into_iter().next().expect("one outcome").into_result()
    }

    /// Reads partition 0 at once: the state, and the records' offsets and values.
    pub fn fetch(&mut self, topic: TopicId, offset: u64) -> Result<(FetchedPartition, Vec<(u64, String)>), ApiError> {
        let (reply, attachments): (FetchReply, _) = self.ask_with(&fetch(topic, 0, offset), Vec::new())?;
        let state = reply.partitions.into_iter().next().expect("one outcome").into_result()?;
        let records = records_in(&attachments[0]).into_iter().filter(|record| record.0 >= offset).collect();
        Ok((state, records))
    }
}

/// The records in an attachment: offset and value.
pub fn records_in(attachment: &Bytes) -> Vec<(u64, String)> {
    let mut bytes = attachment.clone();
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let batch = RecordBatch::split_from(&mut bytes).expect("whole batches");
        let decoded = decode_records(&batch, 1 << 20).expect("readable records");
        records.extend(decoded.into_iter().map(|r| (r.offset.0, text(&r.value.unwrap_or_default()))));
    }
    records
}

/// A greeting.
pub fn hello(client_id: &str) -> Hello {
    Hello { protocol_min: 1, protocol_max: 1, client_id: client_id.to_owned(), software: "a story".to_owned() }
}

/// A request to append one batch.
pub fn produce(topic: TopicId, partition: u32, leader_epoch: Option<u32>, acks: Acks) -> Produce {
    let leader_epoch = leader_epoch.map(LeaderEpoch);
    let entry = ProducePartition { topic, partition: PartitionIndex(partition), leader_epoch };
    Produce { acks, timeout_ms: 10_000, partitions: vec![entry] }
}

/// A request to read a mebibyte at once.
pub fn fetch(topic: TopicId, partition: u32, offset: u64) -> Fetch {
    let entry = FetchPartition {
        topic,
        partition: PartitionIndex(partition),
        leader_epoch: None,
        offset: Offset(offset),
        max_bytes: 1 << 20,
    };
    Fetch { max_wait_ms: 0, min_bytes: 1, max_bytes: 1 << 20, partitions: vec![entry] }
}

/// A frame as bytes.
pub fn encode(frame: OutFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::for_replies(256 << 20).encode(frame, &mut bytes).expect("encodable");
    bytes
}

/// Another client still gets what it asks for.
pub fn serves_others(node: &Node) {
    serves_others_at(&node.address());
}

/// As [`serves_others`].
pub fn serves_others_at(address: &str) {
    let mut other = RawClient::greeted(address);
    other.ask(&DescribeCluster {}).expect("the node serves others");
}

/// The code of the only outcome.
pub fn code_of<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ErrorCode {
    result.expect_err("a refusal").code
}
