//! How a follower with damage becomes whole, told by its commands.

use super::super::tests::{NOW, answer, follower, following, headers, leader_state, run};
use super::*;
use crate::engine::replication::{FetchId, ReplicaFetch, ReplicaVerdict};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::BrokerEpoch;

type Commands = Vec<Command<&'static str>>;

fn offsets(from: u64, to: u64) -> (Offset, Offset) {
    (Offset(from), Offset(to))
}

fn fetched(commands: &Commands) -> ReplicaFetch {
    match &commands[..] {
        [Command::Fetch { fetch, may_wait, .. }] => {
            assert!(!may_wait || fetch.repair.is_none(), "a repair does not wait for news");
            *fetch
        }
        other => panic!("{other:?}"),
    }
}

/// A follower of `[0, 14)` that has just found that `[5, 8)` is damaged, and its fetch.
fn damaged() -> (FollowerEngine<&'static str>, ReplicaFetch) {
    let mut engine = follower(14, 12);
    run(&mut engine, |e, out| e.on_metadata(NOW, following(1, 3), out));
    let told = run(&mut engine, |e, out| {
        assert!(e.on_damage(NOW, &[offsets(5, 8)], out));
    });
    let again = run(&mut engine, |e, out| {
        assert!(!e.on_damage(NOW, &[offsets(5, 8)], out));
    });
    assert_eq!(again, [], "that is known");
    (engine, fetched(&told))
}

fn batches(ranges: &[(u64, i32)]) -> Vec<BatchHeader> {
    ranges.iter().flat_map(|(base, records)| headers(*base, *records, 1)).collect()
}

fn repairs(engine: &mut FollowerEngine<&'static str>, number: u64, ranges: &[(u64, i32)]) -> Commands {
    let event = answer(number, ReplicaVerdict::Repairs, leader_state(3, 12, 14), batches(ranges));
    run(engine, |e, out| e.on_fetched(NOW, event, out))
}

fn refused(engine: &mut FollowerEngine<&'static str>, number: u64) -> Commands {
    let id = FetchId { broker_epoch: BrokerEpoch(9), number };
    let result = Err(ApiError::new(ErrorCode::DamagedLog, "damaged here, too"));
    let event = crate::engine::follower::ReplicaFetched { id, result, headers: Vec::new() };
    run(engine, |e, out| e.on_fetched(NOW, event, out))
}

#[test]
fn damage_is_fetched_widened_to_whole_batches_put_in_place_and_the_log_looked_through_before_it_counts() {
    let (mut engine, fetch) = damaged();
    assert_eq!((fetch.number, fetch.is_damaged, fetch.repair), (2, true, Some(offsets(5, 8))));
    // More than was asked for came with it.
    let repair = repairs(&mut engine, 2, &[(3, 3), (6, 4), (10, 2)]);
    assert_eq!(repair, [Command::Repair { from: Offset(3), to: Offset(10) }]);
    assert!(!engine.is_settled(), "no change of its role meanwhile");
    let twice = repairs(&mut engine, 2, &[(3, 3), (6, 4)]);
    assert_eq!(twice, [], "an answer that comes twice repairs once");
    run(&mut engine, |e, out| {
        e.on_damage(NOW, &[], out);
    });
    let mended = run(&mut engine, |e, out| e.on_repaired(NOW, true, out));
    let [Command::Scrub { from: Offset(0) }, Command::Fetch { fetch, .. }] = &mended[..] else { panic!("{mended:?}") };
    assert_eq!((fetch.is_damaged, fetch.repair), (true, None), "it counts for nothing yet");
    let first = run(&mut engine, |e, out| e.on_scrubbed(NOW, Offset(0), Offset(9), out));
    assert_eq!(first, [Command::Scrub { from: Offset(9) }], "segment by segment");
    let last = run(&mut engine, |e, out| e.on_scrubbed(NOW, Offset(9), Offset(14), out));
    assert!(!fetched(&last).is_damaged, "the leader is told at once");
    assert!(engine.damage().is_whole() && engine.is_settled());
}

#[test]
fn what_does_not_fit_in_one_answer_is_asked_for_by_the_next_fetch() {
    let (mut engine, _) = damaged();
    assert_eq!(repairs(&mut engine, 2, &[(3, 3)]), [Command::Repair { from: Offset(3), to: Offset(6) }]);
    run(&mut engine, |e, out| {
        e.on_damage(NOW, &[offsets(6, 8)], out);
    });
    let next = run(&mut engine, |e, out| e.on_repaired(NOW, true, out));
    assert_eq!(fetched(&next).repair, Some(offsets(6, 8)));
}

#[test]
fn batches_that_leave_a_gap_begin_too_late_or_go_too_far_repair_nothing() {
    for wrong in [&[(6, 4)][..], &[(3, 2), (6, 2)], &[(3, 1)], &[(3, 12)], &[]] {
        let (mut engine, _) = damaged();
        assert_eq!(repairs(&mut engine, 2, wrong), [], "{wrong:?}");
        let later = engine.next_deadline().expect("it asks again");
        let ordinary = run(&mut engine, |e, out| e.on_tick(later, out));
        assert_eq!(fetched(&ordinary).repair, None);
    }
}

#[test]
fn a_leader_that_cannot_repair_is_asked_for_what_comes_next_in_between() {
    let (mut engine, _) = damaged();
    assert_eq!(refused(&mut engine, 2), []);
    let later = engine.next_deadline().expect("it asks again");
    let ordinary = fetched(&run(&mut engine, |e, out| e.on_tick(later, out)));
    assert_eq!((ordinary.is_damaged, ordinary.repair), (true, None));
    // The leader has deleted these records: the damage goes with them.
    let state = crate::engine::replication::LeaderState { log_start: Offset(9), ..leader_state(3, 12, 14) };
    let told = answer(ordinary.number, ReplicaVerdict::Continues, state, Vec::new());
    let commands = run(&mut engine, |e, out| e.on_fetched(NOW, told, out));
    assert!(commands.contains(&Command::AdvanceLogStart { to: Offset(9) }), "{commands:?}");
    run(&mut engine, |e, out| e.on_log_start(Offset(9), out));
    assert_eq!(engine.damage().next_to_verify(), Some(Offset(9)));
}

#[test]
fn a_repair_that_the_log_refuses_is_tried_again_later() {
    let (mut engine, _) = damaged();
    repairs(&mut engine, 2, &[(3, 5)]);
    assert_eq!(run(&mut engine, |e, out| e.on_repaired(NOW, false, out)), []);
    let later = engine.next_deadline().expect("it asks again");
    let ordinary = fetched(&run(&mut engine, |e, out| e.on_tick(later, out)));
    let told = answer(ordinary.number, ReplicaVerdict::Continues, leader_state(3, 12, 14), Vec::new());
    let again = run(&mut engine, |e, out| e.on_fetched(NOW, told, out));
    assert_eq!(fetched(&again).repair, Some(offsets(5, 8)));
}
