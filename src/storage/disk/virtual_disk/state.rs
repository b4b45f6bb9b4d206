//! The operations of a virtual disk, each on the locked state.

use std::io::{self, IoSlice};
use std::path::Path;

use super::super::{OpenMode, SyncPoint};
use super::content::{FileContent, Survival};
use super::faults::{Crashed, Faults, FaultyOperation, Step};
use super::tree::{Directory, InodeId, Node, Tree};

/// The free space of a disk without a capacity limit.
const UNLIMITED_BYTES: u64 = 1 << 50;

#[derive(Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    pub(super) rng: fastrand::Rng,
    /// Raised by everything that makes open handles stale.
    pub(super) generation: u64,
    pub(super) boots: u64,
}

impl State {
    pub(super) fn restart(&mut self) {
        self.generation += 1;
        self.faults.restart();
    }

    /// Counts a mutating operation that takes place as a whole or not at all.
    pub(super) fn step(&mut self) -> io::Result<()> {
        match self.faults.step()? {
            Step::Done => Ok(()),
            Step::Crashes => Err(io::Error::other(Crashed)),
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        match self.faults.capacity {
            Some(capacity) => capacity.saturating_sub(self.tree.used_bytes()),
            None => UNLIMITED_BYTES,
        }
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.faults.capacity.unwrap_or(UNLIMITED_BYTES)
    }

    pub(super) fn write(
        &mut self,
        inode: InodeId,
        path: &Path,
        slices: &[IoSlice<'_>],
        position: u64,
    ) -> io::Result<usize> {
        let step = self.faults.step()?;
        self.faults.strike(FaultyOperation::Write, path)?;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let position = to_index(position)?;
        let length = self.tree.file_mut(inode)?.len();
        let mut taken = bytes.len();
        if self.faults.capacity.is_some() {
            let limit = length + to_index(self.free_bytes())?;
            taken = taken.min(limit.saturating_sub(position));
            if taken == 0 && !bytes.is_empty() {
                return Err(rustix::io::Errno::NOSPC.into());
            }
        }
        if self.faults.short_writes && taken > 1 {
            taken = self.rng.usize(1..=taken);
        }
        if step == Step::Crashes {
            taken = self.rng.usize(0..=taken);
        }
        self.tree.file_mut(inode)?.write(&bytes[..taken], position);
        if step == Step::Crashes { Err(io::Error::other(Crashed)) } else { Ok(taken) }
    }

    pub(super) fn set_len(&mut self, inode: InodeId, length: u64) -> io::Result<()> {
        self.step()?;
        let grows_by = length.saturating_sub(self.tree.file_mut(inode)?.len() as u64);
        if grows_by > self.free_bytes() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.tree.file_mut(inode)?.set_len(to_index(length)?);
        Ok(())
    }

    pub(super) fn sync_data(&mut self, inode: InodeId, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.step()?;
        self.faults.count_sync(point);
        let content = self.tree.file_mut(inode)?;
        if let Err(error) = self.faults.strike(FaultyOperation::Sync, path) {
            content.fail_sync(&mut Survival::arbitrary(&mut self.rng));
            return Err(error);
        }
        if self.faults.skipped != Some(point) {
            content.sync();
        }
        Ok(())
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        let found = match self.tree.resolve(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => None,
            found => Some(found?),
        };
        let Some(inode) = found else {
            let (parent, name) = self.tree.resolve_parent(path)?;
            self.step()?;
            return Ok(self.tree.create(parent, &name, Node::File(FileContent::default())));
        };
        let length = self.tree.file_mut(inode)?.len();
        if mode == OpenMode::Create && length > 0 {
            self.set_len(inode, 0)?;
        }
        Ok(inode)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        match self.tree.resolve(path) {
            Ok(inode) => {
                return self.tree.directory(inode).map(|_| ()).map_err(|_| io::ErrorKind::AlreadyExists.into());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.create_dir_all(path.parent().unwrap_or(path))?;
        let (parent, name) = self.tree.resolve_parent(path)?;
        self.step()?;
        self.tree.create(parent, &name, Node::Directory(Directory::default()));
        Ok(())
    }

    /// Removes what is in a directory, each name a step of its own: a crash may leave a part.
    pub(super) fn empty_dir(&mut self, directory: InodeId) -> io::Result<()> {
        let entries: Vec<_> = self.tree.directory(directory)?.entries.clone().into_iter().collect();
        for (name, inode) in entries {
            if matches!(self.tree.inode(inode)?.node, Node::Directory(_)) {
                self.empty_dir(inode)?;
            }
            self.step()?;
            self.tree.unlink(directory, &name);
        }
        Ok(())
    }
}

pub(super) fn to_index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
