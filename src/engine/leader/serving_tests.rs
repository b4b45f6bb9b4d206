//! What followers are answered, told by commands.

use std::time::Duration;

use super::super::{LeaderSettings, Leadership, ReplicaView};
use super::*;
use crate::engine::producer_state::ProducerTable;
use crate::engine::replication::ReplicaState;
use crate::protocol::messages::FollowerDescription;
use crate::types::{BrokerEpoch, EpochHistory, LeaderEpoch, TopicConfig};

fn at(ms: u64) -> MonoTime {
    MonoTime(Duration::from_millis(ms))
}

/// Broker 1 leads in epoch 5. Its log has `[10, 20)` of epoch 1 and `[20, 30)` of epoch 3, all of it committed as far as it knows up to 20.
fn leader() -> LeaderEngine<&'static str> {
    let view =
        |node: u32| ReplicaView { node: NodeId(node), broker_epoch: BrokerEpoch(u64::from(node)), may_join: true };
    let leadership = Leadership {
        in_sync: vec![NodeId(1), NodeId(2)],
        replicas: vec![view(1), view(2), view(3)],
        ..Leadership::alone(LeaderEpoch(5), NodeId(1), BrokerEpoch(1))
    };
    let epochs = [(LeaderEpoch(1), Offset(10)), (LeaderEpoch(3), Offset(20))];
    let epochs = EpochHistory::from_entries(epochs.to_vec()).expect("rising");
    let opened = ReplicaState::opened(Offset(10), Offset(30), epochs, ProducerTable::default());
    let state = ReplicaState { high_watermark: Offset(20), ..opened };
    let settings = LeaderSettings::default();
    let mut engine = LeaderEngine::new(at(0), NodeId(1), leadership, TopicConfig::default(), state, settings);
    engine.on_lease(at(0), at(100_000), &mut Output::default());
    engine
}

/// Broker 2 holds everything up to `position`, the last of it of this epoch, and knows the watermark that the leader knows.
fn fetch(number: u64, position: u64, last_epoch: Option<u32>) -> ReplicaFetch {
    ReplicaFetch {
        replica: NodeId(2),
        broker_epoch: BrokerEpoch(2),
        leader_epoch: LeaderEpoch(5),
        number,
        position: Offset(position),
        last_epoch: last_epoch.map(LeaderEpoch),
        lacks_producers: false,
        durable_end: Offset(position),
        high_watermark: Offset(20),
        max_bytes: 100,
        is_damaged: false,
        repair: None,
    }
}

/// Each answer, in short.
fn answers(commands: &[Command<&'static str>]) -> Vec<String> {
    let short = |command: &Command<&'static str>| match command {
        Command::ReadForFollower { reply, range, .. } => {
            Some(format!("{reply}: {} to {}", range.from, range.upper_exclusive))
        }
        Command::ReplicaFetched { reply, result: Ok((ReplicaVerdict::Continues, state)) } => {
            Some(format!("{reply}: nothing, watermark {}", state.high_watermark))
        }
        Command::ReplicaFetched { reply, result: Ok((ReplicaVerdict::Diverged(theirs), _)) } => {
            let theirs = theirs.map(|(epoch, end)| (epoch.0, end.0));
            Some(format!("{reply}: parts at {theirs:?}"))
        }
        Command::ReplicaFetched { reply, result: Ok((ReplicaVerdict::Producers { at, .. }, _)) } => {
            Some(format!("{reply}: producers as of {at}"))
        }
        Command::ReplicaFetched { reply, result: Ok((ReplicaVerdict::StartsAt { offset, .. }, _)) } => {
            Some(format!("{reply}: starts at {offset}"))
        }
        Command::ReplicaFetched { reply, result: Err(error) } => Some(format!("{reply}: {:?}", error.code)),
        _ => None,
    };
    commands.iter().filter_map(short).collect()
}

fn run(
    engine: &mut LeaderEngine<&'static str>,
    event: impl FnOnce(&mut LeaderEngine<&'static str>, &mut Output<&'static str>),
) -> Vec<String> {
    let mut out = Output::default();
    event(engine, &mut out);
    answers(&out.0)
}

/// The fetch may wait until 200 ms.
fn asks(engine: &mut LeaderEngine<&'static str>, fetch: ReplicaFetch, reply: &'static str) -> Vec<String> {
    let event = ReplicaFetchEvent { fetch, wait_until: Some(at(200)), reply };
    run(engine, |engine, out| engine.on_replica_fetch(at(0), event, out))
}

#[test]
fn a_log_that_is_the_beginning_of_this_one_is_continued() {
    let mut engine = leader();
    assert_eq!(asks(&mut engine, fetch(1, 15, Some(1)), "middle"), ["middle: 15 to 30"]);
    assert_eq!(asks(&mut engine, fetch(2, 20, Some(1)), "border"), ["border: 20 to 30"]);
    assert_eq!(asks(&mut engine, fetch(3, 25, Some(3)), "newest"), ["newest: 25 to 30"]);
    assert_eq!(asks(&mut engine, fetch(4, 10, None), "empty"), ["empty: 10 to 30"]);
}

#[test]
fn a_log_that_parts_from_this_one_is_told_the_largest_epoch_that_both_may_have() {
    for (position, last_epoch, told) in [
        (25, Some(1), "x: parts at Some((1, 20))"),
        (31, Some(3), "x: parts at Some((3, 30))"),
        // Epoch 2 is not in this log, nor is epoch 4.
        (15, Some(2), "x: parts at Some((1, 20))"),
        (30, Some(4), "x: parts at Some((3, 30))"),
        // Nothing here is as old as that.
        (15, Some(0), "x: starts at 10"),
    ] {
        assert_eq!(asks(&mut leader(), fetch(1, position, last_epoch), "x"), [told], "{position} {last_epoch:?}");
    }
}

#[test]
fn what_says_that_it_parts_is_no_acknowledgement() {
    let mut engine = leader();
    asks(&mut engine, fetch(1, 31, Some(3)), "x");
    assert_eq!(engine.cursors().high_watermark(), Offset(20));
    asks(&mut engine, fetch(2, 30, Some(3)), "y");
    assert_eq!(engine.cursors().high_watermark(), Offset(30));
}

#[test]
fn a_log_that_ends_before_this_one_starts_begins_anew() {
    assert_eq!(asks(&mut leader(), fetch(1, 5, Some(1)), "short"), ["short: starts at 10"]);
    assert_eq!(asks(&mut leader(), fetch(1, 0, None), "empty"), ["empty: starts at 10"]);
    assert_eq!(asks(&mut leader(), fetch(1, 35, None), "beyond"), ["beyond: starts at 10"]);
}

#[test]
fn whoever_lacks_producers_is_told_of_them_and_has_acknowledged_what_it_has() {
    let mut engine = leader();
    let lacks = ReplicaFetch { lacks_producers: true, ..fetch(1, 30, Some(3)) };
    assert_eq!(asks(&mut engine, lacks, "x"), ["x: producers as of 30"]);
    assert_eq!(engine.cursors().high_watermark(), Offset(30));
    let parts = ReplicaFetch { lacks_producers: true, ..fetch(2, 31, Some(3)) };
    assert!(!asks(&mut engine, parts, "y").concat().contains("producers"), "of another log they would be others");
}

#[test]
fn whoever_does_not_fit_is_refused_by_name_and_counts_for_nothing() {
    let all = fetch(1, 30, Some(3));
    let mut engine = leader();
    for (fetch, code) in [
        (ReplicaFetch { leader_epoch: LeaderEpoch(4), ..all }, "FencedLeaderEpoch"),
        (ReplicaFetch { leader_epoch: LeaderEpoch(6), ..all }, "UnknownLeaderEpoch"),
        (ReplicaFetch { replica: NodeId(4), ..all }, "NotLeader"),
        (ReplicaFetch { broker_epoch: BrokerEpoch(1), ..all }, "UnknownLeaderEpoch"),
    ] {
        assert_eq!(asks(&mut engine, fetch, "x"), [format!("x: {code}")]);
    }
    assert_eq!(engine.cursors().high_watermark(), Offset(20));
    asks(&mut engine, fetch(7, 25, Some(3)), "newer");
    assert_eq!(asks(&mut engine, fetch(6, 30, Some(3)), "older"), ["older: UnknownLeaderEpoch"]);
    assert_eq!(asks(&mut engine, fetch(7, 30, Some(3)), "doubled"), ["doubled: UnknownLeaderEpoch"]);
    assert_eq!(engine.cursors().high_watermark(), Offset(25));
}

/// Broker 2 has everything, knows the watermark, and waits.
fn parked() -> LeaderEngine<&'static str> {
    let mut engine = leader();
    asks(&mut engine, fetch(1, 30, Some(3)), "x");
    let caught_up = ReplicaFetch { high_watermark: Offset(30), ..fetch(2, 30, Some(3)) };
    assert_eq!(asks(&mut engine, caught_up, "waits"), [""; 0]);
    engine
}

#[test]
fn a_fetch_without_news_waits_for_a_record_its_deadline_or_its_successor() {
    let mut engine = parked();
    engine.cursors.assign(1);
    let written = run(&mut engine, |engine, out| engine.on_written(at(1), Offset(31), out));
    assert_eq!(written, ["waits: 30 to 31"]);

    let mut engine = parked();
    assert_eq!(engine.next_deadline(), Some(at(200)));
    assert_eq!(run(&mut engine, |engine, out| engine.on_tick(at(199), out)), [""; 0]);
    assert_eq!(run(&mut engine, |engine, out| engine.on_tick(at(200), out)), ["waits: nothing, watermark 30"]);

    let mut engine = parked();
    let newer = ReplicaFetch { high_watermark: Offset(30), ..fetch(3, 30, Some(3)) };
    assert_eq!(asks(&mut engine, newer, "successor"), ["waits: nothing, watermark 30"]);
}

#[test]
fn a_fetch_that_does_not_know_the_watermark_is_answered_at_once() {
    let mut engine = parked();
    assert_eq!(
        asks(&mut engine, fetch(3, 30, Some(3)), "behind").last().map(String::as_str),
        Some("behind: nothing, watermark 30")
    );
}

#[test]
fn a_leader_that_goes_or_fails_leaves_no_fetch_waiting() {
    let cause = ApiError::new(ErrorCode::StorageFailed, "the disk is gone");
    let failed = run(&mut parked(), |engine, out| engine.on_failed(cause.clone(), out));
    let stopped = run(&mut parked(), |engine, out| engine.on_stop(&cause, out));
    assert_eq!([failed, stopped], [["waits: StorageFailed"]; 2]);
}

#[test]
fn what_a_follower_is_told_of_the_end_says_whether_the_leader_is_sure() {
    // Broker 2 passes it on to consumers: an offset beyond the end is out of range only if nobody else can have committed it.
    let mut engine = leader();
    assert!(!engine.leader_state(at(0)).knows_all, "nobody has fetched since the election");
    asks(&mut engine, fetch(1, 30, Some(3)), "x");
    assert!(engine.leader_state(at(0)).knows_all);
    assert!(!engine.leader_state(at(100_000)).knows_all, "its lease is over");
    engine.on_hand_over(at(1), NodeId(2), at(500), &mut Output::default()).expect("broker 2 is in sync");
    assert!(!engine.leader_state(at(2)).knows_all, "broker 2 may lead by now");
}

#[test]
fn an_administrator_is_told_where_each_follower_is_and_when_it_last_had_everything() {
    let mut engine = leader();
    let told = |engine: &LeaderEngine<&'static str>, now| {
        let followers = engine.describe(at(now), 0, 0, Vec::new()).followers;
        let of = |follower: FollowerDescription| (follower.node_id.0, follower.end_offset, follower.caught_up_ms);
        followers.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(told(&engine, 5), [(2, None, None), (3, None, None)], "nobody has fetched");
    let fetches = |engine: &mut LeaderEngine<&'static str>, now, fetch| {
        let event = ReplicaFetchEvent { fetch, wait_until: None, reply: "x" };
        run(engine, |engine, out| engine.on_replica_fetch(at(now), event, out))
    };
    fetches(&mut engine, 10, fetch(1, 25, Some(3)));
    assert_eq!(told(&engine, 15), [(2, Some(Offset(25)), None), (3, None, None)], "it never had everything");
    fetches(&mut engine, 20, fetch(2, 30, Some(3)));
    let third = ReplicaFetch { replica: NodeId(3), broker_epoch: BrokerEpoch(3), ..fetch(1, 12, Some(1)) };
    fetches(&mut engine, 30, third);
    assert_eq!(told(&engine, 45), [(2, Some(Offset(30)), Some(25)), (3, Some(Offset(12)), None)]);
    let described = engine.describe(at(45), 0, 0, Vec::new());
    assert_eq!([1, 2, 3].map(|node| described.behind(NodeId(node))), [None, Some(0), Some(18)]);
}
