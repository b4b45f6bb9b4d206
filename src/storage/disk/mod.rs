//! The disk behind a trait: the operating system's, or a virtual one that loses power on command.
//!
//! ```text
//!   log, checkpoints, data directory ──► dyn Disk ──► RealDisk      the file system
//!                                               └──► VirtualDisk    memory, with written and durable state, and faults
//! ```
//!
//! Every sync in the code names itself with a [`SyncPoint`], so that a test can leave out each one in turn and show that
//! something acknowledged is lost without it.

mod error;
mod real;
#[cfg(test)]
mod specification;
pub mod virtual_disk;

pub use error::{DiskError, is_out_of_descriptors, raw_os_error, with_context};
pub use real::RealDisk;
pub use virtual_disk::VirtualDisk;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading. The file exists.
    Read,
    /// For reading and writing. The file exists.
    Write,
    /// For reading and writing. The file is created empty, and emptied when it exists.
    Create,
}

/// Each sync in the storage code, by what it makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncPoint {
    /// Record data that is to count as durable (fdatasync of the active segment).
    LogData,
    /// What recovery found in the tail, before it counts as durable.
    RecoveredTail,
    /// A truncation, before the next append.
    Truncation,
    /// The directory, after a new segment's files were created in it.
    SegmentCreated,
    /// The content of a small file that is written to a temporary name, before the rename.
    AtomicFileContent,
    /// The directory, after that rename.
    AtomicFileRename,
    /// A repaired segment under its temporary name, and the directory before and after it takes the place of the old one.
    Repair,
    /// The parent, after the data directory was created.
    DataDirCreated,
    /// The parent, after a partition's directory got its final name.
    PartitionCreated,
    /// The parent, after a partition's directory was given up.
    PartitionDeleted,
    /// The directory, after the clean-stop marker was removed, before the first write.
    CleanMarkerRemoved,
}

/// An open file. Positions are explicit, so that one file can be read by several threads while one writes.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes at `position` and returns how many bytes were taken, which may be fewer than given.
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Reads at `position` and returns how many bytes came; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Says that this part will be read soon, so that the disk may fetch it meanwhile. Only a hint.
    fn will_read(&self, position: u64, length: u64);
    /// Makes the file's content, and the size that goes with it, durable (fdatasync).
    fn sync_data(&self, point: SyncPoint) -> io::Result<()>;
    /// Cuts or grows (with zeros) the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// The file's size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name within the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its size in bytes; 0 for a directory.
    pub length: u64,
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and those above it that are missing. Their names are durable after [`Disk::sync_dir`] of each parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds, by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes that can still be written below `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Bytes that the file system of `path` holds in all.
    fn total_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Changes with every boot of the machine: a page cache survives a killed process, but not a boot.
    fn boot_id(&self) -> io::Result<String>;
}

/// A path joined from a directory and a name.
#[must_use]
pub fn child(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

/// Creates a directory, and those above it that are missing, each with its name durable before the next.
///
/// # Errors
/// The disk's.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path, point: SyncPoint) -> io::Result<()> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let Some(parent) = parent else { return Ok(()) };
    if disk.exists(path)? {
        // Created by a process that was killed before the sync, or by someone else: that its name is durable is not known.
        return match disk.sync_dir(parent, point) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    create_dir_durably(disk, parent, point)?;
    disk.create_dir_all(path)?;
    disk.sync_dir(parent, point)
}

/// Writes all of `bytes` at `position`, however many writes that takes.
///
/// # Errors
/// The first failed write; part of the bytes may be in the file then.
pub fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = file.write_vectored_at(&[IoSlice::new(bytes)], position)?;
        if taken == 0 {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no byte of a write"));
        }
        bytes = &bytes[taken..];
        position += taken as u64;
    }
    Ok(())
}

/// Reads at `position` until `buffer` is full or the file ends, and returns how many bytes came.
///
/// # Errors
/// The first failed read.
pub fn read_full_at(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let count = file.read_at(&mut buffer[filled..], position + filled as u64)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    Ok(filled)
}
