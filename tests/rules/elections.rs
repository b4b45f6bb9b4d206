//! Rule 11: who may be elected.

use callboard::protocol::ErrorCode;

use crate::stage::{Stage, Told};

#[test]
fn rule_11_nobody_leads_rather_than_a_replica_outside_both_sets() {
    // Broker 3 was away when "b" was committed. Elected because it is the only one there, it would have "b" cut from all others.
    let mut stage = Stage::with_records(&[], &["a"]);
    goes(&mut stage, 3);
    stage.produce(1, "b");
    stage.settle();
    assert!(stage.acknowledged("b"));
    goes(&mut stage, 1);
    goes(&mut stage, 2);
    stage.restart(3);
    assert_eq!(stage.sets(), (None, 1, vec![], vec![2]));
    stage.restart(2);
    stage.settle();
    assert_eq!((stage.sets().0, stage.log(3)), (Some(2), "a@0 b@0".into()));
}

fn goes(stage: &mut Stage, node: u32) {
    stage.kill(node);
    stage.fence(node);
}

#[test]
fn rule_11_whoever_left_below_the_minimum_may_lead() {
    // Broker 1 is alone, so nothing is committed, and broker 2 lacks nothing. If only broker 1 could lead, its loss would end the
    // partition, with all that was acknowledged there on broker 2's disk.
    let mut stage = Stage::with_records(&[("min_insync_replicas", "2")], &["a"]);
    goes(&mut stage, 3);
    goes(&mut stage, 2);
    stage.metadata(1);
    assert_eq!(stage.sets(), (Some(1), 0, vec![1], vec![2]), "broker 3 left while two were enough");
    stage.produce(1, "b");
    assert_eq!(stage.told("b"), Some(Told::Refused(ErrorCode::NotEnoughReplicas)));
    goes(&mut stage, 1);
    stage.restart(3);
    assert_eq!(stage.sets().0, None, "something may have been committed without broker 3");
    stage.restart(2);
    stage.settle();
    assert_eq!((stage.sets().0, stage.log(2)), (Some(2), "a@0".into()));
    stage.produce(2, "c");
    stage.settle();
    assert_eq!(stage.told("c"), Some(Told::Acknowledged(1)));
}

#[test]
fn rule_11_once_enough_are_in_sync_whoever_is_not_is_eligible_no_more() {
    // From then on records are committed that it does not have.
    let mut stage = Stage::with_records(&[("min_insync_replicas", "2")], &["a"]);
    goes(&mut stage, 2);
    goes(&mut stage, 3);
    assert_eq!(stage.sets(), (Some(1), 0, vec![1], vec![3]));
    stage.restart(2);
    stage.settle();
    assert_eq!(stage.sets(), (Some(1), 0, vec![1, 2], vec![]));
    stage.produce(1, "b");
    stage.settle();
    assert!(stage.acknowledged("b"));
    goes(&mut stage, 1);
    goes(&mut stage, 2);
    stage.restart(3);
    assert_eq!((stage.sets().0, stage.log(3)), (None, "a@0".into()));
}

#[test]
fn rule_11_another_minimum_ends_all_eligibility() {
    // Broker 2 is eligible because one was too few. Now one is enough, and broker 1 commits alone.
    let mut stage = Stage::with_records(&[("min_insync_replicas", "2")], &["a"]);
    goes(&mut stage, 3);
    goes(&mut stage, 2);
    assert_eq!(stage.sets().3, [2]);
    stage.set_minimum("1");
    stage.metadata(1);
    stage.leader_appends("b");
    assert_eq!(stage.told("b"), Some(Told::Acknowledged(1)));
    goes(&mut stage, 1);
    stage.restart(2);
    assert_eq!((stage.sets().0, stage.log(2)), (None, "a@0".into()));
    stage.restart(1);
    stage.settle();
    assert_eq!((stage.sets().0, stage.log(2)), (Some(1), "a@0 b@0".into()));
}
