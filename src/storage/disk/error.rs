//! Errors that say which file: an [`io::Error`] with the operation and the path, its kind and errno still reachable.

use std::io;
use std::path::{Path, PathBuf};

/// What lies inside the [`io::Error`]s of a [`Disk`](super::Disk): the operation, the path and the cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb: "write to", "sync".
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub cause: io::Error,
}

/// Adds the operation and the path to an error, and keeps its kind: a full disk is still [`io::ErrorKind::StorageFull`].
#[must_use]
pub fn with_context(operation: &'static str, path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), DiskError { operation, path: path.to_owned(), cause })
}

/// The operating system's error number, also of an error that carries a [`DiskError`].
#[must_use]
pub fn raw_os_error(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<DiskError>()?;
        raw_os_error(&inner.cause)
    })
}

/// Whether a file could not be opened because the process, or the machine, has too many open. Nothing was done then, and it
/// passes when some are closed.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = |errno: rustix::io::Errno| Some(errno.raw_os_error());
    let raw = raw_os_error(error);
    raw == errno(rustix::io::Errno::MFILE) || raw == errno(rustix::io::Errno::NFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_with_context_names_the_file_and_is_still_a_full_disk() {
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        let error = with_context("write to", Path::new("/data/a.log"), full);
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(raw_os_error(&error), Some(rustix::io::Errno::NOSPC.raw_os_error()));
        assert!(error.to_string().starts_with("cannot write to /data/a.log: "), "{error}");
    }
}
