use std::ops::Range;

use super::super::PartitionState;
use super::super::disk::virtual_disk::FaultyOperation;
use super::super::disk::write_all_at;
use super::*;

/// Bytes of a batch of ten records of 100 bytes.
const BATCH: u64 = 61 + 10 * 109;

impl Story {
    /// All batches, as another replica has them.
    pub(super) fn replica(&mut self) -> Vec<RecordBatch> {
        let (reader, mut next) = (self.reader(), self.log().log_start());
        let mut batches = Vec::new();
        while next < reader.written_end() {
            let slice = reader.read(next, EVERYTHING, 1 << 20).unwrap();
            let mut bytes = slice.bytes;
            while !bytes.is_empty() {
                batches.push(RecordBatch::split_from(&mut bytes).unwrap());
            }
            next = slice.next;
        }
        batches
    }

    /// Reads everything, so that what is damaged is noticed.
    fn damage_found(&mut self) -> Vec<(u64, u64)> {
        let (reader, mut next) = (self.reader(), self.log().log_start());
        while next < reader.written_end() {
            next = match reader.read(next, EVERYTHING, 1 << 20) {
                Ok(slice) => slice.next,
                Err(LogError::Damaged { next_valid, .. }) => next_valid.unwrap_or(EVERYTHING),
                Err(error) => panic!("{error}"),
            };
        }
        reader.damaged_ranges().into_iter().map(|(start, end)| (start.0, end.0)).collect()
    }

    fn repair(&mut self, range: Range<u64>, replica: &[RecordBatch]) -> Result<(), LogError> {
        let inside = |batch: &&RecordBatch| range.contains(&batch.header.base_offset.0);
        let batches: Vec<_> = replica.iter().filter(inside).cloned().collect();
        self.log().repair(Offset(range.start)..Offset(range.end), &batches)
    }

    fn overwrite(&self, segment: u64, position: u64, bytes: &[u8]) {
        write_all_at(&*self.open_for_damage(&self.path(segment, ".log")), bytes, position).unwrap();
    }

    fn saved_damage(&self) -> Vec<(Offset, Offset)> {
        PartitionState::read(&self.disk, Path::new(DIR)).unwrap().unwrap().damaged
    }
}

/// Forty-two batches of three epochs in three segments (0, 140, 280), the same in a replica.
fn two_replicas() -> (Story, Vec<RecordBatch>) {
    let mut story = Story::new();
    for epoch in [1, 2, 5] {
        story.epoch = epoch;
        story.fill(14);
    }
    story.sync();
    story.log().save_checkpoint(Offset(420)).unwrap();
    let replica = story.replica();
    (story, replica)
}

#[test]
fn what_was_damaged_is_replaced_and_the_segment_is_as_it_was_before_the_damage() {
    // In the first batch of a segment, in the middle, in the last one, and in the active segment.
    for (segment, offset) in [(0, 0), (0, 50), (140, 270), (280, 330), (280, 410)] {
        let (mut story, replica) = two_replicas();
        let before = [".log", ".index", ".timeindex"].map(|suffix| story.bytes_of(&story.path(140, suffix)));
        let log = story.bytes_of(&story.path(segment, ".log"));
        story.damage_batch(segment, offset);
        assert_eq!(story.damage_found(), [(offset, offset + 10)]);
        story.log().save_checkpoint(Offset(420)).unwrap();
        assert_eq!(story.saved_damage(), [(Offset(offset), Offset(offset + 10))]);
        story.repair(offset..offset + 10, &replica).unwrap();
        assert_eq!((story.damage_found(), story.saved_damage()), (vec![], vec![]));
        assert_eq!(story.bytes_of(&story.path(segment, ".log")), log);
        story.holds_exactly(420);
        story.epoch = 6;
        story.fill(20);
        story.sync();
        story.lose_power();
        assert_eq!(story.open().damaged, []);
        story.holds_exactly(620);
        if segment != 280 {
            let after = [".log", ".index", ".timeindex"].map(|suffix| story.bytes_of(&story.path(140, suffix)));
            assert_eq!(after, before);
        }
    }
}

#[test]
fn a_hole_whose_headers_are_gone_is_bounded_by_the_batches_around_it_and_filled() {
    for (bytes, from) in
        [(vec![0; 2 * BATCH as usize], 3 * BATCH), (vec![0xff; 90], 3 * BATCH - 20), (vec![7; 12], BATCH)]
    {
        let (mut story, replica) = two_replicas();
        story.overwrite(140, from, &bytes);
        let found = story.damage_found();
        let [(start, end)] = found[..] else { panic!("{found:?}") };
        assert!((140..=170).contains(&start) && (160..=190).contains(&end), "{found:?}");
        story.repair(start..end, &replica).unwrap();
        assert_eq!(story.damage_found(), []);
        story.holds_exactly(420);
        assert_eq!(story.replica(), replica);
    }
}

#[test]
fn a_range_over_several_segments_is_repaired_at_once_or_in_parts() {
    for parts in [vec![100..110, 110..300], vec![100..140, 140..150, 150..300], vec![290..300, 100..290]] {
        let (mut story, replica) = two_replicas();
        let broken: Vec<u64> = vec![100, 130, 140, 200, 270, 290];
        for offset in &broken {
            story.damage_batch(offset / 140 * 140, *offset);
        }
        let ranges = |broken: &[u64]| {
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for offset in broken {
                match ranges.last_mut().filter(|(_, end)| end == offset) {
                    Some((_, end)) => *end += 10,
                    None => ranges.push((*offset, offset + 10)),
                }
            }
            ranges
        };
        assert_eq!(story.damage_found(), ranges(&broken));
        let mut left = broken;
        for part in parts {
            story.repair(part.clone(), &replica).unwrap();
            left.retain(|offset| !part.contains(offset));
            assert_eq!(story.damage_found(), ranges(&left));
            story.kill();
            story.open();
            assert_eq!(story.damage_found(), ranges(&left), "after a restart");
        }
        assert_eq!(story.replica(), replica);
    }
}

#[test]
fn damage_that_is_repaired_in_part_stays_damaged_for_the_rest() {
    let (mut story, replica) = two_replicas();
    // One hole of five batches.
    story.overwrite(0, 2 * BATCH, &vec![0; 5 * BATCH as usize]);
    assert_eq!(story.damage_found(), [(20, 70)]);
    story.repair(20..40, &replica).unwrap();
    assert_eq!(story.damage_found(), [(40, 70)]);
    story.repair(60..70, &replica).unwrap();
    assert_eq!(story.damage_found(), [(40, 60)]);
    story.kill();
    assert_eq!(story.open().damaged, [(Offset(40), Offset(60))]);
    assert!(matches!(story.reader().read(Offset(45), EVERYTHING, 100), Err(LogError::Damaged { .. })));
    story.repair(40..60, &replica).unwrap();
    assert_eq!(story.replica(), replica);
}

#[test]
fn everything_past_an_offset_can_be_fetched_anew() {
    let (mut story, replica) = two_replicas();
    for start in (210..420).step_by(70) {
        story.repair(start..start + 70, &replica).unwrap();
    }
    assert_eq!(story.replica(), replica);
    story.close(420, b"");
    assert!(story.open().clean);
    story.repair(410..420, &replica).unwrap();
    story.kill();
    story.open();
    assert_eq!(story.replica(), replica);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_changed() {
    let (mut story, replica) = two_replicas();
    story.damage_batch(0, 50);
    story.damage_found();
    let untouched = (story.names(), story.disk.operations());
    let mut damaged = replica[5].clone();
    damaged.header.crc ^= 1;
    let short = batch(50, 1, 0, 9, 100);
    let wrong: [(Range<u64>, Vec<RecordBatch>, &str); 8] = [
        (50..60, vec![damaged], "checksum"),
        (50..60, vec![], "offset 50 where 60"),
        (50..60, vec![short], "offset 59 where 60"),
        (50..60, replica[5..7].to_vec(), "offset 70 where 60"),
        (50..60, replica[6..7].to_vec(), "offset 60 where 50"),
        (45..60, vec![batch(45, 1, 0, 15, 100)], "offset 45 where 40"),
        (130..150, vec![batch(130, 1, 0, 20, 100)], "offset 150 where 140"),
        (410..430, vec![batch(410, 5, 0, 20, 100)], "out of range"),
    ];
    for (range, batches, why) in wrong {
        let refused = story.log().repair(Offset(range.start)..Offset(range.end), &batches).unwrap_err();
        assert!(refused.to_string().contains(why), "{range:?}: {refused}");
        assert_eq!((story.names(), story.disk.operations()), untouched, "{range:?}: {refused}");
    }
}

#[test]
fn batches_of_another_history_are_refused_by_their_epochs() {
    let (mut story, _) = two_replicas();
    let untouched = story.disk.operations();
    for (range, epoch) in [(150..160, 1), (150..160, 3), (130..140, 3), (280..290, 1)] {
        let foreign = batch(range.start, epoch, 0, 10, 100);
        let refused = story.log().repair(Offset(range.start)..Offset(range.end), &[foreign]).unwrap_err();
        assert!(matches!(refused, LogError::EpochWentBack { .. }), "{range:?} {epoch}: {refused}");
    }
    assert_eq!(story.disk.operations(), untouched);
}

#[test]
fn an_epoch_that_was_damaged_on_disk_is_found_by_a_read_and_repaired() {
    let (mut story, replica) = two_replicas();
    // The leader epoch of the batch at 60 becomes 65537: its checksum does not cover it.
    story.disk.flip_bit(&story.path(0, ".log"), 6 * BATCH + 13, 0).unwrap();
    assert_eq!(story.damage_found(), [(60, 70)]);
    story.repair(60..70, &replica).unwrap();
    assert_eq!(story.replica(), replica);
}

#[test]
fn epochs_that_begin_in_what_was_damaged_are_known_again_after_the_repair() {
    let (mut story, replica) = two_replicas();
    story.damage_batch(140, 140);
    story.kill();
    story.disk.remove_file(&Path::new(DIR).join("leader-epochs")).unwrap();
    story.open();
    assert_eq!(story.damage_found(), [(140, 150)]);
    let listed =
        |epochs: &LeaderEpochs| epochs.entries().iter().map(|(epoch, start)| (epoch.0, start.0)).collect::<Vec<_>>();
    story.repair(140..150, &replica).unwrap();
    for epochs in [story.log().leader_epochs().clone(), story.reader().leader_epochs().0, story.saved_epochs()] {
        assert_eq!(listed(&epochs), [(1, 0), (2, 140), (5, 280)]);
    }
    story.holds_exactly(420);
}

#[test]
fn a_crash_at_any_step_of_a_repair_leaves_the_segment_as_it_was_or_repaired() {
    for (damage, range) in [(vec![130, 140], 130..150), (vec![330], 330..340)] {
        for outage in 0..5 {
            for step in 1.. {
                let (mut story, replica) = two_replicas();
                for offset in &damage {
                    story.damage_batch(offset / 140 * 140, *offset);
                }
                story.damage_found();
                story.log().save_checkpoint(Offset(420)).unwrap();
                story.disk.crash_after_operations(step);
                let repaired = story.repair(range.clone(), &replica).is_ok();
                story.log = None;
                match outage {
                    0 => story.disk.kill(),
                    1 => story.disk.power_loss_keeping_nothing(),
                    seed => story.disk.power_loss(&mut fastrand::Rng::with_seed(seed * 1_000 + step)),
                }
                let report = story.open();
                let case = format!("{range:?}, outage {outage}, step {step}: {report:?}");
                assert!(!report.doubtful && report.cut.is_none(), "{case}");
                assert!(!repaired || report.damaged.is_empty(), "{case}");
                assert_eq!(story.log().written_end(), Offset(420), "{case}");
                assert!(!story.names().iter().any(|name| name.ends_with(".tmp")), "{case}");
                let found = story.damage_found();
                let inside = |(start, end): &(u64, u64)| range.start <= *start && *end <= range.end;
                assert!(found.iter().all(inside), "{case}: {found:?}");
                if !found.is_empty() {
                    story.repair(range.clone(), &replica).unwrap();
                }
                assert_eq!(story.replica(), replica, "{case}");
                assert_eq!(story.saved_damage(), [], "{case}");
                if repaired {
                    assert!(step > 12, "only {step} operations");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_disk_that_fails_before_anything_was_replaced_costs_only_the_repair() {
    let (mut story, replica) = two_replicas();
    story.damage_batch(0, 50);
    story.damage_found();
    story.disk.fail_nth(FaultyOperation::Sync, 1, ".log.tmp");
    let failed = story.repair(50..60, &replica).unwrap_err();
    assert!(matches!(failed, LogError::Io(_)), "{failed}");
    assert!(!story.names().iter().any(|name| name.ends_with(".tmp")));
    assert_eq!(story.damage_found(), [(50, 60)]);
    story.repair(50..60, &replica).unwrap();
    assert_eq!(story.replica(), replica);
}

#[test]
fn readers_race_with_repairs_and_never_see_a_wrong_record_or_false_damage() {
    let (mut story, replica) = two_replicas();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = story.reader();
        let stop = &stop;
        let racing = scope.spawn(move || {
            let mut reads = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let mut next = Offset(0);
                while next < Offset(420) {
                    let slice = reader.read(next, EVERYTHING, 3_000).expect("nothing is damaged");
                    for (offset, value) in records(slice.bytes) {
                        assert!(value.starts_with(format!("{offset}:").as_bytes()), "offset {offset}");
                    }
                    next = slice.next;
                    reads += 1;
                }
            }
            (reads, reader.damaged_ranges())
        });
        for round in 0..60 {
            let start = round % 42 * 10;
            story.repair(start..start + 10, &replica).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (reads, damaged) = racing.join().unwrap();
        assert!(reads > 0 && damaged.is_empty(), "{reads} reads, {damaged:?}");
    });
    assert_eq!(story.replica(), replica);
}
