//! Rule 12: a partition moves to other replicas.

use callboard::protocol::ErrorCode;

use crate::stage::{Stage, Told};

/// The partition is on 1 and 2, with one record, and is to go to 3 and 4. Everybody knows.
fn moving() -> Stage {
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.produce(1, "a");
    stage.settle();
    assert!(stage.acknowledged("a"));
    stage.reassign(&[3, 4]);
    for node in 1..=4 {
        stage.metadata(node);
    }
    stage
}

fn joins(stage: &mut Stage, node: u32) {
    stage.replicate(node);
    stage.decide_for(1);
    stage.metadata(1);
}

fn replicas(stage: &Stage) -> Vec<u32> {
    stage.state().replicas.iter().map(|node| node.0).collect()
}

#[test]
fn rule_12_the_old_replicas_stay_until_all_new_ones_are_in_sync() {
    // A swap when the first one has caught up would leave one copy of what had two.
    let mut stage = moving();
    joins(&mut stage, 3);
    assert_eq!((replicas(&stage), stage.sets()), (vec![1, 2, 3, 4], (Some(1), 0, vec![1, 2, 3], vec![])));
    stage.wipe(3);
    stage.fence(3);
    assert_eq!((stage.sets().2, stage.log(2)), (vec![1, 2], "a@0".into()), "there are two copies still");
    stage.restart(3);
    stage.metadata(1);
    joins(&mut stage, 4);
    joins(&mut stage, 3);
    stage.settle();
    assert_eq!((replicas(&stage), stage.sets()), (vec![3, 4], (Some(3), 1, vec![4, 3], vec![])));
    assert_eq!([stage.log(3), stage.log(4)], ["a@0"; 2]);
}

#[test]
fn rule_12_a_live_leader_goes_by_its_own_hand_over_and_then_all_at_once() {
    // Broker 1 has a lease. Were broker 3 elected beside it, what broker 1 says of the end of the log would be old.
    let mut stage = moving();
    joins(&mut stage, 3);
    stage.replicate(4);
    stage.decide_for(1);
    stage.list(1, "before");
    assert_eq!((stage.sets(), stage.told("before")), ((Some(1), 0, vec![1, 2, 3, 4], vec![]), Some(Told::End(1))));
    stage.metadata(1);
    assert_eq!(stage.proposed(1), [(vec![1, 2, 3, 4], Some(3))]);
    stage.list(1, "after");
    assert_eq!(stage.told("after"), Some(Told::Refused(ErrorCode::NotLeader)));
    stage.decide_for(1);
    assert_eq!((replicas(&stage), stage.sets()), (vec![3, 4], (Some(3), 1, vec![3, 4], vec![])));
}

#[test]
fn rule_12_a_replica_that_has_no_part_any_more_serves_nobody() {
    // Its files are still there, and nobody sends it anything new.
    let mut stage = moving();
    joins(&mut stage, 3);
    joins(&mut stage, 4);
    stage.settle();
    stage.read(2, 0, "reader");
    assert_eq!((stage.log(2), stage.told("reader")), ("a@0".into(), Some(Told::Refused(ErrorCode::NotLeader))));
    stage.read(4, 0, "follower");
    assert_eq!(stage.told("follower"), Some(Told::Read("a".into())));
}
