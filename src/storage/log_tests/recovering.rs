use super::super::disk::write_all_at;
use super::super::{Cut, PartitionState};
use super::*;

/// Bytes of a batch of ten records of 100 bytes.
const BATCH: u64 = 61 + 10 * 109;

impl Story {
    /// Writes over the newest segment's end, as a torn write would.
    fn scribble(&mut self, segment: u64, position: u64, bytes: &[u8]) {
        let file = self.open_for_damage(&self.path(segment, ".log"));
        write_all_at(&*file, bytes, position).unwrap();
        file.sync_data(SyncPoint::LogData).unwrap();
    }

    fn length(&self, segment: u64) -> u64 {
        self.bytes_of(&self.path(segment, ".log")).len() as u64
    }
}

#[test]
fn a_clean_stop_is_opened_without_reading_a_record_and_stays_clean_until_the_first_write() {
    let mut story = Story::new();
    story.fill(40);
    story.close(400, b"snapshot");
    for _ in 0..3 {
        story.disk.reset_counts();
        let mut listener = Listener::default();
        let report = story.try_open(&mut listener).unwrap();
        assert!(report.clean && report.scanned_bytes == 0 && report.high_watermark == Offset(400));
        assert_eq!(listener.snapshot, Some((Offset(400), b"snapshot".to_vec())));
        assert_eq!(listener.batches, [0u64; 0]);
        assert_eq!([".log", ".index", ".timeindex"].map(|suffix| story.disk.read_count(suffix)), [0, 0, 0]);
        assert_eq!(story.log().durable_end(), Offset(400));
        story.log().save_checkpoint(Offset(400)).unwrap();
        story.kill();
    }
    story.open();
    story.append(&[10]);
    story.kill();
    assert!(!story.open().clean, "after a write it takes a recovery");
    story.holds_exactly(410);
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let mut story = Story::new();
    story.fill(5);
    story.sync();
    story.fill(30);
    story.kill();
    let report = story.open();
    assert_eq!((report.clean, report.cut.clone(), report.doubtful), (false, None, false));
    assert_eq!(report.scanned_bytes, 35 * BATCH);
    assert_eq!(story.log().durable_end(), Offset(350), "what recovery keeps is synced");
    story.fill(3);
    story.lose_power();
    story.open();
    story.holds_exactly(350);
}

#[test]
fn only_what_lies_past_the_recovery_point_is_scanned() {
    let mut story = Story::new();
    story.fill(40);
    story.sync();
    story.fill(2);
    story.kill();
    let report = story.open();
    let newest = story.log().segment_count();
    assert_eq!(newest, 3);
    assert_eq!(report.scanned_bytes, 2 * BATCH, "the sync after a roll writes the recovery point down");
    story.fill(1);
    story.sync();
    story.log().save_checkpoint(Offset(430)).unwrap();
    story.fill(2);
    story.kill();
    let mut listener = Listener::default();
    let report = story.try_open(&mut listener).unwrap();
    assert_eq!((report.scanned_bytes, report.high_watermark), (2 * BATCH, Offset(430)));
    assert_eq!(listener.batches, (0..45).map(|batch| batch * 10).collect::<Vec<_>>(), "no snapshot: all of the log");
    story.holds_exactly(450);
    let before = [".index", ".timeindex"].map(|suffix| story.bytes_of(&story.path(280, suffix)));
    for suffix in [".index", ".timeindex"] {
        story.disk.remove_file(&story.path(280, suffix)).unwrap();
    }
    story.kill();
    story.open();
    assert_eq!([".index", ".timeindex"].map(|suffix| story.bytes_of(&story.path(280, suffix))), before);
}

#[test]
fn a_power_loss_takes_what_was_not_synced_and_nothing_else() {
    let mut story = Story::new();
    story.fill(20);
    assert_eq!(story.sync(), Offset(200));
    story.fill(30);
    story.lose_power();
    story.open();
    story.holds_exactly(200);
    for seed in 0..40 {
        story.fill(9);
        let synced = story.sync().0;
        story.fill(9);
        story.log = None;
        story.disk.power_loss(&mut fastrand::Rng::with_seed(seed));
        story.epoch += 1;
        story.open();
        let end = story.log().written_end().0;
        assert!((synced..=synced + 90).contains(&end), "seed {seed}: {synced} was synced, the log ends at {end}");
        assert_eq!(story.log().durable_end(), Offset(end));
        story.holds_exactly(end);
    }
}

#[test]
fn a_torn_tail_is_cut_off_after_a_kill() {
    let mut story = Story::new();
    story.fill(5);
    story.kill();
    let torn = batch(50, 1, 0, 10, 100).to_vec();
    for length in [1, 17, 60, 61, 200, torn.len() - 1] {
        story.scribble(0, 5 * BATCH, &torn[..length]);
        let report = story.open();
        let cut = Cut { offset: Offset(50), bytes: length as u64, all_zeros: length <= 7, saved_as: vec![] };
        assert_eq!(report.cut, Some(cut));
        assert!(!report.doubtful);
        assert_eq!(story.length(0), 5 * BATCH);
        story.holds_exactly(50);
        story.kill();
    }
}

#[test]
fn after_a_power_loss_the_bytes_that_are_cut_off_are_kept_aside_unless_they_are_zeros() {
    let mut story = Story::new();
    story.fill(3);
    story.sync();
    story.lose_power();
    story.scribble(0, 3 * BATCH, &[0; 500]);
    let report = story.open();
    let cut = Cut { offset: Offset(30), bytes: 500, all_zeros: true, saved_as: vec![] };
    assert_eq!((report.cut, report.doubtful), (Some(cut), false));

    story.lose_power();
    let mut unsynced = batch(30, 1, 0, 10, 100).to_vec();
    unsynced[100] ^= 1;
    unsynced.extend(batch(40, 1, 0, 10, 100).to_vec());
    story.scribble(0, 3 * BATCH, &unsynced);
    let report = story.open();
    let name = format!("{:020}.cut-{}", 0, 3 * BATCH);
    let cut = Cut { offset: Offset(30), bytes: 2 * BATCH, all_zeros: false, saved_as: vec![name.clone()] };
    assert_eq!((report.cut, report.doubtful), (Some(cut), true));
    assert_eq!(story.bytes_of(&Path::new(DIR).join(name)), unsynced);
    story.append(&[10]);
    story.holds_exactly(40);
}

#[test]
fn segments_after_a_cut_are_renamed_away() {
    let mut story = Story::new();
    story.fill(30);
    story.log.take();
    story.disk.kill();
    for file in [0, 140, 280].map(|base| story.open_for_damage(&story.path(base, ".log"))) {
        file.sync_data(SyncPoint::LogData).unwrap();
    }
    story.disk.sync_dir(Path::new(DIR), SyncPoint::SegmentCreated).unwrap();
    story.lose_power();
    story.damage_batch(0, 50);
    let later = [140, 280].map(|base| story.bytes_of(&story.path(base, ".log")));
    let report = story.open();
    let names = [format!("{:020}.cut-{}", 0, 5 * BATCH), format!("{:020}.cut-0", 280), format!("{:020}.cut-0", 140)];
    let cut = report.cut.unwrap();
    assert_eq!((cut.offset, cut.saved_as, report.doubtful), (Offset(50), names.to_vec(), true));
    assert_eq!([2, 1].map(|at| story.bytes_of(&Path::new(DIR).join(&names[at]))), later);
    story.holds_exactly(50);
    story.fill(20);
    story.holds_exactly(250);
    story.kill();
    assert_eq!(story.open().cut, None);
    story.holds_exactly(250);
}

#[test]
fn corruption_in_the_middle_after_a_kill_is_reported_and_nothing_is_cut() {
    let mut story = Story::new();
    story.fill(30);
    story.kill();
    story.damage_batch(0, 50);
    // The last batch of the first segment: what follows stands in the next one.
    story.damage_batch(0, 130);
    story.damage_batch(140, 150);
    let report = story.open();
    assert_eq!(report.cut, None);
    let damaged = [(50, 60), (130, 140), (150, 160)].map(|(from, to)| (Offset(from), Offset(to)));
    assert_eq!(report.damaged, damaged);
    assert_eq!(story.log().written_end(), Offset(300));
    for (from, to) in [(0, 50), (60, 130), (140, 150), (160, 300)] {
        assert!(story.reader().read(Offset(to), EVERYTHING, 100).is_err() || to == 300);
        let mut read = Vec::new();
        let mut next = Offset(from);
        while next < Offset(to) {
            let slice = story.reader().read(next, EVERYTHING, 1 << 20).unwrap();
            read.extend(records(slice.bytes).iter().map(|(offset, _)| *offset));
            next = slice.next;
        }
        assert_eq!(read, (from..to).collect::<Vec<_>>());
    }
    story.append(&[10]);
    story.kill();
    assert_eq!(story.open().damaged, damaged);
}

#[test]
fn a_gap_in_the_offsets_ends_the_log_and_so_does_a_falling_epoch() {
    for (follower, epoch) in [(70, 3), (50, 2)] {
        let mut story = Story::new();
        story.epoch = 3;
        story.fill(5);
        story.sync();
        story.lose_power();
        let wrong = batch(follower, epoch, 0, 10, 100).to_vec();
        story.scribble(0, 5 * BATCH, &wrong);
        let report = story.open();
        assert_eq!(report.cut.map(|cut| (cut.offset, cut.bytes)), Some((Offset(50), BATCH)));
        assert!(report.doubtful);
        story.holds_exactly(50);
    }
}

#[test]
fn the_producer_state_comes_from_the_newest_usable_snapshot_and_the_batches_after_it() {
    let mut story = Story::new();
    for offset in 0..3 {
        story.log().append(TimestampMs(0), &[idempotent_batch(offset, 9, offset as i32)]).unwrap();
        story.log().write_producer_snapshot(Offset(offset + 1), &[offset as u8]).unwrap();
    }
    for offset in 3..5 {
        story.log().append(TimestampMs(0), &[idempotent_batch(offset, 9, offset as i32)]).unwrap();
    }
    let snapshots = |story: &Story| story.names().into_iter().filter(|name| name.ends_with(".snapshot")).count();
    assert_eq!(snapshots(&story), 2);
    story.kill();
    let mut listener = Listener::default();
    story.try_open(&mut listener).unwrap();
    assert_eq!((listener.snapshot, listener.batches), (Some((Offset(3), vec![2])), vec![3, 4]));
    let mut picky = Listener { refuses: vec![2], ..Listener::default() };
    story.try_open(&mut picky).unwrap();
    assert_eq!((picky.snapshot, picky.batches), (Some((Offset(2), vec![1])), vec![2, 3, 4]));
    story.disk.flip_bit(&story.path(2, ".snapshot"), 10, 0).unwrap();
    let mut picky = Listener { refuses: vec![2], ..Listener::default() };
    story.try_open(&mut picky).unwrap();
    assert_eq!((picky.snapshot, picky.batches), (None, vec![0, 1, 2, 3, 4]));
    // A truncation drops the snapshots that speak of what it cut off.
    story.truncate(Offset(2)).unwrap();
    assert_eq!(snapshots(&story), 1);
}

#[test]
fn a_lost_or_damaged_state_file_costs_a_full_scan_and_makes_the_replica_doubtful() {
    for lost in [true, false] {
        let mut story = Story::new();
        story.fill(40);
        story.close(400, b"");
        let file = Path::new(DIR).join("partition.state");
        if lost {
            story.disk.remove_file(&file).unwrap();
        } else {
            story.disk.flip_bit(&file, 40, 1).unwrap();
        }
        let report = story.open();
        assert!(report.doubtful && !report.clean && report.scanned_bytes == 40 * BATCH);
        story.holds_exactly(400);
    }
}

#[test]
fn a_file_that_is_shorter_than_it_was_known_to_be_makes_the_replica_doubtful() {
    let mut story = Story::new();
    story.fill(10);
    story.close(100, b"");
    story.open_for_damage(&story.path(0, ".log")).set_len(4 * BATCH + 9).unwrap();
    let report = story.open();
    assert!(report.doubtful && !report.clean);
    story.holds_exactly(40);
    assert_eq!(story.log().saved_high_watermark(), Offset(40));
}

#[test]
fn leader_epochs_survive_and_are_read_from_the_log_when_their_file_is_gone() {
    let mut story = Story::new();
    for epoch in [1, 1, 4, 4, 7] {
        story.epoch = epoch;
        story.fill(10);
    }
    let listed = |story: &mut Story| {
        story.log().leader_epochs().entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect::<Vec<_>>()
    };
    let right = [(1, 0), (4, 200), (7, 400)];
    assert_eq!(listed(&mut story), right);
    story.kill();
    story.open();
    assert_eq!(listed(&mut story), right);
    story.close(500, b"");
    story.open();
    assert_eq!(listed(&mut story), right);
    story.kill();
    story.disk.remove_file(&Path::new(DIR).join("leader-epochs")).unwrap();
    story.open();
    assert_eq!(listed(&mut story), right);
    story.truncate(Offset(250)).unwrap();
    assert_eq!(listed(&mut story), right[..2]);
    story.lose_power();
    story.open();
    assert_eq!(listed(&mut story), right[..2]);
    assert_eq!(
        story.log().leader_epochs().end_offset_for(LeaderEpoch(9), Offset(250)),
        Some((LeaderEpoch(4), Offset(250)))
    );
}

#[test]
fn what_recovery_found_is_durable_before_it_counts() {
    let mut story = Story::new();
    story.fill(20);
    story.kill();
    story.open();
    assert_eq!(story.log().durable_end(), Offset(200));
    story.lose_power();
    story.open();
    story.holds_exactly(200);
}

#[test]
fn the_state_file_says_what_was_written_down() {
    let mut story = Story::new();
    story.fill(3);
    story.sync();
    story.log().save_checkpoint(Offset(20)).unwrap();
    let state = PartitionState::read(&story.disk, Path::new(DIR)).unwrap().unwrap();
    assert_eq!((state.high_watermark, state.log_start, state.clean), (Offset(20), Offset(0), None));
    assert_eq!((state.recovery.offset, state.recovery.position), (Offset(30), 3 * BATCH));
    let writes = story.disk.operations();
    story.log().save_checkpoint(Offset(20)).unwrap();
    assert_eq!(story.disk.operations(), writes, "nothing has changed, nothing is written");
}

#[test]
fn a_batch_whose_length_was_damaged_is_no_torn_write_though_a_torn_one_follows_it() {
    for (byte, bit) in [(9, 3), (10, 0), (11, 7)] {
        let mut story = Story::new();
        story.fill(3);
        story.sync();
        story.flip_bits(0, 20, &[(byte, bit)]);
        story.scribble(0, 3 * BATCH, &batch(30, 1, 0, 10, 100).to_vec()[..200]);
        story.kill();
        let report = story.open();
        assert!(
            report.doubtful || report.damaged == [(Offset(20), Offset(30))],
            "bit {bit} of byte {byte}: {report:?}"
        );
    }
}

#[test]
fn a_torn_tail_makes_a_replica_doubtful_only_when_it_is_not_all_zeros() {
    let mut torn = batch(30, 1, 0, 10, 100).to_vec();
    torn[70] ^= 1;
    let mut nearly_zeros = vec![0; 2_000];
    nearly_zeros[1_999] = 1;
    for (tail, doubtful) in [(vec![0; 2_000], false), (vec![0; 1], false), (nearly_zeros, true), (torn, true)] {
        let mut story = Story::new();
        story.fill(3);
        story.sync();
        story.lose_power();
        story.scribble(0, 3 * BATCH, &tail);
        let report = story.open();
        assert_eq!(report.doubtful, doubtful);
        assert_eq!(report.cut.map(|cut| (cut.all_zeros, cut.bytes)), Some((!doubtful, tail.len() as u64)));
        story.holds_exactly(30);
    }
    // A whole segment of zeros behind the cut is no reason for doubt either; one byte in it is.
    for byte in [0, 7] {
        let mut story = Story::new();
        story.fill(3);
        story.sync();
        story.lose_power();
        for (base, position) in [(0, 3 * BATCH), (140, 0)] {
            let file = story.disk.open(&story.path(base, ".log"), OpenMode::Write);
            let file = file.or_else(|_| story.disk.open(&story.path(base, ".log"), OpenMode::Create)).unwrap();
            write_all_at(&*file, &[0; 500], position).unwrap();
            write_all_at(&*file, &[if base == 140 { byte } else { 0 }], position + 500).unwrap();
        }
        let report = story.open();
        assert_eq!((report.doubtful, report.cut.map(|cut| cut.all_zeros)), (byte != 0, Some(byte == 0)));
    }
}

#[test]
fn doubt_lasts_until_it_is_cleared_through_crashes_clean_stops_and_more_records() {
    let mut story = Story::new();
    story.fill(3);
    story.sync();
    story.lose_power();
    story.scribble(0, 3 * BATCH, &[1; 300]);
    assert!(story.open().doubtful && story.log().is_doubtful());
    story.kill();
    let report = story.open();
    assert!(report.doubtful && report.cut.is_none(), "nothing is cut the second time: {report:?}");
    story.fill(2);
    story.sync();
    story.lose_power();
    assert!(story.open().doubtful);
    story.close(50, b"");
    let report = story.open();
    assert!(report.clean && report.doubtful);
    story.log().mark_verified().unwrap();
    assert!(!story.log().is_doubtful());
    story.lose_power();
    let report = story.open();
    assert!(report.clean && !report.doubtful, "clearing is durable and is no write to the log");
    story.holds_exactly(50);
}

#[test]
fn a_crash_at_any_step_of_a_recovery_keeps_the_doubt_that_it_found() {
    // A torn tail, and a whole segment behind a cut.
    for segments in [1, 2] {
        let mut story = Story::new();
        story.fill(if segments == 1 { 3 } else { 20 });
        story.log.take();
        story.disk.kill();
        for base in [0, 140].into_iter().take(segments) {
            story.open_for_damage(&story.path(base, ".log")).sync_data(SyncPoint::LogData).unwrap();
        }
        story.disk.sync_dir(Path::new(DIR), SyncPoint::SegmentCreated).unwrap();
        story.lose_power();
        if segments == 1 {
            story.scribble(0, 3 * BATCH, &[1; 300]);
        } else {
            story.open_for_damage(&story.path(0, ".log")).set_len(13 * BATCH).unwrap();
            story.open_for_damage(&story.path(0, ".log")).sync_data(SyncPoint::LogData).unwrap();
        }
        let torn = story.disk.snapshot();
        for step in 1.. {
            let mut finished = false;
            for outage in 0..6 {
                story.disk.roll_back(&torn);
                story.disk.crash_after_operations(step);
                finished = story.try_open(&mut ()).is_ok();
                story.log = None;
                match outage {
                    0 => story.disk.kill(),
                    1 => story.disk.power_loss_keeping_nothing(),
                    seed => story.disk.power_loss(&mut fastrand::Rng::with_seed(seed * 100 + step)),
                }
                assert!(story.open().doubtful, "{segments} segments, step {step}, outage {outage}");
            }
            if finished {
                assert!(step > 5, "only {step} operations");
                break;
            }
        }
    }
}

#[test]
fn after_a_kill_a_gap_or_a_falling_epoch_is_damage_and_never_served_as_records() {
    for (follower, epoch) in [(70, 3), (50, 2)] {
        let mut story = Story::new();
        story.epoch = 3;
        story.fill(5);
        story.sync();
        story.kill();
        let mut wrong = batch(follower, epoch, 0, 10, 100).to_vec();
        if follower == 70 {
            // A second one agrees with it: the offset of the last batch of all could be damaged, and is not believed.
            wrong.extend(batch(80, epoch, 0, 10, 100).to_vec());
        }
        story.scribble(0, 5 * BATCH, &wrong);
        let report = story.open();
        if follower == 70 {
            // Nothing of what was written is lost in a kill: the gap is a hole, what lies behind it is there.
            assert_eq!((report.cut, report.damaged), (None, vec![(Offset(50), Offset(70))]));
            assert!(matches!(story.reader().read(Offset(50), EVERYTHING, 100), Err(LogError::Damaged { .. })));
            assert_eq!(story.reader().read(Offset(70), EVERYTHING, 100).unwrap().next, Offset(80));
        } else {
            // The epoch before it may have been damaged upwards: what is cut off is kept, and told.
            let name = format!("{:020}.cut-{}", 0, 5 * BATCH);
            let cut = Cut { offset: Offset(50), bytes: BATCH, all_zeros: false, saved_as: vec![name.clone()] };
            assert_eq!((report.cut, report.doubtful), (Some(cut), true));
            assert_eq!(story.bytes_of(&Path::new(DIR).join(name)), wrong);
            story.holds_exactly(50);
        }
    }
}

#[test]
fn a_segment_that_does_not_start_where_the_one_before_ends_is_not_part_of_the_log_after_a_power_loss() {
    let mut story = Story::new();
    story.fill(10);
    story.sync();
    story.lose_power();
    let file = story.disk.open(&story.path(120, ".log"), OpenMode::Create).unwrap();
    write_all_at(&*file, &batch(120, 1, 0, 10, 100).to_vec(), 0).unwrap();
    let report = story.open();
    assert_eq!(report.cut.map(|cut| (cut.offset, cut.bytes)), Some((Offset(100), BATCH)));
    assert!(report.doubtful);
    story.holds_exactly(100);
}

#[test]
fn a_whole_batch_whose_checksum_is_wrong_at_the_end_of_a_killed_log_makes_it_doubtful() {
    let mut story = Story::new();
    story.fill(5);
    story.sync();
    story.kill();
    story.disk.flip_bit(&story.path(0, ".log"), 4 * BATCH + 200, 1).unwrap();
    let report = story.open();
    let name = format!("{:020}.cut-{}", 0, 4 * BATCH);
    let cut = Cut { offset: Offset(40), bytes: BATCH, all_zeros: false, saved_as: vec![name] };
    assert_eq!(
        (report.cut, report.doubtful),
        (Some(cut), true),
        "no kill leaves all bytes of a batch, and one of them wrong"
    );
}

#[test]
fn damage_to_any_byte_of_the_last_head_of_a_killed_log_loses_nothing_without_doubt() {
    // All but the leader epoch: from the recovery point on nothing vouches for that.
    for at in (0..61u64).filter(|at| !(12..16).contains(at)) {
        let mut story = Story::new();
        story.fill(5);
        story.sync();
        story.kill();
        story.disk.flip_bit(&story.path(0, ".log"), 4 * BATCH + at, 1).unwrap();
        let report = story.open();
        let end = story.log().written_end();
        assert!(end <= Offset(50), "byte {at}: the log ends at {end}");
        assert!(report.doubtful || !report.damaged.is_empty(), "byte {at}: {report:?}");
    }
}

#[test]
fn an_offset_that_was_damaged_on_disk_hides_its_own_batch_and_no_other() {
    for bit in 0..63u64 {
        let mut story = Story::new();
        story.fill(5);
        story.sync();
        story.kill();
        let path = story.path(0, ".log");
        let (byte, bit_of_byte) = (7 - bit / 8, u8::try_from(bit % 8).unwrap());
        story.disk.flip_bit(&path, 2 * BATCH + byte, bit_of_byte).unwrap();
        let report = story.open();
        assert_eq!(report.damaged, [(Offset(20), Offset(30))], "bit {bit}");
        assert_eq!(story.log().written_end(), Offset(50));
    }
}
