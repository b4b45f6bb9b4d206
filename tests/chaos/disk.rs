//! Disks that have no room, and bits that flip on them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use callboard::storage::data_dir::parse_partition_dir_name;
use callboard::types::record_batch::RecordBatch;
use callboard::types::{Offset, TopicPartition};
use fastrand::Rng;

/// Room for some rounds of records.
const SIZE: &str = "size=96m";
/// What is written at once to fill it.
const PIECE_BYTES: usize = 64 << 10;

/// A small file system with the data of one broker, mounted for one run.
#[derive(Debug)]
pub struct SmallDisk {
    mounted_at: PathBuf,
    /// Where the broker looks for its data.
    data_dir: PathBuf,
}

impl SmallDisk {
    /// One for the broker with this data directory, which nobody has created yet. Nothing where mounting is not allowed.
    pub fn mount(home: &Path, data_dir: &Path) -> io::Result<Option<Self>> {
        let mounted_at = home.join("small-disk");
        fs::create_dir_all(&mounted_at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&mounted_at).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let disk = Self { data_dir: data_dir.to_owned(), mounted_at };
        let inside = disk.mounted_at.join("data");
        fs::create_dir(&inside)?;
        symlink(&inside, data_dir)?;
        Ok(Some(disk))
    }

    /// Takes all room, or all but `left` bytes.
    pub fn fill(&self, left: u64) -> io::Result<()> {
        let mut ballast = OpenOptions::new().append(true).create(true).open(self.ballast())?;
        let piece = vec![0; PIECE_BYTES];
        while self.free()? > left {
            match ballast.write_all(&piece) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                written => written?,
            }
        }
        Ok(())
    }

    /// There is room again.
    pub fn empty(&self) -> io::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn free(&self) -> io::Result<u64> {
        let about = rustix::fs::statvfs(&self.mounted_at)?;
        Ok(about.f_bavail * about.f_frsize)
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join("ballast")
    }

    /// Puts the data where it stays when the disk is gone: for whoever looks into what happened.
    pub fn keep(&self) -> io::Result<()> {
        fs::remove_file(&self.data_dir)?;
        let copied = Command::new("cp").arg("-r").arg(self.mounted_at.join("data")).arg(&self.data_dir).status()?;
        if copied.success() { Ok(()) } else { Err(io::Error::other(format!("cp: {copied}"))) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left mounted it would only be in the way of the next look at the temporary directory.
        let _ = Command::new("umount").arg(&self.mounted_at).status();
    }
}

/// Flips a bit of a record batch below `committed` in a replica, and says which batch it is in. Nothing where there is none.
pub fn flip(
    data_dir: &Path,
    partition: TopicPartition,
    committed: Offset,
    rng: &mut Rng,
) -> io::Result<Option<(PathBuf, Offset)>> {
    let mut batches = Vec::new();
    for file in segments(data_dir, partition)? {
        let content = Bytes::from(fs::read(&file)?);
        let mut rest = content.clone();
        while let Ok(batch) = RecordBatch::split_from(&mut rest) {
            let end = content.len() - rest.len();
            if batch.header.end_offset_exclusive() <= committed {
                batches.push((file.clone(), end - batch.header.total_bytes()..end, batch.header.base_offset));
            }
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let (path, bytes, offset) = batches.swap_remove(rng.usize(..batches.len()));
    let file = File::options().read(true).write(true).open(&path)?;
    let at = rng.u64(bytes.start as u64..bytes.end as u64);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1 << rng.u8(..8)], at)?;
    Ok(Some((path, offset)))
}

fn segments(data_dir: &Path, partition: TopicPartition) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in fs::read_dir(data_dir)? {
        let directory = directory?;
        if parse_partition_dir_name(&directory.file_name().to_string_lossy()) != Some(partition) {
            continue;
        }
        for file in fs::read_dir(directory.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
