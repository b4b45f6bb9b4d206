//! The virtual disk's own stories: what survives what.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::super::specification::every_disk_keeps_to_the_specification;
use super::super::{read_full_at, write_all_at};
use super::*;

const POINT: SyncPoint = SyncPoint::LogData;

fn disk() -> VirtualDisk {
    VirtualDisk::new(1)
}

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(disk: &VirtualDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path(name), OpenMode::Create).unwrap();
    write_all_at(&*file, bytes, 0).unwrap();
    file
}

fn durable(disk: &VirtualDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = create(disk, name, bytes);
    file.sync_data(POINT).unwrap();
    disk.sync_dir(path(name).parent().unwrap(), POINT).unwrap();
    file
}

fn content(disk: &VirtualDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(path(name), OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    read_full_at(&*file, &mut bytes, 0).unwrap();
    Some(bytes)
}

/// What a scenario may leave, over many power losses.
fn outcomes<T: Ord>(scenario: impl Fn(&VirtualDisk), look: impl Fn(&VirtualDisk) -> T) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = VirtualDisk::new(seed);
        scenario(&disk);
        disk.power_loss(&mut fastrand::Rng::with_seed(seed));
        seen.insert(look(&disk));
    }
    seen
}

#[test]
fn the_virtual_disk_keeps_to_the_specification() {
    let disk = disk();
    disk.create_dir_all(path("/root")).unwrap();
    every_disk_keeps_to_the_specification(&disk, path("/root"));
}

#[test]
fn content_and_name_survive_only_when_both_were_synced() {
    let disk = disk();
    durable(&disk, "/kept", b"kept");
    create(&disk, "/name-only", b"gone").len().unwrap();
    disk.sync_dir(path("/"), POINT).unwrap();
    create(&disk, "/content-only", b"gone").sync_data(POINT).unwrap();
    disk.power_loss_keeping_nothing();
    assert_eq!(content(&disk, "/kept"), Some(b"kept".to_vec()));
    assert_eq!(content(&disk, "/name-only"), Some(Vec::new()));
    assert_eq!(content(&disk, "/content-only"), None);
}

#[test]
fn a_directory_whose_name_was_not_synced_takes_its_files_along() {
    let disk = disk();
    disk.create_dir_all(path("/a/b")).unwrap();
    disk.sync_dir(path("/"), POINT).unwrap();
    durable(&disk, "/a/b/file", b"content");
    disk.power_loss_keeping_nothing();
    assert_eq!(disk.read_dir(path("/a")).unwrap(), []);
}

#[test]
fn a_kill_keeps_what_was_written_and_the_boot_id_and_makes_handles_stale() {
    let disk = disk();
    let boot = disk.boot_id().unwrap();
    let file = create(&disk, "/a", b"written");
    disk.kill();
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(content(&disk, "/a"), Some(b"written".to_vec()));
    assert_eq!(disk.boot_id().unwrap(), boot);
    disk.power_loss_keeping_nothing();
    assert_eq!(content(&disk, "/a"), None);
    assert_ne!(disk.boot_id().unwrap(), boot);
}

#[test]
fn an_unsynced_append_leaves_any_size_and_zeros_or_content_but_never_harms_what_was_synced() {
    let scenario = |disk: &VirtualDisk| {
        let file = durable(disk, "/a", &[1; 700]);
        write_all_at(&*file, &[2; 9_000], 700).unwrap();
    };
    let seen = outcomes(scenario, |disk| content(disk, "/a").unwrap());
    assert!(seen.iter().all(|bytes| bytes[..700] == [1; 700] && bytes.len() <= 9_700));
    assert!(seen.iter().all(|bytes| bytes[700..].iter().all(|byte| matches!(byte, 0 | 2))));
    assert!(seen.contains(&vec![1; 700]), "all of it may be lost");
    assert!(seen.contains(&[vec![1; 700], vec![2; 9_000]].concat()), "all of it may survive");
    let zeros = |bytes: &&Vec<u8>| bytes.len() == 9_700 && bytes[700..].iter().all(|byte| *byte == 0);
    assert!(seen.iter().any(|bytes| zeros(&bytes)), "the size may survive without the content");
    let torn =
        |bytes: &Vec<u8>| bytes.len() > 4_096 && bytes[700..4_096].contains(&0) && bytes[700..4_096].contains(&2);
    assert!(seen.iter().any(torn), "a page may be torn");
}

#[test]
fn two_unsynced_writes_to_one_sector_may_leave_only_the_first() {
    let scenario = |disk: &VirtualDisk| {
        let file = durable(disk, "/a", b"00");
        write_all_at(&*file, b"11", 0).unwrap();
        write_all_at(&*file, b"22", 0).unwrap();
    };
    let seen = outcomes(scenario, |disk| content(disk, "/a").unwrap());
    assert_eq!(seen, BTreeSet::from([b"00".to_vec(), b"11".to_vec(), b"22".to_vec()]));
}

#[test]
fn an_unsynced_truncation_may_come_undone_and_a_synced_one_never() {
    let truncate = |disk: &VirtualDisk| {
        let file = durable(disk, "/a", &[1; 600]);
        file.set_len(10).unwrap();
        file
    };
    let seen = outcomes(|disk| drop(truncate(disk)), |disk| content(disk, "/a").unwrap());
    assert_eq!(seen, BTreeSet::from([vec![1; 10], vec![1; 600]]));
    let synced = |disk: &VirtualDisk| truncate(disk).sync_data(POINT).unwrap();
    assert_eq!(outcomes(synced, |disk| content(disk, "/a").unwrap()), BTreeSet::from([vec![1; 10]]));
}

#[test]
fn what_was_cut_and_grown_again_is_durable_as_zeros() {
    let disk = disk();
    let file = durable(&disk, "/a", &[1; 2_000]);
    file.set_len(10).unwrap();
    file.set_len(2_000).unwrap();
    file.sync_data(POINT).unwrap();
    disk.power_loss_keeping_nothing();
    assert_eq!(content(&disk, "/a"), Some([vec![1; 10], vec![0; 1_990]].concat()));
}

#[test]
fn a_rename_leaves_the_old_or_the_new_and_never_neither() {
    let scenario = |disk: &VirtualDisk| {
        durable(disk, "/file", b"old");
        create(disk, "/file.tmp", b"new").sync_data(POINT).unwrap();
        disk.rename(path("/file.tmp"), path("/file")).unwrap();
    };
    let seen = outcomes(scenario, |disk| content(disk, "/file").unwrap());
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    let seen = outcomes(scenario, |disk| (content(disk, "/file").unwrap(), content(disk, "/file.tmp").is_some()));
    assert!(!seen.contains(&(b"new".to_vec(), true)), "a renamed file does not keep its old name");
}

#[test]
fn a_move_into_a_new_directory_leaves_the_file_in_one_of_the_two() {
    let scenario = |disk: &VirtualDisk| {
        durable(disk, "/file", b"precious");
        disk.create_dir_all(path("/aside")).unwrap();
        disk.rename(path("/file"), path("/aside/file")).unwrap();
    };
    let look = |disk: &VirtualDisk| (content(disk, "/file").is_some(), content(disk, "/aside/file").is_some());
    assert_eq!(outcomes(scenario, look), BTreeSet::from([(true, false), (false, true)]));
    let synced = |disk: &VirtualDisk| {
        scenario(disk);
        disk.sync_dir(path("/aside"), POINT).unwrap();
    };
    assert_eq!(outcomes(synced, look), BTreeSet::from([(false, true)]));
}

#[test]
fn changes_of_different_names_survive_in_any_combination_and_removals_may_come_undone() {
    let scenario = |disk: &VirtualDisk| {
        durable(disk, "/removed", b"");
        disk.remove_file(path("/removed")).unwrap();
        create(disk, "/created", b"");
    };
    let look = |disk: &VirtualDisk| (content(disk, "/removed").is_some(), content(disk, "/created").is_some());
    assert_eq!(outcomes(scenario, look).len(), 4);
}

#[test]
fn the_same_seeds_give_the_same_disk() {
    let run = |seed| {
        let disk = VirtualDisk::new(seed);
        disk.set_short_writes(true);
        durable(&disk, "/a", &[1; 9_000]);
        write_all_at(&*disk.open(path("/a"), OpenMode::Write).unwrap(), &[2; 30_000], 5_000).unwrap();
        disk.power_loss(&mut fastrand::Rng::with_seed(seed));
        content(&disk, "/a")
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    assert!((0..20).any(|seed| run(seed) != run(seed + 1)));
}

#[test]
fn a_crash_stops_everything_at_the_chosen_operation_until_the_restart() {
    let steps = |disk: &VirtualDisk| -> io::Result<()> {
        disk.create_dir_all(path("/d"))?;
        let file = disk.open(path("/d/a"), OpenMode::Create)?;
        write_all_at(&*file, b"x", 0)?;
        file.set_len(9)?;
        file.sync_data(POINT)?;
        disk.rename(path("/d/a"), path("/d/b"))?;
        disk.sync_dir(path("/d"), POINT)?;
        disk.remove_file(path("/d/b"))?;
        disk.remove_dir_all(path("/d"))
    };
    let whole = disk();
    steps(&whole).unwrap();
    assert_eq!(whole.operations(), 9);
    for n in 1..=9 {
        let disk = disk();
        disk.crash_after_operations(n);
        let error = steps(&disk).unwrap_err();
        assert!(is_crash(&error), "{n}: {error}");
        assert_eq!(disk.operations(), n);
        assert!(is_crash(&disk.read_dir(path("/")).unwrap_err()));
        disk.kill();
        assert!(disk.read_dir(path("/")).is_ok());
    }
}

#[test]
fn a_failed_sync_leaves_the_pages_clean_so_that_the_next_sync_saves_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = VirtualDisk::new(seed);
        let file = durable(&disk, "/a", b"");
        write_all_at(&*file, b"data", 0).unwrap();
        disk.fail_nth(FaultyOperation::Sync, 1, "/a");
        assert_eq!(super::super::raw_os_error(&file.sync_data(POINT).unwrap_err()), Some(5));
        file.sync_data(POINT).unwrap();
        assert_eq!(content(&disk, "/a"), Some(b"data".to_vec()), "the page cache still shows it");
        disk.power_loss_keeping_nothing();
        lost += usize::from(content(&disk, "/a") != Some(b"data".to_vec()));
    }
    assert!((5..50).contains(&lost), "{lost} of 50 lost");
}

#[test]
fn faults_hit_the_chosen_operation_once() {
    let disk = disk();
    let file = create(&disk, "/a.log", b"data");
    disk.fail_nth(FaultyOperation::Write, 2, ".log");
    write_all_at(&*file, b"1", 0).unwrap();
    create(&disk, "/b.index", b"another");
    assert!(write_all_at(&*file, b"2", 0).is_err());
    write_all_at(&*file, b"3", 0).unwrap();
    disk.fail_nth(FaultyOperation::Read, 1, "");
    assert!(file.read_at(&mut [0], 0).is_err());
    assert_eq!(content(&disk, "/a.log"), Some(b"3ata".to_vec()));
    assert_eq!((disk.read_count(".log"), disk.read_count("index")), (2, 0));
}

#[test]
fn a_full_disk_takes_what_fits_then_refuses_and_space_comes_back_with_removal() {
    let disk = disk();
    disk.set_capacity(Some(100));
    let file = create(&disk, "/a", &[1; 60]);
    assert_eq!((disk.free_bytes(path("/")).unwrap(), disk.total_bytes(path("/")).unwrap()), (40, 100));
    assert_eq!(file.write_vectored_at(&[IoSlice::new(&[2; 60])], 60).unwrap(), 40);
    let error = file.write_vectored_at(&[IoSlice::new(&[2; 60])], 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.set_len(101).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_vectored_at(&[IoSlice::new(&[3; 60])], 0).unwrap(), 60, "what is there can be written over");
    disk.remove_file(path("/a")).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 100);
}

#[test]
fn a_skipped_sync_is_counted_and_does_nothing() {
    let disk = disk();
    disk.skip_sync(Some(SyncPoint::SegmentCreated));
    create(&disk, "/a", b"").sync_data(POINT).unwrap();
    disk.sync_dir(path("/"), SyncPoint::SegmentCreated).unwrap();
    assert_eq!((disk.sync_count(POINT), disk.sync_count(SyncPoint::SegmentCreated)), (1, 1));
    disk.power_loss_keeping_nothing();
    assert_eq!(content(&disk, "/a"), None);
}

#[test]
fn a_disk_can_be_copied_rolled_back_wiped_and_have_a_bit_flipped() {
    let disk = disk();
    durable(&disk, "/a", b"before");
    let snapshot = disk.snapshot();
    durable(&disk, "/a", b"after");
    let copy = VirtualDisk::from_snapshot(2, &snapshot);
    assert_eq!(content(&copy, "/a"), Some(b"before".to_vec()));
    assert_eq!(content(&disk, "/a"), Some(b"after".to_vec()));
    disk.roll_back(&snapshot);
    assert_eq!(content(&disk, "/a"), Some(b"before".to_vec()));
    disk.flip_bit(path("/a"), 0, 0).unwrap();
    disk.power_loss_keeping_nothing();
    assert_eq!(content(&disk, "/a"), Some(b"cefore".to_vec()));
    disk.wipe();
    assert_eq!(content(&disk, "/a"), None);
}
