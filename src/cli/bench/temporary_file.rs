//! A file that goes away with whoever made it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct TemporaryFile {
    /// Open for reading and writing.
    pub file: File,
    path: PathBuf,
}

impl TemporaryFile {
    /// Creates it, empty.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(format!("callboard-bench-{}-{name}", std::process::id()));
        let opened = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = opened.map_err(named)?;
        Ok(Self { file, path })
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // One that cannot be removed has a name that says whose it is.
        let _ = std::fs::remove_file(&self.path);
    }
}
