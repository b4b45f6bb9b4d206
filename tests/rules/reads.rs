//! Rules 7 and 13: what consumers are given and told, by a fresh leader, an old one, and by followers.

use crate::stage::{Stage, Told};

/// A record that is committed, which the followers have not been told yet.
fn committed_and_not_yet_known() -> Stage {
    let mut stage = Stage::of(&[]);
    stage.commit_unheard("a");
    assert_eq!((stage.told("a"), stage.watermark(2)), (Some(Told::Acknowledged(0)), 0));
    stage
}

#[test]
fn rule_07_a_fresh_leader_lists_no_end_before_its_watermark_has_reached_the_start_of_its_epoch() {
    // It holds all that is committed, but knows only a part of it: the end that it knows would lie before what was read.
    let mut stage = committed_and_not_yet_known();
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.list(2, "lister");
    assert_eq!(stage.told("lister"), None);
    stage.fetch(3);
    assert_eq!(stage.told("lister"), Some(Told::End(1)));
}

#[test]
fn rule_07_a_fresh_leader_judges_no_offset_beyond_its_end() {
    // Broker 2 is elected, and replaced before anybody has fetched from it, which it does not hear. What broker 3 commits then it does not
    // know. "Out of range" would send a reader of that to the beginning of the log, or past its end.
    let mut stage = committed_and_not_yet_known();
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.fence(2);
    stage.metadata(3);
    stage.produce(3, "b");
    stage.produce(3, "c");
    stage.write(3);
    stage.sync(3);
    stage.read(3, 1, "reader");
    assert_eq!(stage.told("reader"), Some(Told::Read("b c".into())));
    stage.read(2, 3, "again");
    assert_eq!(stage.told("again"), None, "it waits");
}

#[test]
fn rule_07_a_leader_that_may_have_been_replaced_judges_no_offset_beyond_its_end() {
    // Broker 1 has handed over and does not know whether it was heard. What broker 2 commits then it does not know.
    let mut stage = Stage::with_records(&[], &["a"]);
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    stage.read(1, 2, "early");
    assert!(stage.decide_for(1)[0].is_ok());
    commit_without_broker_1(&mut stage, "b c");
    stage.read(1, 2, "late");
    stage.pass(1);
    assert_eq!((stage.told("early"), stage.told("late")), (None, None), "offset 2 is there, at broker 2");
    stage.metadata(1);
    assert_eq!(stage.told("late"), Some(Told::Refused(callboard::protocol::ErrorCode::NotLeader)));
}

#[test]
fn rule_07_a_leader_whose_log_failed_judges_no_offset_beyond_its_end() {
    // It has said so, and another leads as soon as the controller hears of it.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.break_sync(1);
    stage.leader_appends("x");
    assert!(stage.is_offline(1));
    stage.report_damaged(1);
    commit_without_broker_1(&mut stage, "b c");
    stage.read(1, 3, "reader");
    stage.list(1, "lister");
    assert_eq!(stage.told("reader"), None, "offset 3 is the end of what broker 2 has committed");
    assert_eq!(stage.told("lister"), Some(Told::Refused(callboard::protocol::ErrorCode::NotLeader)));
}

/// Broker 2 leads, and commits two records with broker 3. Broker 1 hears of nothing, and renews its lease.
fn commit_without_broker_1(stage: &mut Stage, read: &str) {
    stage.metadata(2);
    stage.metadata(3);
    for _ in 0..2 {
        stage.pass(500);
        stage.fetch(3);
    }
    stage.decide_for(2);
    stage.metadata(2);
    stage.produce(2, "b");
    stage.produce(2, "c");
    stage.write(2);
    stage.sync(2);
    stage.replicate(3);
    stage.replicate(3);
    stage.read(2, 1, "elsewhere");
    assert_eq!((stage.told("elsewhere"), stage.leads(1)), (Some(Told::Read(read.into())), true));
}

#[test]
fn rule_07_a_follower_that_is_behind_lets_a_reader_wait() {
    // The reader comes from the leader, and has read more than broker 3 holds. It would be sent away from where it was.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(3);
    stage.fence(3);
    stage.produce(1, "b");
    stage.settle();
    stage.restart(3);
    stage.read(3, 2, "reader");
    assert_eq!((stage.log(3), stage.told("reader")), ("a@0".into(), None));
    stage.settle();
    assert_eq!((stage.log(3), stage.told("reader")), ("a@0 b@0".into(), None), "it is there now, and nothing is new");
    stage.produce(1, "c");
    stage.settle();
    assert_eq!(stage.told("reader"), Some(Told::Read("c".into())));
}

#[test]
fn rule_13_a_follower_serves_nothing_above_its_watermark() {
    // What it holds and nobody has committed may be gone tomorrow.
    let mut stage = Stage::of(&[]);
    stage.produce(1, "lost");
    stage.write(1);
    stage.fetch(2);
    stage.write(2);
    stage.sync(2);
    stage.read(2, 0, "reader");
    assert_eq!((stage.log(2), stage.told("reader")), ("lost@0".into(), None));
    stage.kill(1);
    stage.kill(2);
    stage.fence(1);
    stage.fence(2);
    stage.metadata(3);
    stage.restart(2);
    stage.produce(3, "b");
    stage.settle();
    assert_eq!([stage.log(2), stage.log(3)], ["b@2"; 2]);
}

#[test]
fn rule_13_a_follower_hears_of_a_commit_when_it_happens() {
    // Its fetch waits for records. Were it answered only with the next ones, its readers would be one step behind for as long as it is quiet.
    let mut stage = Stage::of(&[]);
    stage.leader_appends("a");
    stage.replicate(2);
    stage.read(2, 0, "reader");
    assert_eq!(stage.told("reader"), None, "broker 3 does not have it yet");
    stage.replicate(3);
    assert_eq!(stage.watermark(1), 1);
    stage.answer(2);
    assert_eq!(stage.told("reader"), Some(Told::Read("a".into())));
}
