//! Rule 8: how a leader passes the leadership on, and how a broker stops.

use callboard::engine::metadata::LastStop;
use callboard::protocol::ErrorCode;

use crate::stage::{Stage, Told};

const NOT_LEADER: Option<Told> = Some(Told::Refused(ErrorCode::NotLeader));

#[test]
fn rule_08_a_leader_hands_over_only_when_its_successor_holds_all_that_it_holds() {
    // A producer was told that the leader has its record. A successor without it would have broker 1 cut it, though nothing has failed.
    let mut stage = Stage::of(&[]);
    stage.produce_to_one(1, "a");
    stage.write(1);
    stage.sync(1);
    assert!(stage.acknowledged("a"));
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    assert_eq!(stage.proposed(1), [], "broker 2 does not have it");
    stage.produce_to_one(1, "late");
    assert_eq!(stage.told("late"), NOT_LEADER, "or there would always be something that broker 2 does not have");
    stage.fetch(2);
    stage.write(2);
    stage.fetch(2);
    assert_eq!(stage.proposed(1), [], "broker 2 has written it, and not synced");
    stage.sync(2);
    stage.fetch(2);
    assert_eq!(stage.proposed(1), [(vec![1, 2, 3], Some(2))]);
    stage.settle();
    assert_eq!(stage.sets(), (Some(2), 1, vec![1, 2, 3], vec![]));
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0"; 3]);
}

#[test]
fn rule_08_a_hand_over_that_takes_too_long_is_given_up() {
    // The successor may never get there. Producers must not wait for it.
    let mut stage = Stage::of(&[]);
    stage.leader_appends("a");
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    stage.pass(399);
    stage.produce(1, "early");
    assert_eq!(stage.told("early"), NOT_LEADER);
    stage.pass(1);
    stage.produce(1, "b");
    stage.settle();
    assert_eq!((stage.told("b"), stage.sets().0), (Some(Told::Acknowledged(1)), Some(1)));
}

#[test]
fn rule_08_a_hand_over_that_is_decided_late_takes_nothing_that_was_acknowledged() {
    // Broker 1 has given it up and goes on, but its proposal is still under way. Whatever it acknowledges, broker 2 must have; and where
    // the log ends it does not say, for broker 2 may have gone on by then.
    let mut stage = Stage::with_records(&[], &["a"]);
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    let copy = stage.take_proposals(1).remove(0);
    stage.pass(400);
    stage.leader_appends("b");
    stage.replicate(3);
    stage.list(1, "lister");
    assert_eq!((stage.told("b"), stage.told("lister")), (None, NOT_LEADER));
    assert!(stage.hand_in(copy).is_ok());
    stage.metadata(2);
    stage.metadata(3);
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0 b@0", "a@0", "a@0 b@0"]);
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0"; 3]);
    assert_eq!((stage.told("b"), stage.sets().0), (NOT_LEADER, Some(2)), "its producer tries again, at broker 2");
}

#[test]
fn rule_08_only_a_member_is_handed_to() {
    // Whoever is outside may lack what is committed. The leader refuses it, and so does the controller, if asked nevertheless.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.kill(3);
    stage.fence(3);
    stage.restart(3);
    stage.metadata(1);
    assert_eq!(stage.hand_over(1, 3), Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(stage.hand_over(1, 1), Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    let mut forged = stage.take_proposals(1).remove(0);
    forged.new_leader = Some(callboard::types::NodeId(3));
    assert!(stage.hand_in(forged).is_err());
    assert_eq!(stage.sets(), (Some(1), 0, vec![1, 2], vec![]));
}

#[test]
fn rule_08_a_broker_that_stops_hands_over_leaves_the_sets_and_comes_back_clean() {
    // Else its partitions would have no leader for a lease, the others would wait for it at each commit, and all its logs would have to be
    // read when it comes back. While it stops nobody elects it again.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.stopping(1);
    stage.metadata(1);
    assert_eq!(stage.hand_over(1, 2), Ok(()));
    stage.settle();
    assert_eq!(stage.sets(), (Some(2), 1, vec![1, 2, 3], vec![]));
    stage.kill(2);
    stage.fence(2);
    assert_eq!(stage.sets().0, Some(3), "broker 1 comes first in the order of the replicas, and is about to go");
    stage.close(1);
    stage.fence(1);
    stage.produce(3, "early");
    stage.metadata(3);
    stage.produce(3, "b");
    stage.settle();
    assert_eq!((stage.told("early"), stage.told("b")), (NOT_LEADER, Some(Told::Acknowledged(1))));
    stage.restart(1);
    assert_eq!(stage.process(1).map(|process| process.stop), Some(LastStop::Clean));
    stage.settle();
    assert_eq!((stage.log(1), stage.sets().2), ("a@0 b@2".into(), vec![3, 1]));
}
