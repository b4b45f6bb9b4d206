//! A disk in memory that loses power on command: what storage code is proven on.
//!
//! ```text
//!               write, rename …            sync_data, sync_dir
//!   storage ───────────────────► written ───────────────────────► durable
//!                                   │ kill: all of it stays          │
//!                                   └──── power_loss: any part ──────┴──► what the next start finds
//! ```
//!
//! Kept apart are the content of files (by sector), their sizes, and the names in directories. Of what was not synced, a
//! power loss keeps an arbitrary subset: pages, torn pages, sizes without the content, names without the content, and
//! content without the name, which is then gone. Everything follows from the seeds given: the same calls give the same disk.
//!
//! Reading order: `content`, `tree`, `faults`, `state`, then [`VirtualDisk`].

mod content;
mod faults;
mod state;
#[cfg(test)]
mod tests;
mod tree;

pub use faults::{Crashed, FaultyOperation, is_crash};

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::Survival;
use faults::Faults;
use state::{State, to_index};
use tree::{InodeId, Node, Tree};

use super::{DirEntry, Disk, DiskFile, OpenMode, SyncPoint, with_context};

/// A disk in memory, with faults on demand. Clones share it.
#[derive(Clone, Debug)]
pub struct VirtualDisk {
    state: Arc<Mutex<State>>,
}

/// A copy of all that was on a disk at one moment, durable or not.
#[derive(Clone, Debug)]
pub struct DiskSnapshot(Tree);

#[derive(Debug)]
struct VirtualFile {
    disk: VirtualDisk,
    inode: InodeId,
    generation: u64,
    path: PathBuf,
    writable: bool,
    /// Keeps the content of a removed file for as long as it is open.
    _handle: Arc<()>,
}

impl VirtualDisk {
    /// An empty disk. The seed decides where short writes end and what a failed sync leaves.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State {
            tree: Tree::new(),
            faults: Faults::default(),
            rng,
            generation: 0,
            boots: 1,
            read_ahead: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk with the same content: a copied data directory.
    #[must_use]
    pub fn from_snapshot(seed: u64, snapshot: &DiskSnapshot) -> Self {
        let disk = Self::new(seed);
        disk.lock().tree = snapshot.0.clone();
        disk
    }

    /// The (position, length) of each hint of [`DiskFile::will_read`] since the last call of this.
    #[must_use]
    pub fn take_read_ahead(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.lock().read_ahead)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in single steps; a panic of a test between them leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine loses power and boots again: handles are stale, the boot id is another, and of what was not synced an
    /// arbitrary subset survives.
    pub fn power_loss(&self, rng: &mut fastrand::Rng) {
        self.lose_power(&mut Survival::arbitrary(rng));
    }

    /// A power loss that keeps nothing of what was not synced.
    pub fn power_loss_keeping_nothing(&self) {
        self.lose_power(&mut Survival { rng: &mut fastrand::Rng::with_seed(0), keeps: 0.0 });
    }

    fn lose_power(&self, survival: &mut Survival<'_>) {
        let mut state = self.lock();
        state.tree.lose_power(survival);
        state.boots += 1;
        state.restart();
    }

    /// The process is killed: handles are stale, all that was written is still there.
    pub fn kill(&self) {
        self.lock().restart();
    }

    /// The `n`-th mutating operation from now (1 is the next) fails with [`Crashed`], and so does everything after it
    /// until [`Self::power_loss`] or [`Self::kill`]. A write that is hit takes an arbitrary part of its bytes.
    pub fn crash_after_operations(&self, n: u64) {
        self.lock().faults.crash_after(n);
    }

    /// Takes back [`Self::crash_after_operations`], if it has not happened yet.
    pub fn cancel_crash(&self) {
        self.lock().faults.cancel_crash();
    }

    /// Takes back every fault that was asked for and has not happened yet.
    pub fn cancel_faults(&self) {
        self.lock().faults.cancel();
    }

    /// Whether the machine has stopped: see [`Self::crash_after_operations`].
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock().faults.check_running().is_err()
    }

    /// How many mutating operations there were: writes, size changes, syncs, and changes of names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().faults.operations
    }

    /// How many syncs named this point, skipped ones included.
    #[must_use]
    pub fn sync_count(&self, point: SyncPoint) -> u64 {
        self.lock().faults.syncs(point)
    }

    /// How many reads there were of files whose path ends with `suffix`.
    #[must_use]
    pub fn read_count(&self, suffix: &str) -> u64 {
        self.lock().faults.reads(suffix)
    }

    /// Sets the counts of syncs and reads to zero.
    pub fn reset_counts(&self) {
        self.lock().faults.reset_counts();
    }

    /// Syncs that name this point do nothing from now on: the mutant that a test must catch.
    pub fn skip_sync(&self, point: Option<SyncPoint>) {
        self.lock().faults.skipped = point;
    }

    /// The `nth` such operation from now (1 is the next), on a path that ends with `suffix`, fails, once: an open
    /// with EMFILE, the others with EIO. A failed sync leaves an arbitrary part durable and counts everything as clean, as Linux does.
    pub fn fail_nth(&self, operation: FaultyOperation, nth: u64, suffix: &str) {
        self.lock().faults.schedule(operation, nth, suffix);
    }

    /// Whether writes take only a part of what they are given.
    pub fn set_short_writes(&self, short: bool) {
        self.lock().faults.short_writes = short;
    }

    /// Limits the bytes of all files together; writes beyond fail with [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().faults.capacity = bytes;
    }

    /// Flips one bit of a file's content, on the platter and in the page cache.
    ///
    /// # Errors
    /// There is no such file.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let mut state = self.lock();
        let inode = state.tree.resolve(path)?;
        state.tree.file_mut(inode)?.flip_bit(to_index(position)?, bit);
        Ok(())
    }

    /// The first byte of a file that is not on the platter as it shows: after a failed sync the page cache may call it clean.
    ///
    /// # Errors
    /// There is no such file.
    pub fn first_undurable(&self, path: &Path) -> io::Result<Option<usize>> {
        let mut state = self.lock();
        let inode = state.tree.resolve(path)?;
        Ok(state.tree.file_mut(inode)?.first_undurable())
    }

    /// Copies all that the disk shows. A copy that is put back is on the platter.
    #[must_use]
    pub fn snapshot(&self) -> DiskSnapshot {
        let mut tree = self.lock().tree.clone();
        tree.settle();
        DiskSnapshot(tree)
    }

    /// Goes back to an earlier content: a restored backup. Handles are stale afterwards.
    pub fn roll_back(&self, snapshot: &DiskSnapshot) {
        let mut state = self.lock();
        state.tree = snapshot.0.clone();
        state.restart();
    }

    /// Removes everything: a replaced disk. Handles are stale afterwards.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.tree = Tree::new();
        state.restart();
    }

    fn attempt<T>(
        &self,
        operation: &'static str,
        path: &Path,
        action: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let running = state.faults.check_running();
        running.and_then(|()| action(&mut state)).map_err(|cause| with_context(operation, path, cause))
    }
}

impl Disk for VirtualDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.attempt("open", path, |state| {
            state.faults.strike(FaultyOperation::Open, path)?;
            let inode = state.open(path, mode)?;
            let handle = Arc::clone(&state.tree.inode(inode)?.handles);
            let (disk, path, writable) = (self.clone(), path.to_owned(), mode != OpenMode::Read);
            let generation = state.generation;
            let file: Arc<dyn DiskFile> =
                Arc::new(VirtualFile { disk, inode, generation, path, writable, _handle: handle });
            Ok(file)
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.attempt("create the directory", path, |state| state.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.attempt("list the directory", path, |state| {
            let directory = state.tree.directory(state.tree.resolve(path)?)?;
            let entry = |(name, inode): (&String, &InodeId)| {
                let (is_dir, length) = match &state.tree.inode(*inode)?.node {
                    Node::File(content) => (false, content.len() as u64),
                    Node::Directory(_) => (true, 0),
                };
                Ok(DirEntry { name: name.clone(), is_dir, length })
            };
            directory.entries.iter().map(entry).collect()
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt("rename", from, |state| {
            state.step()?;
            state.tree.rename(from, to)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.attempt("remove", path, |state| {
            let inode = state.tree.resolve(path)?;
            state.tree.file_mut(inode)?;
            let (parent, name) = state.tree.resolve_parent(path)?;
            state.step()?;
            state.tree.unlink(parent, &name);
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.attempt("remove the directory", path, |state| {
            let inode = state.tree.resolve(path)?;
            let (parent, name) = state.tree.resolve_parent(path)?;
            state.empty_dir(inode)?;
            state.step()?;
            state.tree.unlink(parent, &name);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path, point: SyncPoint) -> io::Result<()> {
        self.attempt("sync the directory", path, |state| {
            let inode = state.tree.resolve(path)?;
            state.tree.directory(inode)?;
            state.step()?;
            state.faults.count_sync(point);
            state.faults.strike(FaultyOperation::Sync, path)?;
            if state.faults.skipped != Some(point) {
                state.tree.sync_directory(inode);
            }
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.attempt("look at", path, |state| match state.tree.resolve(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.attempt("see the free space of", path, |state| {
            state.tree.resolve(path)?;
            Ok(state.free_bytes())
        })
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.attempt("see the size of the disk of", path, |state| {
            state.tree.resolve(path)?;
            Ok(state.total_bytes())
        })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("virtual-boot-{}", self.lock().boots))
    }
}

impl VirtualFile {
    fn attempt<T>(&self, operation: &'static str, action: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.disk.attempt(operation, &self.path, |state| {
            if state.generation == self.generation {
                action(state)
            } else {
                Err(io::Error::other("the file was opened before the machine or the process went down"))
            }
        })
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(rustix::io::Errno::BADF.into()) }
    }
}

impl DiskFile for VirtualFile {
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.attempt("write to", |state| {
            self.check_writable()?;
            state.write(self.inode, &self.path, slices, position)
        })
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.attempt("read from", |state| {
            state.faults.count_read(&self.path);
            state.faults.strike(FaultyOperation::Read, &self.path)?;
            Ok(state.tree.file_mut(self.inode)?.read(buffer, to_index(position)?))
        })
    }

    fn will_read(&self, position: u64, length: u64) {
        self.disk.lock().read_ahead.push((position, length));
    }

    fn sync_data(&self, point: SyncPoint) -> io::Result<()> {
        self.attempt("sync", |state| state.sync_data(self.inode, &self.path, point))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.attempt("change the size of", |state| {
            self.check_writable()?;
            state.set_len(self.inode, length)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.attempt("see the size of", |state| Ok(state.tree.file_mut(self.inode)?.len() as u64))
    }
}
