use super::super::disk::virtual_disk::FaultyOperation;
use super::*;

#[test]
fn a_truncation_is_physical_durable_and_followed_by_other_records() {
    for end in [0, 1, 135, 140, 145, 280, 415, 419] {
        let mut story = Story::new();
        story.fill(42);
        story.sync();
        story.log().save_checkpoint(Offset(420)).unwrap();
        story.truncate(Offset(end)).unwrap();
        let cut = end / 10 * 10;
        story.holds_exactly(cut);
        assert_eq!(story.log().durable_end(), Offset(cut));
        assert!(story.log().saved_high_watermark() <= Offset(cut));
        story.lose_power();
        story.open();
        story.holds_exactly(cut);
        story.epoch = 2;
        story.fill(30);
        assert_eq!(story.log().leader_epochs().latest(), Some(LeaderEpoch(2)));
        story.holds_exactly(cut + 300);
        story.close(cut + 300, b"");
        assert!(story.open().clean);
        for offset in 0..cut + 300 {
            let slice = story.reader().read(Offset(offset), EVERYTHING, 1).unwrap();
            assert!(records(slice.bytes).iter().any(|(found, _)| *found == offset));
        }
    }
}

#[test]
fn a_truncation_keeps_the_times_right() {
    let mut story = Story::new();
    story.time = 90_000;
    story.fill(5);
    story.time = 10_000;
    story.fill(15);
    story.time = 200_000;
    story.fill(15);
    story.truncate(Offset(30)).unwrap();
    story.time = 300_000;
    story.fill(1);
    let find =
        |story: &mut Story, time| story.reader().offset_for_timestamp(TimestampMs(time), EVERYTHING, 1 << 20).unwrap();
    assert_eq!(find(&mut story, 92_000), Some((Offset(20), TimestampMs(92_000))));
    assert_eq!(find(&mut story, 95_000), Some((Offset(30), TimestampMs(300_000))));
    assert_eq!(find(&mut story, 300_010), None);
}

#[test]
fn a_crash_at_any_step_of_a_truncation_leaves_a_prefix_that_holds_what_was_kept() {
    for power_loss in [true, false] {
        for step in 1..60 {
            let mut story = Story::new();
            story.fill(42);
            story.sync();
            story.log().save_checkpoint(Offset(100)).unwrap();
            story.disk.crash_after_operations(step);
            let truncated = story.truncate(Offset(130)).is_ok();
            story.log = None;
            if power_loss {
                story.disk.power_loss(&mut fastrand::Rng::with_seed(step));
            } else {
                story.disk.kill();
            }
            story.open();
            let end = story.log().written_end().0;
            assert!(if truncated { end == 130 } else { (130..=420).contains(&end) }, "step {step}: {end}");
            assert_eq!(story.reader().damaged_ranges(), [], "step {step}");
            story.holds_exactly(end);
        }
    }
}

#[test]
fn a_truncation_with_a_sync_in_flight_is_not_undone_by_it() {
    let mut story = Story::new();
    story.fill(20);
    let job = story.log().begin_sync().unwrap();
    story.truncate(Offset(50)).unwrap();
    let done = job.run();
    assert_eq!(story.log().finish_sync(done).unwrap(), Offset(50).min(story.log().durable_end()));
    assert!(story.log().durable_end() <= Offset(50));
    story.epoch = 2;
    story.fill(10);
    assert_eq!(story.sync(), Offset(150));
    story.lose_power();
    story.open();
    story.holds_exactly(150);
}

#[test]
fn a_truncation_below_the_start_is_refused_and_one_past_the_end_does_nothing() {
    let mut story = Story::new();
    story.fill(20);
    story.log().advance_log_start(Offset(145)).unwrap();
    assert!(matches!(story.truncate(Offset(144)), Err(LogError::OffsetOutOfRange { .. })));
    let syncs = story.disk.sync_count(SyncPoint::Truncation);
    story.truncate(Offset(200)).unwrap();
    story.truncate(Offset(9_999)).unwrap();
    assert_eq!(story.disk.sync_count(SyncPoint::Truncation), syncs);
    story.holds_exactly(200);
}

#[test]
fn a_truncation_that_fails_is_final() {
    let mut story = Story::new();
    story.fill(20);
    story.disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    assert!(matches!(story.truncate(Offset(50)), Err(LogError::Failed { .. })));
    assert!(matches!(story.try_append(&[1]), Err(LogError::Failed { .. })));
}

fn unclean(leader_epoch: u32) -> TruncateLeave {
    TruncateLeave { unclean_election: Some(LeaderEpoch(leader_epoch)), ..TruncateLeave::default() }
}

#[test]
fn what_was_committed_is_given_up_only_for_an_unclean_election_on_record() {
    let mut story = Story::new();
    story.epoch = 4;
    story.fill(20);
    story.sync();
    story.log().save_checkpoint(Offset(125)).unwrap();
    let everything = (story.names(), story.bytes_of(&story.path(0, ".log")), story.disk.operations());
    for (end, leave) in [(124, TruncateLeave::default()), (0, TruncateLeave::default()), (100, unclean(4))] {
        let refused = story.log().truncate_to(Offset(end), leave).unwrap_err();
        let hw = Offset(125);
        assert!(matches!(refused, LogError::BelowHighWatermark { high_watermark, .. } if high_watermark == hw));
        assert!(!refused.is_retryable() && refused.to_string().contains("kept as it is"), "{refused}");
    }
    // 125 lies in the batch from 120 on, of which five records are committed.
    assert!(matches!(
        story.log().truncate_to(Offset(129), TruncateLeave::default()),
        Err(LogError::BelowHighWatermark { end: Offset(120), .. })
    ));
    assert_eq!((story.names(), story.bytes_of(&story.path(0, ".log")), story.disk.operations()), everything);
    story.holds_exactly(200);
    assert_eq!(story.log().truncate_to(Offset(135), TruncateLeave::default()).unwrap(), Offset(130));
    assert_eq!(story.log().saved_high_watermark(), Offset(125));
    assert_eq!(story.log().truncate_to(Offset(100), unclean(5)).unwrap(), Offset(100));
    assert_eq!(story.log().saved_high_watermark(), Offset(100));
    story.lose_power();
    assert_eq!(story.open().high_watermark, Offset(100));
    story.holds_exactly(100);
}

#[test]
fn the_high_watermark_that_is_written_down_never_lies_past_the_end() {
    let mut story = Story::new();
    story.fill(5);
    story.log().save_checkpoint(Offset(999)).unwrap();
    assert_eq!(story.log().saved_high_watermark(), Offset(50));
    story.truncate(Offset(30)).unwrap();
    story.log().save_checkpoint(Offset(50)).unwrap();
    assert_eq!(story.log().saved_high_watermark(), Offset(30));
    story.close(31, b"");
    assert_eq!(story.open().high_watermark, Offset(30));
}

#[test]
fn damage_that_was_cut_off_does_not_hide_what_is_appended_in_its_place() {
    let mut story = Story::new();
    story.fill(10);
    story.sync();
    story.kill();
    story.damage_batch(0, 60);
    // Found by reading, and written down.
    let mut reopened = story.open();
    assert_eq!(reopened.damaged, [(Offset(60), Offset(70))]);
    story.truncate(Offset(50)).unwrap();
    story.fill(5);
    story.kill();
    reopened = story.open();
    assert_eq!(reopened.damaged, []);
    story.holds_exactly(100);
}

#[test]
fn within_damage_a_log_is_cut_only_where_nobody_counts_on_it_and_then_at_the_start_of_the_damage() {
    // In front of the place the batch at 60 has no magic, the one at 70 a wrong checksum; or the one at 60 claims 26 records.
    let no_magic: &[(u64, &[(u64, u8)])] = &[(70, &[(70, 3)]), (60, &[(16, 0)])];
    for (damage, end) in [(no_magic, 75), (&[(60, &[(26, 4), (60, 4)])], 65)] {
        let mut story = Story::new();
        story.fill(10);
        story.sync();
        story.log().save_checkpoint(Offset(62)).unwrap();
        for (offset, bits) in damage {
            story.flip_bits(0, *offset, bits);
        }
        let (before, operations) = (story.bytes_of(&story.path(0, ".log")), story.disk.operations());
        let refused = story.log().truncate_to(Offset(end), TruncateLeave::default()).unwrap_err();
        assert!(matches!(refused, LogError::Damaged { from: Offset(60), .. }), "{refused}");
        assert_eq!(story.bytes_of(&story.path(0, ".log")), before);
        assert_eq!(story.disk.operations(), operations);
        assert_eq!(story.reader().damaged_ranges()[0].0, Offset(60), "who asks is told");
        let spare = TruncateLeave { back_to_damage: true, ..TruncateLeave::default() };
        let too_far = story.log().truncate_to(Offset(61), spare).unwrap_err();
        assert!(matches!(too_far, LogError::BelowHighWatermark { end: Offset(61), .. }), "{too_far}");
        assert_eq!(story.log().truncate_to(Offset(end), spare).unwrap(), Offset(60));
        assert_eq!((story.log().saved_high_watermark(), story.reader().damaged_ranges()), (Offset(60), vec![]));
        story.fill(3);
        story.sync();
        story.lose_power();
        assert_eq!(story.open().damaged, []);
        story.holds_exactly(90);
    }
}

#[test]
fn a_side_job_in_flight_must_come_back_before_a_truncation() {
    let mut story = Story::new();
    story.fill(10);
    story.sync();
    let checkpoint = story.log().begin_checkpoint(Offset(40)).unwrap();
    assert!(matches!(story.truncate(Offset(50)), Err(LogError::SyncOutstanding)));
    story.holds_exactly(100);
    let done = checkpoint.run();
    story.log().finish_side(done).unwrap();
    let snapshot = story.log().begin_producer_snapshot(Offset(100), b"of what is cut off".to_vec()).unwrap();
    assert!(matches!(story.truncate(Offset(50)), Err(LogError::SyncOutstanding)));
    let done = snapshot.run();
    story.log().finish_side(done).unwrap();
    story.truncate(Offset(50)).unwrap();
    story.fill(7);
    story.kill();
    let mut listener = Listener::default();
    story.try_open(&mut listener).unwrap();
    assert_eq!((listener.snapshot, listener.batches.first()), (None, Some(&0)));
    story.holds_exactly(120);
}

#[test]
fn the_leader_epochs_agree_with_the_records_after_a_crash_at_any_step_of_a_truncation() {
    for power_loss in [true, false] {
        for step in 1..60 {
            let mut story = Story::new();
            for epoch in [1, 2, 5] {
                story.epoch = epoch;
                story.fill(10);
            }
            story.sync();
            story.log().save_checkpoint(Offset(40)).unwrap();
            story.disk.crash_after_operations(step);
            let _ = story.log().truncate_to(Offset(150), TruncateLeave::default());
            story.log = None;
            if power_loss {
                story.disk.power_loss(&mut fastrand::Rng::with_seed(step))
            } else {
                story.disk.kill()
            }
            story.open();
            let end = story.log().written_end().0;
            assert!((150..=300).contains(&end), "step {step}: {end}");
            let due: Vec<_> = [(1, 0), (2, 100), (5, 200)].into_iter().filter(|(_, start)| *start < end).collect();
            let listed = |epochs: &LeaderEpochs| {
                epochs.entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect::<Vec<_>>()
            };
            assert_eq!(listed(story.log().leader_epochs()), due, "step {step}");
            assert_eq!(listed(&story.reader().leader_epochs().0), due, "step {step}");
            assert_eq!(listed(&story.saved_epochs()), due, "step {step}: the file");
        }
    }
}

#[test]
fn producers_are_rebuilt_from_the_newest_snapshot_that_is_left_and_the_batches_after_it() {
    let mut story = Story::new();
    story.fill(4);
    story.log().write_producer_snapshot(Offset(40), b"forty").unwrap();
    story.fill(4);
    story.log().write_producer_snapshot(Offset(80), b"eighty").unwrap();
    story.fill(2);
    let replayed = |story: &mut Story| {
        let mut listener = Listener::default();
        story.log().replay_producers(&mut listener).unwrap();
        (listener.snapshot.map(|(at, _)| at.0), listener.batches)
    };
    assert_eq!(replayed(&mut story), (Some(80), vec![80, 90]));
    story.truncate(Offset(80)).unwrap();
    assert_eq!(replayed(&mut story), (Some(80), vec![]));
    story.truncate(Offset(60)).unwrap();
    story.fill(1);
    assert_eq!(replayed(&mut story), (Some(40), vec![40, 50, 60]));
    story.truncate(Offset(30)).unwrap();
    assert_eq!(replayed(&mut story), (None, vec![0, 10, 20]));
}
