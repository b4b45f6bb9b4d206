//! Replicas on two nodes that keep up with each other over sockets. Time is real here.

use std::time::Duration;

use tokio::time::Instant;

use super::MAX_WAIT;
use super::stage::{FRAGILE, Stage, batch_with, place};
use crate::actors::partition_leader::{Answer, DeleteRecords, ReplyTo, RequestTag};
use crate::actors::peer::{PeerAddress, PeerError, PeerTarget};
use crate::actors::send::post;
use crate::actors::test_support::Ear;
use crate::engine::controller::test_support::P0;
use crate::engine::controller::{fence, unfence};
use crate::engine::metadata::MetadataRecord;
use crate::engine::waiters::OwnerId;
use crate::protocol::ErrorCode;
use crate::protocol::messages::peer::{FetchReplica, FetchReplicas, PeerConnection};
use crate::protocol::messages::{Acks, DeleteBefore};
use crate::types::{
    BrokerEpoch, CorrelationId, FlushPolicy, LeaderEpoch, NodeId, Offset, TopicConfig, TopicConfigOverrides,
};

/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> TopicConfig {
    TopicConfig::default()
}

fn word(value: &str) -> crate::types::record_batch::RecordBatch {
    batch_with(value.as_bytes(), None)
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Broker `node` is fenced and unfenced: who can leads from then on.
fn replace(stage: &mut Stage, node: u32) {
    let epoch = stage.cluster.epoch(node);
    let fenced = fence(&stage.cluster.image, NodeId(node), epoch);
    stage.cluster.take(fenced);
    stage.publish();
    let counted_on = unfence(&stage.cluster.image, NodeId(node), epoch, &[]);
    stage.cluster.take(counted_on);
    stage.publish();
}

#[actix::test]
async fn records_reach_the_follower_and_are_acknowledged_at_once_however_long_nothing_was_said() {
    let mut stage = Stage::new(2, config()).await;
    assert_eq!(stage.produce((1, 0), word("a"), Acks::All).await, Ok(0));
    // From here on the fetches of both partitions are parked.
    until("both are asked for", || stage.counts().1 >= 2).await;
    for (offset, value) in [(1, "b"), (2, "c")] {
        let began = Instant::now();
        assert_eq!(stage.produce((1, 0), word(value), Acks::All).await, Ok(offset));
        assert!(began.elapsed() < MAX_WAIT / 2, "no fetch ends by its time: {:?}", began.elapsed());
    }
    for node in [1, 2] {
        let began = Instant::now();
        let read = stage.read_all((node, 0), 0, 3).await;
        assert_eq!(read.iter().map(|(_, _, value)| &value[..]).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert!(began.elapsed() < MAX_WAIT / 2, "the watermark moves without a further record");
    }
}

#[actix::test]
async fn a_follower_whose_log_parts_from_its_leaders_is_cut_and_goes_on() {
    let mut stage = Stage::new(1, config()).await;
    assert_eq!(stage.produce((1, 0), word("both"), Acks::All).await, Ok(0));
    stage.node(2).cable.unplug(true);
    assert_eq!(stage.produce((1, 0), word("lost"), Acks::Leader).await, Ok(1));
    replace(&mut stage, 1);
    assert_eq!(stage.cluster.p0().leader, Some(NodeId(2)));
    let epoch = stage.cluster.p0().leader_epoch;
    assert_eq!(stage.produce((2, 0), word("kept"), Acks::Leader).await, Ok(1));
    let read = stage.read_all((1, 0), 0, 2).await;
    assert_eq!(read[1], (Offset(1), epoch, b"kept".to_vec()), "{read:?}");
    // It is in sync again, and what it holds counts.
    stage.take_proposal(2).await;
    assert_eq!(stage.produce((2, 0), word("again"), Acks::All).await, Ok(2));
    assert_eq!(stage.read((1, 0), 2).await.len(), 1);
}

#[actix::test]
async fn a_follower_whose_leader_starts_later_begins_there_and_knows_the_producers() {
    let mut stage = Stage::new(1, config()).await;
    stage.node(2).cable.unplug(true);
    let epoch = stage.cluster.epoch(2);
    let fenced = fence(&stage.cluster.image, NodeId(2), epoch);
    stage.cluster.take(fenced);
    stage.publish();
    for sequence in [0, 1] {
        let batch = batch_with(b"gone", Some(sequence));
        assert_eq!(stage.produce((1, 0), batch, Acks::All).await, Ok(sequence as u64));
    }
    let mut deleted = Ear::new();
    let tag = RequestTag { connection: OwnerId(7), correlation: CorrelationId(0), request: 0, item: 0 };
    let (before, owner) = (DeleteBefore::Offset(Offset(2)), OwnerId(7));
    let reply = ReplyTo::new(std::sync::Arc::new(deleted.recipient()), tag);
    let deadline = crate::types::MonoTime(Duration::from_secs(60));
    post(&stage.node(1).replicas[0], DeleteRecords { before, deadline, owner, reply });
    assert!(matches!(deleted.next().await.result, Ok(Answer::RecordsDeleted(Offset(2)))));
    assert_eq!(stage.produce((1, 0), word("here"), Acks::All).await, Ok(2));
    let counted_on = unfence(&stage.cluster.image, NodeId(2), epoch, &[]);
    stage.cluster.take(counted_on);
    stage.publish();
    stage.node(2).cable.unplug(false);
    let read = stage.read((2, 0), 2).await;
    assert_eq!(read.len(), 1);
    stage.take_proposal(1).await;
    replace(&mut stage, 1);
    assert_eq!(stage.cluster.p0().leader, Some(NodeId(2)));
    // A retry of what is gone is still known to be one.
    assert_eq!(stage.produce((2, 0), batch_with(b"gone", Some(1)), Acks::Leader).await, Ok(1));
}

#[actix::test]
async fn a_batch_that_is_damaged_on_the_way_is_not_taken_and_is_fetched_again() {
    let mut stage = Stage::new(2, config()).await;
    assert_eq!(stage.produce((1, 0), word("a"), Acks::All).await, Ok(0));
    stage.node(2).cable.damage(2);
    assert_eq!(stage.produce((1, 0), batch_with(FRAGILE, None), Acks::All).await, Ok(1));
    assert_eq!(stage.node(2).cable.damages_left(), 0, "it was damaged");
    let read = stage.read_all((2, 0), 0, 2).await;
    assert_eq!(read.iter().map(|(_, _, value)| &value[..]).collect::<Vec<_>>(), [b"a", FRAGILE]);
    assert_eq!(stage.produce((1, 1), word("other"), Acks::All).await, Ok(0));
}

#[actix::test]
async fn a_connection_that_is_cut_is_found_again_and_nothing_is_doubled() {
    let mut stage = Stage::new(2, config()).await;
    for offset in 0..60 {
        let value = offset.to_string();
        stage.send((1, 0), word(&value), Acks::All);
        if offset % 20 == 10 {
            assert!(stage.node(2).cable.cut() > 0, "there is a connection");
        }
        assert!(matches!(stage.answer().await, Ok(Answer::Produced(placed)) if placed.base_offset == Offset(offset)));
    }
    let read = stage.read_all((2, 0), 0, 60).await;
    let expected: Vec<_> = (0..60).map(|offset: u64| (Offset(offset), offset.to_string().into_bytes())).collect();
    assert_eq!(read.into_iter().map(|(offset, _, value)| (offset, value)).collect::<Vec<_>>(), expected);
    assert_eq!(stage.produce((1, 1), word("other"), Acks::All).await, Ok(0));
}

#[actix::test]
async fn two_hundred_idle_partitions_need_few_requests() {
    let stage = Stage::new(200, config()).await;
    until("all are asked for", || stage.counts().1 >= 200).await;
    let (before, fetches) = stage.counts();
    let began = Instant::now();
    until("all are renewed", || stage.counts().1 >= fetches + 200).await;
    let requests = stage.counts().0 - before;
    let idle = began.elapsed();
    assert!(idle > MAX_WAIT - Duration::from_secs(1), "not before their time: {idle:?}");
    assert!(requests <= 40, "{requests} requests in {idle:?}");
}

#[actix::test]
async fn catching_up_takes_turns_and_does_not_hold_up_a_partition_that_is_live() {
    let behind = 8;
    let mut stage = Stage::new(behind + 1, config()).await;
    until("all are asked for", || stage.counts().1 > behind).await;
    stage.node(2).cable.unplug(true);
    let value = vec![7; 200 << 10];
    for partition in 1..=behind {
        for offset in 0..12 {
            assert_eq!(stage.produce((1, partition), batch_with(&value, None), Acks::Leader).await, Ok(offset));
        }
    }
    let (before, _) = stage.counts();
    stage.node(2).cable.unplug(false);
    assert_eq!(stage.produce((1, 0), word("live"), Acks::All).await, Ok(0));
    for partition in 1..=behind {
        let read = stage.read_all((2, partition), 0, 12).await;
        assert_eq!(read.iter().map(|(offset, ..)| offset.0).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    }
    let asked = stage.node(1).asked.lock().unwrap()[before..].to_vec();
    let in_turn = asked.iter().map(|request| request.fetches.iter().filter(|fetch| !fetch.may_wait).count());
    assert!(in_turn.clone().all(|count| count <= super::lane::MAX_CATCHING_UP), "{:?}", in_turn.collect::<Vec<_>>());
    let live = asked.iter().position(|request| {
        request.fetches.iter().any(|fetch| fetch.partition == place(0) && fetch.position == Offset(1))
    });
    let last = asked.iter().rposition(|request| request.fetches.iter().any(|fetch| !fetch.may_wait));
    assert!(live < last, "acknowledged in request {live:?}, the last of those that catch up is {last:?}");
}

/// What a broker may fetch from here on, in a second, for its replicas that are not in sync.
fn throttle(stage: &mut Stage, bytes_per_second: i64) {
    let setting = ("catch_up_bytes_per_second".to_owned(), bytes_per_second.to_string());
    let config = TopicConfigOverrides([setting].into());
    stage.cluster.apply(&[MetadataRecord::TopicConfigChanged { topic: P0.topic, config }]);
    stage.publish();
}

/// Two throttled partitions whose follower lacks 12 batches of 200 KiB each. In the first it is in sync, in the second it is not.
async fn behind_in_two(bytes_per_second: i64) -> Stage {
    let mut stage = Stage::new(2, config()).await;
    until("both are asked for", || stage.counts().1 >= 2).await;
    stage.node(2).cable.unplug(true);
    let epoch = stage.cluster.epoch(2);
    let fenced = fence(&stage.cluster.image, NodeId(2), epoch);
    stage.cluster.take(fenced);
    let counted_on = unfence(&stage.cluster.image, NodeId(2), epoch, &[]);
    stage.cluster.take(counted_on);
    stage.cluster.in_sync(&[1, 2]);
    throttle(&mut stage, bytes_per_second);
    let value = vec![7; 200 << 10];
    for partition in [0, 1] {
        for offset in 0..12 {
            assert_eq!(stage.produce((1, partition), batch_with(&value, None), Acks::Leader).await, Ok(offset));
        }
    }
    stage
}

/// The fetches of the second partition that were asked for after so many requests, while it was behind.
fn throttled_since(stage: &Stage, before: usize) -> Vec<FetchReplica> {
    let asked = stage.node(1).asked.lock().unwrap();
    let fetches = asked[before..].iter().flat_map(|request| &request.fetches);
    fetches.filter(|fetch| fetch.partition == place(1) && fetch.position < Offset(12)).cloned().collect()
}

#[actix::test]
async fn a_replica_of_a_throttled_topic_catches_up_at_its_pace_and_one_that_is_in_sync_as_fast_as_it_can() {
    const RATE: u32 = 1_000_000;
    let mut stage = behind_in_two(RATE.into()).await;
    let (before, _) = stage.counts();
    let began = Instant::now();
    stage.node(2).cable.unplug(false);
    assert_eq!(stage.produce((1, 0), word("live"), Acks::All).await, Ok(12));
    let live_after = stage.counts().0;
    let read = stage.read_all((2, 0), 0, 13).await;
    assert_eq!(read.len(), 13);
    let read = stage.read_all((2, 1), 0, 12).await;
    assert_eq!(read.len(), 12, "its fetches are sent when their time has come");
    // 11 batches before the last one, a second's worth of them saved up.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let fetches = throttled_since(&stage, before);
    let is_small = |fetch: &FetchReplica| fetch.max_bytes <= RATE / 10 && !fetch.may_wait;
    assert!(fetches.iter().all(is_small), "{fetches:?}");
    assert!(!throttled_since(&stage, live_after).is_empty(), "who is in sync was through before");
}

#[actix::test]
async fn a_limit_that_is_lifted_lets_go_at_once_whoever_waits() {
    // A batch takes more than three seconds, all of them more than half a minute.
    let mut stage = behind_in_two(65_536).await;
    let (before, _) = stage.counts();
    stage.node(2).cable.unplug(false);
    assert_eq!(stage.produce((1, 0), word("live"), Acks::All).await, Ok(12));
    until("a batch has been asked for", || !throttled_since(&stage, before).is_empty()).await;
    let began = Instant::now();
    throttle(&mut stage, -1);
    let read = stage.read_all((2, 1), 0, 12).await;
    assert_eq!(read.len(), 12);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[actix::test]
async fn a_node_asks_for_its_own_replicas_and_is_told_where_there_is_none() {
    let stage = Stage::new(1, config()).await;
    let registration = &stage.cluster.image.brokers[&NodeId(1)].registration;
    let peer = registration.peer.clone().expect("it listens");
    let address = PeerAddress { host: peer.host, port: peer.port };
    let target = PeerTarget { node: Some(NodeId(1)), directory: Some(registration.directory), address };
    let link = stage.node(2).links.link(&target, PeerConnection::Data);
    let fetch = FetchReplica {
        partition: place(5),
        leader_epoch: LeaderEpoch(0),
        number: 1,
        position: Offset(0),
        last_epoch: None,
        durable_end: Offset(0),
        high_watermark: Offset(0),
        max_bytes: 1,
        may_wait: true,
        lacks_producers: false,
        is_damaged: false,
        repair: None,
    };
    let request = |replica| FetchReplicas {
        replica: NodeId(replica),
        broker_epoch: BrokerEpoch(1),
        max_wait_ms: 20_000,
        max_bytes: 1 << 20,
        fetches: vec![fetch, FetchReplica { partition: P0, ..fetch }],
    };
    let error = link.ask(&request(3), Vec::new(), PATIENCE).await.expect_err("refused");
    let PeerError::Answered { error, .. } = error else { panic!("{error}") };
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    let answer = link.ask(&request(2), Vec::new(), PATIENCE).await.expect("answered");
    assert_eq!(answer.attachments.len(), answer.reply.answers.len());
    let missing = answer.reply.answers.iter().find(|answer| answer.partition == place(5)).expect("answered at once");
    assert_eq!(missing.outcome.error.as_ref().map(|error| error.code), Some(ErrorCode::NotLeader));
}

/// `cargo test --lib replica_fetcher -- --ignored --nocapture` prints the round trip of a record that two replicas hold.
#[actix::test]
#[ignore = "a measurement"]
async fn measure_the_round_trip_of_one_record() {
    for flush in [FlushPolicy::Os, FlushPolicy::Always] {
        let mut stage = Stage::new(1, TopicConfig { flush, ..config() }).await;
        let mut took = Vec::new();
        for _ in 0..300 {
            let began = Instant::now();
            stage.produce((1, 0), word("value"), Acks::All).await.expect("acknowledged");
            took.push(began.elapsed().as_micros());
        }
        let requests = stage.counts().0;
        let mut last = took.split_off(100);
        last.sort_unstable();
        println!("{flush:?}: p50 {} us, p99 {} us, {requests} requests for 300", last[100], last[198]);
    }
}

/// Likewise what 1,000 idle partitions cost, both ends in this process.
#[actix::test]
#[ignore = "a measurement"]
async fn measure_what_idle_partitions_cost() {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("on Linux");
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let stage = Stage::new(1_000, config()).await;
    until("all are asked for", || stage.counts().1 >= 2_000).await;
    let (before, began, counts) = (ticks(), Instant::now(), stage.counts());
    tokio::time::sleep(Duration::from_secs(16)).await;
    let (cost, took, now) = ((ticks() - before) * 10, began.elapsed(), stage.counts());
    println!("{cost} ms of CPU in {took:?}, {} requests with {} fetches", now.0 - counts.0, now.1 - counts.1);
}
