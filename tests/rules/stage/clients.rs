//! What clients ask for on the stage, and what they are told.

use std::time::Duration;

use bytes::Bytes;
use callboard::engine::leader::{DeleteRecordsEvent, FetchEvent, ListOffsetsEvent, ProduceEvent};
use callboard::engine::waiters::OwnerId;
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::{Acks, DeleteBefore, OffsetAt};
use callboard::replica::Answer;
use callboard::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use callboard::types::{Offset, ProducerEpoch, ProducerId};

use super::broker::WALL;
use super::{Reply, Stage, batches_of, values_of};

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The record is as safe as was asked for, at this offset.
    Acknowledged(u64),
    /// These records; nothing yet, when there are none.
    Read(String),
    /// The end of what is committed.
    End(u64),
    /// The log starts there now.
    StartsAt(u64),
    Refused(ErrorCode),
}

impl Stage {
    /// A plain record, to be acknowledged once all have it.
    pub fn produce(&mut self, node: u32, value: &'static str) {
        self.append(node, value, value, Acks::All, None);
    }

    /// A record that is acknowledged once the leader has written it.
    pub fn produce_to_one(&mut self, node: u32, value: &'static str) {
        self.append(node, value, value, Acks::Leader, None);
    }

    /// A record of the idempotent producer 7, under its sequence number; `name` is how its answer is told from others.
    pub fn produce_once(&mut self, node: u32, sequence: i32, value: &'static str, name: &'static str) {
        self.append(node, value, name, Acks::All, Some(sequence));
    }

    fn append(&mut self, node: u32, value: &str, name: &'static str, acks: Acks, sequence: Option<i32>) {
        let mut builder = BatchBuilder::new(Compression::None, 64);
        if let Some(sequence) = sequence {
            builder.set_producer(ProducerId(7), ProducerEpoch(0), sequence);
        }
        builder.append(WALL, None, Some(value.as_bytes()), &[]);
        let batch = RecordBatch::from_client(builder.build().expect("small")).expect("just built");
        self.with(node, |hosted, now| {
            let event = ProduceEvent {
                header: batch.header,
                batch_bytes: batch.total_bytes(),
                leader_epoch: None,
                acks,
                deadline: now.plus(Duration::from_secs(60)),
                wall: WALL,
                owner: OwnerId(1),
                reply: Reply::Client(name),
            };
            hosted.replica.on_produce(now, batch, (), event);
        });
    }

    /// A consumer asks for the records from `offset` on, and waits if there are none.
    pub fn read(&mut self, node: u32, offset: u64, name: &'static str) {
        self.with(node, |hosted, now| {
            let event = FetchEvent {
                offset: Offset(offset),
                max_bytes: 1_000,
                leader_epoch: None,
                wait_until: Some(now.plus(Duration::from_secs(60))),
                owner: OwnerId(1),
                reply: Reply::Client(name),
            };
            hosted.replica.on_fetch(now, event);
        });
    }

    /// Somebody asks how far the committed records go.
    pub fn list(&mut self, node: u32, name: &'static str) {
        self.with(node, |hosted, now| {
            let (at, owner) = (OffsetAt::Latest, OwnerId(1));
            let deadline = now.plus(Duration::from_secs(60));
            hosted.replica.on_list_offsets(now, ListOffsetsEvent { at, deadline, owner, reply: Reply::Client(name) });
        });
    }

    /// Somebody wants the records before `offset` gone.
    pub fn delete_before(&mut self, node: u32, offset: u64, name: &'static str) {
        self.with(node, |hosted, now| {
            let before = DeleteBefore::Offset(Offset(offset));
            let deadline = now.plus(Duration::from_secs(60));
            let event = DeleteRecordsEvent { before, deadline, owner: OwnerId(1), reply: Reply::Client(name) };
            hosted.replica.on_delete_records(event);
        });
    }

    /// What that client was told; `None` while it waits.
    pub fn told(&self, name: &str) -> Option<Told> {
        self.told.get(name).cloned()
    }

    pub fn acknowledged(&self, name: &str) -> bool {
        matches!(self.told(name), Some(Told::Acknowledged(_)))
    }
}

pub(super) fn told(answer: Answer, records: Bytes) -> Told {
    match answer {
        Answer::Produced(batch) => Told::Acknowledged(batch.base_offset.0),
        Answer::Fetched(_) => {
            let values: Vec<_> = batches_of(records).iter().flat_map(values_of).collect();
            Told::Read(values.join(" "))
        }
        Answer::Listed(listed) => Told::End(listed.offset.expect("the end was asked for").0),
        Answer::RecordsDeleted(start) => Told::StartsAt(start.0),
        Answer::ReplicaFetched(..) => panic!("a client is answered like a follower"),
    }
}
