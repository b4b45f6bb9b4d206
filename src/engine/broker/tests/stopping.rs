//! How a broker goes.

use super::*;
use crate::engine::controller::fence;

impl Story {
    fn silent(&mut self) -> Vec<String> {
        self.run(|engine, now, out| engine.on_lease_given_up(now, out))
    }

    fn closed(&mut self, is_clean: bool) -> Vec<String> {
        self.run(|engine, now, out| engine.on_closed(now, is_clean, out))
    }

    /// Broker 1 leads nothing any more.
    fn handed_over(&mut self) -> Vec<String> {
        let proposal = self.cluster.proposal(&[2], Some(2));
        self.cluster.proposes(proposal).expect("accepted");
        self.image()
    }
}

#[test]
fn rule_08_a_broker_hands_over_falls_silent_says_so_closes_and_leaves_its_marker() {
    let mut story = Story::leading();
    story.now = 10;
    assert_eq!(story.stop(), ["stopping", "hand p0 over to 2 until 60"]);
    assert_eq!(story.at(109), [""; 0]);
    assert_eq!(story.at(110), ["stopping", "hand p0 over to 2 until 160"], "nobody heard it");
    story.cluster.stopping(1);
    story.image();
    assert_eq!(story.at(210), ["hand p0 over to 2 until 260"]);
    assert_eq!(story.at(300), ["renew at 300, doubts []"], "it leads, so it needs its lease");
    assert_eq!(story.handed_over(), ["give up the lease"]);
    let epoch = story.epoch();
    let late = Answer::Renewed { epoch, sent: ms(300), duration: LEASE };
    assert_eq!(story.answered(late), [""; 0], "it has no use for a lease any more");
    assert_eq!(story.engine.lease_until(), ms(0));
    assert_eq!(story.silent(), ["stopped", "close"], "only now may another lead at once");
    assert_eq!(story.at(400), ["stopped"], "nobody heard it");
    assert_eq!(story.closed(true), ["mark"]);
    assert_eq!(story.closed(true), [""; 0]);
    let fenced = fence(&story.cluster.image, NodeId(1), epoch);
    story.cluster.take(fenced);
    assert_eq!(story.image(), ["end: clean"]);
    assert_eq!((story.at(9_000), story.next()), (vec![], None));
}

#[test]
fn rule_08_a_broker_that_nobody_can_take_over_from_goes_at_once() {
    let mut story = Story::live();
    assert_eq!(story.cluster.sets().0, Some(2));
    assert_eq!(story.stop(), ["give up the lease"]);
    let mut story = Story::leading();
    story.cluster.fenced(2);
    story.image();
    assert_eq!(story.stop(), ["give up the lease"], "it leads alone");
}

#[test]
fn rule_08_a_hand_over_that_does_not_come_to_pass_is_not_waited_for_forever() {
    let mut story = Story::leading();
    story.now = 10;
    story.stop();
    for at in (110..1_010).step_by(100) {
        assert!(story.at(at).contains(&format!("hand p0 over to 2 until {}", at + 50)));
    }
    assert_eq!(story.at(1_010), ["give up the lease"]);
}

#[test]
fn what_is_not_all_on_disk_is_not_marked_as_a_clean_stop() {
    let mut story = Story::live();
    story.stop();
    story.silent();
    assert_eq!(story.closed(false), [""; 0]);
    story.cluster.fenced(1);
    assert_eq!(story.image(), ["end: not clean"]);
}

#[test]
fn a_broker_that_nobody_hears_ends_after_a_while() {
    let mut story = Story::live();
    story.stop();
    story.silent();
    story.closed(true);
    for at in [101, 201, 301, 401] {
        assert_eq!(story.at(at), ["stopped"]);
    }
    assert_eq!(story.next(), Some(501));
    assert_eq!(story.at(501), ["end: clean"]);
}

#[test]
fn a_broker_whose_logs_take_long_to_close_waits_for_them() {
    let mut story = Story::live();
    story.stop();
    story.silent();
    assert_eq!(story.at(900), ["stopped"], "the time for the farewell is over, and the logs are not closed");
    story.cluster.fenced(1);
    assert_eq!(story.image(), [""; 0]);
    assert_eq!(story.at(1_100), [""; 0], "it was heard");
    assert_eq!(story.closed(true), ["mark", "end: clean"]);
}

#[test]
fn a_broker_that_is_leaving_opens_and_reports_nothing() {
    let mut story = Story::registered();
    story.stop();
    story.silent();
    story.opened(Opened::default());
    story.counted_on();
    assert!(story.engine.is_leaving() && !story.engine.follows_metadata());
    assert_eq!(story.at(50), [""; 0]);
}

#[test]
fn rule_15_a_stop_before_the_registration_vouches_for_nothing_that_the_controllers_do_not_know() {
    // The machine had lost its power, and no controller has heard of it: a marker now would hide it.
    let mut story = Story::of(strict(), 1, Return::After(LastStop::Machine));
    story.at(0);
    assert_eq!((story.stop(), story.next()), (vec!["close".to_owned()], None));
    assert_eq!(story.closed(true), ["end: not clean"]);
    // The stop before was clean, and its marker was taken away at the start.
    let mut story = Story::of(strict(), 1, CLEAN);
    story.at(0);
    let late = story.decides();
    story.stop();
    assert_eq!(story.answered(late), [""; 0]);
    assert_eq!(story.closed(true), ["mark", "end: clean"]);
    // The new epoch may be in the directory, or not.
    let mut story = Story::of(strict(), 1, CLEAN);
    story.at(0);
    let answer = story.decides();
    story.answered(answer);
    assert_eq!(story.stop(), ["close"]);
    assert_eq!(story.stored(), [""; 0]);
    assert_eq!(story.closed(true), ["end: not clean"]);
}

#[test]
fn rule_14_a_broker_that_is_taken_over_from_while_it_stops_leaves_no_marker() {
    let mut story = Story::leading();
    story.stop();
    story.cluster.registers(1, CLEAN);
    assert_eq!(story.image(), ["give up the lease", "end: superseded"]);
    assert_eq!((story.silent(), story.closed(true)), (vec![], vec![]));
}

#[test]
fn a_controller_has_leaderships_moved_as_long_as_the_broker_serves() {
    let mut story = Story::leading();
    let wanted = |story: &mut Story| story.run(|engine, now, out| engine.on_hand_over_wanted(now, P0, NodeId(2), out));
    assert_eq!(wanted(&mut story), ["hand p0 over to 2 until 51"]);
    story.cluster.fenced(2);
    story.image();
    story.stop();
    assert_eq!(wanted(&mut story), [""; 0]);
}
