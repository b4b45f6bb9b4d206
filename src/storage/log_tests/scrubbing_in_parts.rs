//! A log that is looked through part by part, while others change it.

use super::super::LogScrub;
use super::*;

/// Batches of two records of 50,000 bytes, 31 of which make a segment of three blocks of checksums.
const SEGMENT: u64 = 62;

/// A log of two closed segments, from 0 and 62, and an active one from 124.
fn three_segments() -> Story {
    let mut story = Story::with(LogConfig { segment_bytes: 3 << 20, ..small_segments() });
    story.record_bytes = 50_000;
    for _ in 0..70 {
        story.append(&[2]);
    }
    story.sum();
    assert_eq!(story.log().segment_count(), 3);
    story
}

/// Goes on with the smallest parts until it is over: how many parts, how many bytes, how much damage is news.
fn finish(scrub: &mut LogScrub) -> (usize, u64, u64) {
    let (mut parts, mut bytes, mut found) = (0, 0, 0);
    while !scrub.is_over() {
        let part = scrub.go_on(1).unwrap();
        (parts, bytes, found) = (parts + 1, bytes + part.bytes, found + part.damage_found);
    }
    (parts, bytes, found)
}

#[test]
fn a_log_is_looked_through_block_by_block_and_damage_in_any_of_them_is_found_once() {
    let mut story = three_segments();
    let size = story.reader().size_bytes();
    assert_eq!(finish(&mut LogScrub::new(story.reader())), (7, size, 0), "3 + 3 blocks, and less than one");
    for (segment, offset) in [(0, 0), (0, 30), (0, 60), (62, 90), (124, 124), (124, 138)] {
        story.damage_batch(segment, offset);
        assert_eq!(finish(&mut LogScrub::new(story.reader())), (7, size, 1), "damage at {offset}");
        assert!(story.reader().damaged_ranges().contains(&(Offset(offset), Offset(offset + 2))));
    }
    assert_eq!(story.reader().damaged_ranges().len(), 6);
    assert_eq!(finish(&mut LogScrub::new(story.reader())), (7, size, 0), "it is no news any more");
    assert!(LogScrub::new(Story::new().reader()).is_over(), "an empty log");
}

#[test]
fn heads_are_compared_block_by_block() {
    let mut story = three_segments();
    // As a disk that returns another version of the log: the list of epochs is made of it.
    for (segment, offset) in (0..70).map(|n| 2 * n).map(|offset| (offset / SEGMENT * SEGMENT, offset)) {
        story.flip_bits(segment, offset, &[(15, 3)]);
    }
    story.kill();
    story.disk.remove_file(&Path::new(DIR).join("leader-epochs")).unwrap();
    story.open();
    assert_eq!(finish(&mut LogScrub::new(story.reader())).2, 6, "each block of the closed segments differs");
    assert_eq!(story.reader().damaged_ranges(), [(Offset(0), Offset(124))]);
}

#[test]
fn what_is_deleted_appended_or_cut_off_meanwhile_is_no_damage_and_a_deletion_begins_nothing_anew() {
    let mut story = three_segments();
    let size = story.reader().size_bytes();
    let mut scrub = LogScrub::new(story.reader());
    let first: u64 = (0..4).map(|_| scrub.go_on(1).unwrap().bytes).sum();
    story.log().advance_log_start(Offset(62)).unwrap();
    let (parts, rest, found) = finish(&mut scrub);
    assert_eq!((parts, first + rest, found), (3, size, 0), "within the second segment");

    let (mut scrub, batch) = (LogScrub::new(story.reader()), story.reader().size_bytes() / 39);
    let first = scrub.go_on(1).unwrap().bytes;
    story.append(&[2; 40]);
    let (_, rest, found) = finish(&mut scrub);
    assert_eq!((first + rest, found), (62 * batch, 0), "a segment that was begun meanwhile is for the next time");

    let mut scrub = LogScrub::new(story.reader());
    scrub.go_on(1).unwrap();
    story.log().advance_log_start(Offset(124)).unwrap();
    let (_, bytes, found) = finish(&mut scrub);
    assert_eq!((bytes, found), (story.reader().size_bytes(), 0), "its segment is gone, the next ones are not");

    let mut story = three_segments();
    let mut scrub = LogScrub::new(story.reader());
    scrub.go_on(1).unwrap();
    story.truncate(Offset(40)).unwrap();
    story.epoch = 2;
    story.append(&[3, 3]);
    assert_eq!(finish(&mut scrub).2, 0, "the segment is another one now");
    let mut scrub = LogScrub::new(story.reader());
    scrub.go_on(1).unwrap();
    story.log().truncate_fully_and_start_at(Offset(900), TruncateLeave::default(), None).unwrap();
    assert_eq!(finish(&mut scrub).2, 0);
}

#[test]
fn a_segment_that_cannot_be_read_is_left_out() {
    let mut story = three_segments();
    story.close(140, b"");
    story.damage_batch(62, 90);
    story.open();
    story.disk.remove_file(&story.path(0, ".log")).unwrap();
    let mut scrub = LogScrub::new(story.reader());
    scrub.go_on(1).unwrap_err();
    assert_eq!(finish(&mut scrub).2, 1);
}
