//! Rule 18: what a partition knows of its producers, and what may be deleted.

use callboard::protocol::ErrorCode;

use crate::stage::{Stage, Told};

#[test]
fn rule_18_what_is_cut_is_forgotten() {
    // A batch was cut with the log. A replica that still knew it would take the retry for a duplicate, and answer with an offset where
    // there is nothing, or another's record.
    let mut stage = Stage::of(&[]);
    stage.produce_once(1, 0, "a", "first");
    stage.settle();
    stage.produce_once(1, 1, "b", "lost");
    stage.write(1);
    stage.sync(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.unfence(1);
    stage.settle();
    assert_eq!((stage.log(1), stage.sets().0), ("a@0".into(), Some(2)));
    assert_eq!(stage.hand_over(2, 1), Ok(()));
    stage.settle();
    assert_eq!(stage.sets().0, Some(1));
    stage.produce_once(1, 1, "b", "retry");
    stage.settle();
    stage.pass(50);
    stage.settle();
    assert_eq!(stage.told("retry"), Some(Told::Acknowledged(1)));
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0 b@2"; 3]);
}

#[test]
fn rule_18_what_a_follower_copied_it_knows() {
    // It leads next, and a retry of what it copied comes to it.
    let mut stage = Stage::of(&[]);
    stage.produce_once(1, 0, "a", "first");
    stage.settle();
    stage.kill(1);
    stage.fence(1);
    stage.settle();
    stage.produce_once(2, 0, "a", "retry");
    stage.settle();
    assert_eq!((stage.told("retry"), stage.log(2)), (Some(Told::Acknowledged(0)), "a@0".into()));
}

#[test]
fn rule_18_a_replica_that_starts_anew_knows_the_producers_of_what_was_deleted() {
    // The records are gone, and a retry of one may still come. It would be appended a second time.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.kill(2);
    stage.fence(2);
    stage.metadata(1);
    stage.produce_once(1, 0, "a", "first");
    stage.settle();
    stage.delete_before(1, 1, "deletion");
    stage.settle();
    assert_eq!((stage.told("first"), stage.told("deletion")), (Some(Told::Acknowledged(0)), Some(Told::StartsAt(1))));
    stage.restart(2);
    stage.settle();
    assert_eq!((stage.cursors(2), stage.sets().2), ((1, 1, 1, 1), vec![1, 2]));
    stage.kill(1);
    stage.fence(1);
    stage.settle();
    stage.produce_once(2, 0, "a", "retry");
    stage.produce_once(2, 1, "b", "next");
    stage.settle();
    assert_eq!((stage.told("retry"), stage.told("next")), (Some(Told::Acknowledged(0)), Some(Told::Acknowledged(1))));
    assert_eq!(stage.log(2), "b@1");
}

#[test]
fn rule_18_what_damaged_records_said_of_producers_is_asked_of_the_leader() {
    // The damage hid them when broker 2 started, or made them another producer's. The records are repaired, and it leads next: it must know
    // that 1 came before 2.
    const FORMAT: u64 = 16;
    const PRODUCER: u64 = 50;
    const SEQUENCE: u64 = 55;
    for place in [FORMAT, PRODUCER, SEQUENCE] {
        asks_its_leader(69 + place);
    }
}

fn asks_its_leader(flipped: u64) {
    let mut stage = Stage::of(&[]);
    stage.produce_once(1, 0, "a", "first");
    stage.produce_once(1, 1, "b", "second");
    stage.produce(1, "c");
    stage.settle();
    stage.kill(2);
    stage.fence(2);
    stage.flip_bit(2, flipped);
    stage.restart(2);
    stage.settle();
    assert_eq!((stage.log(2), stage.sets().2), ("a@0 b@0 c@0".into(), vec![1, 3, 2]));
    for node in [3, 1] {
        stage.kill(node);
        stage.fence(node);
    }
    stage.settle();
    stage.produce_once(2, 1, "b", "retry");
    stage.produce_once(2, 2, "d", "next");
    stage.settle();
    assert_eq!((stage.told("retry"), stage.told("next")), (Some(Told::Acknowledged(1)), Some(Told::Acknowledged(3))));
}

#[test]
fn rule_18_what_is_not_committed_is_not_deleted() {
    // A log that starts past what is committed says that it is: consumers would be sent there, and the record may still be cut.
    let mut stage = Stage::of(&[]);
    stage.produce(1, "a");
    stage.write(1);
    stage.delete_before(1, 1, "deletion");
    assert_eq!(stage.told("deletion"), Some(Told::Refused(ErrorCode::OffsetOutOfRange)));
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0"; 3]);
}
