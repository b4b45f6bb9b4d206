//! A member whose files are damaged, missing or somebody else's does not start, and says why: it must not vote.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard::raft::{LogFiles, RaftIdentity, RaftPlace, RaftStorage, RaftStorageError, RaftWork, TypeConfig, Vote};
use callboard::storage::atomic_file::AtomicFileError;
use callboard::storage::disk::{Disk, OpenMode, VirtualDisk};

use crate::support::{DIR, cluster, directory, entries, log_id, place};

const SEGMENT: &str = "/raft/log/00000000000000000000.log";

/// A member that voted, and acknowledged eight entries in four appends.
fn member() -> Arc<VirtualDisk> {
    let disk = Arc::new(VirtualDisk::new(1));
    let mut log = LogFiles::create(&place(&disk, 1)).unwrap();
    log.save_vote(Vote::new(3, 2.into())).unwrap();
    for at in 0..4 {
        log.append(entries(3, at * 2..at * 2 + 2)).unwrap();
    }
    drop(log);
    disk.power_loss_keeping_nothing();
    disk
}

fn length(disk: &VirtualDisk, path: &str) -> u64 {
    disk.open(Path::new(path), OpenMode::Read).unwrap().len().unwrap()
}

fn open(place: &RaftPlace) -> Result<LogFiles, RaftStorageError> {
    LogFiles::open(place)
}

#[test]
fn a_member_without_its_votes_does_not_start() {
    let disk = member();
    disk.remove_file(&PathBuf::from(DIR).join("voter")).unwrap();
    let error = open(&place(&disk, 1)).unwrap_err();
    assert!(matches!(error, RaftStorageError::LostFile { .. }), "{error}");
    assert!(error.to_string().contains("must not vote"), "{error}");

    let disk = member();
    disk.remove_dir_all(Path::new(DIR)).unwrap();
    let error = open(&place(&disk, 1)).unwrap_err();
    assert!(matches!(error, RaftStorageError::Missing { .. }), "{error}");

    let disk = member();
    disk.remove_dir_all(&PathBuf::from(DIR).join("log")).unwrap();
    let error = open(&place(&disk, 1)).unwrap_err();
    assert!(matches!(error, RaftStorageError::LostFile { .. }), "{error}");
}

#[test]
fn a_flipped_bit_in_the_votes_is_damage() {
    for position in [5, 12, 30, 60] {
        let disk = member();
        disk.flip_bit(&PathBuf::from(DIR).join("voter"), position, 2).unwrap();
        let error = open(&place(&disk, 1)).unwrap_err();
        let refused = matches!(
            error,
            RaftStorageError::File(AtomicFileError::Damaged { .. } | AtomicFileError::NewerVersion { .. })
        );
        assert!(refused, "{position}: {error}");
    }
}

#[test]
fn files_of_another_member_cluster_or_directory_are_refused() {
    let disk = member();
    let own = place(&disk, 1).identity;
    let others = [
        RaftIdentity { id: 2.into(), ..own },
        RaftIdentity { directory: directory(2), ..own },
        RaftIdentity { cluster: callboard::types::ClusterId(uuid::Uuid::nil()), ..own },
    ];
    assert_eq!(own.cluster, cluster());
    for identity in others {
        let error = open(&RaftPlace { identity, ..place(&disk, 1) }).unwrap_err();
        assert!(matches!(error, RaftStorageError::Foreign { .. }), "{error}");
    }
    assert!(open(&place(&disk, 1)).is_ok());
}

#[test]
fn a_flipped_bit_before_the_last_append_is_a_loss_after_a_power_loss_and_after_a_kill() {
    let end = length(&member(), SEGMENT);
    // The last append is the last quarter: nothing written after it tells that it was synced.
    let mut refused = 0;
    for position in (0..end * 3 / 4).step_by(7) {
        for kill in [false, true] {
            let disk = member();
            disk.flip_bit(Path::new(SEGMENT), position, 1).unwrap();
            if kill {
                // A first start under this boot, and a kill after it.
                disk.kill();
            }
            // Twice: what the first start did must not hide the loss from the second.
            for start in 0..2 {
                match open(&place(&disk, 1)) {
                    Err(RaftStorageError::LostEntries { .. }) => refused += 1,
                    Err(error) => panic!("position {position}, start {start}: {error}"),
                    Ok(log) => panic!("position {position}, start {start}: opened, with entries up to {}", log.end()),
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_torn_last_append_is_cut_off() {
    let end = length(&member(), SEGMENT);
    for cut in 1..end / 4 {
        let disk = member();
        disk.open(Path::new(SEGMENT), OpenMode::Write).unwrap().set_len(end - cut).unwrap();
        let log = open(&place(&disk, 1)).unwrap();
        assert!((6..8).contains(&log.end()), "cut {cut}: {}", log.end());
        assert_eq!(log.state().last, Some(log_id(3, log.end() - 1)));
    }
}

#[test]
fn a_log_that_lacks_committed_entries_or_a_snapshot_does_not_start() {
    let whole = |disk: &Arc<VirtualDisk>| RaftStorage::<TypeConfig>::open(&place(disk, 1), &RaftWork::here());
    let disk = member();
    open(&place(&disk, 1)).unwrap().save_committed(Some(log_id(3, 7))).unwrap();
    assert!(whole(&disk).is_ok());
    let end = length(&disk, SEGMENT);
    disk.open(Path::new(SEGMENT), OpenMode::Write).unwrap().set_len(end - 1).unwrap();
    let error = whole(&disk).unwrap_err();
    assert!(matches!(error, RaftStorageError::LostEntries { index: 7, .. }), "{error}");

    let disk = member();
    open(&place(&disk, 1)).unwrap().purge(log_id(3, 2)).unwrap();
    let error = whole(&disk).unwrap_err();
    assert!(matches!(error, RaftStorageError::LostEntries { index: 0, .. }), "{error}");
}
