//! Rules 14 and 15: what a broker's disk tells when it comes back.

use callboard::engine::controller::Recovery;
use callboard::engine::metadata::LastStop;
use callboard::protocol::ErrorCode;
use callboard::types::{LeaderEpoch, NodeId};

use crate::stage::Stage;

/// Two replicas, and two have to be in sync: whoever leaves stays eligible.
fn two_of_two(settings: &[(&str, &str)]) -> Stage {
    let mut all = vec![("min_insync_replicas", "2")];
    all.extend(settings);
    let mut stage = Stage::on(&[1, 2], &all);
    stage.produce(1, "a");
    stage.settle();
    assert!(stage.acknowledged("a"));
    stage
}

fn goes(stage: &mut Stage, node: u32) {
    stage.kill(node);
    stage.fence(node);
}

/// Broker 1 goes while broker 2 comes back, and comes back later.
fn broker_2_must_not_lead(stage: &mut Stage) {
    assert_eq!(stage.sets(), (Some(1), 0, vec![1], vec![]), "broker 2 has left both sets");
    goes(stage, 1);
    stage.unfence(2);
    assert_eq!(stage.sets().0, None);
    stage.restart(1);
    assert_eq!((stage.sets().0, stage.log(1).starts_with("a@0")), (Some(1), true));
}

#[test]
fn rule_14_a_registration_that_comes_twice_takes_nothing_away() {
    // The answer was late, and the broker asked again. The copy says what its directory held before, and would pass for an older disk.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(2);
    stage.fence(2);
    let copy = stage.sends_registration(2);
    let epoch = stage.register(copy.clone());
    stage.unfence(2);
    stage.settle();
    assert_eq!(stage.sets().2, vec![1, 3, 2]);
    assert_eq!((stage.register(copy), stage.sets().2), (epoch, vec![1, 3, 2]));
}

#[test]
fn rule_14_a_wiped_directory_is_no_member_any_more() {
    // Broker 2 is eligible, and comes back on an empty disk. Elected, it would lead an empty log.
    let mut stage = two_of_two(&[]);
    stage.wipe(2);
    assert_eq!(stage.registers(2), Err(ErrorCode::InvalidRequest), "a broker 2 on another disk is counted on");
    stage.fence(2);
    assert_eq!(stage.sets().3, [2]);
    assert_eq!(stage.registers(2), Ok(()));
    broker_2_must_not_lead(&mut stage);
    stage.settle();
    assert_eq!(stage.log(2), "a@0");
}

#[test]
fn rule_14_an_older_copy_of_the_directory_is_no_member_any_more() {
    // It is the same directory, and lacks what came after the copy was taken. That it lacks the newest registration gives it away.
    let mut stage = Stage::on(&[1, 2], &[("min_insync_replicas", "2")]);
    let copy = stage.broker(2).disk.snapshot();
    goes(&mut stage, 2);
    stage.restart(2);
    stage.settle();
    stage.produce(1, "a");
    stage.settle();
    assert!(stage.acknowledged("a"));
    stage.roll_back(2, &copy);
    stage.fence(2);
    assert_eq!(stage.registers(2), Ok(()));
    broker_2_must_not_lead(&mut stage);
}

#[test]
fn rule_14_the_marker_of_a_clean_stop_counts_once() {
    // Left in place, it would vouch for what was written after it.
    let mut stage = two_of_two(&[("flush", "os")]);
    stage.close(2);
    stage.fence(2);
    stage.restart(2);
    assert_eq!(stage.process(2).map(|process| process.stop), Some(LastStop::Clean));
    stage.settle();
    stage.produce(1, "b");
    stage.settle();
    assert!(stage.acknowledged("b"));
    stage.power_loss(2);
    stage.fence(2);
    assert_eq!(stage.registers(2), Ok(()));
    assert_eq!(stage.process(2).map(|process| process.stop), Some(LastStop::Machine));
    broker_2_must_not_lead(&mut stage);
    assert_eq!(stage.log(1), "a@0 b@0");
}

#[test]
fn rule_15_after_a_power_loss_a_replica_that_was_not_synced_is_no_member_any_more() {
    // Without `always` a record is committed once it is written. The power took it from broker 2.
    let mut stage = two_of_two(&[("flush", "os")]);
    stage.power_loss(2);
    stage.fence(2);
    assert_eq!(stage.sets().3, [2], "it may have been a kill");
    assert_eq!(stage.registers(2), Ok(()));
    broker_2_must_not_lead(&mut stage);
    stage.settle();
    assert_eq!(stage.log(2), "a@0");
}

#[test]
fn rule_15_after_a_kill_a_replica_is_what_it_was() {
    // The page cache belongs to the machine. Were this a power loss, too, one kill would make a record depend on the other broker alone.
    let mut stage = two_of_two(&[("flush", "os")]);
    goes(&mut stage, 2);
    assert_eq!(stage.registers(2), Ok(()));
    assert_eq!(stage.process(2).map(|process| process.stop), Some(LastStop::Process));
    goes(&mut stage, 1);
    stage.unfence(2);
    assert_eq!((stage.sets().0, stage.log(2)), (Some(2), "a@0".into()));
}

#[test]
fn rule_15_with_always_a_power_loss_costs_no_membership() {
    // What counts was synced. The loss of the power in both machines at once takes nothing.
    let mut stage = two_of_two(&[]);
    for node in [1, 2] {
        stage.power_loss(node);
        stage.fence(node);
    }
    stage.restart(2);
    assert_eq!((stage.sets().0, stage.log(2)), (Some(2), "a@0".into()));
}

/// All machines lose their power at once. Broker 1's disk had got two records, broker 2's one.
fn the_power_goes(settings: &[(&str, &str)]) -> Stage {
    let mut stage = two_of_two(settings);
    stage.write_out(1);
    stage.write_out(2);
    stage.produce(1, "b");
    stage.settle();
    assert!(stage.acknowledged("b"));
    stage.write_out(1);
    for node in [1, 2] {
        stage.power_loss(node);
        stage.fence(node);
    }
    stage
}

#[test]
fn rule_15_when_all_lost_their_power_the_partition_stays_offline() {
    // Nobody knows what is missing. By default that is for a person to decide.
    let mut stage = the_power_goes(&[("flush", "os")]);
    stage.restart(2);
    stage.restart(1);
    assert_eq!((stage.log(1), stage.log(2)), ("a@0 b@0".into(), "a@0".into()));
    assert_eq!(stage.recover(&[1, 2]), Recovery::Forbidden);
    assert_eq!(stage.sets(), (None, 1, vec![], vec![]));
}

#[test]
fn rule_15_the_topic_may_wait_for_all_last_members_and_take_the_one_that_kept_most() {
    // The first to come back would take from the others what it lost.
    let mut stage = the_power_goes(&[("flush", "os"), ("unclean_recovery", "last_members")]);
    stage.restart(2);
    assert_eq!(stage.recover(&[2]), Recovery::NotCalledFor, "broker 1 may be whole");
    stage.restart(1);
    assert_eq!(stage.recover(&[2]), Recovery::Waits { missing: vec![NodeId(1)] });
    assert_eq!(stage.recover(&[2, 1]), Recovery::Elected { leader: NodeId(1), leader_epoch: LeaderEpoch(2) });
    assert_eq!(stage.state().unclean_epoch, Some(LeaderEpoch(2)), "on record");
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2)], ["a@0 b@0"; 2]);
}
