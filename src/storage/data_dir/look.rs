//! Looking at a data directory without opening it: nothing is created, locked for long, finished or removed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::{
    CLEAN_STOP_FILE, CLEAN_STOP_MAGIC, CleanStop, DELETED_SUFFIX, DataDirError, DirectoryMeta, FORMAT_VERSION,
    LOCK_FILE, META_FILE, METADATA_DIR, QUARANTINE_DIR, parse_partition_dir_name, read_meta,
};
use crate::storage::CREATING_SUFFIX;
use crate::storage::atomic_file::{self, TEMPORARY_SUFFIX};
use crate::storage::disk::{DirEntry, Disk, with_context};
use crate::types::TopicPartition;

/// What an entry of a data directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// One that every data directory may have: identity, marker, lock, metadata, a file system's `lost+found`.
    Own,
    /// A partition's directory.
    Partition(TopicPartition),
    /// A partition whose creation or removal a crash interrupted, or a file that was being replaced.
    Leftover,
    /// The directory of what nobody recognised.
    Quarantine,
    /// Nothing that a node puts there.
    Unknown,
}

/// A data directory as it lies there.
#[derive(Debug)]
pub struct DirectoryLook {
    /// What it knows about itself; `None` without the file that says so.
    pub meta: Option<DirectoryMeta>,
    /// Whether the last stop was clean, by a marker that belongs to this directory.
    pub clean_stop: bool,
    /// What is in it, by name.
    pub entries: Vec<(DirEntry, EntryKind)>,
}

/// Looks at the data directory `root`.
///
/// # Errors
/// [`DataDirError::File`] when its identity cannot be used, and the disk's.
pub fn look(disk: &dyn Disk, root: &Path) -> Result<DirectoryLook, DataDirError> {
    let meta = read_meta(disk, root)?;
    let marker = atomic_file::read_checked(disk, &root.join(CLEAN_STOP_FILE), CLEAN_STOP_MAGIC, FORMAT_VERSION);
    let marker = marker.ok().flatten().and_then(|(_, payload)| rmp_serde::from_slice::<CleanStop>(&payload).ok());
    let clean_stop = marker.zip(meta.as_ref()).is_some_and(|(marker, meta)| {
        marker.directory == meta.directory && meta.broker_epoch.is_none_or(|epoch| epoch == marker.epoch)
    });
    let entries = disk.read_dir(root)?.into_iter().map(|entry| {
        let kind = kind_of(&entry);
        (entry, kind)
    });
    Ok(DirectoryLook { meta, clean_stop, entries: entries.collect() })
}

fn kind_of(entry: &DirEntry) -> EntryKind {
    let name = entry.name.as_str();
    let unfinished = name.strip_suffix(DELETED_SUFFIX).or_else(|| name.strip_suffix(CREATING_SUFFIX));
    match (name, entry.is_dir) {
        (META_FILE | CLEAN_STOP_FILE | LOCK_FILE, false) | (METADATA_DIR | "lost+found", true) => EntryKind::Own,
        (QUARANTINE_DIR, true) => EntryKind::Quarantine,
        (_, true) if unfinished.and_then(parse_partition_dir_name).is_some() => EntryKind::Leftover,
        (_, true) => parse_partition_dir_name(name).map_or(EntryKind::Unknown, EntryKind::Partition),
        (_, false) if name.ends_with(TEMPORARY_SUFFIX) => EntryKind::Leftover,
        (_, false) => EntryKind::Unknown,
    }
}

/// Fails when a process uses the data directory `root`. Does not keep others from it.
///
/// # Errors
/// [`DataDirError::InUse`], and the disk's.
pub fn check_unused(root: &Path) -> Result<(), DataDirError> {
    let path = root.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(with_context("open", &path, cause).into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let pid = io::read_to_string(&file).unwrap_or_default();
            let owner = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            Err(DataDirError::InUse { root: root.to_owned(), owner })
        }
        Err(TryLockError::Error(cause)) => Err(with_context("lock", &path, cause).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::super::{DataDir, lock_directory};
    use super::*;
    use crate::storage::disk::{OpenMode, VirtualDisk};
    use crate::types::{BrokerEpoch, NodeId};

    #[test]
    fn a_look_tells_what_is_there_and_changes_nothing() {
        let virtual_disk = VirtualDisk::new(1);
        let (disk, root): (Arc<dyn Disk>, _) = (Arc::new(virtual_disk.clone()), PathBuf::from("/data"));
        let directory = DataDir::open(Arc::clone(&disk), &root, NodeId(3), None).unwrap();
        let partition = "rides-00000000000000000000000000000009-1";
        for name in [partition, &format!("{partition}.deleted"), &format!("{partition}.creating"), "quarantine", "mine"]
        {
            disk.create_dir_all(&root.join(name)).unwrap();
        }
        for name in ["callboard.meta.tmp", "notes.txt"] {
            disk.open(&root.join(name), OpenMode::Create).unwrap();
        }
        let before = virtual_disk.operations();
        let seen = look(&*disk, &root).unwrap();
        assert_eq!((seen.meta, seen.clean_stop), (Some(directory.meta()), false));
        let kinds: Vec<_> = seen.entries.iter().map(|(entry, kind)| (entry.name.as_str(), *kind)).collect();
        assert_eq!(
            kinds,
            [
                ("callboard.meta", EntryKind::Own),
                ("callboard.meta.tmp", EntryKind::Leftover),
                ("mine", EntryKind::Unknown),
                ("notes.txt", EntryKind::Unknown),
                ("quarantine", EntryKind::Quarantine),
                (partition, EntryKind::Partition(parse_partition_dir_name(partition).unwrap())),
                (&format!("{partition}.creating"), EntryKind::Leftover),
                (&format!("{partition}.deleted"), EntryKind::Leftover),
            ]
        );
        assert_eq!(virtual_disk.operations(), before);
        directory.mark_clean_stop(BrokerEpoch(1)).unwrap();
        assert!(look(&*disk, &root).unwrap().clean_stop);
        directory.store_broker_epoch(BrokerEpoch(2)).unwrap();
        assert!(!look(&*disk, &root).unwrap().clean_stop, "it says nothing about a later start");
    }

    #[test]
    fn a_directory_that_is_in_use_is_told_from_one_that_is_not() {
        let root = tempfile::tempdir().unwrap();
        check_unused(root.path()).expect("nobody was ever there");
        assert!(!root.path().join(LOCK_FILE).exists());
        let lock = lock_directory(root.path()).unwrap();
        let refused = check_unused(root.path()).expect_err("held");
        assert!(refused.to_string().contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(lock);
        check_unused(root.path()).expect("given up");
    }
}
