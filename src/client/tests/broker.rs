//! A broker in a few hundred lines: keeps batches in memory, checks sequence numbers as a node does, and misbehaves on
//! command. Several of them share what they keep, as if replication took no time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use crate::protocol::frame::{Attachment, Frame, FrameCodec, OutFrame, encode_reply};
use crate::protocol::messages::*;
use crate::protocol::{Api, ApiError, ErrorCode};
use crate::types::record_batch::{RecordBatch, decode_records};
use crate::types::*;

/// What the broker does to the next Produce or Fetch instead of serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Serves it.
    None,
    /// Answers each partition with this error, and does nothing.
    Refuse(ErrorCode),
    /// The same, with the answer held until [`FakeBroker::release`].
    RefuseHeld(ErrorCode),
    /// Does it, and closes the connection instead of answering.
    DoAndHangUp,
    /// Does nothing and closes the connection.
    HangUp,
    /// Neither does it nor answers, ever.
    Ignore,
    /// Does it; the answer waits until [`FakeBroker::release`].
    HoldAnswer,
}

/// Producer id, epoch and base sequence of a batch as it came.
pub type Stamp = (ProducerId, ProducerEpoch, i32);

#[derive(Default)]
pub struct State {
    pub topics: HashMap<String, (TopicId, Vec<Log>)>,
    pub produce_faults: VecDeque<Fault>,
    pub fetch_faults: VecDeque<Fault>,
    pub seen: Vec<Stamp>,
    pub produce_requests: usize,
    pub fetches: Vec<Fetch>,
    /// Who was asked, for each of `fetches`.
    pub fetched_at: Vec<NodeId>,
    /// Which brokers there are, as metadata lists them.
    pub brokers: BTreeMap<NodeId, BrokerAddress>,
    /// Who leads everything, and in which epoch.
    pub leader: (NodeId, LeaderEpoch),
    pub in_sync: Vec<NodeId>,
    /// Where the logs of a broker start, if they start later than those of others.
    pub starts: HashMap<NodeId, Offset>,
    pub metadata_requests: usize,
    pub connections: usize,
    pub next_producer: i64,
    pub max_frame_bytes: u32,
    /// Largest Produce in flight at once that was ever seen.
    pub in_flight: usize,
    pub most_in_flight: usize,
    pub has_leaders: bool,
    pub append_time: Option<TimestampMs>,
    pub damaged: Option<(Offset, Offset)>,
}

#[derive(Default)]
pub struct Log {
    pub start: Offset,
    pub batches: Vec<RecordBatch>,
    producers: HashMap<ProducerId, Vec<(i32, u32, Offset)>>,
}

impl Log {
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, |batch| batch.header.end_offset_exclusive())
    }

    pub fn values(&self) -> Vec<Bytes> {
        let records = self.batches.iter().filter(|batch| !batch.header.attributes.is_control());
        records.flat_map(|batch| decode_records(batch, 1 << 30).unwrap()).map(|record| record.value.unwrap()).collect()
    }

    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    fn append(&mut self, batch: RecordBatch, append_time: Option<TimestampMs>) -> Result<Offset, ErrorCode> {
        let header = batch.header;
        let records = header.record_count.cast_unsigned();
        if header.is_idempotent() {
            let known = self.producers.get(&header.producer_id);
            if let Some((_, _, offset)) = known.into_iter().flatten().find(|known| known.0 == header.base_sequence) {
                return Ok(*offset);
            }
            let next = known.and_then(|known| known.last()).map(|(sequence, count, _)| sequence + count.cast_signed());
            match next {
                None if header.base_sequence != 0 => return Err(ErrorCode::UnknownProducer),
                Some(next) if header.base_sequence != next => return Err(ErrorCode::OutOfOrderSequence),
                _ => {}
            }
        }
        let offset = self.end();
        self.batches.push(batch.stamped(offset, LeaderEpoch(1), append_time));
        self.producers.entry(header.producer_id).or_default().push((header.base_sequence, records, offset));
        Ok(offset)
    }
}

#[derive(Clone)]
pub struct FakeBroker {
    pub node: NodeId,
    address: String,
    state: Arc<Mutex<State>>,
    grown: Arc<Notify>,
    released: CancellationToken,
    dead: CancellationToken,
    hung_up: Arc<Mutex<CancellationToken>>,
}

impl FakeBroker {
    pub async fn start() -> Self {
        let leader = (NodeId(1), LeaderEpoch(1));
        let state = State { max_frame_bytes: 8 << 20, has_leaders: true, leader, ..State::default() };
        Self::listen(NodeId(1), None, Arc::new(Mutex::new(state)), Arc::default()).await
    }

    /// Another broker of the same cluster. Its replicas are in sync.
    pub async fn start_beside(&self, node: u32, rack: Option<&str>) -> Self {
        Self::listen(NodeId(node), rack, Arc::clone(&self.state), Arc::clone(&self.grown)).await
    }

    async fn listen(node: NodeId, rack: Option<&str>, state: Arc<Mutex<State>>, grown: Arc<Notify>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bound = listener.local_addr().unwrap();
        let (released, dead, hung_up) = (CancellationToken::new(), CancellationToken::new(), Arc::default());
        let broker = Self { node, address: bound.to_string(), state, grown, released, dead, hung_up };
        let host = bound.ip().to_string();
        let place = BrokerAddress { node_id: node, host, port: bound.port(), rack: rack.map(str::to_owned) };
        broker.state().brokers.insert(node, place);
        broker.state().in_sync.push(node);
        let serving = broker.clone();
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = serving.dead.run_until_cancelled(listener.accept()).await {
                serving.state().connections += 1;
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        broker
    }

    /// Closes every connection and takes none any more. Nobody else is told.
    pub fn die(&self) {
        self.dead.cancel();
        self.hang_up();
    }

    /// It leads everything from here on.
    pub fn take_over(&self) {
        let mut state = self.state();
        state.leader = (self.node, LeaderEpoch(state.leader.1.0 + 1));
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn create(&self, topic: &str, partitions: u32) {
        let logs = (0..partitions).map(|_| Log::default()).collect();
        self.state().topics.insert(topic.to_owned(), (TopicId::random(), logs));
    }

    pub fn on_produce(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().produce_faults.extend(faults);
    }

    pub fn on_fetch(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().fetch_faults.extend(faults);
    }

    pub fn values(&self, partition: usize) -> Vec<Bytes> {
        self.state().topics["rides"].1[partition].values()
    }

    /// Appends a batch as it is.
    pub fn put(&self, partition: usize, batch: Bytes) {
        let batch = RecordBatch::split_from(&mut batch.clone()).unwrap();
        self.state().topics.get_mut("rides").unwrap().1[partition].append(batch, None).unwrap();
        self.grown.notify_waiters();
    }

    /// Lets go all that is held, now and later.
    pub fn release(&self) {
        self.released.cancel();
    }

    /// Closes every connection there is.
    pub fn hang_up(&self) {
        std::mem::take(&mut *self.hung_up.lock().unwrap()).cancel();
    }

    async fn serve(self, stream: TcpStream) {
        let hung_up = self.hung_up.lock().unwrap().clone();
        let (mut sink, mut frames) = Framed::new(stream, FrameCodec::new(64 << 20)).split::<OutFrame>();
        let (replies, mut queue) = mpsc::channel::<Option<OutFrame>>(1_000);
        let writing = async {
            while let Some(Some(reply)) = queue.recv().await {
                if sink.send(reply).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            // Data is served in order, as a node serves one connection; only the answers may wait.
            while let Some(Ok(frame)) = frames.next().await {
                self.clone().on_frame(frame, replies.clone()).await;
            }
        };
        tokio::select! { () = writing => {}, () = reading => {}, () = hung_up.cancelled() => {} }
    }

    async fn on_frame(self, frame: Frame, replies: mpsc::Sender<Option<OutFrame>>) {
        let head = frame.head;
        let reply = match Api::from_number(head.api).unwrap() {
            Api::Hello => encode_reply::<Hello>(head, Ok(self.hello()), vec![]),
            Api::Metadata => encode_reply::<Metadata>(head, Ok(self.metadata(&frame.decode_body().unwrap())), vec![]),
            Api::InitProducer => encode_reply::<InitProducer>(head, Ok(self.init_producer()), vec![]),
            Api::ListOffsets => encode_reply::<ListOffsets>(head, Ok(self.list(&frame.decode_body().unwrap())), vec![]),
            Api::DescribeLogs => {
                encode_reply::<DescribeLogs>(head, Ok(self.logs(&frame.decode_body().unwrap())), vec![])
            }
            Api::Produce => return self.on_produce_frame(frame, replies).await,
            Api::Fetch => {
                tokio::spawn(self.on_fetch_frame(frame, replies));
                return;
            }
            other => OutFrame::error(head, ApiError::new(ErrorCode::UnknownApi, format!("{other:?} is not scripted"))),
        };
        let _ = replies.send(Some(reply)).await;
    }

    fn hello(&self) -> HelloReply {
        HelloReply {
            protocol: 1,
            cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
            node_id: self.node,
            software: "fake".into(),
            max_frame_bytes: self.state().max_frame_bytes,
            apis: vec![],
        }
    }

    fn metadata(&self, request: &Metadata) -> MetadataReply {
        let mut state = self.state();
        state.metadata_requests += 1;
        let names = request.topics.clone().unwrap_or_else(|| state.topics.keys().cloned().collect());
        let topics = names.into_iter().map(|name| {
            let topic = match state.topics.get(&name) {
                None => Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, "no such topic")),
                Some((id, logs)) => Ok(TopicMetadata {
                    id: *id,
                    name: TopicName::new(&name).unwrap(),
                    partitions: (0..logs.len() as u32)
                        .map(|number| PartitionMetadata {
                            partition: PartitionIndex(number),
                            leader: state.has_leaders.then_some(state.leader.0),
                            leader_epoch: state.leader.1,
                            replicas: state.brokers.keys().copied().collect(),
                            in_sync: state.in_sync.clone(),
                        })
                        .collect(),
                }),
            };
            TopicEntry { name, topic: topic.into() }
        });
        MetadataReply {
            cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
            controller: Some(self.node),
            topics: topics.collect(),
            brokers: state.brokers.values().cloned().collect(),
        }
    }

    fn init_producer(&self) -> InitProducerReply {
        let mut state = self.state();
        state.next_producer += 1;
        InitProducerReply { producer_id: ProducerId(state.next_producer), producer_epoch: ProducerEpoch(0) }
    }

    fn list(&self, request: &ListOffsets) -> ListOffsetsReply {
        let mut state = self.state();
        let answers = request.partitions.iter().map(|place| {
            let log = state.log(place.topic, place.partition)?;
            let (offset, timestamp) = match place.at {
                OffsetAt::Earliest => (Some(log.start), None),
                OffsetAt::Latest | OffsetAt::MaxTimestamp => (Some(log.end()), None),
                OffsetAt::Timestamp(time) => {
                    let records = log.batches.iter().flat_map(|batch| decode_records(batch, 1 << 20).unwrap());
                    let found = records.into_iter().find(|record| record.timestamp >= time);
                    (found.as_ref().map(|record| record.offset), found.map(|record| record.timestamp))
                }
            };
            Ok(ListedOffset { offset, timestamp, leader_epoch: LeaderEpoch(1) })
        });
        ListOffsetsReply { partitions: answers.map(Outcome::from).collect() }
    }

    fn logs(&self, request: &DescribeLogs) -> DescribeLogsReply {
        let mut state = self.state();
        let damaged: Vec<_> = state.damaged.into_iter().collect();
        let answers = request.partitions.iter().map(|(topic, partition)| {
            let log = state.log(*topic, *partition)?;
            Ok(LogDescription {
                log_start_offset: log.start,
                high_watermark: log.end(),
                durable_end_offset: log.end(),
                log_end_offset: log.end(),
                size_bytes: 0,
                segments: 1,
                leader_epoch: LeaderEpoch(1),
                damaged: damaged.clone(),
                followers: Vec::new(),
            })
        });
        DescribeLogsReply { partitions: answers.map(Outcome::from).collect() }
    }

    async fn on_produce_frame(self, frame: Frame, replies: mpsc::Sender<Option<OutFrame>>) {
        let request: Produce = frame.decode_body().unwrap();
        let fault = {
            let mut state = self.state();
            state.note(&frame.attachments);
            state.produce_faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::HangUp => return drop(replies.send(None).await),
            Fault::Ignore => return,
            _ => {}
        }
        let outcomes = match fault {
            Fault::Refuse(code) | Fault::RefuseHeld(code) => {
                request.partitions.iter().map(|_| Err(ApiError::new(code, "as scripted"))).collect()
            }
            _ => self.append(&request, frame.attachments),
        };
        if fault == Fault::DoAndHangUp {
            return drop(replies.send(None).await);
        }
        let reply = ProduceReply { partitions: outcomes.into_iter().map(Outcome::from).collect() };
        if request.acks == Acks::None {
            self.state().in_flight -= 1;
            return;
        }
        let answering = async move {
            if matches!(fault, Fault::HoldAnswer | Fault::RefuseHeld(_)) {
                self.released.cancelled().await;
            }
            self.state().in_flight -= 1;
            let _ = replies.send(Some(encode_reply::<Produce>(frame.head, Ok(reply), vec![]))).await;
        };
        tokio::spawn(answering);
    }

    fn append(&self, request: &Produce, attachments: Vec<Bytes>) -> Vec<Result<ProducedBatch, ApiError>> {
        let mut state = self.state();
        let append_time = state.append_time;
        let appended = request.partitions.iter().zip(attachments).map(|(place, bytes)| {
            let batch =
                RecordBatch::from_client(bytes).map_err(|e| ApiError::new(ErrorCode::InvalidBatch, e.to_string()))?;
            if state.leader.0 != self.node {
                return Err(ApiError::new(ErrorCode::NotLeader, "another one leads"));
            }
            let log = state.log(place.topic, place.partition)?;
            let base_offset = log.append(batch, append_time).map_err(|code| ApiError::new(code, "by sequence"))?;
            Ok(ProducedBatch { base_offset, append_time, log_start_offset: log.start })
        });
        let appended = appended.collect();
        self.grown.notify_waiters();
        appended
    }

    async fn on_fetch_frame(self, frame: Frame, replies: mpsc::Sender<Option<OutFrame>>) {
        let request: Fetch = frame.decode_body().unwrap();
        let fault = {
            let mut state = self.state();
            state.fetches.push(request.clone());
            state.fetched_at.push(self.node);
            state.fetch_faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::HangUp | Fault::DoAndHangUp => return drop(replies.send(None).await),
            Fault::Ignore => return,
            Fault::HoldAnswer | Fault::RefuseHeld(_) => self.released.cancelled().await,
            _ => {}
        }
        let waiting = tokio::time::sleep(Duration::from_millis(request.max_wait_ms.into()));
        tokio::pin!(waiting);
        loop {
            let grown = self.grown.notified();
            let (partitions, bytes) = match fault {
                Fault::Refuse(code) | Fault::RefuseHeld(code) => {
                    let refusals = request.partitions.iter().map(|_| Err(ApiError::new(code, "as scripted")).into());
                    (refusals.collect(), vec![Bytes::new(); request.partitions.len()])
                }
                _ => self.state().read(self.node, &request),
            };
            let is_over = partitions.iter().any(|outcome: &Outcome<FetchedPartition>| outcome.error.is_some())
                || bytes.iter().any(|bytes| !bytes.is_empty())
                || waiting.is_elapsed();
            if is_over {
                let attachments = bytes.into_iter().map(Attachment::from).collect();
                let reply = encode_reply::<Fetch>(frame.head, Ok(FetchReply { partitions }), attachments);
                return drop(replies.send(Some(reply)).await);
            }
            tokio::select! { () = grown => {}, () = &mut waiting => {} }
        }
    }
}

impl State {
    fn log(&mut self, topic: TopicId, partition: PartitionIndex) -> Result<&mut Log, ApiError> {
        let logs = self.topics.values_mut().find(|(id, _)| *id == topic).map(|(_, logs)| logs);
        let log = logs.and_then(|logs| logs.get_mut(partition.0 as usize));
        log.ok_or_else(|| ApiError::new(ErrorCode::UnknownTopicOrPartition, "no such topic id"))
    }

    fn note(&mut self, attachments: &[Bytes]) {
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        for bytes in attachments {
            let header = RecordBatch::from_client(bytes.clone()).expect("clients send good batches").header;
            self.seen.push((header.producer_id, header.producer_epoch, header.base_sequence));
        }
        self.produce_requests += 1;
    }

    fn read(&mut self, node: NodeId, request: &Fetch) -> (Vec<Outcome<FetchedPartition>>, Vec<Bytes>) {
        let mut left = request.max_bytes as usize;
        let mut all_bytes = Vec::new();
        let starts_at = self.starts.get(&node).copied().unwrap_or_default();
        let outcomes = request.partitions.iter().map(|wanted| {
            let mut bytes = BytesMut::new();
            let found = self.log(wanted.topic, wanted.partition).and_then(|log| {
                if wanted.offset < log.start.max(starts_at) || wanted.offset > log.end() {
                    return Err(ApiError::new(ErrorCode::OffsetOutOfRange, "out of range"));
                }
                for batch in log.batches.iter().filter(|batch| batch.header.last_offset() >= wanted.offset) {
                    let fits = bytes.len() + batch.total_bytes() <= left.min(wanted.max_bytes as usize);
                    if !fits && !bytes.is_empty() {
                        break;
                    }
                    bytes.extend_from_slice(&batch.to_vec());
                    if !fits {
                        break;
                    }
                }
                let end = log.end();
                Ok(FetchedPartition { log_start_offset: log.start, high_watermark: end, last_stable_offset: end })
            });
            left = left.saturating_sub(bytes.len());
            all_bytes.push(bytes.freeze());
            Outcome::from(found)
        });
        (outcomes.collect(), all_bytes)
    }
}
