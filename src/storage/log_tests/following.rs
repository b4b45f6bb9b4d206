use super::super::{PartitionState, leader_epochs};
use super::*;

impl Story {
    pub(super) fn saved_epochs(&self) -> LeaderEpochs {
        leader_epochs::LeaderEpochs::load(&self.disk, Path::new(DIR)).unwrap().unwrap_or_default()
    }

    fn replicate(&mut self, batches: &[RecordBatch]) -> Result<Appended, LogError> {
        self.log().append_replicated(TimestampMs(0), batches)
    }
}

fn listed(epochs: &LeaderEpochs) -> Vec<(u32, u64)> {
    epochs.entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect()
}

#[test]
fn a_follower_has_the_same_bytes_and_epochs_as_its_leader() {
    let mut leader = Story::new();
    for epoch in [1, 1, 3, 3, 7] {
        leader.epoch = epoch;
        leader.append(&[3, 10, 1]);
    }
    let mut follower = Story::new();
    let end = leader.log().written_end();
    while follower.log().written_end() < end {
        let from = follower.log().written_end();
        // The leader serves followers to its written end; nothing of it is committed yet.
        let mut bytes = leader.reader().read(from, Offset::MAX, 2_500).unwrap().bytes;
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            batches.push(RecordBatch::split_from(&mut bytes).unwrap());
        }
        follower.replicate(&batches).unwrap();
    }
    follower.holds_exactly(end.0);
    assert_eq!(follower.bytes_of(&follower.path(0, ".log")), leader.bytes_of(&leader.path(0, ".log")));
    let epochs = [(1, 0), (3, 28), (7, 56)];
    for story in [&mut leader, &mut follower] {
        assert_eq!(listed(story.log().leader_epochs()), epochs);
        let reader = story.reader();
        assert_eq!(listed(&reader.leader_epochs().0), epochs);
        assert_eq!([0, 27, 28, 55, 56, 69].map(|at| reader.epoch_of(Offset(at)).unwrap().0), [1, 1, 3, 3, 7, 7]);
        let (known, log_end) = reader.leader_epochs();
        let ends = |epoch| known.end_offset_for(LeaderEpoch(epoch), log_end).map(|(epoch, end)| (epoch.0, end.0));
        assert_eq!([0, 1, 2, 3, 9].map(ends), [None, Some((1, 28)), Some((1, 28)), Some((3, 56)), Some((7, 70))]);
    }
    // A consumer is served up to the high watermark only.
    assert_eq!(leader.reader().read(Offset(20), Offset(28), 1 << 20).unwrap().next, Offset(28));
    assert!(leader.reader().read(Offset(28), Offset(28), 1 << 20).unwrap().bytes.is_empty());
}

#[test]
fn a_set_with_one_wrong_batch_is_refused_as_a_whole_and_nothing_is_written() {
    let mut story = Story::new();
    story.epoch = 5;
    story.fill(2);
    let good = batch(20, 5, 0, 10, 50);
    let mut damaged = batch(30, 6, 0, 10, 50);
    let mut body = damaged.body.to_vec();
    body[33] ^= 4;
    damaged.body = Bytes::from(body);
    let mut short = batch(30, 6, 0, 10, 50);
    short.body.truncate(40);
    let names = (story.names(), story.disk.operations());
    let wrong = [
        (vec![good.clone(), damaged], "checksum"),
        (vec![good.clone(), short], "not a whole batch"),
        (vec![good.clone(), batch(31, 5, 0, 1, 50)], "offset 31 where 30 is due"),
        (vec![good.clone(), batch(29, 5, 0, 1, 50)], "offset 29 where 30 is due"),
        (vec![batch(21, 5, 0, 1, 50)], "offset 21 where 20 is due"),
        (vec![good.clone(), batch(30, 6, 0, 1, 50), batch(31, 5, 0, 1, 50)], "leader epoch 5 after 6"),
        (vec![batch(20, 4, 0, 1, 50)], "leader epoch 4 after 5"),
    ];
    for (batches, why) in wrong {
        let refused = story.replicate(&batches).unwrap_err();
        assert!(refused.to_string().contains(why) && !refused.is_retryable(), "{refused}");
    }
    assert_eq!((story.names(), story.disk.operations()), names);
    assert_eq!(listed(story.log().leader_epochs()), [(5, 0)]);
    story.holds_exactly(20);
    assert_eq!(story.replicate(&[good, batch(30, 9, 0, 10, 50)]).unwrap().end, Offset(40));
    assert_eq!(listed(story.log().leader_epochs()), [(5, 0), (9, 30)]);
    story.holds_exactly(40);
}

#[test]
fn a_follower_far_behind_starts_anew_where_its_leader_starts() {
    for unclean_stop in [true, false] {
        let mut story = Story::new();
        story.fill(42);
        story.sync();
        story.log().write_producer_snapshot(Offset(420), b"old").unwrap();
        story.log().save_checkpoint(Offset(400)).unwrap();
        let reader = story.reader();
        story.log().truncate_fully_and_start_at(Offset(1_000), TruncateLeave::default(), None).unwrap();
        assert_eq!((story.log().log_start(), story.log().written_end()), (Offset(1_000), Offset(1_000)));
        assert_eq!((story.log().durable_end(), story.log().saved_high_watermark()), (Offset(1_000), Offset(1_000)));
        assert!(matches!(reader.read(Offset(50), EVERYTHING, 100), Err(LogError::OffsetOutOfRange { .. })));
        assert_eq!(story.names(), ["leader-epochs", "partition.meta", "partition.state"]);
        assert_eq!(listed(story.log().leader_epochs()), []);
        assert_eq!((reader.epoch_of(Offset(999)), listed(&story.saved_epochs())), (None, vec![]));
        story.replicate(&[batch(1_000, 9, 0, 10, 50), batch(1_010, 9, 0, 10, 50)]).unwrap();
        assert_eq!(story.sync(), Offset(1_020));
        if unclean_stop {
            story.lose_power();
        } else {
            story.close(1_020, b"new");
        }
        let report = story.open();
        assert_eq!((report.clean, report.doubtful), (!unclean_stop, false));
        story.holds_exactly(1_020);
        assert_eq!(listed(story.log().leader_epochs()), [(9, 1_000)]);
    }
}

#[test]
fn a_crash_at_any_step_of_starting_anew_leaves_the_old_log_or_the_new_one() {
    let with_producers = [(1_000, Some(&b"new"[..])), (420, Some(&b"new"[..])), (285, None)];
    for (start, producers) in with_producers {
        for outage in 0..4 {
            for step in 1.. {
                let mut story = Story::new();
                for epoch in [1, 2, 3] {
                    story.epoch = epoch;
                    story.fill(14);
                }
                story.sync();
                story.log().write_producer_snapshot(Offset(420), b"old").unwrap();
                story.log().save_checkpoint(Offset(280)).unwrap();
                story.disk.crash_after_operations(step);
                let leave = TruncateLeave::default();
                let done = story.log().truncate_fully_and_start_at(Offset(start), leave, producers).is_ok();
                story.log = None;
                match outage {
                    0 => story.disk.kill(),
                    1 => story.disk.power_loss_keeping_nothing(),
                    seed => story.disk.power_loss(&mut fastrand::Rng::with_seed(seed * 1_000 + step)),
                }
                // What the next open does about it may be cut, too.
                story.disk.crash_after_operations(step % 5 + 1);
                if story.try_open(&mut ()).is_err() {
                    story.disk.power_loss(&mut fastrand::Rng::with_seed(step));
                }
                story.log = None;
                story.disk.kill();
                let mut listener = Listener::default();
                let report = story.try_open(&mut listener).unwrap();
                let found = (story.log().log_start().0, story.log().written_end().0);
                let case = format!("start {start}, outage {outage}, step {step}: {found:?}, {report:?}");
                assert!(found == (start, start) || (found == (0, 420) && !done), "{case}");
                assert!(!report.doubtful && report.damaged.is_empty(), "{case}");
                assert!(!story.names().iter().any(|name| name == "producers.anew"), "{case}");
                if found.0 == start {
                    // What the producers did before the start stands nowhere else.
                    let kept = producers.map(|known| (Offset(start), known.to_vec()));
                    assert_eq!((listed(story.log().leader_epochs()), listener.snapshot), (vec![], kept), "{case}");
                    assert!(!story.names().iter().any(|name| name.ends_with(".log")), "{case}: {:?}", story.names());
                    story.replicate(&[batch(start, 9, 0, 10, 50)]).unwrap();
                    story.sync();
                    story.lose_power();
                    story.open();
                    story.holds_exactly(start + 10);
                } else {
                    assert_eq!(listed(story.log().leader_epochs()), [(1, 0), (2, 140), (3, 280)], "{case}");
                    assert_eq!(listener.snapshot, Some((Offset(420), b"old".to_vec())), "{case}");
                    story.holds_exactly(420);
                }
                if done {
                    assert!(step > 15, "only {step} operations");
                    break;
                }
            }
        }
    }
}

#[test]
fn starting_anew_below_what_was_committed_takes_an_unclean_election() {
    let mut story = Story::new();
    story.epoch = 3;
    story.fill(10);
    story.sync();
    story.log().advance_log_start(Offset(50)).unwrap();
    story.log().save_checkpoint(Offset(90)).unwrap();
    let refused = story.log().truncate_fully_and_start_at(Offset(20), TruncateLeave::default(), None);
    assert!(matches!(refused, Err(LogError::BelowHighWatermark { end: Offset(20), high_watermark: Offset(90) })));
    story.holds_exactly(100);
    let unclean = TruncateLeave { unclean_election: Some(LeaderEpoch(4)), ..TruncateLeave::default() };
    story.log().truncate_fully_and_start_at(Offset(20), unclean, None).unwrap();
    assert_eq!(story.log().saved_high_watermark(), Offset(20));
    story.replicate(&[batch(20, 4, 0, 5, 50)]).unwrap();
    story.holds_exactly(25);
}

#[test]
fn a_sync_that_began_before_the_log_started_anew_makes_nothing_durable() {
    let mut story = Story::new();
    story.fill(20);
    let job = story.log().begin_sync().unwrap();
    story.log().truncate_fully_and_start_at(Offset(100), TruncateLeave::default(), None).unwrap();
    story.replicate(&[batch(100, 2, 0, 10, 50)]).unwrap();
    let done = job.run();
    assert_eq!(story.log().finish_sync(done).unwrap(), Offset(100));
    assert_eq!(story.sync(), Offset(110));
    story.lose_power();
    story.open();
    story.holds_exactly(110);
}

#[test]
fn a_follower_deletes_nothing_past_the_high_watermark_and_goes_along_with_its_leaders_start() {
    let mut story = Story::with(LogConfig { retention_ms: Some(1), retention_bytes: Some(0), ..small_segments() });
    story.fill(42);
    story.sync();
    let outcome = story.log().apply_retention(TimestampMs(i64::MAX), Offset(139), Offset(u64::MAX)).unwrap();
    assert_eq!((outcome.deleted, outcome.log_start), (vec![], Offset(0)));
    let outcome = story.log().apply_retention(TimestampMs(i64::MAX), Offset(150), Offset(u64::MAX)).unwrap();
    assert_eq!((outcome.deleted.len(), outcome.log_start), (1, Offset(140)));
    // The leader's start is committed by definition, whatever this follower has heard of the watermark.
    story.log().advance_log_start(Offset(155)).unwrap();
    let saved = PartitionState::read(&story.disk, Path::new(DIR)).unwrap().unwrap();
    assert_eq!((saved.log_start, saved.high_watermark), (Offset(155), Offset(155)));
    assert!(matches!(story.log().advance_log_start(Offset(421)), Err(LogError::OffsetOutOfRange { .. })));
    assert!(matches!(
        story.log().truncate_to(Offset(154), TruncateLeave::default()),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    story.lose_power();
    story.open();
    assert_eq!(story.log().log_start(), Offset(155));
    story.holds_exactly(420);
}
