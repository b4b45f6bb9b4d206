//! Rule 16: a replica that is damaged, and what is not passed on.

use callboard::engine::controller::DamageOutcome;
use callboard::protocol::ErrorCode;

use crate::stage::{Stage, Told};

/// A byte of the first record in a segment.
const IN_THE_FIRST_RECORD: u64 = 67;
/// Bytes of a batch with one record of one letter, and the place of its format within.
const BATCH: u64 = 69;
const FORMAT: u64 = 16;

#[test]
fn rule_16_a_leader_whose_disk_fails_leaves_both_sets_and_another_leads() {
    // What it has not synced it may not have. Tried again, the sync would succeed, and say nothing of the pages that were lost.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.produce(1, "b");
    stage.write(1);
    stage.replicate(2);
    stage.replicate(3);
    stage.break_sync(1);
    stage.sync(1);
    assert!(stage.is_offline(1));
    assert_eq!(stage.told("b"), Some(Told::Refused(ErrorCode::StorageFailed)));
    assert_eq!(stage.report_damaged(1), DamageOutcome::Left);
    assert_eq!(stage.sets(), (Some(2), 1, vec![2, 3], vec![]));
    stage.settle();
    stage.produce(2, "c");
    stage.settle();
    assert_eq!(
        (stage.told("c"), stage.sets().2),
        (Some(Told::Acknowledged(2)), vec![2, 3]),
        "nobody waits for broker 1"
    );
    stage.kill(1);
    stage.fence(1);
    stage.restart(1);
    stage.settle();
    assert_eq!((stage.log(1), stage.sets().2), ("a@0 b@0 c@1".into(), vec![2, 3, 1]));
}

#[test]
fn rule_16_a_replica_whose_log_failed_does_not_lead_though_it_was_elected() {
    // The leader goes before the controller has heard of broker 2's disk. A leader whose log takes nothing would only hold up everybody,
    // until somebody looks.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.break_sync(2);
    stage.produce(1, "b");
    stage.write(1);
    stage.fetch(2);
    stage.write(2);
    stage.sync(2);
    assert!(stage.is_offline(2));
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    assert_eq!((stage.sets().0, stage.leads(2)), (Some(2), false));
    assert_eq!(stage.report_damaged(2), DamageOutcome::Left);
    assert_eq!(stage.sets(), (Some(3), 2, vec![3], vec![]));
}

#[test]
fn rule_16_the_last_replica_leads_on_and_refuses_the_hole() {
    // Nobody else has what is left, and nobody should get what is not.
    let mut stage = Stage::on(&[1], &[]);
    stage.produce(1, "a");
    stage.produce(1, "b");
    stage.settle();
    stage.flip_bit(1, IN_THE_FIRST_RECORD);
    stage.read(1, 0, "damaged");
    stage.read(1, 1, "whole");
    assert_eq!(stage.told("damaged"), Some(Told::Refused(ErrorCode::DamagedLog)));
    assert_eq!(stage.told("whole"), Some(Told::Read("b".into())));
    assert_eq!(stage.report_damaged(1), DamageOutcome::StaysAsTheLast);
    assert_eq!((stage.sets(), stage.leads(1)), ((Some(1), 0, vec![1], vec![]), true));
}

#[test]
fn rule_16_what_is_damaged_is_fetched_again_and_counts_once_all_of_the_log_was_looked_through() {
    // Damage seldom comes alone, so one hole that is filled says nothing of the rest.
    let mut stage = Stage::with_records(&[], &["a", "b", "c"]);
    stage.flip_bit(2, IN_THE_FIRST_RECORD);
    stage.scrub(2);
    assert_eq!(stage.report_damaged(2), DamageOutcome::Left);
    assert_eq!(stage.sets().2, vec![1, 3]);
    stage.metadata(2);
    stage.metadata(1);
    stage.fetch(2);
    assert!(stage.is_damaged(2));
    stage.flip_bit(2, 2 * BATCH + FORMAT);
    stage.write(2);
    assert!(stage.is_damaged(2), "the hole is filled, and the look after that has found another");
    assert_eq!((stage.proposed(1), stage.sets().2), (vec![], vec![1, 3]), "it does not count yet");
    stage.settle();
    assert_eq!((stage.is_damaged(2), stage.log(2), stage.sets().2), (false, "a@0 b@0 c@0".into(), vec![1, 3, 2]));
}

#[test]
fn rule_16_a_cut_within_damage_is_made_where_the_damage_starts_once_nobody_counts_on_the_replica() {
    // Nobody can tell there where the records end that both have. What goes beside the damage is committed, and fetched again; a member
    // would hold less than is counted on.
    let mut stage = Stage::with_records(&[], &["a", "b"]);
    stage.checkpoint(1);
    stage.leader_appends("x");
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.produce(2, "c");
    stage.settle();
    stage.restart(1);
    stage.metadata(2);
    assert_eq!((stage.log(1), stage.watermark(1), stage.sets().2), ("a@0 b@0 x@0".into(), 2, vec![2, 3]));
    for batch in [1, 2] {
        stage.flip_bit(1, batch * BATCH + FORMAT);
    }
    stage.fetch(1);
    stage.write(1);
    assert_eq!((stage.log(1), stage.is_offline(1)), ("a@0".into(), false));
    stage.settle();
    assert_eq!((stage.log(1), stage.sets().2), ("a@0 b@0 c@1".into(), vec![2, 3, 1]));
}

#[test]
fn rule_16_a_member_gives_nothing_up_beside_its_damage() {
    // Broker 2 is eligible: when it was gone too few were in sync for more. It has a record that nobody else has, and damage before it.
    // If it cut its log at the damage, an election that takes it would lose the rest.
    let mut stage = Stage::with_records(&[("min_insync_replicas", "2")], &["a", "b"]);
    stage.checkpoint(2);
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    stage.settle();
    stage.kill(3);
    stage.fence(3);
    stage.metadata(1);
    stage.metadata(2);
    stage.produce(2, "x");
    stage.write(2);
    stage.kill(2);
    stage.fence(2);
    stage.metadata(1);
    stage.restart(2);
    stage.metadata(1);
    assert_eq!((stage.sets(), stage.log(2)), ((Some(1), 2, vec![1], vec![2]), "a@0 b@0 x@1".into()));
    for batch in [1, 2] {
        stage.flip_bit(2, batch * BATCH + FORMAT);
    }
    stage.fetch(2);
    stage.write(2);
    assert!(stage.is_damaged(2) && !stage.is_offline(2));
    assert_eq!(stage.cursors(2).3, 3, "nothing was cut");
    assert_eq!(stage.report_damaged(2), DamageOutcome::Left);
    stage.metadata(2);
    stage.pass(50);
    stage.fetch(2);
    stage.write(2);
    assert_eq!(stage.log(2), "a@0");
    stage.settle();
    assert_eq!((stage.log(2), stage.sets().2), ("a@0 b@0".into(), vec![1, 2]));
}

#[test]
fn rule_16_nothing_is_committed_on_the_word_of_a_damaged_replica() {
    // It says that it has all, and part of that is damaged: what it acknowledges may be damaged, too.
    let mut stage = Stage::on(&[1, 2], &[("min_insync_replicas", "2")]);
    stage.produce(1, "a");
    stage.settle();
    stage.flip_bit(2, IN_THE_FIRST_RECORD);
    stage.leader_appends("b");
    stage.scrub(2);
    stage.answer(2);
    stage.write(2);
    stage.sync(2);
    stage.ask(2);
    assert_eq!((stage.log_end(2), stage.told("b")), (2, None));
    stage.settle();
    stage.pass(50);
    stage.settle();
    assert!(stage.acknowledged("b") && !stage.is_damaged(2));
}

#[test]
fn rule_16_a_leaders_damage_is_not_copied() {
    // The follower would count as one more whole copy of a record that nobody has.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.kill(2);
    stage.fence(2);
    stage.metadata(1);
    stage.produce(1, "a");
    stage.settle();
    stage.flip_bit(1, IN_THE_FIRST_RECORD);
    stage.restart(2);
    stage.metadata(1);
    stage.replicate(2);
    assert_eq!((stage.cursors(2), stage.proposed(1)), ((0, 0, 0, 0), vec![]));
}

#[test]
fn rule_16_a_follower_appends_nothing_that_was_damaged_on_the_way() {
    // It checks before it appends, so that what it acknowledges is what the producer sent.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.leader_appends("a");
    stage.damage_answer(2);
    stage.replicate(2);
    assert_eq!((stage.cursors(2), stage.told("a")), ((0, 0, 0, 0), None));
    stage.kill(2);
    stage.restart(2);
    stage.settle();
    assert_eq!((stage.log(2), stage.told("a")), ("a@0".into(), Some(Told::Acknowledged(0))));
}

#[test]
fn rule_16_a_replica_whose_tail_was_torn_gives_way_to_one_that_is_whole() {
    // A disk that kept its word leaves zeros or nothing after what it synced. This one may have lost more than the tail.
    let mut stage = Stage::on(&[1, 2], &[("min_insync_replicas", "2")]);
    stage.produce(1, "a");
    stage.settle();
    for node in [1, 2] {
        stage.power_loss(node);
        stage.fence(node);
    }
    stage.tear(2);
    stage.restart(2);
    assert_eq!(stage.sets(), (None, 1, vec![], vec![1]), "broker 2 is there, and broker 1 is waited for");
    stage.restart(1);
    stage.settle();
    assert_eq!((stage.sets().0, stage.sets().2), (Some(1), vec![1, 2]));
}
