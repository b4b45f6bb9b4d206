use super::*;

fn bases(story: &Story) -> Vec<u64> {
    let names = story.names();
    names.iter().filter_map(|name| name.strip_suffix(".log")).map(|digits| digits.parse().unwrap()).collect()
}

impl Story {
    fn retain(&mut self, now: i64, high_watermark: u64) -> (Vec<u64>, u64, bool) {
        self.sync();
        let outcome = self.log().apply_retention(TimestampMs(now), Offset(high_watermark), Offset(u64::MAX)).unwrap();
        (outcome.deleted.iter().map(|segment| segment.base.0).collect(), outcome.log_start.0, outcome.rolled)
    }
}

#[test]
fn old_segments_expire_by_their_newest_record_and_never_at_or_above_the_high_watermark() {
    let mut story = Story::with(LogConfig { retention_ms: Some(10_000), ..small_segments() });
    story.fill(42);
    assert_eq!(bases(&story), [0, 140, 280]);
    // The first segment's newest record has the time 14009.
    assert_eq!(story.retain(24_009, 420), (vec![], 0, false));
    assert_eq!(story.retain(24_010, 139), (vec![], 0, false));
    assert_eq!(story.retain(24_010, 420), (vec![0], 140, false));
    assert_eq!(story.retain(1_000_000, 300), (vec![140], 280, false));
    assert_eq!(bases(&story), [280]);
    story.holds_exactly(420);
    // The active segment is closed so that it can expire too.
    assert_eq!(story.retain(1_000_000, 420), (vec![280], 420, true));
    assert_eq!((bases(&story), story.log().segment_count()), (vec![], 0));
    story.holds_exactly(420);
    story.append(&[10]);
    assert_eq!(bases(&story), [420]);
    story.holds_exactly(430);
}

#[test]
fn the_end_of_a_log_is_kept_when_all_its_segments_expired() {
    for unclean in [true, false] {
        let mut story = Story::with(LogConfig { retention_ms: Some(10_000), ..small_segments() });
        story.fill(30);
        story.retain(1_000_000, 300);
        if unclean {
            story.kill()
        } else {
            story.close(300, b"")
        }
        let report = story.open();
        assert_eq!((report.clean, report.doubtful), (!unclean, false));
        assert_eq!((story.log().log_start(), story.log().written_end()), (Offset(300), Offset(300)));
        story.append(&[10]);
        story.lose_power();
        story.open();
        story.holds_exactly(300);
    }
}

#[test]
fn the_oldest_segments_go_while_the_log_is_larger_than_it_may_be() {
    let mut story = Story::with(LogConfig { retention_bytes: Some(40_000), ..small_segments() });
    story.fill(70);
    assert_eq!(bases(&story), [0, 140, 280, 420, 560]);
    assert_eq!(story.retain(0, 100), (vec![], 0, false));
    assert_eq!(story.retain(0, 700), (vec![0, 140], 280, false));
    assert_eq!(bases(&story), [280, 420, 560]);
    let smaller = LogConfig { retention_bytes: Some(0), ..story.config };
    story.log().set_config(smaller);
    assert_eq!(story.retain(0, 700), (vec![280, 420], 560, false), "the active segment stays");
    story.holds_exactly(700);
}

#[test]
fn an_aged_active_segment_is_closed_while_nothing_is_appended() {
    let mut story = Story::with(LogConfig { segment_ms: 60_000, retention_ms: None, ..small_segments() });
    story.fill(2);
    assert_eq!(story.retain(61_000, 20), (vec![], 0, false));
    assert_eq!(story.retain(61_001, 20), (vec![], 0, true));
    assert_eq!(story.retain(99_999_999, 20), (vec![], 0, false), "once");
    story.append(&[1]);
    assert_eq!(bases(&story), [0, 20]);
}

#[test]
fn retention_by_time_works_after_a_reopen_without_reading_records() {
    let mut story = Story::with(LogConfig { retention_ms: Some(10_000), ..small_segments() });
    story.fill(42);
    story.close(420, b"");
    story.open();
    story.disk.reset_counts();
    assert_eq!(story.retain(39_000, 420), (vec![0, 140], 280, false));
    assert_eq!(story.disk.read_count(".log"), 0);
    story.holds_exactly(420);
}

#[test]
fn a_new_log_start_is_written_down_before_files_go_and_leftovers_go_at_the_next_open() {
    for step in 1..20 {
        let mut story = Story::new();
        story.fill(42);
        story.sync();
        story.log().save_checkpoint(Offset(420)).unwrap();
        story.disk.crash_after_operations(step);
        let advanced = story.log().advance_log_start(Offset(285));
        story.kill();
        story.open();
        let start = story.log().log_start();
        assert!(start == Offset(285) || (start == Offset(0) && advanced.is_err()), "step {step}: {start}");
        assert_eq!(bases(&story), if start == Offset(0) { vec![0, 140, 280] } else { vec![280] });
        story.holds_exactly(420);
    }
}

#[test]
fn the_log_start_moves_only_forward_and_never_past_the_end() {
    let mut story = Story::new();
    story.fill(20);
    assert!(matches!(story.log().advance_log_start(Offset(201)), Err(LogError::OffsetOutOfRange { .. })));
    assert_eq!(story.log().advance_log_start(Offset(150)).unwrap().len(), 1);
    assert_eq!(story.log().advance_log_start(Offset(10)).unwrap(), []);
    assert_eq!(story.log().log_start(), Offset(150));
    assert_eq!(story.log().advance_log_start(Offset(200)).unwrap(), [], "the active segment's file stays");
    story.holds_exactly(200);
    story.append(&[3]);
    story.holds_exactly(203);
}
