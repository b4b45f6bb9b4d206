//! Small files that are replaced as a whole: a crash at any instant leaves the old content or the new, never a mixture.
//!
//! ```text
//!   <name>.tmp ──write──► sync content ──rename──► <name> ──► sync directory
//!
//!   0       4         6               10                 10 + n      14 + n
//!   ┌───────┬─────────┬───────────────┬──────────────────┬───────────┐
//!   │ magic │ version │ n, big-endian │ payload, n bytes │ crc 32C   │   the checksum covers all that stands before it
//!   └───────┴─────────┴───────────────┴──────────────────┴───────────┘
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Disk, OpenMode, SyncPoint, with_context};
use crate::types::record_batch::header::crc32c;

/// Ends the name of a file that is being written. One found at start is what a crash left; it is removed.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

const HEADER_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 4;

/// Four bytes that say what kind of file it is.
pub type Magic = [u8; 4];

/// Why a file that exists was not read.
#[derive(Debug, thiserror::Error)]
pub enum AtomicFileError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The checksum or the length is wrong.
    #[error("{} is damaged ({reason}): restore it from a backup, or move its directory away to start anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Another kind of file stands under that name.
    #[error("{} starts with {found:?} instead of {expected:?}: it is not a file of this kind, move it away", path.display())]
    ForeignMagic {
        /// The file.
        path: PathBuf,
        /// What it starts with.
        found: String,
        /// What it must start with.
        expected: String,
    },
    /// A newer release wrote it.
    #[error("{} has format version {found}, this release reads up to {supported}: install the release that wrote it, or a newer one", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this release reads.
        supported: u16,
    },
}

/// Replaces the file at `path`, or creates it. When this returns, the new content is durable.
///
/// # Errors
/// The disk's. The old content is still there then, or (when only the last step failed) either of the two.
pub fn write_atomically(disk: &dyn Disk, path: &Path, magic: Magic, version: u16, payload: &[u8]) -> io::Result<()> {
    let Some(directory) = path.parent() else {
        return Err(with_context("replace", path, io::ErrorKind::InvalidInput.into()));
    };
    let temporary = temporary_path(path);
    let written = write_temporary(disk, &temporary, &encode(path, magic, version, payload)?);
    if let Err(error) = written.and_then(|()| disk.rename(&temporary, path)) {
        // What cannot be removed now (a dead disk) is removed at the next start.
        let _ = disk.remove_file(&temporary);
        return Err(error);
    }
    disk.sync_dir(directory, SyncPoint::AtomicFileRename)
}

/// Writes a file of the same form into a directory that nobody reads yet, because it has a temporary name itself. The
/// content is durable when this returns; the name when the directory is synced.
///
/// # Errors
/// The disk's.
pub fn write_new(disk: &dyn Disk, path: &Path, magic: Magic, version: u16, payload: &[u8]) -> io::Result<()> {
    write_temporary(disk, path, &encode(path, magic, version, payload)?)
}

fn write_temporary(disk: &dyn Disk, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(temporary, OpenMode::Create)?;
    disk::write_all_at(&*file, bytes, 0)?;
    // Without this the rename could become durable before the content: an empty file under the final name.
    file.sync_data(SyncPoint::AtomicFileContent)
}

fn encode(path: &Path, magic: Magic, version: u16, payload: &[u8]) -> io::Result<Vec<u8>> {
    let Ok(length) = u32::try_from(payload.len()) else {
        return Err(with_context("replace", path, io::ErrorKind::FileTooLarge.into()));
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&checksum(&bytes));
    Ok(bytes)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c(bytes).to_be_bytes()
}

/// Reads the file at `path`: its version and payload, or `None` when there is no such file.
///
/// # Errors
/// [`AtomicFileError`] tells a damaged file from a foreign one and from one of a newer release.
pub fn read_checked(
    disk: &dyn Disk,
    path: &Path,
    magic: Magic,
    max_supported_version: u16,
) -> Result<Option<(u16, Vec<u8>)>, AtomicFileError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |reason: String| AtomicFileError::Damaged { path: path.to_owned(), reason };
    let length = usize::try_from(file.len()?).map_err(|_| damaged("its size is beyond memory".to_owned()))?;
    let mut bytes = vec![0; length];
    let filled = disk::read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(filled);

    if let Some(start) = bytes.first_chunk::<4>()
        && *start != magic
    {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        return Err(AtomicFileError::ForeignMagic {
            path: path.to_owned(),
            found: text(start),
            expected: text(&magic),
        });
    }
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(damaged(format!("it has only {} bytes", bytes.len())));
    }
    let version = u16::from_be_bytes([bytes[4], bytes[5]]);
    let claimed = u32::from_be_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]) as usize;
    let payload_end = bytes.len() - CHECKSUM_BYTES;
    if claimed != payload_end - HEADER_BYTES {
        return Err(damaged(format!("its header claims {claimed} bytes, it holds {}", payload_end - HEADER_BYTES)));
    }
    if bytes[payload_end..] != checksum(&bytes[..payload_end]) {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    if version > max_supported_version {
        let supported = max_supported_version;
        return Err(AtomicFileError::NewerVersion { path: path.to_owned(), found: version, supported });
    }
    bytes.truncate(payload_end);
    bytes.drain(..HEADER_BYTES);
    Ok(Some((version, bytes)))
}

/// Removes what a crash in the middle of [`write_atomically`] left in `directory`, and returns how many files that were.
///
/// # Errors
/// The disk's.
pub fn remove_temporaries(disk: &dyn Disk, directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in disk.read_dir(directory)? {
        if !entry.is_dir && entry.name.ends_with(TEMPORARY_SUFFIX) {
            disk.remove_file(&disk::child(directory, &entry.name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::disk::RealDisk;
    use super::*;

    const MAGIC: Magic = *b"CBxx";

    fn written(payload: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("small.file");
        write_atomically(&RealDisk, &path, MAGIC, 3, payload).unwrap();
        (directory, path)
    }

    #[test]
    fn what_was_written_comes_back_with_its_version_and_a_second_write_replaces_it() {
        let (_directory, path) = written(b"first");
        assert_eq!(read_checked(&RealDisk, &path, MAGIC, 3).unwrap(), Some((3, b"first".to_vec())));
        write_atomically(&RealDisk, &path, MAGIC, 4, b"").unwrap();
        assert_eq!(read_checked(&RealDisk, &path, MAGIC, 4).unwrap(), Some((4, Vec::new())));
    }

    #[test]
    fn the_bytes_on_disk_are_the_documented_ones() {
        let (_directory, path) = written(b"123456789");
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes[..19], *b"CBxx\x00\x03\x00\x00\x00\x09123456789");
        assert_eq!(bytes[19..], [0xc8, 0xe5, 0x26, 0xb6]);
    }

    #[test]
    fn an_absent_file_is_none_and_each_flipped_bit_is_found() {
        let (_directory, path) = written(b"payload");
        assert_eq!(read_checked(&RealDisk, &path.with_file_name("absent"), MAGIC, 3).unwrap(), None);
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                let error = read_checked(&RealDisk, &path, MAGIC, 3).unwrap_err();
                let foreign = matches!(error, AtomicFileError::ForeignMagic { .. });
                assert_eq!(foreign, position < 4, "byte {position}, bit {bit}: {error}");
            }
        }
    }

    #[test]
    fn a_file_cut_short_anywhere_is_damaged_and_says_what_to_do() {
        let (_directory, path) = written(b"payload");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read_checked(&RealDisk, &path, MAGIC, 3).unwrap_err();
            assert!(matches!(error, AtomicFileError::Damaged { .. }), "{length}: {error}");
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name_not_called_damage() {
        let (_directory, path) = written(b"payload");
        let error = read_checked(&RealDisk, &path, MAGIC, 2).unwrap_err();
        assert!(matches!(error, AtomicFileError::NewerVersion { found: 3, supported: 2, .. }), "{error}");
    }

    #[test]
    fn a_temporary_left_by_a_crash_is_removed_and_nothing_else() {
        let (directory, path) = written(b"payload");
        fs::write(directory.path().join("small.file.tmp"), b"half").unwrap();
        assert_eq!(remove_temporaries(&RealDisk, directory.path()).unwrap(), 1);
        assert_eq!(remove_temporaries(&RealDisk, directory.path()).unwrap(), 0);
        assert!(path.exists());
    }
}
