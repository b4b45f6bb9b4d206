//! The file system of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, Disk, DiskFile, OpenMode, SyncPoint, with_context};

/// The most slices that one vectored write takes (Linux's `UIO_MAXIOV`); the rest is left to the caller's next write.
const MAX_SLICES: usize = 1024;

/// The file system of the operating system. Calls block; the caller chooses the thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    path: Arc<Path>,
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Runs a call until no signal interrupts it, and names operation and path in its error.
fn attempt<T>(operation: &'static str, path: &Path, call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retried(call).map_err(|cause| with_context(operation, path, cause))
}

impl DiskFile for RealFile {
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(MAX_SLICES)];
        attempt("write to", &self.path, || Ok(rustix::io::pwritev(&self.file, slices, position)?))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        attempt("read from", &self.path, || self.file.read_at(buffer, position))
    }

    fn sync_data(&self, _point: SyncPoint) -> io::Result<()> {
        // A signal cannot lose an error here: Linux reports a writeback error once for each open file, and an
        // interrupted call has not reported it.
        attempt("sync", &self.path, || Ok(rustix::fs::fdatasync(&self.file)?))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        attempt("change the size of", &self.path, || self.file.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        attempt("see the size of", &self.path, || Ok(self.file.metadata()?.len()))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        let file = attempt("open", path, || options.open(path))?;
        // Opening a directory for reading succeeds on Linux, and every read of it fails later.
        if mode == OpenMode::Read && attempt("open", path, || file.metadata())?.is_dir() {
            return Err(with_context("open", path, io::ErrorKind::IsADirectory.into()));
        }
        Ok(Arc::new(RealFile { file, path: path.into() }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        attempt("create the directory", path, || fs::create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in attempt("list the directory", path, || fs::read_dir(path))? {
            let entry = entry.map_err(|cause| with_context("list the directory", path, cause))?;
            // Links are followed, so that a partition may lie on another disk; a dangling one is listed as itself.
            let metadata = match fs::metadata(entry.path()).or_else(|_| entry.metadata()) {
                Ok(metadata) => metadata,
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(with_context("look at", &entry.path(), cause)),
            };
            let is_dir = metadata.is_dir();
            let length = if is_dir { 0 } else { metadata.len() };
            entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), is_dir, length });
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        attempt("rename", from, || fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        attempt("remove", path, || fs::remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        attempt("remove the directory", path, || fs::remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path, _point: SyncPoint) -> io::Result<()> {
        attempt("sync the directory", path, || Ok(rustix::fs::fsync(File::open(path)?)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        attempt("look at", path, || path.try_exists())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = attempt("see the free space of", path, || Ok(rustix::fs::statvfs(path)?))?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let total = attempt("see the size of the disk of", path, || Ok(rustix::fs::statvfs(path)?))?;
        Ok(total.f_blocks.saturating_mul(total.f_frsize))
    }

    fn boot_id(&self) -> io::Result<String> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        Ok(attempt("read", path, || fs::read_to_string(path))?.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_keeps_to_the_specification() {
        let root = tempfile::tempdir().unwrap();
        super::super::specification::every_disk_keeps_to_the_specification(&RealDisk, root.path());
    }
}
