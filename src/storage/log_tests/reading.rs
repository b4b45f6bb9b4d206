use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::LogSlice;
use super::super::disk::virtual_disk::FaultyOperation;
use super::*;

fn read(story: &mut Story, from: u64, upper: u64, max_bytes: usize) -> Result<LogSlice, LogError> {
    story.reader().read(Offset(from), Offset(upper), max_bytes)
}

fn offsets(slice: &LogSlice) -> (Vec<u64>, u64) {
    (records(slice.bytes.clone()).iter().map(|(offset, _)| *offset).collect(), slice.next.0)
}

#[test]
fn a_read_gives_whole_batches_from_the_one_that_holds_the_offset_up_to_the_bound() {
    let mut story = Story::new();
    story.append(&[3, 3, 3]);
    let batch_bytes = story.log().size_bytes() as usize / 3;
    let mut read = |from, upper, max| offsets(&read(&mut story, from, upper, max).unwrap());
    assert_eq!(read(4, 9, 1 << 20), ((3..9).collect(), 9), "the first batch holds offset 4");
    assert_eq!(read(0, 9, 1), ((0..3).collect(), 3), "at least one batch, however large");
    assert_eq!(read(0, 9, 2 * batch_bytes), ((0..6).collect(), 6));
    assert_eq!(read(0, 9, 2 * batch_bytes - 1), ((0..3).collect(), 3));
    assert_eq!(read(0, 8, 1 << 20), ((0..6).collect(), 6), "no batch that reaches past the upper offset");
    assert_eq!(read(0, 2, 1 << 20), (vec![], 0));
    assert_eq!(read(7, 8, 1 << 20), (vec![], 7));
    assert_eq!(read(9, 9, 1 << 20), (vec![], 9), "at the end");
    assert_eq!(read(9, 99, 1 << 20), (vec![], 9));
}

#[test]
fn every_offset_of_a_log_of_many_segments_can_be_read_directly() {
    let mut story = Story::new();
    for count in [1, 7, 2, 30, 1, 1, 12].into_iter().cycle().take(150) {
        story.append(&[count]);
    }
    let end = story.log().written_end().0;
    assert!(story.log().segment_count() > 5);
    for reopened in [false, true] {
        if reopened {
            story.close(end, b"");
            story.open();
        }
        let reader = story.reader();
        for offset in 0..end {
            let slice = reader.read(Offset(offset), EVERYTHING, 100).unwrap();
            let found = offsets(&slice);
            assert!(found.0.contains(&offset) && found.1 > offset, "offset {offset} gives {found:?}");
        }
        story.holds_exactly(end);
    }
}

#[test]
fn who_reads_on_where_it_stopped_has_the_disk_fetch_what_comes_next() {
    let mut story = Story::with(LogConfig { segment_bytes: 1 << 30, ..small_segments() });
    story.record_bytes = 10_000;
    for _ in 0..80 {
        story.append(&[10]);
    }
    let (reader, size) = (story.reader(), story.log().size_bytes());
    let first = reader.read(Offset(50), EVERYTHING, 300_000).unwrap();
    assert_eq!(story.disk.take_read_ahead(), [], "one read is no habit");
    let second = reader.read(first.next, EVERYTHING, 300_000).unwrap();
    let length = second.bytes.len() as u64;
    let end = 5 * (size / 80) + first.bytes.len() as u64 + length;
    assert_eq!(story.disk.take_read_ahead(), [(end + (4 << 20) - length, length)]);
    let mut next = second.next;
    while next < story.log().written_end() {
        next = reader.read(next, EVERYTHING, 300_000).unwrap().next;
    }
    let hints = story.disk.take_read_ahead();
    assert!(!hints.is_empty() && hints.iter().all(|(from, length)| from + length <= size), "{hints:?} within {size}");
}

#[test]
fn offsets_outside_the_log_are_answered_with_its_bounds() {
    let mut story = Story::new();
    story.fill(40);
    story.log().advance_log_start(Offset(155)).unwrap();
    for wrong in [0, 154, 401, u64::MAX >> 1] {
        let error = read(&mut story, wrong, 400, 100).unwrap_err();
        let LogError::OffsetOutOfRange { requested, log_start, end } = error else { panic!("{error}") };
        assert_eq!((requested.0, log_start.0, end.0), (wrong, 155, 400));
    }
    story.holds_exactly(400);
}

#[test]
fn a_damaged_batch_is_never_served_and_the_records_around_it_are() {
    let mut story = Story::new();
    story.fill(40);
    let segments = story.log().segment_count();
    story.damage_batch(0, 50);
    let whole = read(&mut story, 0, 400, 1 << 20).unwrap();
    assert_eq!(offsets(&whole), ((0..50).collect(), 50));
    for offset in [50, 55, 59] {
        let error = read(&mut story, offset, 400, 1 << 20).unwrap_err();
        assert!(
            matches!(error, LogError::Damaged { from: Offset(50), next_valid: Some(Offset(60)) }),
            "{offset}: {error:?}"
        );
    }
    assert_eq!(story.reader().damaged_ranges(), [(Offset(50), Offset(60))]);
    assert_eq!(story.read_all(60), (60..400).collect::<Vec<_>>());
    // It is remembered over a clean stop, and over a crash.
    story.close(400, b"");
    assert_eq!(story.open().damaged, [(Offset(50), Offset(60))]);
    story.append(&[10]);
    story.kill();
    assert_eq!(story.open().damaged, [(Offset(50), Offset(60))]);
    assert_eq!(story.log().segment_count(), segments);
}

#[test]
fn damage_to_a_batch_length_or_offset_is_found_and_passed_over_too() {
    for field in [5, 7, 9, 10, 11, 16, 18] {
        let mut story = Story::new();
        story.fill(14);
        let batch_bytes = story.log().size_bytes() / 14;
        story.disk.flip_bit(&story.path(0, ".log"), 5 * batch_bytes + field, 4).unwrap();
        let mut served = Vec::new();
        let mut next = 0;
        while next < 140 {
            match read(&mut story, next, 140, 1 << 20) {
                Ok(slice) => {
                    served.extend(offsets(&slice).0);
                    next = slice.next.0;
                }
                Err(LogError::Damaged { next_valid: Some(valid), .. }) => next = valid.0,
                Err(other) => panic!("byte {field}: {other}"),
            }
        }
        assert_eq!(served, (0..50).chain(60..140).collect::<Vec<_>>(), "byte {field} of the header");
        assert_eq!(offsets(&read(&mut story, 75, 140, 1).unwrap()), ((70..80).collect(), 80));
    }
}

#[test]
fn damage_in_the_last_batch_of_a_segment_leads_on_to_the_next_and_at_the_end_of_the_log_nowhere() {
    let mut story = Story::new();
    story.fill(17);
    let last_of_first = story.log().segment_count();
    assert_eq!(last_of_first, 2);
    story.damage_batch(0, 130);
    story.damage_batch(140, 160);
    let error = read(&mut story, 130, 170, 100).unwrap_err();
    assert!(matches!(error, LogError::Damaged { from: Offset(130), next_valid: Some(Offset(140)) }), "{error:?}");
    let error = read(&mut story, 160, 170, 100).unwrap_err();
    assert!(matches!(error, LogError::Damaged { from: Offset(160), next_valid: None }), "{error:?}");
    story.append(&[10]);
    let error = read(&mut story, 160, 180, 100).unwrap_err();
    assert!(matches!(error, LogError::Damaged { from: Offset(160), next_valid: Some(Offset(170)) }), "{error:?}");
    assert_eq!(story.read_all(170), (170..180).collect::<Vec<_>>());
}

#[test]
fn a_wrong_index_costs_time_and_no_records_and_is_rebuilt() {
    let mut story = Story::new();
    story.fill(40);
    let right = story.bytes_of(&story.path(0, ".index"));
    for wrong in [[0u8, 0, 0, 1, 0, 0, 0x10, 0], [0, 0, 0, 1, 0x7f, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 1]] {
        let file = story.open_for_damage(&story.path(0, ".index"));
        for at in 0..right.len() / 8 {
            super::super::disk::write_all_at(&*file, &wrong, at as u64 * 8).unwrap();
        }
        for offset in [5, 75, 131] {
            let slice = read(&mut story, offset, 400, 1).unwrap();
            assert!(offsets(&slice).0.contains(&offset));
        }
        assert_eq!(story.reader().damaged_ranges(), []);
        story.log().apply_retention(TimestampMs(0), Offset(0), Offset(u64::MAX)).unwrap();
        assert_eq!(story.bytes_of(&story.path(0, ".index")), right);
    }
    story.holds_exactly(400);
}

#[test]
fn indexes_that_are_missing_or_of_a_wrong_size_are_rebuilt_when_the_log_is_opened() {
    let mut story = Story::new();
    story.fill(40);
    story.close(400, b"");
    let files = [".index", ".timeindex"].map(|suffix| story.path(0, suffix));
    let right = files.clone().map(|file| story.bytes_of(&file));
    story.disk.remove_file(&files[0]).unwrap();
    let report = story.open();
    assert_eq!((report.clean, report.rebuilt_indexes), (true, 1));
    story.close(400, b"");
    story.open_for_damage(&files[1]).set_len(13).unwrap();
    assert_eq!(story.open().rebuilt_indexes, 1);
    assert_eq!(files.map(|file| story.bytes_of(&file)), right);
    story.holds_exactly(400);
}

#[test]
fn a_time_leads_to_the_first_record_at_or_after_it() {
    let mut story = Story::new();
    story.fill(40);
    // Batch n (ten records, a millisecond apart) starts at 1000 (n + 1).
    let lookup = |story: &mut Story, time: i64, upper: u64| {
        let found = story.reader().offset_for_timestamp(TimestampMs(time), Offset(upper), 1 << 20).unwrap();
        found.map(|(offset, timestamp)| (offset.0, timestamp.0))
    };
    for reopened in [false, true] {
        assert_eq!(lookup(&mut story, 0, 400), Some((0, 1_000)));
        assert_eq!(lookup(&mut story, 5_003, 400), Some((43, 5_003)));
        assert_eq!(lookup(&mut story, 5_010, 400), Some((50, 6_000)));
        assert_eq!(lookup(&mut story, 40_009, 400), Some((399, 40_009)));
        assert_eq!(lookup(&mut story, 40_010, 400), None);
        assert_eq!(lookup(&mut story, 5_003, 43), None, "not at or above the upper offset");
        let largest = |story: &mut Story, upper| story.reader().max_timestamp(Offset(upper), 1 << 20).unwrap();
        assert_eq!(largest(&mut story, 400), Some((Offset(399), TimestampMs(40_009))));
        assert_eq!(largest(&mut story, 250), Some((Offset(249), TimestampMs(25_009))));
        assert_eq!(largest(&mut story, 0), None);
        if !reopened {
            story.close(400, b"");
            story.open();
        }
    }
    story.log().advance_log_start(Offset(45)).unwrap();
    assert_eq!(lookup(&mut story, 0, 400), Some((45, 5_005)));
}

#[test]
fn times_that_go_back_are_found_by_the_first_record_that_reaches_them() {
    let mut story = Story::new();
    let times = [5_000, 1_000, 9_000, 2_000, 9_000, 3_000, 20_000, 4_000];
    for time in times.iter().cycle().take(80) {
        story.time = *time;
        story.append(&[10]);
    }
    let first_at_least = |wanted: i64| {
        let all = times.iter().cycle().take(80).enumerate();
        let mut all = all.flat_map(|(at, time)| (0..10).map(move |n| (at as u64 * 10 + n, time + n as i64)));
        all.find(|(_, time)| *time >= wanted)
    };
    for wanted in [0, 1_000, 5_001, 5_009, 5_010, 9_005, 9_010, 20_009, 20_010] {
        let found = story.reader().offset_for_timestamp(TimestampMs(wanted), EVERYTHING, 1 << 20).unwrap();
        assert_eq!(found.map(|(offset, time)| (offset.0, time.0)), first_at_least(wanted), "{wanted}");
    }
    let largest = story.reader().max_timestamp(EVERYTHING, 1 << 20).unwrap();
    assert_eq!(largest, Some((Offset(69), TimestampMs(20_009))), "the first of the largest");
}

#[test]
fn the_newest_timestamp_is_that_of_a_record_that_is_left() {
    let mut story = Story::new();
    let mut builder = BatchBuilder::new(Compression::None, 100);
    for time in [9_000, 2_000, 5_000] {
        builder.append(TimestampMs(time), None, Some(b"value"), &[]);
    }
    let batch = RecordBatch::from_client(builder.build().unwrap()).unwrap();
    story.log().append(TimestampMs(0), &[batch.stamped(Offset(0), LeaderEpoch(0), None)]).unwrap();
    let largest = |story: &mut Story| story.reader().max_timestamp(EVERYTHING, 1 << 20).unwrap();
    assert_eq!(largest(&mut story), Some((Offset(0), TimestampMs(9_000))));
    story.log().delete_records_before(Offset(1)).unwrap();
    assert_eq!(largest(&mut story), Some((Offset(2), TimestampMs(5_000))));
    story.log().delete_records_before(Offset(3)).unwrap();
    assert_eq!(largest(&mut story), None);
}

#[test]
fn a_failed_read_is_an_error_of_that_read_only() {
    let mut story = Story::new();
    story.append(&[5]);
    story.disk.fail_nth(FaultyOperation::Read, 1, ".log");
    let error = read(&mut story, 0, 5, 100).unwrap_err();
    assert!(matches!(error, LogError::Io(_)) && error.is_retryable(), "{error:?}");
    story.append(&[5]);
    story.holds_exactly(10);
}

#[test]
fn readers_race_with_appends_truncations_and_deletions_and_never_see_a_wrong_record() {
    let mut story = Story::new();
    story.fill(40);
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = story.reader();
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (reader, done, reads) = (reader.clone(), &done, &reads);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !done.load(Ordering::Relaxed) {
                    let from = random.u64(reader.log_start().0..=reader.written_end().0.max(reader.log_start().0) + 10);
                    match reader.read(Offset(from), EVERYTHING, 4_000) {
                        Ok(slice) => {
                            for (offset, value) in records(slice.bytes) {
                                assert!(value.starts_with(format!("{offset}:").as_bytes()));
                            }
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(LogError::OffsetOutOfRange { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        // On a busy machine the readers may start late: go on until they have read enough, or given up.
        for round in 1..=20_000 {
            story.fill(8);
            let end = story.log().written_end().0;
            story.epoch += 1;
            story.truncate(Offset(end - 35)).unwrap();
            if round % 5 == 0 {
                story.log().advance_log_start(Offset(end - 200)).unwrap();
            }
            if round >= 60 && reads.load(Ordering::Relaxed) >= 100 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() >= 100, "the readers did not come to read");
    assert_eq!(reader.damaged_ranges(), []);
}

#[test]
fn a_head_that_claims_the_offsets_of_those_after_it_hides_none_of_them() {
    for upper in [Offset(200), Offset::MAX] {
        let mut story = Story::new();
        story.fill(20);
        let batch_bytes = story.bytes_of(&story.path(0, ".log")).len() as u64 / 20;
        // The last offset's delta: 2,057 instead of 9.
        story.disk.flip_bit(&story.path(0, ".log"), 5 * batch_bytes + 25, 3).unwrap();
        let reader = story.log().reader();
        for from in [60, 75, 190] {
            let slice = reader.read(Offset(from), upper, 1).unwrap();
            assert_eq!(slice.next, Offset(from / 10 * 10 + 10), "from {from}, up to {upper}");
        }
        assert!(matches!(reader.read(Offset(52), upper, 1), Err(LogError::Damaged { from: Offset(50), .. })));
    }
}
