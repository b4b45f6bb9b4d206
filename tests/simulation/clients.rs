//! Clients: idempotent producers, plain ones, consumers that stay with the leader or roam, and those that list and delete.

use bytes::Bytes;
use callboard::protocol::messages::Acks;
use callboard::protocol::{ApiError, ErrorCode};
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{NodeId, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

use crate::net::{Message, Place};
use crate::oracle::{Content, batches_of};
use crate::world::{Event, World};

/// After this long without an answer a client asks again.
const PATIENCE_US: u64 = 600_000;

pub struct Client {
    pub partition: TopicPartition,
    pub work: Work,
    leader: Option<NodeId>,
    replicas: Vec<NodeId>,
    request: u64,
    /// What is asked for, and when it was.
    asked: Option<u64>,
    pub is_done: bool,
}

pub enum Work {
    Produce(Producing),
    Consume(Consuming),
    List { known_end: Offset },
    Delete { before: Offset },
}

pub struct Producing {
    pub id: Option<ProducerId>,
    next_sequence: i32,
    number: u64,
    batch: Option<(Bytes, Content)>,
    pub acknowledged: u64,
}

pub struct Consuming {
    /// Reads from any replica, not from the leader only.
    roams: bool,
    pub position: Offset,
    /// What it asked for last: its position, or now and then something further on, which may not exist yet.
    asked: Offset,
    /// What was committed by then.
    end: Offset,
}

impl Client {
    fn new(partition: TopicPartition, work: Work) -> Self {
        Self { partition, work, leader: None, replicas: Vec::new(), request: 0, asked: None, is_done: false }
    }

    pub fn producer(partition: TopicPartition, id: Option<i64>) -> Self {
        let id = id.map(ProducerId);
        Self::new(partition, Work::Produce(Producing { id, next_sequence: 0, number: 0, batch: None, acknowledged: 0 }))
    }

    pub fn consumer(partition: TopicPartition, roams: bool) -> Self {
        Self::new(
            partition,
            Work::Consume(Consuming { roams, position: Offset::ZERO, asked: Offset::ZERO, end: Offset::ZERO }),
        )
    }

    pub fn lister(partition: TopicPartition) -> Self {
        Self::new(partition, Work::List { known_end: Offset::ZERO })
    }

    pub fn deleter(partition: TopicPartition) -> Self {
        Self::new(partition, Work::Delete { before: Offset::ZERO })
    }

    /// Whether a producer waits for an acknowledgement.
    pub fn is_waiting(&self) -> bool {
        matches!(&self.work, Work::Produce(producing) if producing.batch.is_some())
    }

    pub fn name(&self) -> String {
        match &self.work {
            Work::Produce(Producing { id: Some(id), .. }) => format!("producer {id}"),
            Work::Produce(_) => "a plain producer".to_owned(),
            Work::Consume(Consuming { roams: true, .. }) => "a roaming consumer".to_owned(),
            Work::Consume(_) => "a consumer".to_owned(),
            Work::List { .. } => "a lister".to_owned(),
            Work::Delete { .. } => "an administrator".to_owned(),
        }
    }
}

impl Producing {
    fn make_batch(&mut self, rng: &mut fastrand::Rng) {
        let records = rng.i32(1..4);
        let mut builder = BatchBuilder::new(Compression::None, 64);
        if let Some(id) = self.id {
            builder.set_producer(id, ProducerEpoch(0), self.next_sequence);
        }
        self.number += 1;
        for record in 0..records {
            let value = format!("{:?}-{}-{record}-{}", self.id, self.number, rng.u32(..));
            builder.append(TimestampMs(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
        }
        self.next_sequence += records;
        let mut bytes = builder.build().expect("a small batch");
        let content = RecordBatch::split_from(&mut bytes.clone()).map(|batch| Content::of(&batch)).expect("just built");
        self.batch = Some((bytes.split_to(bytes.len()), content));
    }
}

impl World {
    pub fn wake_client(&mut self, number: usize) {
        if self.plan.deleted.contains(&self.clients[number].partition.topic) {
            return;
        }
        let delay = self.rng.u64(2_000..40_000);
        self.after(delay, Event::WakeClient { client: number });
        let now = self.now;
        let client = &mut self.clients[number];
        if client.asked.is_some_and(|asked| now - asked < PATIENCE_US) {
            return;
        }
        if client.asked.take().is_some() && self.rng.bool() {
            client.leader = None;
        }
        let client = &mut self.clients[number];
        client.request += 1;
        let (request, partition) = (client.request, client.partition);
        client.asked = Some(now);
        let roams = matches!(&client.work, Work::Consume(Consuming { roams: true, .. }));
        let target = if roams && !client.replicas.is_empty() {
            Some(client.replicas[self.rng.usize(0..client.replicas.len())])
        } else {
            client.leader
        };
        let Some(target) = target else {
            let broker = self.rng.usize(0..self.brokers.len());
            return self.send(Place::Client(number), Place::Broker(broker), Message::WhoLeads { partition, request });
        };
        let Some(message) = self.next_request(number, request) else {
            self.clients[number].asked = None;
            return;
        };
        let to = Place::Broker(self.broker_of(target));
        self.send(Place::Client(number), to, message);
    }

    fn next_request(&mut self, number: usize, request: u64) -> Option<Message> {
        let is_over = self.plan.is_over;
        let client = &mut self.clients[number];
        let partition = client.partition;
        let history = self.oracle.history(partition);
        match &mut client.work {
            Work::Produce(producing) => {
                if producing.batch.is_none() {
                    if is_over {
                        client.is_done = true;
                        return None;
                    }
                    producing.make_batch(&mut self.rng);
                }
                let acks = if producing.id.is_some() { Acks::All } else { Acks::Leader };
                let (batch, _) = producing.batch.as_ref()?;
                Some(Message::Produce { partition, request, batch: batch.clone(), acks })
            }
            Work::Consume(consuming) => {
                let waits = self.rng.u64(0..4) > 0;
                let ahead = if !is_over && self.rng.u64(0..20) == 0 { self.rng.u64(1..30) } else { 0 };
                consuming.asked = consuming.position.plus(ahead);
                consuming.end = history.committed_end();
                Some(Message::Fetch { partition, request, offset: consuming.asked, waits })
            }
            Work::List { known_end } => {
                *known_end = history.known_end;
                Some(Message::List { partition, request })
            }
            Work::Delete { before } => {
                let end = history.known_end.0;
                if is_over || end < 4 || self.rng.u64(0..40) > 0 {
                    return None;
                }
                *before = Offset(self.rng.u64(0..end));
                history.deleted_before = history.deleted_before.max(*before);
                Some(Message::Delete { partition, request, before: *before })
            }
        }
    }

    pub fn deliver_to_client(&mut self, number: usize, message: Message) {
        let request = match &message {
            Message::Leads { request, .. }
            | Message::Produced { request, .. }
            | Message::Fetched { request, .. }
            | Message::Listed { request, .. }
            | Message::Deleted { request, .. } => *request,
            _ => return,
        };
        // An acknowledgement counts whenever it comes; all else is for the newest request only.
        if self.clients[number].request != request || self.clients[number].asked.is_none() {
            return;
        }
        self.clients[number].asked = None;
        match message {
            Message::Leads { leader, replicas, .. } => {
                let client = &mut self.clients[number];
                client.leader = leader;
                client.replicas = replicas;
            }
            Message::Produced { result, .. } => self.on_produced(number, result.map(|batch| batch.base_offset)),
            Message::Fetched { result: Ok((_, records)), .. } => self.on_fetched(number, records),
            Message::Fetched { result: Err(error), .. } => self.on_fetch_refused(number, &error),
            Message::Listed { result: Ok(offset), .. } => {
                let Work::List { known_end } = self.clients[number].work else { return };
                self.coverage.count("the end of a partition is listed");
                if offset < known_end {
                    let partition = self.clients[number].partition;
                    self.oracle.fail_in(
                        partition,
                        format!(
                            "the end of {partition} was listed as {offset}, after {known_end} was known to be committed"
                        ),
                    );
                }
            }
            Message::Deleted { result: Ok(_), .. } => self.coverage.count("records are deleted on request"),
            Message::Listed { result: Err(error), .. } | Message::Deleted { result: Err(error), .. } => {
                self.forget_leader(number, &error);
            }
            _ => {}
        }
    }

    fn forget_leader(&mut self, number: usize, error: &ApiError) {
        if error.code == ErrorCode::NotLeader || self.rng.u64(0..4) == 0 {
            self.clients[number].leader = None;
            self.clients[number].replicas.clear();
        }
    }

    fn on_produced(&mut self, number: usize, result: Result<Offset, ApiError>) {
        let client = &mut self.clients[number];
        let (partition, name) = (client.partition, client.name());
        let Work::Produce(producing) = &mut client.work else { return };
        match result {
            Ok(base) => {
                let Some((_, content)) = producing.batch.take() else { return };
                producing.acknowledged += 1;
                if producing.id.is_some() {
                    self.coverage.count("an acknowledgement of all");
                    self.oracle.on_acknowledged(partition, base, content, &name);
                }
            }
            Err(error) => {
                let is_lost_state = matches!(
                    error.code,
                    ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer | ErrorCode::DuplicateSequence
                );
                if producing.id.is_none() {
                    producing.batch = None;
                } else if is_lost_state && producing.acknowledged > 0 {
                    self.oracle.fail_in(partition, format!("{name} of {partition} is refused: {error}"));
                }
                self.forget_leader(number, &error);
            }
        }
    }

    fn on_fetched(&mut self, number: usize, records: Bytes) {
        let batches = batches_of(records);
        let (partition, name) = (self.clients[number].partition, self.clients[number].name());
        self.oracle.on_read(partition, &name, &batches);
        let Work::Consume(consuming) = &mut self.clients[number].work else { return };
        let Some(last) = batches.last() else { return };
        let first = batches[0].header.base_offset;
        if first > consuming.asked {
            let position = consuming.asked;
            self.oracle.fail_in(partition, format!("{name} of {partition} asked for {position} and was given {first}"));
            return;
        }
        if first <= consuming.position {
            consuming.position = consuming.position.max(last.header.end_offset_exclusive());
        }
        self.coverage.count("records are read");
    }

    fn on_fetch_refused(&mut self, number: usize, error: &ApiError) {
        let (partition, name) = (self.clients[number].partition, self.clients[number].name());
        let history = self.oracle.history(partition);
        let deleted = history.deleted_before;
        if let Work::Consume(consuming) = &mut self.clients[number].work
            && error.code == ErrorCode::OffsetOutOfRange
        {
            if consuming.asked >= deleted && consuming.asked <= consuming.end {
                let position = consuming.asked;
                self.oracle
                    .fail_in(partition, format!("{name} asked for {position} of {partition}, which exists: {error}"));
                return;
            }
            consuming.position = consuming.position.max(deleted);
        }
        self.forget_leader(number, error);
    }
}
