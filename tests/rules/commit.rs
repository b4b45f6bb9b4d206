//! Rules 1 to 4: what is committed, and when it is acknowledged.

use crate::stage::{Stage, Told};

#[test]
fn rule_01_a_record_is_committed_once_it_is_on_the_disks_of_all_in_sync_replicas() {
    // A record that was acknowledged while a member had only written it would be gone if that member led after a power loss.
    let mut stage = Stage::of(&[("min_insync_replicas", "2")]);
    stage.leader_appends("a");
    for node in [2, 3] {
        stage.fetch(node);
        stage.write(node);
        stage.fetch(node);
    }
    assert_eq!([stage.cursors(1), stage.cursors(2)], [(0, 0, 1, 1), (0, 0, 0, 1)]);
    assert_eq!(stage.told("a"), None, "everybody has written it, the leader alone has synced it");
    stage.sync(2);
    stage.fetch(2);
    assert_eq!(stage.told("a"), None, "broker 3 has not synced it");
    stage.sync(3);
    stage.fetch(3);
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
    assert_eq!(stage.watermark(1), 1);
}

#[test]
fn rule_01_followers_are_served_what_the_leader_has_written_so_that_the_syncs_overlap() {
    let mut stage = Stage::of(&[]);
    stage.produce(1, "a");
    stage.write(1);
    for node in [2, 3] {
        stage.replicate(node);
    }
    assert_eq!([stage.cursors(1), stage.cursors(2)], [(0, 0, 0, 1), (0, 0, 1, 1)], "the leader is the last to sync");
    assert_eq!(stage.told("a"), None);
    stage.sync(1);
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
}

#[test]
fn rule_01_a_proposed_member_counts_from_the_proposal_on() {
    // Were it counted only from the answer on, the controller could elect it in between, without the record.
    let mut stage = Stage::of(&[]);
    stage.fence(3);
    stage.metadata(1);
    stage.restart(3);
    stage.metadata(1);
    stage.fetch(3);
    assert_eq!(stage.proposed(1), [(vec![1, 2, 3], None)]);
    stage.leader_appends("a");
    stage.replicate(2);
    assert_eq!(stage.told("a"), None, "broker 3 may be in the set by now");
    assert_eq!(stage.decide_for(1).len(), 1);
    stage.fence(1);
    stage.fence(2);
    assert_eq!(
        stage.sets().0,
        Some(3),
        "it can be elected without having fetched again, so nothing may rest on the others"
    );
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0", "a@0", ""]);
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], [""; 3], "what nobody was promised is gone");
    assert!(!stage.acknowledged("a"));
}

#[test]
fn rule_01_what_was_proposed_counts_until_the_metadata_shows_a_newer_state_whatever_the_answer() {
    // A refusal speaks of one copy of a proposal. Another copy may still arrive and be accepted.
    let mut stage = Stage::of(&[]);
    stage.fence(3);
    stage.metadata(1);
    stage.restart(3);
    stage.metadata(1);
    stage.fetch(3);
    let copy = stage.take_proposals(1).remove(0);
    stage.with(1, |hosted, now| hosted.replica.on_proposal_refused(now));
    stage.leader_appends("a");
    stage.replicate(2);
    assert_eq!(stage.told("a"), None, "a copy of the proposal is under way");
    assert!(stage.hand_in(copy).is_ok());
    assert_eq!(stage.sets(), (Some(1), 0, vec![1, 2, 3], vec![]));
    stage.settle();
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
}

#[test]
fn rule_01_a_member_that_is_to_leave_counts_until_the_metadata_says_that_it_has_left() {
    // A proposal that was accepted is not enough: only what the metadata shows is known in its order.
    let mut stage = Stage::of(&[]);
    stage.leader_appends("a");
    stage.replicate(2);
    stage.pass(500);
    stage.fetch(2);
    stage.pass(500);
    assert_eq!(stage.proposed(1), [(vec![1, 2], None)], "broker 3 has not fetched for too long");
    assert!(stage.decide_for(1)[0].is_ok());
    stage.pass(200);
    stage.fetch(2);
    assert_eq!(stage.told("a"), None, "it was decided, and the leader does not know it yet");
    stage.metadata(1);
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
}

#[test]
fn rule_01_below_the_minimum_of_the_committed_set_nothing_is_committed() {
    // One copy is no more than one copy, even if a second member was proposed.
    let mut stage = Stage::of(&[("min_insync_replicas", "2")]);
    stage.leader_appends("a");
    stage.fence(2);
    stage.fence(3);
    stage.metadata(1);
    assert_eq!((stage.watermark(1), stage.told("a")), (0, None));
    stage.restart(2);
    stage.metadata(1);
    stage.replicate(2);
    assert_eq!(stage.proposed(1), [(vec![1, 2], None)]);
    assert_eq!((stage.watermark(1), stage.told("a")), (0, None), "proposed is not committed");
    stage.decide_for(1);
    stage.metadata(1);
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
}

#[test]
fn rule_02_what_a_follower_has_written_and_not_synced_does_not_count() {
    // It would be lost by a power loss after the acknowledgement.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.leader_appends("a");
    stage.fetch(2);
    stage.write(2);
    stage.fetch(2);
    assert_eq!(stage.told("a"), None);
    stage.power_loss(2);
    stage.restart(2);
    assert_eq!(stage.cursors(2), (0, 0, 0, 0), "gone, and nobody was told that it is there");
}

#[test]
fn rule_02_a_fetch_of_an_earlier_registration_counts_for_nothing() {
    // Broker 2 has synced a record, and its acknowledgement is held up. It comes back on an empty disk, and is taken in again: nothing is
    // committed yet, so it lacks nothing. Then the old fetch arrives, and says that broker 2 has the record.
    let mut stage = Stage::of(&[]);
    stage.leader_appends("a");
    stage.fetch(2);
    stage.write(2);
    stage.sync(2);
    let acknowledgement = stage.hold_fetch(2);
    stage.wipe(2);
    stage.fence(2);
    stage.restart(2);
    stage.metadata(1);
    stage.ask(2);
    assert!(stage.decide_for(1)[0].is_ok());
    stage.metadata(1);
    assert_eq!((stage.sets().2, stage.log(2)), (vec![1, 3, 2], String::new()));
    stage.release(acknowledgement);
    stage.replicate(3);
    assert_eq!((stage.told("a"), stage.watermark(1)), (None, 0), "broker 2 does not have it");
    stage.settle();
    assert_eq!((stage.told("a"), stage.log(2)), (Some(Told::Acknowledged(0)), "a@0".into()));
}

#[test]
fn rule_02_a_fetch_that_was_overtaken_counts_for_nothing() {
    // The network has doubled a fetch, and one of the two takes its time. What it says was so before broker 2 had the record.
    let mut stage = Stage::on(&[1, 2], &[]);
    stage.pass(200);
    stage.answer(2);
    let early = stage.hold_fetch(2);
    stage.release(early);
    stage.leader_appends("a");
    stage.replicate(2);
    stage.replicate(2);
    assert_eq!(stage.told("a"), Some(Told::Acknowledged(0)));
    stage.release(early);
    assert_eq!(stage.proposed(1), [], "broker 2 has not lost what it acknowledged");
}

#[test]
fn rule_02_a_replica_that_reports_another_history_is_not_counted_and_is_told_to_cut() {
    // Offsets alone say nothing: broker 1 holds its own record at offset 1, which never was committed.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.leader_appends("lost");
    stage.kill(1);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.produce(2, "b");
    stage.write(2);
    stage.sync(2);
    stage.restart(1);
    stage.metadata(2);
    assert_eq!((stage.log(1), stage.log(2)), ("a@0 lost@0".into(), "a@0 b@1".into()));
    stage.ask(1);
    assert_eq!(stage.watermark(2), 1, "broker 1's two records do not count for broker 2's");
    stage.settle();
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0 b@1", "a@0 b@1", "a@0 b@1"]);
    assert_eq!((stage.told("b"), stage.sets().2), (Some(Told::Acknowledged(1)), vec![2, 3, 1]));
}

#[test]
fn rule_03_a_leader_whose_lease_is_over_acknowledges_reads_and_lists_nothing() {
    // Another leads by now. What the old one says is committed is not all there is.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.silence(1);
    stage.pass(1_000);
    stage.produce(1, "b");
    stage.read(1, 0, "reader");
    stage.list(1, "lister");
    let refused = Some(Told::Refused(callboard::protocol::ErrorCode::NotLeader));
    assert_eq!(
        [stage.told("b"), stage.told("reader"), stage.told("lister")],
        [refused.clone(), refused.clone(), refused]
    );
    assert_eq!(stage.log(1), "a@0");
}

#[test]
fn rule_03_a_lease_counts_from_when_the_renewal_was_sent() {
    // The answer may have been under way for as long as the lease lasts.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.silence(1);
    let sent = stage.now;
    stage.pass(900);
    stage.renew_as_sent(1, sent);
    stage.pass(100);
    stage.list(1, "lister");
    assert_eq!(stage.told("lister"), Some(Told::Refused(callboard::protocol::ErrorCode::NotLeader)));
}

#[test]
fn rule_03_the_controller_waits_for_a_lease_and_drift_and_a_new_one_for_as_long_anew() {
    let mut stage = Stage::of(&[]);
    stage.silence(1);
    stage.pass(1_199);
    assert_eq!(stage.silent_for_too_long(), [0; 0]);
    stage.change_controller();
    stage.pass(1);
    assert_eq!(stage.silent_for_too_long(), [0; 0], "the new one does not know when broker 1 renewed");
    stage.pass(1_198);
    assert_eq!(stage.silent_for_too_long(), [0; 0]);
    stage.pass(1);
    assert_eq!(stage.silent_for_too_long(), [1]);
}

#[test]
fn rule_03_a_renewal_that_comes_too_late_renews_nothing() {
    // The decision to fence broker 1 is on its way. With a new lease it would answer beside the next leader.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.silence(1);
    stage.pass(600);
    stage.pass(600);
    assert_eq!(stage.silent_for_too_long(), [1]);
    stage.renew(1);
    stage.list(1, "lister");
    assert_eq!(stage.told("lister"), Some(Told::Refused(callboard::protocol::ErrorCode::NotLeader)));
    assert_eq!(stage.silent_for_too_long(), [1], "nor has it spoken in time");
}

#[test]
fn rule_03_a_stale_leader_cannot_commit_whatever_its_clock_says() {
    // Its clock stands still, so it believes in its lease. The followers do not fetch from it any more, and they count.
    let mut stage = Stage::with_records(&[], &["a"]);
    stage.fence(1);
    stage.metadata(2);
    stage.metadata(3);
    stage.leader_appends("b");
    for node in [2, 3] {
        stage.fetch(node);
    }
    assert_eq!((stage.told("b"), stage.watermark(1)), (None, 1));
}

#[test]
fn rule_04_a_retry_is_answered_when_the_watermark_passes_the_original() {
    // Answered at once, the producer would go on, and the original could still be lost with the leader.
    let mut stage = Stage::of(&[]);
    stage.produce_once(1, 0, "a", "first");
    stage.write(1);
    stage.produce_once(1, 0, "a", "retry");
    stage.write(1);
    assert_eq!((stage.told("first"), stage.told("retry"), stage.log(1)), (None, None, "a@0".into()));
    stage.settle();
    let acknowledged = Some(Told::Acknowledged(0));
    assert_eq!((stage.told("first"), stage.told("retry")), (acknowledged.clone(), acknowledged));
    assert_eq!([stage.log(1), stage.log(2), stage.log(3)], ["a@0"; 3], "there is one of it");
}
