use super::super::inspect;
use super::*;

/// Bytes of a batch of ten records of 100 bytes.
const BATCH: u64 = 61 + 10 * 109;

impl Story {
    /// Checkpoints until every closed segment has its file of checksums. Returns the segments that have one.
    pub(super) fn sum(&mut self) -> Vec<u64> {
        self.sync();
        let high_watermark = self.log().written_end();
        while let Some(job) = self.log().begin_checkpoint(high_watermark) {
            let done = job.run();
            self.log().finish_side(done).unwrap();
        }
        self.summed()
    }

    fn summed(&self) -> Vec<u64> {
        let names = self.names();
        names.iter().filter_map(|name| name.strip_suffix(".checksum")).map(|digits| digits.parse().unwrap()).collect()
    }

    /// Scrubs the whole log: the damaged ranges, and for each segment whether its heads were verified.
    fn scrub(&mut self) -> (Vec<(u64, u64)>, Vec<bool>) {
        let (reader, mut next) = (self.reader(), self.log().log_start());
        let (mut damaged, mut heads) = (Vec::new(), Vec::new());
        while next < reader.written_end() {
            let scrubbed = reader.scrub(next).unwrap();
            damaged.extend(scrubbed.damaged.iter().map(|(from, to)| (from.0, to.0)));
            heads.push(scrubbed.heads_verified);
            next = scrubbed.next;
        }
        (damaged, heads)
    }

    fn problems(&self) -> Vec<String> {
        let report = inspect(&self.disk, Path::new(DIR), None, &mut |_| true).unwrap();
        report.problems.into_iter().map(|problem| problem.what).collect()
    }
}

#[test]
fn a_closed_segment_gets_its_checksums_with_a_checkpoint_and_appends_never_wait_for_it() {
    let mut story = Story::new();
    story.fill(13);
    assert_eq!(story.sum(), [0u64; 0], "an active segment has none");
    let before = story.disk.operations();
    story.append(&[10]);
    assert_eq!(story.disk.operations() - before, 1);
    story.fill(28);
    assert_eq!(story.summed(), [0u64; 0]);
    assert_eq!(story.sum(), [0, 140]);
    assert!(story.log().begin_checkpoint(Offset(420)).is_none(), "once");
    assert_eq!(story.scrub(), (vec![], vec![true, true, false]));
    assert_eq!(story.problems(), [""; 0]);
    for unclean in [true, false] {
        if unclean {
            story.kill()
        } else {
            story.close(420, b"")
        }
        story.open();
        assert_eq!(story.summed(), [0, 140]);
        assert_eq!(story.scrub(), (vec![], vec![true, true, false]));
    }
}

#[test]
fn damage_to_any_byte_of_a_head_is_found_by_a_scrub_and_by_an_inspection() {
    for byte in 0..21 {
        let mut story = Story::new();
        story.fill(30);
        story.sum();
        let path = story.path(140, ".log");
        story.disk.flip_bit(&path, 3 * BATCH + byte, 1).unwrap();
        let problems = story.problems();
        assert!(!problems.is_empty(), "byte {byte}");
        let (damaged, _) = story.scrub();
        let covers = damaged.iter().any(|(from, to)| *from <= 170 && 180 <= *to);
        assert!(covers, "byte {byte}: {damaged:?}");
        assert!(story.reader().read(Offset(170), EVERYTHING, 100).is_err(), "byte {byte}");
        assert_eq!(story.reader().read(Offset(0), EVERYTHING, 100).unwrap().next, Offset(10));
    }
}

#[test]
fn an_epoch_that_even_the_list_of_epochs_has_wrong_is_found_by_the_checksums() {
    let mut story = Story::new();
    story.fill(30);
    story.sum();
    // Every batch of the first segment, as a disk that returns another version of it would show.
    for at in 0..14 {
        story.disk.flip_bit(&story.path(0, ".log"), at * BATCH + 15, 3).unwrap();
    }
    for at in 0..14 {
        story.disk.flip_bit(&story.path(140, ".log"), at * BATCH + 15, 3).unwrap();
    }
    for at in 0..2 {
        story.disk.flip_bit(&story.path(280, ".log"), at * BATCH + 15, 3).unwrap();
    }
    story.kill();
    story.disk.remove_file(&Path::new(DIR).join("leader-epochs")).unwrap();
    story.open();
    assert_eq!(story.log().leader_epochs().latest(), Some(LeaderEpoch(9)));
    assert!(story.problems()[0].contains("leader epoch"), "{:?}", story.problems());
    assert_eq!(story.scrub().0, [(0, 140), (140, 280)]);
    assert!(matches!(story.reader().read(Offset(0), EVERYTHING, 1), Err(LogError::Damaged { .. })));
}

#[test]
fn a_head_that_is_damaged_before_the_logs_start_condemns_nothing_after_it() {
    let mut story = Story::new();
    story.fill(30);
    story.sum();
    story.log().advance_log_start(Offset(45)).unwrap();
    let path = story.path(0, ".log");
    story.disk.flip_bit(&path, 2 * BATCH + 15, 3).unwrap();
    assert_eq!(story.scrub(), (vec![], vec![true, true, false]), "the batches from 40 on have the epochs that are due");
    assert_eq!(story.reader().read(Offset(45), Offset(60), 1 << 20).unwrap().next, Offset(60));
    story.disk.flip_bit(&path, 6 * BATCH + 15, 3).unwrap();
    assert_eq!(story.scrub().0, [(60, 70)], "of those it is known which");
}

#[test]
fn segments_of_older_releases_have_no_checksums_and_are_good_all_the_same() {
    let mut story = Story::new();
    story.fill(30);
    story.close(300, b"");
    assert_eq!((story.summed(), story.problems()), (vec![], vec![]));
    story.open();
    assert_eq!(story.scrub(), (vec![], vec![false, false, false]));
    story.holds_exactly(300);
}

#[test]
fn checksums_that_are_damaged_themselves_hide_no_record() {
    let mut story = Story::new();
    story.fill(30);
    story.sum();
    story.disk.flip_bit(&story.path(0, ".checksum"), 30, 1).unwrap();
    assert_eq!(story.scrub(), (vec![], vec![false, true, false]));
    assert!(story.problems()[0].contains("checksum"), "{:?}", story.problems());
    story.holds_exactly(300);
}

#[test]
fn checksums_go_with_their_segment_and_before_it_is_appended_to_again() {
    let mut story = Story::new();
    story.fill(42);
    assert_eq!(story.sum(), [0, 140]);
    story.truncate(Offset(200)).unwrap();
    assert_eq!(story.summed(), [0]);
    story.epoch = 2;
    story.fill(22);
    assert_eq!(story.sum(), [0, 140]);
    assert_eq!((story.scrub().0, story.problems()), (vec![], vec![]));
    story.log().advance_log_start(Offset(150)).unwrap();
    assert_eq!(story.summed(), [140]);
    story.log().truncate_fully_and_start_at(Offset(900), TruncateLeave::default(), None).unwrap();
    assert_eq!(story.summed(), [0u64; 0]);
}

#[test]
fn a_crash_at_any_step_of_a_truncation_leaves_no_checksums_of_what_is_appended_to_again() {
    for outage in 0..6 {
        for step in 1..40 {
            let mut story = Story::new();
            story.fill(42);
            story.sum();
            story.log().save_checkpoint(Offset(0)).unwrap();
            story.disk.crash_after_operations(step);
            let _ = story.log().truncate_to(Offset(100), TruncateLeave::default());
            story.log = None;
            match outage {
                0 => story.disk.kill(),
                1 => story.disk.power_loss_keeping_nothing(),
                seed => story.disk.power_loss(&mut fastrand::Rng::with_seed(seed * 100 + step)),
            }
            story.open();
            story.epoch = 2;
            story.fill(30);
            story.sync();
            story.lose_power();
            story.open();
            assert_eq!((story.scrub().0, story.problems()), (vec![], vec![]), "outage {outage}, step {step}");
        }
    }
}

#[test]
fn a_repaired_segment_gets_new_checksums() {
    let mut story = Story::new();
    story.fill(30);
    story.sum();
    let replica = story.replica();
    story.disk.flip_bit(&story.path(0, ".log"), 5 * BATCH + 15, 4).unwrap();
    assert_eq!(story.scrub().0, [(50, 60)]);
    story.log().repair(Offset(50)..Offset(60), &replica[5..6]).unwrap();
    assert_eq!(story.summed(), [140]);
    assert_eq!(story.sum(), [0, 140]);
    assert_eq!(story.scrub(), (vec![], vec![true, true, false]));
}

#[test]
fn two_replicas_with_the_same_batches_have_the_same_digests_however_their_segments_are_cut() {
    let mut one = Story::new();
    let mut other = Story::with(LogConfig { segment_bytes: 3_000, ..small_segments() });
    for epoch in [1, 4, 9] {
        one.epoch = epoch;
        one.append(&[10, 3, 1, 7, 10]);
    }
    let batches = one.replica();
    other.log().append_replicated(TimestampMs(0), &batches).unwrap();
    assert_ne!(one.log().segment_count(), other.log().segment_count());
    let ends: Vec<u64> = batches.iter().map(|batch| batch.header.base_offset.0).chain([93]).collect();
    for from in &ends {
        for to in ends.iter().filter(|to| *to >= from) {
            let digest = |story: &mut Story| story.reader().digest(Offset(*from), Offset(*to)).unwrap();
            let ours = digest(&mut one);
            assert_eq!(ours, digest(&mut other), "{from} to {to}");
            assert_eq!(ours.end, Offset(*to));
        }
    }
    // A range that ends within a batch is compared up to that batch.
    assert_eq!(one.reader().digest(Offset(0), Offset(12)).unwrap().end, Offset(10));
    assert!(matches!(one.reader().digest(Offset(0), Offset(94)), Err(LogError::OffsetOutOfRange { .. })));
    let whole = one.reader().digest(Offset(0), Offset(93)).unwrap();
    assert_eq!(whole.batches, 15);
}

#[test]
fn a_digest_tells_another_record_another_epoch_and_another_cut_into_batches() {
    let of = |batches: &[RecordBatch]| {
        let mut story = Story::new();
        story.log().append(TimestampMs(0), batches).unwrap();
        story.reader().digest(Offset(0), Offset(20)).unwrap().checksum
    };
    let first = batch(0, 1, 0, 10, 50);
    let all = [
        of(&[first.clone(), batch(10, 1, 0, 10, 50)]),
        of(&[first.clone(), batch(10, 1, 1, 10, 50)]),
        of(&[first.clone(), batch(10, 2, 0, 10, 50)]),
        of(&[first.clone(), batch(10, 1, 0, 10, 51)]),
        of(&[first, batch(10, 1, 0, 5, 50), batch(15, 1, 0, 5, 50)]),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    let mut damaged = Story::new();
    damaged.fill(2);
    damaged.damage_batch(0, 10);
    assert!(matches!(damaged.reader().digest(Offset(0), Offset(20)), Err(LogError::Damaged { .. })));
}
