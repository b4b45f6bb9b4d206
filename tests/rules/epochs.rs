//! Rule 5: who leads, and under which epoch.

use callboard::engine::assignment::Assignment;
use callboard::types::NodeId;

use crate::stage::{P0, Stage, Told};

#[test]
fn rule_05_a_broker_that_restarts_leads_again_only_in_a_higher_epoch() {
    // Broker 1 loses its power, and with it a record that broker 2 has got. In the same epoch it would give that offset to another
    // record, and the two logs would pass for one: they have the same epoch there.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.produce(1, "lost");
    stage.write(1);
    stage.fetch(2);
    stage.write(2);
    stage.sync(2);
    stage.kill(2);
    stage.fence(2);
    stage.power_loss(1);
    stage.restart(1);
    stage.produce(1, "b");
    stage.write(1);
    assert_eq!((stage.sets().0, stage.log(1)), (Some(1), "b@1".into()), "the same broker, another epoch");
    stage.restart(2);
    assert_eq!(stage.log(2), "lost@0");
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2)], ["b@1", "b@1"]);
    assert_eq!((stage.told("lost"), stage.told("b")), (None, Some(Told::Acknowledged(0))));
}

#[test]
fn rule_05_a_new_incarnation_leads_nothing_of_what_the_old_one_led() {
    // It comes back so fast that nobody has missed it. Leading on, it would count on what the old process had in memory only.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.produce(1, "b");
    stage.write(1);
    for node in [2, 3] {
        stage.fetch(node);
        stage.write(node);
    }
    stage.power_loss(1);
    stage.registers(1).expect("the same directory");
    assert_eq!(stage.sets(), (Some(2), 1, vec![2, 3], vec![]), "its registration ended its leadership");
    stage.unfence(1);
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0 b@0"; 3], "broker 1 has got back what it lost");
    assert_eq!(stage.sets(), (Some(2), 1, vec![2, 3, 1], vec![]));
}

#[test]
fn rule_05_a_broker_that_sees_old_metadata_leads_nothing() {
    // Its image is from before its registration, and says that it leads in epoch 0. That was its predecessor.
    let mut stage = Stage::with_records(&[], &["a"]);
    let old = stage.image.clone();
    stage.kill(1);
    stage.registers(1).expect("the same directory");
    let part = Assignment::of(&old, NodeId(1), stage.epoch_of(1), P0);
    assert!(matches!(part, Assignment::Follow(following) if following.leader.is_none()), "{part:?}");
    stage.metadata(1);
    assert!(!stage.leads(1));
}
