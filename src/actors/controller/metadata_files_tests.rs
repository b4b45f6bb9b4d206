//! What a release before Raft left is taken over whole, whenever the machine stops meanwhile.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::actors::controller::earlier_log;
use crate::engine::metadata::ClusterImage;
use crate::storage::atomic_file::write_atomically;
use crate::storage::disk::virtual_disk::DiskSnapshot;
use crate::storage::disk::{OpenMode, RealDisk, VirtualDisk, child, write_all_at};
use crate::types::NodeId;

const ROOT: &str = "/data";

/// A data directory that an earlier release wrote, on a virtual disk.
fn earlier(generation: &str, name: &str) -> DiskSnapshot {
    let disk = VirtualDisk::new(1);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(generation).join(name);
    copy(&disk, &from, Path::new(ROOT));
    disk.snapshot()
}

fn copy(disk: &VirtualDisk, from: &Path, to: &Path) {
    disk.create_dir_all(to).unwrap();
    for entry in RealDisk.read_dir(from).unwrap() {
        let (from, to) = (child(from, &entry.name), child(to, &entry.name));
        if entry.is_dir {
            copy(disk, &from, &to);
        } else {
            let bytes = std::fs::read(&from).unwrap();
            write_all_at(&*disk.open(&to, OpenMode::Create).unwrap(), &bytes, 0).unwrap();
        }
    }
}

fn open(disk: &VirtualDisk) -> Result<MetadataFiles, MetadataError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = DataDir::open(Arc::clone(&disk), Path::new(ROOT), NodeId(1), None)?;
    let files = Arc::new(FileCache::new(disk, 8));
    let (node, directory_id) = (NodeId(1), directory.meta().directory);
    let me = ControllerNode { node, directory: directory_id, host: String::new(), port: 0 };
    MetadataFiles::open(&directory, &files, (&me, RaftId::first_of(me.node)), &RaftWork::here())
}

fn image_of(opened: &MetadataFiles) -> ClusterImage {
    ClusterImage::clone(&opened.storage.images.borrow().image)
}

/// What the earlier release itself would have read.
fn expected(snapshot: &DiskSnapshot) -> ClusterImage {
    let disk: Arc<dyn Disk> = Arc::new(VirtualDisk::from_snapshot(1, snapshot));
    let cluster = DataDir::open(Arc::clone(&disk), Path::new(ROOT), NodeId(1), None).unwrap().meta().cluster;
    let files = Arc::new(FileCache::new(Arc::clone(&disk), 8));
    earlier_log::read(&disk, &files, &Path::new(ROOT).join("__cluster_metadata"), cluster).unwrap()
}

#[test]
fn the_metadata_of_an_earlier_release_is_taken_over_whole_wherever_the_machine_stops() {
    for (generation, name) in [("data-dir-v1", "clean"), ("data-dir-v1", "killed"), ("data-dir-v2", "killed")] {
        let before = earlier(generation, name);
        let expected = expected(&before);
        assert_eq!(expected.topics.len(), 4, "{generation}/{name}");
        let mut stops = 0;
        for stop in 1.. {
            let disk = VirtualDisk::from_snapshot(stop, &before);
            disk.crash_after_operations(stop);
            let outcome = open(&disk);
            if !disk.has_crashed() {
                let opened = outcome.unwrap();
                assert_eq!(image_of(&opened), expected, "{generation}/{name}");
                break;
            }
            stops += 1;
            drop(outcome);
            disk.power_loss(&mut fastrand::Rng::with_seed(stop));
            let opened = open(&disk).unwrap_or_else(|error| panic!("{generation}/{name}, stopped at {stop}: {error}"));
            assert_eq!(image_of(&opened), expected, "{generation}/{name}, stopped at {stop}");
            let dir = Path::new(ROOT).join("__cluster_metadata");
            assert!(!earlier_log::is_there(&disk, &dir).unwrap(), "it is not kept twice");
        }
        assert!(stops > 10, "{stops} stops");
    }
}

#[test]
fn an_earlier_release_refuses_the_directory_from_then_on() {
    let disk = VirtualDisk::from_snapshot(1, &earlier("data-dir-v2", "clean"));
    open(&disk).unwrap();
    let (path, magic) = (Path::new(ROOT).join("callboard.meta"), *b"CBdd");
    let error = crate::storage::atomic_file::read_checked(&disk, &path, magic, 2).unwrap_err();
    assert!(matches!(error, AtomicFileError::NewerVersion { found: 3, .. }), "{error}");
}

#[test]
fn earlier_metadata_that_is_damaged_is_left_as_it_is() {
    let disk = VirtualDisk::from_snapshot(1, &earlier("data-dir-v2", "clean"));
    let snapshot = Path::new(ROOT).join("__cluster_metadata/snapshot");
    disk.flip_bit(&snapshot, 40, 1).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, MetadataError::Earlier(MetadataLogError::Snapshot(_))), "{error}");
    assert!(!disk.exists(&Path::new(ROOT).join("__cluster_metadata/raft")).unwrap());
    disk.flip_bit(&snapshot, 40, 1).unwrap();
    open(&disk).unwrap();
}

#[test]
fn a_directory_whose_broker_was_registered_never_begins_with_empty_metadata() {
    let disk = VirtualDisk::new(1);
    drop(open(&disk).unwrap());
    let directory = DataDir::open(Arc::new(disk.clone()), Path::new(ROOT), NodeId(1), None).unwrap();
    directory.store_broker_epoch(crate::types::BrokerEpoch(4)).unwrap();
    disk.remove_dir_all(&Path::new(ROOT).join("__cluster_metadata")).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, MetadataError::Raft(RaftStorageError::Missing { .. })), "{error}");
}

#[test]
fn what_newer_software_wrote_is_told_from_what_is_damaged() {
    let disk = VirtualDisk::new(1);
    drop(open(&disk).unwrap());
    let voter = Path::new(ROOT).join("__cluster_metadata/raft/voter");
    disk.flip_bit(&voter, 30, 1).unwrap();
    assert!(!open(&disk).unwrap_err().is_newer_format());
    write_atomically(&disk, &voter, *b"CBrv", 99, b"later").unwrap();
    assert!(open(&disk).unwrap_err().is_newer_format());
}
