//! The log writer alone: a log on a virtual disk, and a probe where the leader would be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::oneshot;

use super::*;
use crate::actors::send::post;
use crate::actors::test_support::{DiskThread, Ear, batch_at, new_log, partition};
use crate::config::LogWriterPlacement;
use crate::metrics::{LogFiles, Metrics};
use crate::storage::disk::virtual_disk::FaultyOperation;
use crate::storage::disk::{Disk, SyncPoint, VirtualDisk};
use crate::storage::queue::{LogNews, LogWork};
use crate::storage::{LogConfig, LogError};
use crate::types::{FlushPolicy, Offset, PartitionIndex, SystemClock, TopicConfig};

struct Stage {
    disk: VirtualDisk,
    thread: DiskThread,
    leader: Ear<LogEvent>,
    writer: Addr<LogWriter>,
}

impl Stage {
    fn with(policy: FlushPolicy, interval: Duration, placement: LogWriterPlacement, group_bytes: usize) -> Self {
        let disk = VirtualDisk::new(1);
        let config = TopicConfig { segment_bytes: 16_384, ..TopicConfig::default() };
        let (log, thread, leader) = (new_log(&disk, &config), DiskThread::start(), Ear::new());
        disk.reset_counts();
        let settings = LogWriterSettings {
            flush: FlushSettings { policy, interval },
            placement,
            group_bytes,
            checkpoint_interval: Duration::from_secs(3_600),
            clock: Arc::new(SystemClock::start()),
            disk: thread.pool.clone(),
            events: leader.recipient(),
            metrics: Metrics::default().partitions.enter(partition().1, PartitionIndex(0), LogFiles::default).share(),
        };
        let writer = LogWriter::new(log, settings).start();
        Self { disk, thread, leader, writer }
    }

    fn new(policy: FlushPolicy) -> Self {
        Self::with(policy, Duration::from_secs(10), LogWriterPlacement::Core, 1 << 20)
    }

    fn append(&self, offsets: std::ops::Range<u64>) {
        offsets.for_each(|offset| post(&self.writer, Write(LogWork::Append(batch_at(offset), None))));
    }

    async fn hears(&mut self, expected: &[String]) {
        for event in expected {
            assert_eq!(words(&self.leader.next().await), *event);
        }
    }

    async fn close(&self, how: CloseHow) -> Result<(), LogError> {
        let (done, closed) = oneshot::channel();
        post(&self.writer, Close { how, done });
        closed.await.expect("whoever closes a log is told")
    }
}

fn words(event: &LogEvent) -> String {
    match event {
        LogEvent::News(LogNews::Written(end)) => written(end.0),
        LogEvent::News(LogNews::Synced(end)) => synced(end.0),
        LogEvent::News(LogNews::LogStart(start)) => starts_at(start.0),
        other => format!("{other:?}"),
    }
}

fn written(end: u64) -> String {
    format!("written up to {end}")
}

fn synced(end: u64) -> String {
    format!("synced up to {end}")
}

fn starts_at(start: u64) -> String {
    format!("starts at {start}")
}

fn rolled() -> String {
    words(&LogEvent::News(LogNews::Rolled))
}

fn cleanly(end: u64) -> CloseHow {
    CloseHow::Cleanly { high_watermark: Offset(end), producer_snapshot: Vec::new() }
}

#[actix::test]
async fn appends_that_wait_together_are_one_write_and_one_sync() {
    for placement in [LogWriterPlacement::Core, LogWriterPlacement::Disk] {
        let mut stage = Stage::with(FlushPolicy::Always, Duration::from_secs(10), placement, 1 << 20);
        stage.append(0..50);
        stage.hears(&[written(50), synced(50)]).await;
        assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 1);
    }
}

#[actix::test]
async fn a_group_has_a_limit_in_bytes() {
    let two = 2 * batch_at(0).total_bytes();
    let mut stage = Stage::with(FlushPolicy::Os, Duration::from_secs(10), LogWriterPlacement::Core, two);
    stage.append(0..5);
    stage.hears(&[written(2), written(4), written(5)]).await;
}

#[actix::test]
async fn at_most_one_sync_is_in_flight_and_the_next_covers_all_that_came_meanwhile() {
    let mut stage = Stage::new(FlushPolicy::Always);
    // The first write of a segment creates files, which is a disk thread's work.
    stage.append(0..1);
    stage.hears(&[written(1), synced(1)]).await;
    stage.disk.reset_counts();
    let held = stage.thread.hold_up();
    stage.append(1..2);
    stage.hears(&[written(2)]).await;
    for offset in 2..20 {
        stage.append(offset..offset + 1);
        stage.hears(&[written(offset + 1)]).await;
    }
    drop(held);
    stage.hears(&[synced(2), synced(20)]).await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 2, "19 appends, 2 syncs");
}

#[actix::test]
async fn the_os_policy_never_syncs_and_a_clean_close_does() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..10);
    stage.hears(&[written(10)]).await;
    stage.thread.settle().await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 0);
    stage.close(cleanly(10)).await.expect("closed");
    assert!(stage.disk.sync_count(SyncPoint::LogData) >= 1, "log and indexes");
    assert!(stage.leader.pending().is_empty());
}

#[actix::test]
async fn the_interval_policy_syncs_once_an_interval_and_not_without_need() {
    let mut stage = Stage::with(FlushPolicy::Interval, Duration::from_secs(10), LogWriterPlacement::Core, 1 << 20);
    stage.append(0..1);
    stage.hears(&[written(1)]).await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 0);
    tokio::time::pause();
    let from = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 0, "not before its time");
    stage.append(1..2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::resume();
    stage.hears(&[written(2), synced(2)]).await;
    assert!(from.elapsed() >= Duration::from_secs(10));
    stage.thread.settle().await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 1);
}

#[actix::test]
async fn a_failed_sync_is_told_once_and_nothing_is_appended_after_it() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..3);
    stage.hears(&[written(3), synced(3)]).await;
    stage.disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    stage.append(3..4);
    stage.hears(&[written(4)]).await;
    let LogEvent::News(LogNews::Failed(cause)) = stage.leader.next().await else { panic!("the sync failed") };
    assert!(matches!(cause, LogError::Failed { .. }), "{cause}");
    let operations = stage.disk.operations();
    stage.append(4..10);
    stage.thread.settle().await;
    let error = stage.close(cleanly(3)).await.expect_err("such a log is not closed cleanly");
    assert!(matches!(error, LogError::Failed { .. }), "{error}");
    assert!(stage.leader.pending().is_empty(), "told once");
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 2, "a failed sync is never tried again");
    assert_eq!(stage.disk.operations(), operations, "nothing was written after it");
}

#[actix::test]
async fn a_failed_write_is_final_whichever_thread_it_ran_on() {
    for placement in [LogWriterPlacement::Core, LogWriterPlacement::Disk] {
        let mut stage = Stage::with(FlushPolicy::Always, Duration::from_secs(10), placement, 1 << 20);
        stage.append(0..3);
        stage.hears(&[written(3), synced(3)]).await;
        stage.disk.fail_nth(FaultyOperation::Write, 1, ".log");
        stage.append(3..5);
        assert!(matches!(stage.leader.next().await, LogEvent::News(LogNews::Failed(_))));
        stage.append(3..8);
        stage.close(CloseHow::Abandoned).await.expect("given up");
        assert!(stage.leader.pending().is_empty());
    }
}

#[actix::test]
async fn a_disk_without_room_fails_the_log_as_full() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..3);
    stage.hears(&[written(3), synced(3)]).await;
    stage.disk.set_capacity(Some(0));
    stage.append(3..4);
    let LogEvent::News(LogNews::Failed(cause)) = stage.leader.next().await else { panic!("the write failed") };
    assert!(matches!(cause, LogError::DiskFull { .. }), "{cause}");
}

#[actix::test]
async fn a_closed_segment_is_reported_and_synced_whatever_the_policy() {
    let mut stage = Stage::new(FlushPolicy::Os);
    let per_segment = 16_384 / batch_at(0).total_bytes() as u64;
    stage.append(0..per_segment);
    stage.hears(&[written(per_segment)]).await;
    stage.append(per_segment..per_segment + 1);
    let mut heard = vec![stage.leader.next().await, stage.leader.next().await, stage.leader.next().await];
    heard.retain(|event| !matches!(event, LogEvent::News(LogNews::Synced(end)) if end.0 >= per_segment));
    assert_eq!(heard.iter().map(words).collect::<Vec<_>>(), [written(per_segment + 1), rolled()]);
}

fn deletes(stage: &Stage, before: u64) {
    post(&stage.writer, Write(LogWork::Snapshot(Offset(before), Vec::new())));
    post(&stage.writer, Write(LogWork::DeleteRecords(Offset(before))));
}

#[actix::test]
async fn deletion_follows_the_appends_before_it_and_syncs_what_it_must() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..10);
    deletes(&stage, 4);
    stage.hears(&[written(10), synced(10), starts_at(4)]).await;
    assert_eq!(stage.disk.sync_count(SyncPoint::LogData), 1, "a log never starts past what is durable");
    deletes(&stage, 10);
    // The last of them is the sync of the segment that was closed.
    stage.hears(&[synced(10), starts_at(10), rolled(), synced(10)]).await;
    let files = stage.disk.read_dir(Path::new("/data/t")).expect("a directory");
    assert!(!files.iter().any(|entry| entry.name.ends_with(".log")), "the active segment went, too: {files:?}");
    stage.append(10..11);
    stage.hears(&[written(11)]).await;
}

#[actix::test]
async fn deletion_that_needs_a_sync_waits_for_the_one_under_way() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..1);
    stage.hears(&[written(1), synced(1)]).await;
    post(&stage.writer, Write(LogWork::Snapshot(Offset(5), Vec::new())));
    stage.thread.settle().await;
    let held = stage.thread.hold_up();
    stage.append(1..2);
    stage.hears(&[written(2)]).await;
    stage.append(2..5);
    stage.hears(&[written(5)]).await;
    post(&stage.writer, Write(LogWork::DeleteRecords(Offset(5))));
    drop(held);
    stage.hears(&[synced(2), synced(5), starts_at(5)]).await;
}

#[actix::test]
async fn deletion_that_fails_is_told_and_the_log_goes_on() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..3);
    stage.hears(&[written(3), synced(3)]).await;
    stage.disk.fail_nth(FaultyOperation::Write, 1, "partition.state.tmp");
    deletes(&stage, 2);
    let failed = stage.leader.next().await;
    assert!(matches!(failed, LogEvent::News(LogNews::NotDeleted(Offset(2), LogError::Io(_)))), "{failed:?}");
    stage.append(3..4);
    stage.hears(&[written(4), synced(4)]).await;
    deletes(&stage, 2);
    stage.hears(&[synced(4), starts_at(2)]).await;
}

#[actix::test]
async fn appends_go_on_while_a_checkpoint_and_a_snapshot_are_written_and_what_deletes_waits_for_them() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..1);
    stage.hears(&[written(1)]).await;
    stage.disk.reset_counts();
    let held = stage.thread.hold_up();
    post(&stage.writer, Write(LogWork::Checkpoint(Offset(1))));
    post(&stage.writer, Write(LogWork::Snapshot(Offset(1), b"state".to_vec())));
    stage.append(1..2);
    stage.hears(&[written(2)]).await;
    post(&stage.writer, Write(LogWork::DeleteRecords(Offset(1))));
    drop(held);
    stage.hears(&[synced(2), starts_at(1)]).await;
    // Epochs and checkpoint, snapshot, and the new start of the log.
    assert_eq!(stage.disk.sync_count(SyncPoint::AtomicFileRename), 4);
    stage.close(cleanly(2)).await.expect("nothing is under way");
}

#[actix::test]
async fn a_checkpoint_that_fails_is_no_harm() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..1);
    stage.hears(&[written(1)]).await;
    stage.disk.fail_nth(FaultyOperation::Sync, 1, "partition.state.tmp");
    post(&stage.writer, Write(LogWork::Checkpoint(Offset(1))));
    stage.append(1..2);
    stage.hears(&[written(2)]).await;
    stage.close(cleanly(2)).await.expect("the next one is written");
}

#[actix::test]
async fn closing_writes_what_came_before_and_waits_for_the_sync_under_way() {
    let mut stage = Stage::new(FlushPolicy::Always);
    stage.append(0..1);
    stage.hears(&[written(1), synced(1)]).await;
    let held = stage.thread.hold_up();
    stage.append(1..2);
    stage.hears(&[written(2)]).await;
    stage.append(2..9);
    let (done, closed) = oneshot::channel();
    post(&stage.writer, Close { how: cleanly(9), done });
    stage.hears(&[written(9)]).await;
    drop(held);
    closed.await.expect("told").expect("closed cleanly");
    stage.hears(&[synced(2)]).await;
}

#[actix::test]
async fn a_changed_policy_holds_from_the_next_append_on() {
    let mut stage = Stage::new(FlushPolicy::Os);
    stage.append(0..1);
    stage.hears(&[written(1)]).await;
    let flush = FlushSettings { policy: FlushPolicy::Always, interval: Duration::from_secs(10) };
    post(&stage.writer, Reconfigure { flush, log: LogConfig::from(&TopicConfig::default()) });
    stage.append(1..2);
    stage.hears(&[written(2), synced(2)]).await;
}

#[actix::test]
async fn without_a_free_descriptor_an_append_waits_and_nothing_is_lost() {
    for placement in [LogWriterPlacement::Core, LogWriterPlacement::Disk] {
        let mut stage = Stage::with(FlushPolicy::Always, Duration::from_secs(10), placement, 1 << 20);
        // The first segment's file cannot be opened twice in a row, nor after the first wait.
        for nth in 1..=3 {
            stage.disk.fail_nth(FaultyOperation::Open, nth, ".log");
        }
        stage.append(0..3);
        stage.hears(&[written(3), synced(3)]).await;
        stage.append(3..4);
        stage.hears(&[written(4), synced(4)]).await;
        stage.close(cleanly(4)).await.expect("the log has not failed");
    }
}
