//! What every [`Disk`] does, as a suite that runs over each implementation.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use super::{Disk, OpenMode, SyncPoint, read_full_at, write_all_at};

type Story = fn(&dyn Disk, &Path);

/// Runs every story in a directory of its own below `root`, which exists and is empty.
pub(crate) fn every_disk_keeps_to_the_specification(disk: &dyn Disk, root: &Path) {
    let stories: [(&str, Story); 8] = [
        ("write", what_was_written_is_read_back),
        ("grow", a_file_grows_with_zeros_and_shrinks),
        ("modes", opening_modes_differ),
        ("list", a_directory_lists_its_entries_by_name),
        ("rename", a_rename_moves_and_replaces),
        ("directories", a_directory_moves_and_goes_with_all_in_it),
        ("open", an_open_file_outlives_its_name),
        ("errors", errors_name_the_path_and_keep_their_kind),
    ];
    for (name, story) in stories {
        let directory = root.join(name);
        disk.create_dir_all(&directory).unwrap();
        story(disk, &directory);
    }
    assert!(disk.free_bytes(root).unwrap() > 0);
    assert!(disk.total_bytes(root).unwrap() >= disk.free_bytes(root).unwrap());
    assert_eq!(disk.boot_id().unwrap(), disk.boot_id().unwrap());
    assert!(!disk.boot_id().unwrap().is_empty());
}

fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(read_full_at(&*file, &mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    write_all_at(&*disk.open(path, OpenMode::Create).unwrap(), bytes, 0).unwrap();
}

fn what_was_written_is_read_back(disk: &dyn Disk, root: &Path) {
    let file = disk.open(&root.join("a"), OpenMode::Create).unwrap();
    assert!(file.is_empty().unwrap());
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(file.write_vectored_at(&slices, 0).unwrap(), 7);
    file.sync_data(SyncPoint::LogData).unwrap();
    let long = vec![7; 10_000];
    write_all_at(&*file, &long, 4_000).unwrap();
    assert_eq!(file.len().unwrap(), 14_000);
    let mut buffer = [9; 9];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 9);
    assert_eq!(&buffer, b"one two\0\0", "the gap reads as zeros");
    assert_eq!(file.read_at(&mut buffer, 13_998).unwrap(), 2);
    assert_eq!(file.read_at(&mut buffer, 14_000).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 99_000).unwrap(), 0);
    let many: Vec<_> = (0..3_000).map(|_| IoSlice::new(b"x")).collect();
    let taken = file.write_vectored_at(&many, 0).unwrap();
    assert!((1..=3_000).contains(&taken));
}

fn a_file_grows_with_zeros_and_shrinks(disk: &dyn Disk, root: &Path) {
    put(disk, &root.join("a"), &[1; 6_000]);
    let file = disk.open(&root.join("a"), OpenMode::Write).unwrap();
    file.set_len(5).unwrap();
    file.set_len(9_000).unwrap();
    assert_eq!(file.len().unwrap(), 9_000);
    let bytes = content(disk, &root.join("a"));
    assert_eq!(bytes[..5], [1; 5]);
    assert!(bytes[5..].iter().all(|byte| *byte == 0), "what was cut does not come back");
    file.set_len(0).unwrap();
    assert!(file.is_empty().unwrap());
}

fn opening_modes_differ(disk: &dyn Disk, root: &Path) {
    let path = root.join("a");
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert_eq!(disk.open(&path, mode).unwrap_err().kind(), ErrorKind::NotFound);
    }
    put(disk, &path, b"kept");
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_vectored_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(reader.set_len(0).is_err());
    let writer = disk.open(&path, OpenMode::Write).unwrap();
    write_all_at(&*writer, b"K", 0).unwrap();
    assert_eq!(content(disk, &path), b"Kept");
    disk.open(&path, OpenMode::Create).unwrap();
    assert_eq!(content(disk, &path), b"", "create empties what exists");
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::Create] {
        assert_eq!(disk.open(root, mode).unwrap_err().kind(), ErrorKind::IsADirectory);
    }
    assert_eq!(disk.open(&root.join("absent/a"), OpenMode::Create).unwrap_err().kind(), ErrorKind::NotFound);
}

fn a_directory_lists_its_entries_by_name(disk: &dyn Disk, root: &Path) {
    assert_eq!(disk.read_dir(root).unwrap(), []);
    put(disk, &root.join("b"), b"12345");
    put(disk, &root.join("c"), b"");
    disk.create_dir_all(&root.join("a/deep")).unwrap();
    disk.create_dir_all(&root.join("a/deep")).unwrap();
    let seen: Vec<_> = disk.read_dir(root).unwrap().into_iter().map(|e| (e.name, e.is_dir, e.length)).collect();
    assert_eq!(seen, [("a".to_owned(), true, 0), ("b".to_owned(), false, 5), ("c".to_owned(), false, 0)]);
    assert_eq!(disk.read_dir(&root.join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.read_dir(&root.join("b")).unwrap_err().kind(), ErrorKind::NotADirectory);
    disk.sync_dir(root, SyncPoint::SegmentCreated).unwrap();
    assert!(disk.exists(&root.join("b")).unwrap() && disk.exists(&root.join("a")).unwrap());
    assert!(!disk.exists(&root.join("x")).unwrap() && !disk.exists(&root.join("x/y")).unwrap());
}

fn a_rename_moves_and_replaces(disk: &dyn Disk, root: &Path) {
    put(disk, &root.join("a"), b"new");
    put(disk, &root.join("b"), b"old");
    disk.rename(&root.join("a"), &root.join("b")).unwrap();
    assert_eq!(content(disk, &root.join("b")), b"new");
    assert!(!disk.exists(&root.join("a")).unwrap());
    disk.rename(&root.join("b"), &root.join("b")).unwrap();
    assert_eq!(content(disk, &root.join("b")), b"new");
    assert_eq!(disk.rename(&root.join("a"), &root.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
    disk.remove_file(&root.join("b")).unwrap();
    assert_eq!(disk.remove_file(&root.join("b")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.read_dir(root).unwrap(), []);
}

fn a_directory_moves_and_goes_with_all_in_it(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(&root.join("a/inner")).unwrap();
    put(disk, &root.join("a/inner/file"), b"here");
    disk.rename(&root.join("a"), &root.join("b")).unwrap();
    assert_eq!(content(disk, &root.join("b/inner/file")), b"here");
    disk.create_dir_all(&root.join("full/x")).unwrap();
    assert!(disk.rename(&root.join("b"), &root.join("full")).is_err(), "a directory in use is not replaced");
    assert_eq!(disk.remove_file(&root.join("b")).unwrap_err().kind(), ErrorKind::IsADirectory);
    disk.remove_dir_all(&root.join("b")).unwrap();
    assert!(!disk.exists(&root.join("b/inner/file")).unwrap());
    assert_eq!(disk.remove_dir_all(&root.join("b")).unwrap_err().kind(), ErrorKind::NotFound);
    put(disk, &root.join("file"), b"");
    assert!(disk.create_dir_all(&root.join("file/below")).is_err());
}

fn an_open_file_outlives_its_name(disk: &dyn Disk, root: &Path) {
    put(disk, &root.join("a"), b"first");
    let removed = disk.open(&root.join("a"), OpenMode::Write).unwrap();
    disk.remove_file(&root.join("a")).unwrap();
    put(disk, &root.join("a"), b"second");
    write_all_at(&*removed, b"F", 0).unwrap();
    let mut buffer = [0; 5];
    assert_eq!(removed.read_at(&mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer, b"First");
    assert_eq!(content(disk, &root.join("a")), b"second");
    let renamed = disk.open(&root.join("a"), OpenMode::Write).unwrap();
    disk.rename(&root.join("a"), &root.join("b")).unwrap();
    write_all_at(&*renamed, b"S", 0).unwrap();
    assert_eq!(content(disk, &root.join("b")), b"Second");
}

fn errors_name_the_path_and_keep_their_kind(disk: &dyn Disk, root: &Path) {
    let absent = root.join("absent.log");
    let error = disk.open(&absent, OpenMode::Read).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("absent.log"), "{error}");
    assert!(disk.sync_dir(&absent, SyncPoint::SegmentCreated).unwrap_err().to_string().contains("absent.log"));
}
