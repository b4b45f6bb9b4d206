//! Rules 9 and 10: who joins the in-sync set, who leaves it, and what a decision has to meet when it is applied.

use callboard::engine::controller::{self as engine, InSyncProposal, InSyncRefusal};
use callboard::engine::metadata::ApplyError;
use callboard::types::{NodeId, Offset};

use crate::stage::{Stage, Told};

#[test]
fn rule_09_a_replica_joins_only_with_all_that_is_committed_on_its_disk() {
    // It could be elected in the next moment. What it has only written would go with its power.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(3);
    stage.fence(3);
    stage.metadata(1);
    stage.produce(1, "b");
    stage.settle();
    assert_eq!(stage.told("b"), Some(Told::Acknowledged(1)));
    stage.restart(3);
    stage.metadata(1);
    stage.fetch(3);
    assert_eq!(stage.proposed(1), [], "it has nothing of \"b\"");
    stage.write(3);
    stage.fetch(3);
    assert_eq!(stage.proposed(1), [], "it has written it");
    stage.sync(3);
    stage.fetch(3);
    assert_eq!(stage.proposed(1), [(vec![1, 2, 3], None)]);
}

#[test]
fn rule_09_a_replica_joins_only_past_the_start_of_the_leaders_epoch() {
    // Broker 2 has just been elected. It holds a record that is committed, and does not know that yet: its watermark is 0, which an empty
    // replica has reached, too.
    let mut stage = Stage::on(&[1, 2, 3, 4], &[]);
    stage.kill(4);
    stage.fence(4);
    stage.metadata(1);
    stage.commit_unheard("a");
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
    stage.kill(1);
    stage.fence(1);
    stage.restart(4);
    stage.metadata(2);
    stage.ask(4);
    assert_eq!((stage.watermark(2), stage.log(4), stage.proposed(2)), (0, String::new(), vec![]));
    stage.answer(4);
    stage.replicate(4);
    assert_eq!((stage.log(4), stage.proposed(2)), ("a@0".into(), vec![(vec![2, 3, 4], None)]));
}

/// Broker 3 has caught up again, and the proposal to take it in is under way.
fn broker_3_is_proposed() -> (Stage, InSyncProposal) {
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(3);
    stage.fence(3);
    stage.metadata(1);
    stage.restart(3);
    stage.metadata(1);
    stage.fetch(3);
    let proposal = stage.take_proposals(1).remove(0);
    (stage, proposal)
}

fn comes_back_empty(stage: &mut Stage, node: u32) {
    stage.wipe(node);
    stage.fence(node);
    stage.restart(node);
    assert_eq!(stage.log(node), "");
}

#[test]
fn rule_09_a_proposal_made_for_an_earlier_registration_lets_nobody_in() {
    // It was made for a replica that had everything. By now the broker is back on an empty disk. Nothing of the partition has changed, so
    // only the registration tells.
    let (mut stage, proposal) = broker_3_is_proposed();
    comes_back_empty(&mut stage, 3);
    assert_eq!(stage.hand_in(proposal), Err(InSyncRefusal::FencedMember { node: NodeId(3) }));
    assert_eq!(stage.sets(), (Some(1), 0, vec![1, 2], vec![]));
}

#[test]
fn rule_09_a_member_that_does_not_keep_up_leaves_and_holds_up_nobody() {
    // Without a limit one slow broker would stop every producer for good.
    let mut stage = Stage::of(&[]);
    stage.leader_appends("a");
    stage.replicate(2);
    for _ in 0..7 {
        stage.pass(100);
        stage.fetch(2);
    }
    assert_eq!((stage.proposed(1), stage.told("a")), (vec![], None));
    stage.pass(100);
    assert_eq!(stage.proposed(1), [(vec![1, 2], None)]);
    stage.settle();
    assert_eq!((stage.told("a"), stage.sets().2), (Some(Told::Acknowledged(0)), vec![1, 2, 3]), "and is back");
}

#[test]
fn rule_09_a_member_that_keeps_up_under_load_stays() {
    // When its acknowledgement comes there is always more already. Measured by the leader's newest end it would never have caught up,
    // and a set without it would survive one loss less.
    let mut stage = Stage::of(&[]);
    for _ in 0..20 {
        stage.produce(1, "load");
        stage.write(1);
        stage.sync(1);
        for node in [2, 3] {
            stage.ask(node);
            stage.answer(node);
            stage.write(node);
            stage.sync(node);
        }
        stage.pass(100);
        assert_eq!(stage.proposed(1), []);
    }
    assert_eq!(stage.sets().2, [1, 2, 3]);
}

#[test]
fn rule_09_a_member_that_asks_again_for_what_it_had_acknowledged_leaves() {
    // Its disk has lost records under a process that runs on. It must not be elected.
    let mut stage = Stage::with_records(&[], &["a", "b"]);
    stage.pass(200);
    stage.answer(2);
    let (leader, mut fetch) = stage.hold_fetch(2);
    (fetch.position, fetch.durable_end) = (Offset(1), Offset(1));
    stage.release((leader, fetch));
    assert_eq!(stage.proposed(1), [(vec![1, 3], None)]);
    stage.decide_for(1);
    stage.kill(1);
    stage.fence(1);
    assert_eq!(stage.sets().0, Some(3), "broker 2 comes first, and lacks \"b\"");
}

#[test]
fn rule_10_a_proposal_that_was_overtaken_by_an_election_changes_nothing() {
    // Broker 1 wants to go on without broker 3. Meanwhile broker 2 was elected, and commits with broker 3: a set of 1 and 2 would
    // have the wrong members.
    let mut stage = Stage::with_records(&[], &["a"]);
    for _ in 0..2 {
        stage.pass(500);
        stage.fetch(2);
    }
    let proposal = stage.take_proposals(1).remove(0);
    assert_eq!(proposal.members.len(), 2);
    stage.fence(1);
    assert_eq!(stage.hand_in(proposal), Err(InSyncRefusal::NotLeader { leader: Some(NodeId(2)) }));
    assert_eq!(stage.sets(), (Some(2), 1, vec![2, 3], vec![]));
}

#[test]
fn rule_10_a_proposal_counts_for_the_state_in_which_it_was_made() {
    // Two proposals of one leader overtake each other. The older one would take out a member that the newer one has let in, and that
    // counts on being told.
    let (mut stage, in_with_3) = broker_3_is_proposed();
    assert!(stage.hand_in(in_with_3.clone()).is_ok());
    let mut older = in_with_3;
    older.members.truncate(2);
    assert!(matches!(stage.hand_in(older), Err(InSyncRefusal::StalePartitionEpoch { .. })));
    assert_eq!(stage.sets().2, [1, 2, 3]);
}

#[test]
fn rule_10_a_registration_is_decided_anew_when_something_came_before_it() {
    // Whether a broker's replicas may lack what is committed was judged without what came in between: partitions that it was given,
    // another flush policy.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(2);
    let late = stage.decides_registration(2);
    stage.stopping(4);
    assert!(!stage.fits(&late));
    let anew = stage.decides_registration(2);
    assert!(stage.fits(&anew));
}

#[test]
fn rule_10_what_was_decided_on_older_metadata_is_tested_again_when_it_is_applied() {
    // A controller has decided to let broker 3 in, and is deposed before that is in the log. Its successor registers broker 3 anew, on an
    // empty disk. Then the old decision gets into the log after all.
    let (mut stage, proposal) = broker_3_is_proposed();
    let decided = engine::alter_in_sync(&stage.image, &[proposal]);
    assert!(decided.answer[0].is_ok());
    comes_back_empty(&mut stage, 3);
    let before = stage.sets();
    let applied = stage.image.apply_entry(&decided.records);
    assert!(matches!(applied, Err(ApplyError::StaleBroker { node: NodeId(3), .. })), "{applied:?}");
    assert_eq!((stage.sets(), before.2.clone()), (before, vec![1, 2]));
}
