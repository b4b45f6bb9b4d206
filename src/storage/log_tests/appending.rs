use super::super::disk::virtual_disk::FaultyOperation;
use super::*;

#[test]
fn what_is_appended_is_read_back_and_durable_after_a_sync() {
    let mut story = Story::new();
    let appended = story.append(&[3, 1, 5]);
    assert_eq!(appended, Appended { end: Offset(9), rolled: false });
    assert_eq!((story.log().written_end(), story.log().durable_end()), (Offset(9), Offset(0)));
    assert_eq!(story.sync(), Offset(9));
    assert!(story.log().begin_sync().is_none(), "nothing is left to sync");
    story.holds_exactly(9);
}

#[test]
fn an_empty_partition_has_no_segment_files_and_opens_without_descriptors() {
    let mut story = Story::new();
    assert_eq!(story.names(), ["partition.meta", "partition.state"]);
    story.close(0, b"");
    let report = story.open();
    assert!(report.clean);
    assert_eq!((story.log().segment_count(), story.files.len()), (0, 0));
    assert_eq!(story.names(), ["partition.meta", "partition.state"]);
    story.append(&[1]);
    story.holds_exactly(1);
}

#[test]
fn a_partition_is_created_once_and_another_one_is_not_opened_in_its_place() {
    let mut story = Story::new();
    let create = |story: &Story| {
        let disk = Arc::new(story.disk.clone());
        Log::create(disk, Arc::clone(&story.files), Path::new(DIR), &identity(), story.config).map(|_| ())
    };
    assert!(matches!(create(&story), Err(LogError::AlreadyExists { .. })));
    story.kill();
    let other = PartitionIdentity { partition: PartitionIndex(1), ..identity() };
    let (disk, files) = (Arc::new(story.disk.clone()), Arc::clone(&story.files));
    let error = Log::open(disk, files, Path::new(DIR), &other, story.config, &mut ()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("belongs to partition 0 of topic syslog"), "{error}");
    story.disk.flip_bit(&Path::new(DIR).join("partition.meta"), 20, 0).unwrap();
    assert!(matches!(story.try_open(&mut ()), Err(LogError::DamagedMeta(_))));
    story.disk.remove_file(&Path::new(DIR).join("partition.meta")).unwrap();
    assert!(matches!(story.try_open(&mut ()), Err(LogError::MissingPartition { .. })));
}

#[test]
fn a_crash_at_any_step_of_creation_leaves_a_whole_partition_or_none() {
    for step in 1.. {
        let disk = VirtualDisk::new(step);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/"), SyncPoint::PartitionCreated).unwrap();
        let files = Arc::new(FileCache::new(Arc::new(disk.clone()), 8));
        let create =
            || Log::create(Arc::new(disk.clone()), Arc::clone(&files), Path::new(DIR), &identity(), small_segments());
        disk.crash_after_operations(step);
        let created = create().is_ok();
        disk.power_loss(&mut fastrand::Rng::with_seed(step));
        if disk.exists(Path::new(DIR)).unwrap() {
            let opened = Log::open(
                Arc::new(disk.clone()),
                Arc::clone(&files),
                Path::new(DIR),
                &identity(),
                small_segments(),
                &mut (),
            );
            assert!(opened.is_ok(), "step {step}: {:?}", opened.err());
        } else {
            assert!(!created, "step {step}: a created partition is gone");
            assert!(create().is_ok(), "step {step}: what the crash left is in the way");
        }
        if created {
            return;
        }
    }
}

#[test]
fn a_group_of_batches_is_one_write_however_short_the_disk_makes_it() {
    let mut story = Story::new();
    story.append(&[1]);
    let before = story.disk.operations();
    story.append(&[1; 50]);
    let index_flushes = 0;
    assert_eq!(story.disk.operations() - before, 1 + index_flushes);
    story.disk.set_short_writes(true);
    story.append(&[1, 7, 2, 1]);
    story.append(&[1; 3]);
    story.disk.set_short_writes(false);
    story.holds_exactly(51 + 11 + 3);
}

#[test]
fn more_batches_than_one_vectored_write_takes_are_all_there() {
    let mut story = Story::with(LogConfig { segment_bytes: 1 << 30, ..small_segments() });
    story.record_bytes = 8;
    story.append(&[1; 1_500]);
    story.holds_exactly(1_500);
}

#[test]
fn segments_roll_by_size_and_by_age_and_the_sealed_ones_are_synced_with_the_next_sync() {
    let mut story = Story::new();
    story.fill(15);
    let rolled = story.append(&[10, 10]);
    assert!(!rolled.rolled && story.log().segment_count() == 2, "{}", story.log().segment_count());
    story.disk.reset_counts();
    assert_eq!(story.sync(), Offset(170));
    // The sealed segment's three files and the active one, with the names of both in one directory sync.
    assert_eq!(story.disk.sync_count(SyncPoint::LogData), 4);
    assert_eq!(story.disk.sync_count(SyncPoint::SegmentCreated), 1);
    story.time += 8 * 24 * 3_600_000;
    assert!(story.append(&[10]).rolled, "the first record is older than segment_ms");
    assert_eq!(story.log().segment_count(), 3);
    story.holds_exactly(180);
}

#[test]
fn batches_that_do_not_follow_on_each_other_change_nothing() {
    let mut story = Story::new();
    story.epoch = 5;
    story.append(&[2]);
    let now = TimestampMs(0);
    let gap = story.log().append(now, &[batch(3, 5, 0, 1, 10)]);
    assert!(matches!(gap, Err(LogError::NotContiguous { expected: Offset(2), found: Offset(3) })));
    let second_gap = story.log().append(now, &[batch(2, 5, 0, 1, 10), batch(4, 5, 0, 1, 10)]);
    assert!(matches!(second_gap, Err(LogError::NotContiguous { expected: Offset(3), found: Offset(4) })));
    let old_epoch = story.log().append(now, &[batch(2, 4, 0, 1, 10)]);
    assert!(matches!(old_epoch, Err(LogError::EpochWentBack { last: LeaderEpoch(5), found: LeaderEpoch(4) })));
    let mut lying = batch(2, 5, 0, 1, 10);
    lying.header.batch_length += 1;
    assert!(matches!(story.log().append(now, &[lying]), Err(LogError::InvalidBatch { .. })));
    assert_eq!(story.append(&[]), Appended { end: Offset(2), rolled: false });
    story.holds_exactly(2);
}

#[test]
fn a_failed_sync_is_final_and_reads_go_on() {
    let mut story = Story::new();
    story.append(&[4]);
    story.disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    let job = story.log().begin_sync().unwrap();
    assert!(story.log().begin_sync().is_none(), "one at a time");
    let failed = story.log().finish_sync(job.run()).unwrap_err();
    assert!(matches!(&failed, LogError::Failed { cause } if cause.contains("sync")), "{failed}");
    assert!(!failed.is_retryable());
    assert!(matches!(story.try_append(&[1]), Err(LogError::Failed { .. })));
    assert!(story.log().begin_sync().is_none());
    assert!(matches!(story.truncate(Offset(1)), Err(LogError::Failed { .. })));
    assert_eq!(story.log().durable_end(), Offset(0));
    story.holds_exactly(4);
}

#[test]
fn a_full_disk_in_the_middle_of_a_write_is_final_and_what_was_written_before_is_served() {
    let mut story = Story::new();
    story.append(&[4]);
    story.disk.set_capacity(Some(10));
    assert!(matches!(story.try_append(&[1]), Err(LogError::DiskFull { .. })));
    story.disk.set_capacity(None);
    assert!(matches!(story.try_append(&[1]), Err(LogError::Failed { .. })));
    story.holds_exactly(4);
    let mut story = Story::new();
    story.append(&[4]);
    story.disk.fail_nth(FaultyOperation::Write, 1, ".log");
    assert!(matches!(story.try_append(&[1]), Err(LogError::Failed { .. })));
    story.kill();
    story.open();
    story.holds_exactly(4);
}

#[test]
fn golden_bytes_of_a_segment_and_its_indexes() {
    // By hand from Kafka's formats. Two batches of one 3-byte record, then one that gets an index entry.
    let mut story = Story::with(LogConfig { index_interval_bytes: 100, ..small_segments() });
    (story.epoch, story.record_bytes) = (2, 3);
    for _ in 0..3 {
        story.append(&[1]);
    }
    story.close(3, b"");
    let log = story.bytes_of(&story.path(0, ".log"));
    assert_eq!(log.len(), 3 * 71);
    for (at, offset) in [(0, 0u8), (71, 1), (142, 2)] {
        assert_eq!(log[at..at + 17], [0, 0, 0, 0, 0, 0, 0, offset, 0, 0, 0, 59, 0, 0, 0, 2, 2]);
        assert_eq!(log[at + 61..at + 71], [18, 0, 0, 0, 1, 6, b'0' + offset, b':', b'v', 0]);
    }
    assert_eq!(story.bytes_of(&story.path(0, ".index")), [0, 0, 0, 2, 0, 0, 0, 142]);
    assert_eq!(story.bytes_of(&story.path(0, ".timeindex")), [0, 0, 0, 0, 0, 0, 0x0b, 0xb8, 0, 0, 0, 2]);
}

#[test]
fn a_log_moves_to_another_thread_and_its_readers_are_shared() {
    fn send<T: Send>() {}
    fn shared<T: Send + Sync + Clone>() {}
    send::<Log>();
    send::<super::super::SyncJob>();
    send::<super::super::SyncDone>();
    shared::<LogReader>();
}

#[test]
fn without_a_descriptor_nothing_is_written_and_the_same_append_may_be_tried_again() {
    for suffix in [".state.tmp", ".log", ".index", ".timeindex"] {
        let mut story = Story::new();
        for nth in 1..=2 {
            story.disk.fail_nth(FaultyOperation::Open, nth, suffix);
        }
        let error = story.try_append(&[1]).unwrap_err();
        assert!(matches!(error, LogError::NoDescriptor { .. }) && error.is_retryable(), "{suffix}: {error}");
        assert_eq!(story.log().written_end(), Offset::ZERO);
        story.append(&[1]);
        // One that is had by closing what is only read is not even noticed.
        story.disk.fail_nth(FaultyOperation::Open, 1, suffix);
        story.append(&[1; 30]);
        story.holds_exactly(31);
    }
}

#[test]
fn logs_that_are_created_together_share_the_sync_of_their_parent_and_survive_a_power_loss() {
    let disk = VirtualDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/"), SyncPoint::PartitionCreated).unwrap();
    disk.reset_counts();
    let (shared, files) =
        (Arc::new(disk.clone()) as Arc<dyn Disk>, Arc::new(FileCache::new(Arc::new(disk.clone()), 8)));
    let dir = |number: u32| Path::new("/data").join(number.to_string());
    let of = |number| PartitionIdentity { partition: PartitionIndex(number), ..identity() };
    let new = |number| NewLog { dir: dir(number), identity: of(number), config: small_segments() };
    let created = Log::create_all(&shared, &files, (0..10).chain([3]).map(new).collect());
    let failed: Vec<bool> = created.iter().map(Result::is_err).collect();
    assert_eq!(failed, [[false; 10].as_slice(), &[true]].concat(), "the one that exists by then, and no other");
    assert_eq!(disk.sync_count(SyncPoint::PartitionCreated), 1);
    drop(created);
    disk.power_loss_keeping_nothing();
    for number in 0..10 {
        let shared = Arc::clone(&shared);
        let opened = Log::open(shared, Arc::clone(&files), &dir(number), &of(number), small_segments(), &mut ());
        assert!(opened.is_ok_and(|(_, report)| report.clean), "{number}");
    }
}
