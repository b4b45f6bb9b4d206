//! One process at a time: a lock on the real file system, which the kernel gives up when the process ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use super::{DataDirError, LOCK_FILE};
use crate::storage::disk::{self, RealDisk, SyncPoint, with_context};

/// Holds a data directory for this process until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Takes a data directory for this process, and creates it when it is missing.
///
/// # Errors
/// [`DataDirError::InUse`] when another process (or another part of this one) holds it.
pub fn lock_directory(root: &Path) -> Result<DirectoryLock, DataDirError> {
    if !root.is_dir() {
        disk::create_dir_durably(&RealDisk, root, SyncPoint::DataDirCreated)?;
    }
    let path = root.join(LOCK_FILE);
    // Not emptied on opening: who holds the lock has written its process id into it.
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|cause| with_context("open", &path, cause))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let owner = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            return Err(DataDirError::InUse { root: root.to_owned(), owner });
        }
        Err(TryLockError::Error(cause)) => return Err(with_context("lock", &path, cause).into()),
    }
    // The process id is only for the message above; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(DirectoryLock { _file: file })
}
