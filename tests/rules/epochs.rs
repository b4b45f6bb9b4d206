//! Rules 5 to 8: who leads, and what a new leader may say.

use crate::stage::{Stage, Told};

#[test]
fn rule_05_a_broker_that_restarts_leads_again_only_in_a_higher_epoch() {
    // In the same epoch it would give an offset that it lost with its power to another record.
    let mut stage = Stage::on(&[1], &[]);
    stage.produce(1, "lost");
    stage.write(1);
    stage.power_loss(1);
    stage.restart(1);
    stage.produce(1, "b");
    stage.write(1);
    assert_eq!((stage.sets().0, stage.log(1)), (Some(1), "b@1".into()));
}

#[test]
fn rule_07_a_fresh_leader_lists_no_end_before_its_watermark_has_reached_the_start_of_its_epoch() {
    // It holds all that is committed, but knows only a part of it: the end that it knows would lie before what was read.
    let mut stage = Stage::of(&[]);
    stage.produce(1, "a");
    stage.write(1);
    stage.sync(1);
    for node in [2, 3] {
        stage.fetch(node);
        stage.write(node);
        stage.sync(node);
        stage.ask(node);
    }
    assert_eq!((stage.told("a"), stage.watermark(2)), (Some(Told::Acknowledged(0)), 0));
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.list(2, "lister");
    assert_eq!(stage.told("lister"), None);
    stage.fetch(3);
    assert_eq!(stage.told("lister"), Some(Told::End(1)));
}
