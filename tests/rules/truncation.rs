//! Rule 6: what a follower cuts off, and what it never does.

use callboard::engine::controller::Recovery;
use callboard::types::{LeaderEpoch, NodeId};

use crate::stage::{Stage, Told};

#[test]
fn rule_06_a_follower_does_not_cut_at_its_watermark() {
    // The record is committed, and the followers have not been told yet. Whoever cut its log at its own watermark when another begins
    // to lead would throw it away, and the next election could lose it (KIP-101).
    let mut stage = Stage::of(&[]);
    stage.commit_unheard("a");
    assert_eq!((stage.told("a"), stage.watermark(3)), (Some(Told::Acknowledged(0)), 0));
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.write(3);
    assert_eq!(stage.log(3), "a@0", "broker 3 follows another now");
    stage.kill(2);
    stage.fence(2);
    stage.metadata(3);
    assert_eq!((stage.sets().0, stage.log(3)), (Some(3), "a@0".into()), "and leads, with all that was acknowledged");
}

#[test]
fn rule_06_a_follower_walks_back_to_the_last_epoch_that_both_logs_have() {
    // Brokers 1 and 2 lead in turns, each while the other is away: below the minimum, so nothing but "a" is committed. By offsets alone
    // broker 1's log fits into broker 2's: records that nobody else has would stay in it for good.
    let mut stage = Stage::on(&[1, 2], &[("min_insync_replicas", "2")]);
    stage.produce(1, "a");
    stage.settle();
    stage.kill(2);
    stage.fence(2);
    stage.metadata(1);
    lead_alone(&mut stage, 1, &["x"]);
    lead_alone(&mut stage, 2, &["y1", "y2", "y3"]);
    lead_alone(&mut stage, 1, &["z"]);
    stage.restart(2);
    stage.restart(1);
    assert_eq!((stage.log(1), stage.log(2)), ("a@0 x@0 z@2".into(), "a@0 y1@1 y2@1 y3@1".into()));
    stage.metadata(2);
    stage.fetch(1);
    stage.write(1);
    assert_eq!(stage.log(1), "a@0 x@0", "broker 2 knows nothing of epoch 2, and epoch 0 is before its epoch 1");
    stage.fetch(1);
    stage.write(1);
    assert_eq!(stage.log(1), "a@0", "there epoch 0 ends after one record");
    stage.settle();
    assert_eq!(stage.log(1), "a@0 y1@1 y2@1 y3@1");
}

/// Broker `node` comes back if it is away, takes these records while it is alone, and goes.
fn lead_alone(stage: &mut Stage, node: u32, values: &[&'static str]) {
    if stage.process(node).is_none() {
        stage.restart(node);
    }
    for value in values {
        stage.produce_to_one(node, value);
        stage.write(node);
        stage.sync(node);
        assert!(stage.acknowledged(value), "{value}: {:?}", stage.told(value));
    }
    stage.kill(node);
    stage.fence(node);
}

#[test]
fn rule_06_what_was_cut_does_not_come_back_with_the_power() {
    // The cut is on the disk before anything is appended. Else a power loss could bring back what was cut, beside what came after it.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.leader_appends("lost");
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.produce(2, "b");
    stage.write(2);
    stage.restart(1);
    stage.metadata(2);
    assert_eq!(stage.log(1), "a@0 lost@0");
    stage.fetch(1);
    stage.write(1);
    assert_eq!(stage.log(1), "a@0");
    stage.power_loss(1);
    stage.restart(1);
    assert_eq!(stage.log(1), "a@0");
}

#[test]
fn rule_06_a_replica_that_would_have_to_cut_what_is_committed_goes_offline_with_all_it_has() {
    // Broker 2's disk gave up a record that it had kept for good. No disk may do that, and nobody can tell by the directory, whose copy is as
    // new as the registration. Broker 2 is elected. If broker 1 cut what it knows to be committed, the last copy would be gone.
    let mut stage = Stage::of(&[("min_insync_replicas", "3")]);
    stage.produce(1, "a");
    stage.settle();
    let copy = stage.broker(2).disk.snapshot();
    stage.produce(1, "b");
    stage.settle();
    assert!(stage.acknowledged("b"));
    stage.checkpoint(1);
    stage.roll_back(2, &copy);
    for node in [2, 1, 3] {
        stage.kill(node);
        stage.fence(node);
    }
    stage.restart(2);
    stage.restart(1);
    assert_eq!((stage.sets().0, stage.log(2), stage.log(1)), (Some(2), "a@0".into(), "a@0 b@0".into()));
    stage.settle();
    assert!(stage.is_offline(1));
    assert_eq!((stage.log(1), stage.watermark(1)), ("a@0 b@0".into(), 2), "it is kept for a person to look at");
}

#[test]
fn rule_06_what_is_committed_is_cut_for_an_unclean_election_that_is_on_record() {
    // Without `always` a power loss takes all that the members had. The topic wants to go on nevertheless: then a replica that kept
    // more follows, or there would be two histories.
    let mut stage = Stage::with_records(&[("flush", "os"), ("unclean_recovery", "last_members")], &["a"]);
    stage.checkpoint(3);
    stage.kill(3);
    stage.fence(3);
    for node in [1, 2] {
        stage.power_loss(node);
    }
    for node in [1, 2] {
        stage.restart(node);
    }
    assert_eq!(stage.sets(), (None, 1, vec![], vec![]));
    assert_eq!(stage.recover(&[2]), Recovery::Elected { leader: NodeId(2), leader_epoch: LeaderEpoch(2) });
    stage.metadata(2);
    stage.produce(2, "b");
    stage.settle();
    stage.restart(3);
    assert_eq!((stage.log(3), stage.watermark(3)), ("a@0".into(), 1), "to the best of its knowledge committed");
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["b@2"; 3]);
    assert!(!stage.is_offline(3));
}
