//! The stage of the rules: real replicas over real logs on virtual disks, a controller, and messages that only the test delivers.
//!
//! ```text
//!   stage.produce(1, "a")     broker 1 is asked to append a record
//!   stage.write(1)  sync(1)   its log does what it was told; its disk makes it last
//!   stage.fetch(2)            broker 2 and its leader exchange fetches and answers, until both wait for something else
//!   stage.ask(2)  answer(2)   only the fetches, only the answers
//!   stage.decide_for(1)       the controller decides what leader 1 has proposed
//!   stage.metadata(2)         broker 2 learns what was decided
//!   stage.settle()            everybody does everything, until nothing is left to do
//! ```
//!
//! Brokers 1, 2 and 3 hold the only partition, [`P0`]; broker 4 is there too. Every record has one letter or word, its value;
//! `stage.log(2)` shows them with their leader epochs: `a@0 b@1`.

mod broker;
mod clients;
mod control;
mod machines;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use callboard::engine::controller::LeaseTable;
use callboard::engine::follower::ReplicaFetched;
use callboard::engine::leader::{Proposal, ReplicaFetchEvent};
use callboard::engine::metadata::{ClusterImage, MetadataRecord};
use callboard::engine::replication::{FetchId, ReplicaFetch};
use callboard::replica::Answer;
use callboard::storage::queue::LogWork;
use callboard::types::record_batch::{RecordBatch, decode_records};
use callboard::types::{MonoTime, NodeId, Offset, PartitionIndex, TopicConfig, TopicId, TopicPartition};

pub use broker::{Broker, Hosted, Process};
use broker::{Sent, Verdict};
pub use clients::Told;
use clients::told;

/// The partition that the rules are told with.
pub const P0: TopicPartition =
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), partition: PartitionIndex(0) };

/// Whom a replica answers.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Client(&'static str),
    Follower(NodeId, FetchId),
}

/// How long a leader lets a fetch of a follower wait.
const FETCH_WAIT: Duration = Duration::from_millis(200);

enum Mail {
    Fetch { leader: NodeId, fetch: ReplicaFetch, may_wait: bool },
    Answer { to: NodeId, id: FetchId, verdict: Verdict, records: Bytes },
}

impl Mail {
    fn follower(&self) -> NodeId {
        match self {
            Self::Fetch { fetch, .. } => fetch.replica,
            Self::Answer { to, .. } => *to,
        }
    }
}

pub struct Stage {
    pub now: MonoTime,
    /// What the controller knows.
    pub image: ClusterImage,
    entries: Vec<Vec<MetadataRecord>>,
    leases: LeaseTable,
    pub defaults: TopicConfig,
    brokers: BTreeMap<u32, Broker>,
    mail: Vec<Mail>,
    proposals: Vec<(NodeId, Proposal)>,
    told: BTreeMap<&'static str, Told>,
    silent: BTreeSet<u32>,
}

impl Stage {
    pub fn broker(&self, node: u32) -> &Broker {
        &self.brokers[&node]
    }

    pub fn process(&mut self, node: u32) -> Option<&mut Process> {
        self.brokers.get_mut(&node)?.process.as_mut()
    }

    pub fn hosted(&mut self, node: u32) -> Option<&mut Hosted> {
        self.process(node)?.replicas.get_mut(&P0)
    }

    /// Lets the replica of a broker do something, and sends what it wants sent.
    pub fn with(&mut self, node: u32, event: impl FnOnce(&mut Hosted, MonoTime)) {
        let now = self.now;
        let Some(hosted) = self.hosted(node) else { return };
        event(hosted, now);
        let sent = hosted.pump(now);
        let is_damaged = hosted.replica.is_damaged();
        self.process(node).into_iter().for_each(|process| process.engine.on_damage(P0, is_damaged));
        for item in sent {
            match item {
                Sent::Fetch { leader, fetch, may_wait } => self.mail.push(Mail::Fetch { leader, fetch, may_wait }),
                Sent::Propose(proposal) => self.proposals.push((NodeId(node), proposal)),
                Sent::Answer(Reply::Client(name), result, records) => {
                    let told = result.map_or_else(|error| Told::Refused(error.code), |answer| told(answer, records));
                    self.told.insert(name, told);
                }
                Sent::Answer(Reply::Follower(to, id), result, records) => {
                    let verdict = result.map(|answer| match answer {
                        Answer::ReplicaFetched(verdict, state) => (verdict, state),
                        other => panic!("a follower is answered with {other:?}"),
                    });
                    self.mail.push(Mail::Answer { to, id, verdict, records });
                }
            }
        }
    }

    // What brokers do.

    /// Its log writes, cuts and deletes what it was told to. Nothing of that is synced but by what has to sync for itself.
    pub fn write(&mut self, node: u32) {
        let mut worked = true;
        while worked {
            worked = false;
            self.with(node, |hosted, now| worked = hosted.work(now, false));
        }
    }

    /// Its disk makes last what was written before.
    pub fn sync(&mut self, node: u32) {
        self.with(node, |hosted, now| {
            hosted.work(now, true);
        });
        self.write(node);
    }

    /// The kernel writes out what it holds, without being asked.
    pub fn write_out(&mut self, node: u32) {
        self.with(node, |hosted, _| hosted.want_sync());
        self.sync(node);
    }

    /// Its fetches reach the leader that they are meant for.
    pub fn ask(&mut self, node: u32) {
        for mail in self.take_mail(|mail| matches!(mail, Mail::Fetch { .. }) && mail.follower() == NodeId(node)) {
            let Mail::Fetch { leader, fetch, may_wait } = mail else { continue };
            self.deliver(leader, fetch, may_wait);
        }
    }

    fn deliver(&mut self, leader: NodeId, fetch: ReplicaFetch, may_wait: bool) {
        self.with(leader.0, |hosted, now| {
            let wait_until = may_wait.then(|| now.plus(FETCH_WAIT));
            let reply = Reply::Follower(fetch.replica, fetch.id());
            hosted.replica.on_replica_fetch(now, ReplicaFetchEvent { fetch, wait_until, reply });
        });
    }

    /// The answers of its leader reach it.
    pub fn answer(&mut self, node: u32) {
        for mail in self.take_mail(|mail| matches!(mail, Mail::Answer { .. }) && mail.follower() == NodeId(node)) {
            let Mail::Answer { id, verdict, records, .. } = mail else { continue };
            let batches = batches_of(records);
            let headers = batches.iter().map(|batch| batch.header).collect();
            let batches = batches.into_iter().map(|batch| (batch, ())).collect();
            self.with(node, |hosted, now| {
                hosted.replica.on_fetched(now, ReplicaFetched { id, result: verdict, headers }, batches);
            });
        }
    }

    /// What its leader has sent to it is damaged on the way.
    pub fn damage_answer(&mut self, node: u32) {
        for mail in &mut self.mail {
            if let Mail::Answer { to, records, .. } = mail
                && *to == NodeId(node)
            {
                let mut damaged = records.to_vec();
                damaged.last_mut().into_iter().for_each(|byte| *byte ^= 1);
                *records = damaged.into();
            }
        }
    }

    /// The broker and its leader talk until both wait for something else.
    pub fn fetch(&mut self, node: u32) {
        for _ in 0..100 {
            if !self.mail.iter().any(|mail| mail.follower() == NodeId(node)) {
                return;
            }
            self.ask(node);
            self.answer(node);
        }
        panic!("broker {node} and its leader talk for ever");
    }

    /// What broker `node` has under way to its leader is held up; the test delivers it later, or never.
    pub fn hold_fetch(&mut self, node: u32) -> (NodeId, ReplicaFetch) {
        let held = self.take_mail(|mail| matches!(mail, Mail::Fetch { .. }) && mail.follower() == NodeId(node));
        match held.into_iter().next_back() {
            Some(Mail::Fetch { leader, fetch, .. }) => (leader, fetch),
            _ => panic!("broker {node} has no fetch under way"),
        }
    }

    /// What was held up arrives after all.
    pub fn release(&mut self, (leader, fetch): (NodeId, ReplicaFetch)) {
        self.deliver(leader, fetch, false);
    }

    fn take_mail(&mut self, is_wanted: impl Fn(&Mail) -> bool) -> Vec<Mail> {
        let (wanted, rest) = std::mem::take(&mut self.mail).into_iter().partition(is_wanted);
        self.mail = rest;
        wanted
    }

    /// One round of replication: broker `node` takes what its leader has, writes it, syncs it, and says so.
    pub fn replicate(&mut self, node: u32) {
        self.fetch(node);
        self.write(node);
        self.sync(node);
        self.fetch(node);
    }

    /// Broker 1, which leads, is sent a record, writes it and syncs it.
    pub fn leader_appends(&mut self, value: &'static str) {
        self.produce(1, value);
        self.write(1);
        self.sync(1);
    }

    /// The same, and brokers 2 and 3 copy it and say so: it is committed, and they have not been told yet.
    pub fn commit_unheard(&mut self, value: &'static str) {
        self.leader_appends(value);
        for node in [2, 3] {
            self.fetch(node);
            self.write(node);
            self.sync(node);
            self.ask(node);
        }
    }

    /// Everybody does everything: logs, fetches, proposals, metadata.
    pub fn settle(&mut self) {
        let nodes: Vec<_> = self.brokers.keys().copied().collect();
        for _ in 0..12 {
            for node in &nodes {
                self.metadata(*node);
                self.write(*node);
                self.sync(*node);
                self.decide_for(*node);
            }
            nodes.iter().for_each(|node| self.fetch(*node));
        }
    }

    /// Writes down how far its log can be trusted, and its watermark.
    pub fn checkpoint(&mut self, node: u32) {
        self.with(node, |hosted, _| {
            let watermark = hosted.watermark();
            hosted.push(LogWork::Checkpoint(watermark));
        });
        self.write(node);
    }

    /// Looks its log through for damage.
    pub fn scrub(&mut self, node: u32) {
        self.with(node, |hosted, _| hosted.push(LogWork::Scrub(Offset::ZERO)));
        self.write(node);
    }

    /// Where its log ends, readable or not.
    pub fn log_end(&mut self, node: u32) -> u64 {
        self.hosted(node).expect("a replica").reader.written_end().0
    }

    pub fn is_damaged(&mut self, node: u32) -> bool {
        self.hosted(node).is_some_and(|hosted| hosted.replica.is_damaged())
    }

    /// Time passes, and everybody notices. Brokers that are not silent renew their leases meanwhile.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.plus(Duration::from_millis(ms));
        for node in self.brokers.keys().copied().collect::<Vec<_>>() {
            if !self.silent.contains(&node) {
                self.renew(node);
            }
            self.with(node, |hosted, now| hosted.replica.on_tick(now));
        }
    }

    // What can be seen.

    /// The records that a broker has written, each with its leader epoch.
    pub fn log(&mut self, node: u32) -> String {
        let reader = self.hosted(node).expect("a replica").reader.clone();
        let (mut next, end) = (reader.log_start(), reader.written_end());
        let mut words = Vec::new();
        while next < end {
            let slice = reader.read(next, end, 1 << 16).expect("readable");
            for batch in batches_of(slice.bytes) {
                let epoch = batch.header.leader_epoch;
                words.extend(values_of(&batch).into_iter().map(|value| format!("{value}@{epoch}")));
            }
            next = slice.next;
        }
        words.join(" ")
    }

    pub fn watermark(&mut self, node: u32) -> u64 {
        self.hosted(node).expect("a replica").watermark().0
    }

    /// (log start, watermark, durable end, written end)
    pub fn cursors(&mut self, node: u32) -> (u64, u64, u64, u64) {
        let cursors = *self.hosted(node).expect("a replica").replica.cursors().expect("a role");
        let ends = (cursors.durable_end().0, cursors.written_end().0);
        (cursors.log_start().0, cursors.high_watermark().0, ends.0, ends.1)
    }

    pub fn leads(&mut self, node: u32) -> bool {
        self.hosted(node).is_some_and(|hosted| hosted.replica.leader().is_some())
    }

    pub fn is_offline(&mut self, node: u32) -> bool {
        self.hosted(node).is_some_and(|hosted| hosted.offline.is_some())
    }
}

fn batches_of(mut bytes: Bytes) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        batches.push(RecordBatch::split_from(&mut bytes).expect("whole batches"));
    }
    batches
}

fn values_of(batch: &RecordBatch) -> Vec<String> {
    let records = decode_records(batch, 1 << 16).expect("decodes");
    let text = |value: Option<Bytes>| String::from_utf8(value.unwrap_or_default().to_vec()).expect("words");
    records.into_iter().map(|record| text(record.value)).collect()
}
