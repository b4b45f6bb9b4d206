//! How a process comes to be counted on.

use super::*;

#[test]
fn a_process_asks_until_it_is_answered_and_renews_only_when_its_epoch_is_on_disk() {
    let mut story = Story::of(strict(), 1, CLEAN);
    assert_eq!(story.next(), Some(0));
    assert_eq!(story.at(0), ["register"]);
    assert_eq!((story.at(99), story.next()), (vec![], Some(100)));
    assert_eq!(story.at(100), ["register"], "the answer was lost, or the request");
    let answer = story.decides();
    assert_eq!(story.answered(answer.clone()), ["store"]);
    assert_eq!((story.engine.epoch(), story.next()), (None, None), "a crash now would leave the old epoch");
    assert_eq!(story.answered(answer.clone()), [""; 0], "it came twice");
    assert_eq!(story.at(500), [""; 0]);
    assert_eq!(story.stored(), ["open p0"]);
    assert_eq!(story.at(500), ["renew at 500, doubts []"]);
    assert_eq!(story.answered(answer), [""; 0], "a third copy");
    assert_eq!(story.engine.epoch(), story.cluster.image.epoch_of(NodeId(1)));
}

#[test]
fn an_answer_to_another_process_changes_nothing() {
    let mut story = Story::of(strict(), 1, CLEAN);
    story.at(0);
    let other = IncarnationId::random();
    assert_eq!(story.answered(Answer::Registered { incarnation: other, epoch: BrokerEpoch(90) }), [""; 0]);
    let cause = ApiError::new(ErrorCode::BrokerSuperseded, "over");
    assert_eq!(story.answered(Answer::NotRegistered { incarnation: other, cause }), [""; 0]);
    assert_eq!(story.at(100), ["register"]);
}

#[test]
fn a_refused_registration_is_asked_for_again_and_says_why() {
    // Another directory is counted on under this id, until its lease is over.
    let mut story = Story::of(strict(), 1, Return::Wiped);
    story.at(0);
    let refused = story.decides();
    assert_eq!(story.answered(refused), [""; 0]);
    let text = story.engine.describe(ms(0));
    assert!(text.starts_with("not registered: a broker with id 1 runs on another data directory"), "{text}");
    assert_eq!(story.at(100), ["register"]);
    story.cluster.fenced(1);
    let accepted = story.decides();
    assert_eq!(story.answered(accepted), ["store"]);
}

#[test]
fn an_epoch_that_could_not_be_written_down_is_written_again() {
    let mut story = Story::of(strict(), 1, CLEAN);
    story.at(0);
    let answer = story.decides();
    story.answered(answer);
    story.engine.on_epoch_not_stored(ms(10));
    assert_eq!((story.at(10), story.next()), (vec![], Some(110)));
    assert!(story.engine.describe(ms(10)).contains("see to the data directory"));
    assert_eq!(story.at(110), ["store"]);
    assert_eq!(story.next(), None, "it is on its way");
    assert_eq!(story.stored(), ["open p0"]);
}

#[test]
fn rule_05_nothing_is_opened_before_the_metadata_knows_the_registration() {
    let mut story = Story::of(strict(), 1, CLEAN);
    let before = story.cluster.image.clone();
    story.at(0);
    let answer = story.decides();
    story.answered(answer);
    let opened = story.run(|engine, now, out| engine.on_epoch_stored(now, &before, out));
    assert_eq!(opened, [""; 0], "the metadata here is older than the registration");
    assert_eq!(story.at(0), ["renew at 0, doubts []"]);
    assert_eq!(story.engine.caught_up_to(), 0);
    assert_eq!(story.image(), ["open p0"]);
    assert_eq!(story.image(), [""; 0], "once");
    let stale = story.run(|engine, now, out| engine.on_image(now, &before, out));
    assert_eq!((stale, story.engine.follows_metadata()), (vec![], true), "older metadata takes nothing back");
}

#[test]
fn rule_14_a_process_that_was_taken_over_from_ends_and_touches_nothing() {
    let over = ["give up the lease", "end: superseded"];
    // It hears of it by a late copy of its own request.
    let mut story = Story::registered();
    story.cluster.registers(1, CLEAN);
    let refused = story.decides();
    assert_eq!(story.answered(refused), over);
    // By a renewal.
    let mut story = Story::registered();
    let (epoch, current) = (story.epoch(), story.cluster.registers(1, CLEAN));
    assert_eq!(story.answered(Answer::StaleEpoch { epoch, current: Some(current) }), over);
    // By the metadata.
    let mut story = Story::leading();
    story.cluster.registers(1, CLEAN);
    assert_eq!(story.image(), over);
    assert_eq!((story.image(), story.at(5_000), story.stop(), story.next()), (vec![], vec![], vec![], None));
    assert_eq!((story.engine.epoch(), story.engine.lease_until()), (None, ms(0)));
}

#[test]
fn a_controller_that_knows_of_no_newer_registration_ends_nothing() {
    let mut story = Story::registered();
    let epoch = story.epoch();
    for current in [None, Some(BrokerEpoch(epoch.0 - 1)), Some(epoch)] {
        assert_eq!(story.answered(Answer::StaleEpoch { epoch, current }), [""; 0]);
    }
    let earlier = BrokerEpoch(epoch.0 - 1);
    let late = Answer::StaleEpoch { epoch: earlier, current: Some(epoch) };
    assert_eq!(story.answered(late), [""; 0], "that was said to the process before");
    assert_eq!(story.engine.epoch(), Some(epoch));
}

#[test]
fn it_says_that_no_controller_answers() {
    let mut story = Story::of(strict(), 1, CLEAN);
    assert_eq!(story.engine.describe(ms(899)), "not registered yet");
    assert_eq!(story.engine.describe(ms(12_000)), "not registered yet; no controller has answered for 12 s");
    story.now = 12_000;
    let answer = story.decides();
    story.answered(answer);
    assert!(!story.engine.describe(ms(12_100)).contains("no controller"));
    assert_eq!(story.engine.unheard_for(ms(12_100)), Duration::from_millis(100));
}
