//! A replica that changes its role: what is told to whom, and what waits for the log.

use std::time::Duration;

use super::*;
use crate::engine::follower::ReplicaFetched;
use crate::engine::leader::{FetchEvent, Leadership, ProduceEvent, ReplicaView};
use crate::engine::replication::FetchId;
use crate::engine::waiters::OwnerId;
use crate::protocol::messages::Acks;
use crate::storage::LogError;
use crate::storage::queue::LogNews;
use crate::types::record_batch::{BatchBuilder, Compression, RecordBatch};
use crate::types::{BrokerEpoch, LeaderEpoch, TimestampMs};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const NOW: MonoTime = MonoTime(Duration::ZERO);
const LATER: MonoTime = MonoTime(Duration::from_secs(60));
const MINE: BrokerEpoch = BrokerEpoch(7);

type Told = Replica<&'static str, ()>;

fn replica() -> Told {
    let settings = ReplicaSettings {
        leader: LeaderSettings::default(),
        follower: FollowerSettings {
            producer_expiry_ms: 1_000,
            fetch_bytes: 100,
            fetch_timeout: Duration::from_secs(1),
            fetch_backoff: Duration::from_millis(50),
        },
    };
    let mut replica = Replica::new(ME, ReplicaState::empty(), TopicConfig::default(), settings);
    replica.on_lease(NOW, LATER);
    replica
}

/// Leads in that epoch, with broker 2 in sync.
fn lead(epoch: u32) -> Assignment {
    let view = |node, broker_epoch| ReplicaView { node, broker_epoch, may_join: true };
    let alone = Leadership::alone(LeaderEpoch(epoch), ME, MINE);
    let replicas = vec![view(ME, MINE), view(OTHER, BrokerEpoch(8))];
    Assignment::Lead(Leadership { partition_epoch: epoch, in_sync: vec![ME, OTHER], replicas, ..alone })
}

/// Follows broker 2 in that epoch.
fn follow(epoch: u32) -> Assignment {
    let (leader, leader_epoch) = (Some(OTHER), LeaderEpoch(epoch));
    Assignment::Follow(Following { leader, leader_epoch, broker_epoch: MINE, is_member: true, unclean_epoch: None })
}

fn becomes(replica: &mut Told, assignment: Assignment) -> Vec<String> {
    replica.assign(NOW, assignment, TopicConfig::default());
    effects(replica)
}

fn produce(replica: &mut Told, acks: Acks, reply: &'static str) -> Vec<String> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(TimestampMs(5), None, Some(b"v"), &[]);
    let batch = RecordBatch::from_client(builder.build().unwrap()).unwrap();
    let event = ProduceEvent {
        header: batch.header,
        batch_bytes: batch.total_bytes(),
        leader_epoch: None,
        acks,
        deadline: LATER,
        wall: TimestampMs(5),
        owner: OwnerId(1),
        reply,
    };
    replica.on_produce(NOW, batch, (), event);
    effects(replica)
}

fn read(replica: &mut Told, offset: u64, reply: &'static str) -> Vec<String> {
    let (offset, owner) = (Offset(offset), OwnerId(1));
    let event = FetchEvent { offset, max_bytes: 10, leader_epoch: None, wait_until: Some(LATER), owner, reply };
    replica.on_fetch(NOW, event);
    effects(replica)
}

fn told(replica: &mut Told, news: LogNews<ProducerReplay>) -> Vec<String> {
    replica.on_log_news(NOW, news);
    effects(replica)
}

/// What is to be done, in short.
fn effects(replica: &mut Told) -> Vec<String> {
    let short = |effect: &Effect<&'static str, ()>| match effect {
        Effect::Write(LogWork::Append(batch, ())) => {
            format!("append {}@{}", batch.header.base_offset, batch.header.leader_epoch)
        }
        Effect::Write(work) => format!("{work:?}"),
        Effect::Answer(reply, Ok(Answer::Produced(batch))) => format!("{reply}: at {}", batch.base_offset),
        Effect::Answer(reply, Ok(answer)) => format!("{reply}: {answer:?}"),
        Effect::Answer(reply, Err(error)) => format!("{reply}: {:?}", error.code),
        Effect::Read(reply, range, _) => format!("{reply}: reads {} to {}", range.from, range.upper_exclusive),
        Effect::LookUp(reply, ..) => format!("{reply}: looks up"),
        Effect::Fetch { leader, fetch, .. } => {
            format!("fetch {} of {leader} in {}, from {}", fetch.number, fetch.leader_epoch, fetch.position)
        }
        Effect::Propose(proposal) => format!("propose {:?}", proposal.members),
        Effect::Damaged(epoch) => format!("damaged in {epoch}"),
        Effect::Offline(cause) => format!("offline: {:?}", cause.code),
    };
    replica.take_effects().iter().map(short).collect()
}

#[test]
fn before_the_metadata_has_named_its_part_it_answers_nobody_and_asks_nobody() {
    let mut replica = replica();
    assert_eq!(effects(&mut replica), [""; 0]);
    assert_eq!(produce(&mut replica, Acks::All, "early"), ["early: NotLeader"]);
    assert!(replica.leader().is_none());
    assert_eq!(becomes(&mut replica, lead(1)), [""; 0]);
    assert_eq!(produce(&mut replica, Acks::All, "first"), ["append 0@1"]);
}

#[test]
fn a_leader_that_is_to_follow_lets_its_log_come_to_rest_first() {
    // The append on its way would come after the cut that the new leader asks for.
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    produce(&mut replica, Acks::All, "waits");
    assert_eq!(becomes(&mut replica, follow(2)), ["waits: NotLeader"], "nothing is asked of broker 2 yet");
    assert!(replica.leader().is_none());
    assert_eq!(produce(&mut replica, Acks::All, "late"), ["late: NotLeader"]);
    assert_eq!(read(&mut replica, 0, "reader"), ["reader: NotLeader"]);
    assert_eq!(told(&mut replica, LogNews::Written(Offset(1))), ["fetch 1 of 2 in 2, from 1"]);
    assert!(replica.follower().is_some());
}

#[test]
fn whoever_leads_and_follows_in_turns_never_uses_the_number_of_a_fetch_again() {
    // The leader would take the newer of two with the same number for an old one, and wait for an acknowledgement for good.
    let mut replica = replica();
    assert_eq!(becomes(&mut replica, follow(1)), ["fetch 1 of 2 in 1, from 0"]);
    assert_eq!(becomes(&mut replica, lead(2)), [""; 0]);
    assert_eq!(produce(&mut replica, Acks::Leader, "a"), ["append 0@2"]);
    assert_eq!(told(&mut replica, LogNews::Written(Offset(1))), ["a: at 0"]);
    assert_eq!(becomes(&mut replica, follow(3)), ["fetch 2 of 2 in 3, from 1"]);
    assert_eq!(becomes(&mut replica, follow(4)), ["fetch 3 of 2 in 4, from 1"], "the same leader in another epoch");
}

#[test]
fn a_follower_that_is_to_lead_waits_for_what_it_is_appending() {
    // Its epoch would begin in the middle of records that its log does not have yet.
    let mut replica = replica();
    becomes(&mut replica, follow(1));
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(TimestampMs(5), None, Some(b"v"), &[]);
    let batch = RecordBatch::from_client(builder.build().unwrap()).unwrap();
    let batch = batch.stamped(Offset(0), LeaderEpoch(1), None);
    let state = LeaderState {
        leader_epoch: LeaderEpoch(1),
        log_start: Offset(0),
        high_watermark: Offset(0),
        written_end: Offset(1),
        knows_all: true,
    };
    let id = FetchId { broker_epoch: MINE, number: 1 };
    let answer = ReplicaFetched { id, result: Ok((ReplicaVerdict::Continues, state)), headers: vec![batch.header] };
    replica.on_fetched(NOW, answer, vec![(batch, ())]);
    assert_eq!(effects(&mut replica).len(), 1, "one append");
    assert_eq!(becomes(&mut replica, lead(2)), [""; 0]);
    assert!(replica.leader().is_none());
    assert_eq!(produce(&mut replica, Acks::All, "early"), ["early: NotLeader"]);
    told(&mut replica, LogNews::Written(Offset(1)));
    assert_eq!(
        replica.leader().map(|engine| (engine.epoch(), engine.epoch_start())),
        Some((LeaderEpoch(2), Offset(1)))
    );
    assert_eq!(produce(&mut replica, Acks::All, "b"), ["append 1@2"]);
}

#[test]
fn a_newer_epoch_of_the_same_broker_is_another_leadership() {
    // What was waited for under the old one may have been given up in between.
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    produce(&mut replica, Acks::All, "waits");
    told(&mut replica, LogNews::Written(Offset(1)));
    assert_eq!(becomes(&mut replica, lead(3)), ["waits: NotLeader"]);
    assert_eq!(
        replica.leader().map(|engine| (engine.epoch(), engine.epoch_start())),
        Some((LeaderEpoch(3), Offset(1)))
    );
    assert_eq!(produce(&mut replica, Acks::All, "b"), ["append 1@3"], "it has its lease still");
}

#[test]
fn the_same_epoch_is_the_same_leadership_and_nobody_who_waits_is_disturbed() {
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    produce(&mut replica, Acks::All, "waits");
    assert_eq!(becomes(&mut replica, lead(1)), [""; 0]);
    let Assignment::Lead(leadership) = lead(1) else { panic!("it leads") };
    let alone = Leadership { partition_epoch: 2, in_sync: vec![ME], ..leadership };
    assert_eq!(becomes(&mut replica, Assignment::Lead(alone)), [""; 0]);
    told(&mut replica, LogNews::Written(Offset(1)));
    assert_eq!(told(&mut replica, LogNews::Synced(Offset(1))), ["waits: at 0"], "broker 2 is not waited for any more");
}

#[test]
fn of_the_parts_that_came_while_the_log_was_busy_the_newest_counts() {
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    produce(&mut replica, Acks::None, "unanswered");
    assert_eq!(becomes(&mut replica, follow(2)), [""; 0]);
    assert_eq!(becomes(&mut replica, follow(3)), [""; 0]);
    assert_eq!(becomes(&mut replica, lead(4)), [""; 0]);
    assert_eq!(told(&mut replica, LogNews::Written(Offset(1))), [""; 0], "broker 2 is not asked at all");
    assert_eq!(replica.leader().map(LeaderEngine::epoch), Some(LeaderEpoch(4)));
}

#[test]
fn a_retired_replica_serves_nobody_until_it_has_a_part_again() {
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    assert_eq!(read(&mut replica, 0, "parked"), [""; 0]);
    assert_eq!(becomes(&mut replica, Assignment::None), ["parked: NotLeader"]);
    assert_eq!(read(&mut replica, 0, "reader"), ["reader: NotLeader"]);
    assert_eq!(produce(&mut replica, Acks::All, "a"), ["a: NotLeader"]);
    becomes(&mut replica, follow(2));
    assert_eq!(read(&mut replica, 0, "reader"), [""; 0], "it waits for a record");
    assert_eq!(becomes(&mut replica, Assignment::None), ["reader: NotLeader"]);
}

#[test]
fn a_replica_whose_log_failed_does_not_lead_and_says_so_once() {
    let mut replica = replica();
    becomes(&mut replica, follow(1));
    let failed = LogError::Io(std::io::Error::other("the disk is gone"));
    assert_eq!(told(&mut replica, LogNews::Failed(failed)), ["offline: StorageFailed"]);
    assert_eq!(becomes(&mut replica, lead(2)), [""; 0]);
    assert!(replica.leader().is_none());
    assert_eq!(produce(&mut replica, Acks::All, "a"), ["a: NotLeader"]);
    assert_eq!(becomes(&mut replica, follow(3)), [""; 0], "it asks for nothing that it could not append");
    assert!(replica.follower().is_some_and(|engine| engine.failure().is_some()));
}

#[test]
fn a_failed_log_is_at_rest_so_a_leader_goes_at_once() {
    let mut replica = replica();
    becomes(&mut replica, lead(1));
    produce(&mut replica, Acks::All, "waits");
    let failed = LogError::Io(std::io::Error::other("the disk is gone"));
    assert_eq!(told(&mut replica, LogNews::Failed(failed)), ["offline: StorageFailed", "waits: StorageFailed"]);
    assert!(replica.leader().is_some(), "what is committed is still read from it");
    assert_eq!(becomes(&mut replica, follow(2)), [""; 0]);
    assert!(replica.follower().is_some());
}
