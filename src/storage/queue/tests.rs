//! The queue's rules, on a virtual disk, with jobs that the test runs when it likes.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::storage::disk::virtual_disk::FaultyOperation;
use crate::storage::disk::{Disk, VirtualDisk};
use crate::storage::file_cache::FileCache;
use crate::storage::{LogConfig, PartitionIdentity, TruncateLeave};
use crate::types::record_batch::{BatchBuilder, Compression};
use crate::types::{ClusterId, LeaderEpoch, PartitionIndex, TopicConfig, TopicId, TopicName};

const WALL: TimestampMs = TimestampMs(1_000);

struct Stage {
    disk: VirtualDisk,
    queue: LogQueue<(), ()>,
    news: Vec<LogNews<()>>,
}

fn batch(offset: u64) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    builder.append(WALL, None, Some(b"value"), &[]);
    let mut bytes = builder.build().expect("a small batch");
    RecordBatch::split_from(&mut bytes).expect("just built").stamped(Offset(offset), LeaderEpoch(1), None)
}

impl Stage {
    fn new(flush: FlushPolicy) -> Self {
        let disk = VirtualDisk::new(1);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let identity = PartitionIdentity {
            cluster_id: ClusterId(uuid::Uuid::nil()),
            topic: TopicName::new("rides").expect("legal"),
            topic_id: TopicId(uuid::Uuid::nil()),
            partition: PartitionIndex(0),
        };
        let files = Arc::new(FileCache::new(Arc::clone(&shared), 8));
        let config = LogConfig::from(&TopicConfig::default());
        let log = Log::create(shared, files, Path::new("/data/rides-0"), &identity, config).expect("created");
        Self { disk, queue: LogQueue::new(log, flush, 1 << 20), news: Vec::new() }
    }

    fn append(&mut self, offsets: std::ops::Range<u64>) {
        offsets.for_each(|offset| self.queue.push(LogWork::Append(batch(offset), ())));
    }

    fn next(&mut self) -> Option<Job<(), ()>> {
        self.queue.next(WALL, &mut self.news)
    }

    fn run(&mut self, job: Option<Job<(), ()>>) {
        self.queue.finish(job.expect("something can be done").run(), &mut self.news);
    }

    /// Runs all that can be run, and says what was told.
    fn settle(&mut self) -> Vec<String> {
        while let Some(job) = self.next() {
            self.run(Some(job));
        }
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        let words = |news: LogNews<()>| match news {
            LogNews::Written(end) => format!("written {end}"),
            LogNews::Synced(end) => format!("synced {end}"),
            LogNews::LogStart(start) => format!("starts at {start}"),
            LogNews::Truncated { log_start, end, .. } => format!("cut to {log_start}..{end}"),
            LogNews::NotTruncated(_) => "not cut".to_owned(),
            LogNews::NotReplicated(_) => "not replicated".to_owned(),
            LogNews::Damage(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(|(start, end)| format!("{start}..{end}")).collect();
                format!("damaged: [{}]", ranges.join(" "))
            }
            LogNews::Repaired => "repaired".to_owned(),
            LogNews::NotRepaired(_) => "not repaired".to_owned(),
            LogNews::Scrubbed(from, next) => format!("looked through {from}..{next}"),
            LogNews::NotDeleted(before, _) => format!("not deleted before {before}"),
            LogNews::Rolled => "rolled".to_owned(),
            LogNews::Failed(_) => "failed".to_owned(),
            LogNews::Closed(result) => format!("closed, {}", if result.is_ok() { "cleanly" } else { "not cleanly" }),
            other => format!("{other:?}"),
        };
        self.news.drain(..).map(words).collect()
    }
}

#[test]
fn appends_that_wait_together_are_one_write_and_the_sync_goes_beside() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..3);
    let write = stage.next();
    assert!(matches!(&write, Some(Job::Append { group, .. }) if group.len() == 3));
    stage.run(write);
    assert!(matches!(stage.next(), Some(Job::Sync(_))));
}

#[test]
fn one_sync_is_under_way_at_a_time_and_the_next_covers_what_came_meanwhile() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..1);
    let write = stage.next();
    stage.run(write);
    let sync = stage.next();
    assert!(matches!(sync, Some(Job::Sync(_))));
    stage.append(1..4);
    let write = stage.next();
    stage.run(write);
    assert!(stage.next().is_none(), "the next sync waits for the one under way");
    stage.run(sync);
    assert_eq!(stage.settle(), ["written 1", "written 4", "synced 1", "synced 4"]);
}

#[test]
fn work_waits_while_the_log_is_away_and_keeps_its_order() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..2);
    let write = stage.next();
    stage.queue.push(LogWork::Snapshot(Offset(1), Vec::new()));
    stage.queue.push(LogWork::DeleteRecords(Offset(1)));
    stage.append(2..3);
    assert!(stage.next().is_none(), "the log is with the first write");
    stage.run(write);
    assert_eq!(stage.settle(), ["written 2", "synced 2", "starts at 1", "written 3"]);
}

#[test]
fn records_stay_until_what_they_say_of_producers_is_written_down() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..3);
    stage.queue.push(LogWork::DeleteRecords(Offset(2)));
    assert_eq!(stage.settle(), ["written 3", "not deleted before 2", "synced 3"]);
    // Above the watermark a truncation may take the snapshot away again.
    stage.queue.push(LogWork::Snapshot(Offset(3), Vec::new()));
    let config = TopicConfig { retention_ms: 1, ..TopicConfig::default() };
    stage.queue.push(LogWork::Reconfigure(LogConfig::from(&config), FlushPolicy::Always));
    let late = TimestampMs(WALL.0 + 1_000_000_000);
    let retain = |stage: &mut Stage, watermark| {
        stage.queue.push(LogWork::Retention(Offset(watermark)));
        while let Some(job) = stage.queue.next(late, &mut stage.news) {
            stage.run(Some(job));
        }
        stage.settle()
    };
    assert_eq!(retain(&mut stage, 2), ["starts at 0", "rolled", "synced 3"]);
    assert_eq!(retain(&mut stage, 3), ["starts at 3"]);
}

#[test]
fn another_flush_policy_holds_from_where_it_stands_in_the_queue() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..1);
    assert_eq!(stage.settle(), ["written 1"]);
    let config = LogConfig::from(&TopicConfig::default());
    stage.queue.push(LogWork::Reconfigure(config, FlushPolicy::Always));
    assert_eq!(stage.settle(), ["synced 1"]);
    stage.queue.push(LogWork::Reconfigure(config, FlushPolicy::Os));
    stage.append(1..2);
    assert_eq!(stage.settle(), ["written 2"]);
}

#[test]
fn a_cut_comes_after_the_appends_before_it_and_says_where_the_log_ends() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..5);
    stage.queue.push(LogWork::Truncate { to: Offset(3), leave: TruncateLeave::default(), replay: () });
    stage.append(3..4);
    assert_eq!(stage.settle(), ["written 5", "cut to 0..3", "written 4"]);
}

#[test]
fn a_cut_below_the_watermark_that_was_written_down_is_refused_and_the_log_goes_on() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..5);
    stage.queue.push(LogWork::Checkpoint(Offset(4)));
    assert_eq!(stage.settle(), ["written 5"]);
    stage.queue.push(LogWork::Truncate { to: Offset(3), leave: TruncateLeave::default(), replay: () });
    stage.append(5..6);
    assert_eq!(stage.settle(), ["not cut", "written 6"]);
}

#[test]
fn batches_of_a_leader_that_do_not_follow_on_the_log_are_refused_and_the_log_goes_on() {
    let mut stage = Stage::new(FlushPolicy::Os);
    for offset in [0, 2, 1] {
        stage.queue.push(LogWork::AppendReplicated(vec![batch(offset)], ()));
    }
    assert_eq!(stage.settle(), ["written 1", "not replicated", "written 2"]);
}

#[test]
fn without_a_descriptor_appends_of_a_leader_and_of_a_follower_wait_alike() {
    for is_leader in [true, false] {
        let mut stage = Stage::new(FlushPolicy::Os);
        // The segment's file cannot be opened, also after those that are only read were closed.
        (1..=2).for_each(|nth| stage.disk.fail_nth(FaultyOperation::Open, nth, ".log"));
        match is_leader {
            true => stage.append(0..2),
            false => stage.queue.push(LogWork::AppendReplicated(vec![batch(0), batch(1)], ())),
        }
        let told = stage.settle();
        assert!(matches!(&told[..], [put_off] if put_off.starts_with("PutOff")), "{told:?}");
        assert!(stage.queue.queued_bytes() > 0);
        stage.queue.try_again();
        assert_eq!(stage.settle(), ["written 2", "synced 2"], "what closed on the way is synced");
    }
}

#[test]
fn a_log_that_starts_anew_has_its_producers_before_anything_is_appended() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..2);
    let (leave, producers) = (TruncateLeave::default(), b"known".to_vec());
    stage.queue.push(LogWork::StartAt { offset: Offset(40), leave, producers, replay: () });
    stage.append(40..41);
    assert_eq!(stage.settle(), ["written 2", "cut to 40..40", "written 41"]);
    let names = stage.disk.read_dir(Path::new("/data/rides-0")).expect("a directory");
    assert!(names.iter().any(|entry| entry.name == "00000000000000000040.snapshot"), "{names:?}");
}

#[test]
fn an_empty_log_takes_a_batch_from_before_its_start_only_once_no_checkpoint_is_under_way() {
    let mut stage = Stage::new(FlushPolicy::Always);
    let mut builder = BatchBuilder::new(Compression::None, 0);
    (0..4).for_each(|_| builder.append(WALL, None, Some(b"value"), &[]));
    let mut bytes = builder.build().expect("a small batch");
    let whole = RecordBatch::split_from(&mut bytes).expect("just built").stamped(Offset(38), LeaderEpoch(1), None);
    let (leave, producers) = (TruncateLeave::default(), Vec::new());
    stage.queue.push(LogWork::StartAt { offset: Offset(40), leave, producers, replay: () });
    assert_eq!(stage.settle(), ["cut to 40..40"]);
    // Of the watermark that was known before.
    stage.queue.push(LogWork::Checkpoint(Offset(3)));
    let checkpoint = stage.next();
    assert!(matches!(checkpoint, Some(Job::Side(_))), "{checkpoint:?}");
    stage.queue.push(LogWork::AppendReplicated(vec![whole], ()));
    assert!(stage.next().is_none(), "the checkpoint would put the later start on record");
    stage.run(checkpoint);
    assert_eq!(stage.settle(), ["written 42", "synced 42"]);
    stage.disk.kill();
    let (dir, shared): (_, Arc<dyn Disk>) = (Path::new("/data/rides-0"), Arc::new(stage.disk.clone()));
    let files = Arc::new(FileCache::new(Arc::clone(&shared), 8));
    let identity = PartitionIdentity::read(&*shared, dir).expect("there");
    let config = LogConfig::from(&TopicConfig::default());
    let (log, _) = Log::open(shared, files, dir, &identity, config, &mut ()).expect("opened");
    assert_eq!((log.log_start(), log.written_end()), (Offset(40), Offset(42)));
}

#[test]
fn after_a_failed_sync_nothing_is_appended_and_that_is_told_once() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..1);
    assert_eq!(stage.settle(), ["written 1", "synced 1"]);
    stage.disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    stage.append(1..2);
    assert_eq!(stage.settle(), ["written 2", "failed"]);
    stage.append(2..3);
    assert_eq!(stage.settle(), [""; 0]);
    stage.queue.push(LogWork::Close { high_watermark: Offset(1), producers: Vec::new() });
    assert_eq!(stage.settle(), ["closed, not cleanly"]);
}

/// Six batches of one record, of which that at 2 has a bit that is not what it was.
fn with_damage() -> Stage {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..6);
    assert_eq!(stage.settle(), ["written 6", "synced 6"]);
    let path = Path::new("/data/rides-0/00000000000000000000.log");
    let of_each = batch(0).total_bytes() as u64;
    stage.disk.flip_bit(path, 2 * of_each + 65, 3).expect("there");
    stage
}

#[test]
fn a_scrub_goes_beside_the_appends_and_tells_what_it_found() {
    let mut stage = with_damage();
    stage.queue.push(LogWork::Scrub(Offset(0)));
    stage.queue.push(LogWork::Scrub(Offset(3)));
    stage.append(6..7);
    let scrub = stage.next();
    assert!(matches!(scrub, Some(Job::Scrub(_, Offset(0)))), "{scrub:?}");
    let write = stage.next();
    assert!(matches!(write, Some(Job::Append { .. })), "one scrub at a time, and nobody waits for it: {write:?}");
    stage.run(write);
    stage.run(scrub);
    let found =
        ["written 7", "damaged: [2..3]", "looked through 0..7", "damaged: [2..3]", "looked through 3..7", "synced 7"];
    assert_eq!(stage.settle(), found);
    stage.queue.push(LogWork::Scrub(Offset(40)));
    assert_eq!(stage.settle(), ["damaged: [2..3]", "looked through 40..7"], "what was cut off needs no look");
}

#[test]
fn what_was_damaged_is_replaced_in_order_with_the_appends_once_no_sync_is_under_way() {
    let mut stage = with_damage();
    stage.queue.push(LogWork::Scrub(Offset(0)));
    assert_eq!(stage.settle(), ["damaged: [2..3]", "looked through 0..6"]);
    stage.append(6..7);
    let write = stage.next();
    stage.run(write);
    let sync = stage.next();
    stage.queue.push(LogWork::Repair { from: Offset(2), to: Offset(3), batches: vec![batch(2)] });
    stage.append(7..8);
    assert!(stage.next().is_none(), "the sync speaks of files that are about to be exchanged");
    stage.run(sync);
    let told = ["written 7", "synced 7", "synced 7", "damaged: []", "repaired", "written 8", "synced 8"];
    assert_eq!(stage.settle(), told);
    stage.queue.push(LogWork::Scrub(Offset(0)));
    assert_eq!(stage.settle().first().map(String::as_str), Some("damaged: []"));
}

#[test]
fn batches_that_do_not_fit_repair_nothing_and_the_log_goes_on() {
    let mut stage = with_damage();
    let mut wrong = batch(2);
    wrong.header.crc ^= 1;
    for batches in [vec![batch(3)], vec![wrong], vec![]] {
        stage.queue.push(LogWork::Repair { from: Offset(2), to: Offset(3), batches });
    }
    let refused = ["synced 6", "damaged: []", "not repaired"];
    assert_eq!(stage.settle(), refused.repeat(3));
    stage.append(6..7);
    assert_eq!(stage.settle(), ["written 7", "synced 7"]);
}
