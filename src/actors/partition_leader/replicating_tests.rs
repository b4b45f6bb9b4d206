//! Two replicas of a partition, each with its real log writer on a virtual disk of its own; between them a wire that can be cut,
//! and where the controller would be, its image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::oneshot;

use super::super::*;
use super::*;
use crate::actors::send::{post, post_to};
use crate::actors::test_support::{DiskThread, Ear, batch, new_log, replica_settings};
use crate::engine::assignment::Assignment;
use crate::engine::controller::test_support::{Cluster, P0, nodes};
use crate::engine::controller::{DamageOutcome, fence, report_damaged, unfence};
use crate::engine::follower::ReplicaFetched;
use crate::engine::producer_state::ProducerTable;
use crate::engine::replication::FetchId;
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::Acks;
use crate::protocol::{ApiError, ErrorCode};
use crate::storage::ScrubbedPart;
use crate::storage::disk::VirtualDisk;
use crate::types::record_batch::RecordBatch;
use crate::types::{Clock, CorrelationId, MonoTime, NodeId, Offset, SystemClock, TopicName};

const ME: OwnerId = OwnerId(1);
const OF_FOLLOWERS: OwnerId = OwnerId(2);

/// Carries fetches to leaders and answers back, as a link between nodes does.
struct Wire {
    ends: BTreeMap<NodeId, Addr<PartitionLeader>>,
    is_cut: bool,
    asked: BTreeMap<u64, (FetchId, actix::Recipient<LeaderAnswered>)>,
    clock: SystemClock,
}

impl Actor for Wire {
    type Context = Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
enum Rewire {
    Plug(NodeId, Addr<PartitionLeader>),
    Cut(bool),
}

impl Handler<Rewire> for Wire {
    type Result = ();
    fn handle(&mut self, change: Rewire, _: &mut Self::Context) {
        match change {
            Rewire::Plug(node, address) => drop(self.ends.insert(node, address)),
            Rewire::Cut(is_cut) => self.is_cut = is_cut,
        }
    }
}

impl Handler<FetchFromLeader> for Wire {
    type Result = ();
    fn handle(&mut self, message: FetchFromLeader, ctx: &mut Self::Context) {
        let FetchFromLeader { leader, fetch, may_wait, answer_to, .. } = message;
        let Some(leader) = self.ends.get(&leader).filter(|_| !self.is_cut) else {
            return refuse(&answer_to, fetch.id());
        };
        let request = self.asked.len() as u64;
        self.asked.insert(request, (fetch.id(), answer_to));
        let answers = Arc::new(actix::AsyncContext::address(ctx).recipient());
        let tag = RequestTag { connection: OF_FOLLOWERS, correlation: CorrelationId(0), request, item: 0 };
        let wait_until = may_wait.then(|| self.clock.now().plus(Duration::from_millis(500)));
        post(leader, FetchForFollower { fetch, wait_until, reply: ReplyTo::new(answers, tag) });
    }
}

impl Handler<PartitionAnswer> for Wire {
    type Result = ();
    fn handle(&mut self, PartitionAnswer { tag, result }: PartitionAnswer, _: &mut Self::Context) {
        let (id, answer_to) = self.asked[&tag.request].clone();
        let (result, batches) = match result {
            Ok(Answer::ForFollower(RecordsForFollower { verdict, state, chunks })) => {
                (Ok((verdict, state)), batches_of(&chunks.concat()))
            }
            Ok(other) => panic!("records for a follower were due, there is {other:?}"),
            Err(error) => (Err(error), Vec::new()),
        };
        let headers = batches.iter().map(|batch| batch.header).collect();
        let batches = batches.into_iter().map(|batch| (batch, None)).collect();
        if self.is_cut {
            return refuse(&answer_to, id);
        }
        post_to(&answer_to, LeaderAnswered { fetched: ReplicaFetched { id, result, headers }, batches });
    }
}

/// The connection is lost.
fn refuse(answer_to: &actix::Recipient<LeaderAnswered>, id: FetchId) {
    let result = Err(ApiError::new(ErrorCode::NotLeader, "cut"));
    let fetched = ReplicaFetched { id, result, headers: Vec::new() };
    post_to(answer_to, LeaderAnswered { fetched, batches: Vec::new() });
}

fn batches_of(bytes: &[u8]) -> Vec<RecordBatch> {
    let mut bytes = bytes::Bytes::copy_from_slice(bytes);
    std::iter::from_fn(|| (!bytes.is_empty()).then(|| RecordBatch::split_from(&mut bytes).expect("whole"))).collect()
}

struct Member {
    disk: VirtualDisk,
    replica: Addr<PartitionLeader>,
    reports: Ear<ReplicaReport>,
}

struct Pair {
    cluster: Cluster,
    wire: Addr<Wire>,
    members: BTreeMap<NodeId, Member>,
    session: Ear<PartitionAnswer>,
    answers_to: Arc<actix::Recipient<PartitionAnswer>>,
    clock: SystemClock,
    _thread: DiskThread,
}

impl Pair {
    /// Broker 1 leads, broker 2 follows.
    fn new() -> Self {
        Self::with_cache(1 << 20)
    }

    fn with_cache(cache_bytes: usize) -> Self {
        let cluster = Cluster::with_partition(2, &nodes([1, 2]), &[]);
        let (clock, thread, session) = (SystemClock::start(), DiskThread::start(), Ear::new());
        let wire = Wire { ends: BTreeMap::new(), is_cut: false, asked: BTreeMap::new(), clock }.start();
        let mut members = BTreeMap::new();
        for node in nodes([1, 2]) {
            let (disk, reports) = (VirtualDisk::new(u64::from(node.0)), Ear::new());
            let config = cluster.defaults.clone();
            let log = new_log(&disk, &config);
            let settings =
                PartitionLeaderSettings { clock: Arc::new(clock), ..replica_settings(node, &thread, cache_bytes) };
            let outward = Outward { fetches: Some(wire.clone().recipient()), reports: reports.recipient() };
            let place = (P0, TopicName::new("rides").expect("legal"));
            let replica = PartitionLeader::create(|ctx| {
                PartitionLeader::new(ctx, place, config, (log, ProducerTable::default()), settings, outward)
            });
            post(&wire, Rewire::Plug(node, replica.clone()));
            post(&replica, SetLease(MonoTime(Duration::MAX)));
            members.insert(node, Member { disk, replica, reports });
        }
        let answers_to = Arc::new(session.recipient());
        let pair = Self { cluster, wire, members, session, answers_to, clock, _thread: thread };
        pair.assign_all();
        pair
    }

    /// Each replica is told what the image says.
    fn assign_all(&self) {
        for (node, member) in &self.members {
            let assignment = Assignment::of(&self.cluster.image, *node, self.cluster.epoch(node.0), P0);
            post(&member.replica, Assign { assignment, config: self.cluster.defaults.clone() });
        }
    }

    fn reply(&self, request: u64) -> ReplyTo {
        let tag = RequestTag { connection: ME, correlation: CorrelationId(0), request, item: 0 };
        ReplyTo::new(Arc::clone(&self.answers_to), tag)
    }

    fn produce(&self, node: u32, request: u64) {
        let deadline = self.clock.now().plus(Duration::from_secs(30));
        let reply = self.reply(request);
        let (room, leader_epoch) = (None, None);
        let message = Produce { batch: batch(1), room, leader_epoch, acks: Acks::All, deadline, owner: ME, reply };
        post(&self.members[&NodeId(node)].replica, message);
    }

    /// What a replica tells its broker next.
    async fn told_by(&mut self, node: u32) -> Reported {
        self.members.get_mut(&NodeId(node)).expect("there").reports.next().await.what
    }

    /// A reader waits for records from `offset` on.
    fn read(&self, node: u32, request: u64, offset: u64) {
        let wait_until = Some(self.clock.now().plus(Duration::from_secs(30)));
        let (offset, reply) = (Offset(offset), self.reply(request));
        let message = Fetch { offset, max_bytes: 1 << 20, leader_epoch: None, wait_until, owner: ME, reply };
        post(&self.members[&NodeId(node)].replica, message);
    }

    /// The next answers, by request: the offset of what was produced, or where what was read ends.
    async fn answers(&mut self, count: usize) -> BTreeMap<u64, Result<u64, ErrorCode>> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let PartitionAnswer { tag, result } = self.session.next().await;
            let answer = match result {
                Ok(Answer::Produced(placed)) => Ok(placed.base_offset.0),
                Ok(Answer::Fetched(records)) => Ok(records.next_offset.expect("records").0),
                Ok(other) => panic!("nobody asked for {other:?}"),
                Err(error) => Err(error.code),
            };
            answers.insert(tag.request, answer);
        }
        answers
    }
}

#[actix::test]
async fn a_record_is_acknowledged_when_both_hold_it_and_readers_of_both_get_it_at_once() {
    let mut pair = Pair::new();
    post(&pair.wire, Rewire::Cut(true));
    pair.read(2, 1, 0);
    pair.produce(1, 2);
    let early = tokio::time::timeout(Duration::from_millis(100), pair.session.next()).await;
    assert!(early.is_err(), "one of two holds it: {early:?}");
    post(&pair.wire, Rewire::Cut(false));
    assert_eq!(pair.answers(2).await, BTreeMap::from([(1, Ok(1)), (2, Ok(0))]), "no second record was needed");
    pair.read(1, 3, 0);
    assert_eq!(pair.answers(1).await, BTreeMap::from([(3, Ok(1))]));
}

#[actix::test]
async fn a_follower_that_is_elected_goes_on_where_the_leader_was_and_is_followed_by_it() {
    let mut pair = Pair::new();
    pair.produce(1, 1);
    pair.answers(1).await;
    let epoch = pair.cluster.epoch(1);
    let fenced = fence(&pair.cluster.image, NodeId(1), epoch);
    pair.cluster.take(fenced);
    assert_eq!(pair.cluster.image.partition(P0).and_then(|state| state.leader), Some(NodeId(2)));
    pair.assign_all();
    let counted_on = unfence(&pair.cluster.image, NodeId(1), epoch, &[]);
    pair.cluster.take(counted_on);
    pair.assign_all();
    pair.produce(1, 2);
    assert_eq!(pair.answers(1).await[&2], Err(ErrorCode::NotLeader));
    pair.produce(2, 3);
    pair.read(1, 4, 1);
    assert_eq!(pair.answers(2).await, BTreeMap::from([(3, Ok(1)), (4, Ok(2))]));
    // The new leader has the other back in the set.
    let joins = pair.members.get_mut(&NodeId(2)).expect("there").reports.next().await;
    let Reported::Proposal(proposal) = joins.what else { panic!("a proposal was due, there is {joins:?}") };
    assert_eq!(proposal.members.iter().map(|(node, _)| *node).collect::<Vec<_>>(), nodes([2, 1]));
}

#[actix::test]
async fn a_stopping_leader_waits_for_its_disk_and_not_for_others() {
    let mut pair = Pair::new();
    post(&pair.wire, Rewire::Cut(true));
    pair.produce(1, 1);
    let (done, closed) = oneshot::channel();
    post(&pair.members[&NodeId(1)].replica, Stop { why: StopReason::NodeStops, done });
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await.expect("in time").expect("told");
    closed.expect("closed cleanly");
    assert_eq!(pair.answers(1).await[&1], Err(ErrorCode::ShuttingDown), "not acknowledged: one of two holds it");
}

#[actix::test]
async fn damage_that_a_read_meets_is_known_to_the_replica_and_reported() {
    let mut pair = Pair::with_cache(0);
    pair.produce(1, 1);
    pair.answers(1).await;
    let segment = std::path::Path::new("/data/t/00000000000000000000.log");
    pair.members[&NodeId(1)].disk.flip_bit(segment, 70, 1).expect("written");
    pair.read(1, 2, 0);
    assert_eq!(pair.answers(1).await[&2], Err(ErrorCode::DamagedLog));
    let epoch = pair.cluster.image.partition(P0).expect("there").leader_epoch;
    assert_eq!(pair.told_by(1).await, Reported::Damaged(epoch));
    assert_eq!(pair.told_by(1).await, Reported::Health { is_damaged: true });
    // The other one leads, has it mended, and it is looked through.
    let damaged = report_damaged(&pair.cluster.image, P0, (NodeId(1), pair.cluster.epoch(1)), epoch);
    assert_eq!(pair.cluster.take(damaged), DamageOutcome::Left);
    pair.assign_all();
    assert_eq!(pair.told_by(1).await, Reported::Health { is_damaged: false });
}

#[actix::test]
async fn damage_that_nobody_reads_is_found_by_the_scrub_of_a_leader_and_of_a_follower_and_is_mended() {
    for node in [1, 2] {
        let mut pair = Pair::new();
        pair.produce(1, 1);
        pair.answers(1).await;
        let replica = pair.members[&NodeId(node)].replica.clone();
        let size = replica.send(ScrubOn).await.expect("alive").part.bytes;
        let segment = std::path::Path::new("/data/t/00000000000000000000.log");
        pair.members[&NodeId(node)].disk.flip_bit(segment, 70, 1).expect("written");
        let scrubbed = replica.send(ScrubOn).await.expect("alive");
        let part = ScrubbedPart { bytes: size, damage_found: 1 };
        assert_eq!(scrubbed, ScrubbedOn { part, is_through: true }, "broker {node}");
        let epoch = pair.cluster.image.partition(P0).expect("there").leader_epoch;
        assert_eq!(pair.told_by(node).await, Reported::Damaged(epoch));
        assert_eq!(pair.told_by(node).await, Reported::Health { is_damaged: true });
        let damaged = report_damaged(&pair.cluster.image, P0, (NodeId(node), pair.cluster.epoch(node)), epoch);
        assert_eq!(pair.cluster.take(damaged), DamageOutcome::Left);
        pair.assign_all();
        assert_eq!(pair.told_by(node).await, Reported::Health { is_damaged: false });
        let part = ScrubbedPart { bytes: size, damage_found: 0 };
        assert_eq!(replica.send(ScrubOn).await.expect("alive"), ScrubbedOn { part, is_through: true });
    }
}
