//! When a broker may answer.

use super::*;

fn renewed(story: &mut Story, sent: u64) -> Vec<String> {
    let epoch = story.epoch();
    story.answered(Answer::Renewed { epoch, sent: ms(sent), duration: LEASE })
}

#[test]
fn rule_03_a_lease_counts_from_when_its_renewal_was_sent() {
    let mut story = Story::live();
    assert_eq!(story.at(300), ["renew at 300, doubts []"]);
    story.now = 1_200;
    assert_eq!(renewed(&mut story, 300), ["lease until 1300"]);
    assert_eq!(story.engine.lease_until(), ms(1_300));
}

#[test]
fn rule_03_no_answer_shortens_a_lease_or_makes_it_run_longer() {
    let mut story = Story::live();
    story.now = 600;
    assert_eq!(renewed(&mut story, 500), ["lease until 1500"]);
    assert_eq!(renewed(&mut story, 500), [""; 0], "it came twice");
    assert_eq!(renewed(&mut story, 200), [""; 0], "the answer to an earlier one was overtaken");
    assert_eq!(renewed(&mut story, 601), [""; 0], "nothing was sent then yet");
    let epoch = story.epoch();
    assert_eq!(story.answered(Answer::Lapsed { epoch }), [""; 0], "the answer to an earlier one");
    let earlier = BrokerEpoch(epoch.0 - 1);
    let late = Answer::Renewed { epoch: earlier, sent: ms(600), duration: LEASE };
    assert_eq!(story.answered(late), [""; 0], "that was asked by another registration");
    assert_eq!(story.engine.lease_until(), ms(1_500));
    assert!(story.engine.describe(ms(1_499)).ends_with("0 of 1 replicas are not open"));
    assert!(story.engine.describe(ms(1_500)).contains("its lease is over"));
}

#[test]
fn a_renewal_that_is_lost_or_lies_about_does_not_hold_up_the_next() {
    let mut story = Story::live();
    assert_eq!(story.next(), Some(300));
    for at in [300, 600, 900] {
        assert_eq!(story.at(at), [format!("renew at {at}, doubts []")]);
    }
    assert_eq!(renewed(&mut story, 600), ["lease until 1600"]);
    assert_eq!(renewed(&mut story, 900), ["lease until 1900"]);
}

#[test]
fn rule_16_it_is_said_that_metadata_is_known_when_all_replicas_are_open() {
    let mut story = Story::registered();
    assert_eq!(story.at(0), ["renew at 0, doubts []"]);
    assert_eq!(story.engine.caught_up_to(), 0, "whatever called for it may have come long before");
    story.now = 20;
    story.opened(Opened { is_doubtful: true, is_damaged: false });
    assert_eq!(story.engine.caught_up_to(), story.cluster.image.index);
    assert_eq!(story.at(20), ["renew at 20, doubts [p0]", "report p0 opened"], "at once, since it is waited for");
    assert_eq!(story.at(120), ["renew at 120, doubts [p0]"], "a fenced broker asks more often");
}

#[test]
fn rule_14_a_lost_replica_is_heard_of_before_the_broker_is_counted_on() {
    // Counted on with it, it could be elected, and would have nothing.
    let mut story = Story::registered();
    story.engine.on_lost(ms(0), P0);
    assert_eq!(story.at(0), ["renew at 0, doubts []", "report p0 lost"]);
    assert!(story.engine.caught_up_to() < story.cluster.image.index);
    let lost = report_lost(&story.cluster.image, P0, NodeId(1), story.epoch());
    story.cluster.take(lost);
    assert_eq!(story.image(), ["open p0"], "it counts no more, and begins anew");
    assert!(story.engine.caught_up_to() < story.cluster.image.index);
    story.opened(Opened::default());
    assert_eq!(story.engine.caught_up_to(), story.cluster.image.index);
}

#[test]
fn a_replica_that_cannot_be_opened_holds_nobody_up() {
    let mut story = Story::registered();
    story.engine.on_cannot_open(ms(0), P0);
    assert_eq!(story.engine.caught_up_to(), story.cluster.image.index);
    assert_eq!(story.at(0), ["renew at 0, doubts []", "report p0 damaged in 1"]);
}

#[test]
fn a_topic_that_comes_later_holds_back_only_what_came_with_it() {
    // While topics are created again and again, some replica is always being opened.
    let mut story = Story::live();
    let known = story.cluster.image.index;
    let mut other = crate::engine::controller::test_support::registration(9);
    other.epoch = BrokerEpoch(story.cluster.image.index + 1);
    let created = crate::engine::metadata::MetadataRecord::TopicCreated {
        topic: TopicId(uuid::Uuid::from_u128(7)),
        name: crate::types::TopicName::new("later").expect("legal"),
        replicas: vec![nodes([1])],
        config: Default::default(),
    };
    story.cluster.apply(&[created]);
    assert_eq!(story.image().len(), 1);
    assert_eq!(story.engine.caught_up_to(), known);
    story.cluster.apply(&[crate::engine::metadata::MetadataRecord::BrokerRegistered(other)]);
    story.image();
    assert_eq!(story.engine.caught_up_to(), known, "it does not go back");
}

#[test]
fn rule_16_doubts_are_told_with_each_renewal_until_the_broker_is_counted_on_and_are_over_when_it_is_in_sync() {
    let mut story = Story::registered();
    story.at(0);
    story.opened(Opened { is_doubtful: true, is_damaged: false });
    assert_eq!(story.at(0)[0], "renew at 0, doubts [p0]");
    story.cluster.unfenced(1, &[P0]);
    assert_eq!(story.cluster.sets().1, [2], "it left both sets, since broker 2 is there");
    assert_eq!(story.image(), [""; 0]);
    assert_eq!(story.at(100), ["renew at 100, doubts []"], "each is reported by itself from here on");
    story.cluster.in_sync(&[2, 1]);
    assert_eq!(story.image(), ["p0 is whole"]);
    story.cluster.fenced(1);
    story.image();
    assert_eq!(story.at(101), ["renew at 101, doubts []"], "it was taken for whole");
    story.engine.on_damage(P0, true);
    assert_eq!(story.at(201)[0], "renew at 201, doubts [p0]");
    story.engine.on_damage(P0, false);
    assert_eq!(story.at(301), ["renew at 301, doubts []"]);
}

#[test]
fn rule_16_a_broker_that_was_fenced_before_it_heard_that_its_replica_is_in_sync_doubts_it_no_more() {
    let mut story = Story::registered();
    story.at(0);
    story.opened(Opened { is_doubtful: true, is_damaged: false });
    story.cluster.unfenced(1, &[P0]);
    assert_eq!(story.image(), [""; 0], "in neither set");
    story.cluster.in_sync(&[2, 1]);
    story.cluster.fenced(2);
    story.cluster.fenced(1);
    assert_eq!(story.cluster.sets(), (None, vec![], vec![2, 1]));
    assert_eq!(story.image(), ["p0 is whole"], "a doubtful one is a member only because it was taken for whole");
    assert_eq!(story.at(100)[0], "renew at 100, doubts []");
}

#[test]
fn rule_16_the_last_member_is_in_doubt_until_the_metadata_shows_it_in_sync() {
    let mut story = Story::registered();
    story.cluster.fenced(2);
    story.at(0);
    story.opened(Opened { is_doubtful: true, is_damaged: false });
    assert_eq!(story.image(), [""; 0]);
    assert_eq!(story.at(100)[0], "renew at 100, doubts [p0]", "nobody has looked at it");
}
