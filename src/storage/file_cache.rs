//! A bounded set of open files, so that the number of segments is not limited by the number of descriptors.
//!
//! ```text
//!   reader ──get(path)──► open already? ──yes──► the shared handle
//!                              └──no──► open it, outside the lock ──► keep it, close the one unused for longest
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, OpenMode};
use crate::types::BufferPool;

/// Files open for reading, at most `capacity` of them besides those that a caller still holds.
#[derive(Debug)]
pub struct FileCache {
    disk: Arc<dyn Disk>,
    capacity: usize,
    open: Mutex<OpenFiles>,
    buffers: BufferPool,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<PathBuf, OpenFile>,
    /// The paths in the order of their last use.
    by_last_use: BTreeMap<u64, PathBuf>,
    uses: u64,
    /// How often something was forgotten: a file opened before that is not kept after it.
    forgotten: u64,
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<dyn DiskFile>,
    last_use: u64,
}

impl FileCache {
    /// A cache that keeps up to `capacity` files open; 0 keeps none.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, capacity: usize) -> Self {
        Self { disk, capacity, open: Mutex::default(), buffers: BufferPool::new(0) }
    }

    /// Reads of the files use the memory of this pool.
    #[must_use]
    pub fn with_buffers(self, buffers: BufferPool) -> Self {
        Self { buffers, ..self }
    }

    /// The memory for reads.
    #[must_use]
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        // No caller's code runs under the lock, so that nothing is half done even after a panic elsewhere.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file at `path`, open for reading.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn get(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let forgotten = {
            let mut open = self.lock();
            if let Some(file) = open.touch(path) {
                return Ok(file);
            }
            open.forgotten
        };
        let file = self.disk.open(path, OpenMode::Read)?;
        Ok(self.admit(path, file, forgotten))
    }

    /// Keeps a file that was opened when `forgotten_before` was the count, and returns the one to use.
    fn admit(&self, path: &Path, file: Arc<dyn DiskFile>, forgotten_before: u64) -> Arc<dyn DiskFile> {
        // Closed after the lock is released: closing may block.
        let mut evicted = Vec::new();
        let mut open = self.lock();
        if let Some(earlier) = open.touch(path) {
            drop(open);
            return earlier;
        }
        // Otherwise the name may stand for another file by now.
        if open.forgotten == forgotten_before {
            open.keep(path, &file);
            while open.files.len() > self.capacity {
                evicted.extend(open.evict());
            }
        }
        drop(open);
        file
    }

    /// Closes the file at `path`: call it after the file was removed, renamed or replaced.
    pub fn forget(&self, path: &Path) {
        self.forget_where(|known| known == path);
    }

    /// Closes all files below `directory`.
    pub fn forget_dir(&self, directory: &Path) {
        self.forget_where(|known| known.starts_with(directory));
    }

    fn forget_where(&self, matches: impl Fn(&Path) -> bool) {
        let mut open = self.lock();
        open.forgotten += 1;
        let paths: Vec<_> = open.files.keys().filter(|path| matches(path)).cloned().collect();
        let closed: Vec<_> = paths.iter().filter_map(|path| open.remove(path)).collect();
        drop(open);
        drop(closed);
    }

    /// How many files are kept open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().files.len()
    }

    /// Whether no file is kept open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl OpenFiles {
    fn touch(&mut self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        let entry = self.files.get_mut(path)?;
        self.uses += 1;
        let path = self.by_last_use.remove(&entry.last_use)?;
        self.by_last_use.insert(self.uses, path);
        entry.last_use = self.uses;
        Some(Arc::clone(&entry.file))
    }

    fn keep(&mut self, path: &Path, file: &Arc<dyn DiskFile>) {
        self.uses += 1;
        self.by_last_use.insert(self.uses, path.to_owned());
        self.files.insert(path.to_owned(), OpenFile { file: Arc::clone(file), last_use: self.uses });
    }

    fn remove(&mut self, path: &Path) -> Option<OpenFile> {
        let entry = self.files.remove(path)?;
        self.by_last_use.remove(&entry.last_use);
        Some(entry)
    }

    fn evict(&mut self) -> Option<OpenFile> {
        let (_, path) = self.by_last_use.pop_first()?;
        self.files.remove(&path)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::disk::{VirtualDisk, read_full_at, write_all_at};
    use super::*;

    fn cache(files: usize, capacity: usize) -> (Arc<VirtualDisk>, FileCache) {
        let disk = Arc::new(VirtualDisk::new(1));
        for directory in ["a", "ab"] {
            disk.create_dir_all(Path::new(directory)).unwrap();
            for number in 0..files {
                put(&disk, &format!("{directory}/{number}"), number);
            }
        }
        (Arc::clone(&disk), FileCache::new(disk, capacity))
    }

    fn put(disk: &VirtualDisk, path: &str, number: usize) {
        let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
        write_all_at(&*file, &[u8::try_from(number).unwrap()], 0).unwrap();
    }

    fn get(cache: &FileCache, path: &str) -> Arc<dyn DiskFile> {
        cache.get(Path::new(path)).unwrap()
    }

    fn first_byte(file: &Arc<dyn DiskFile>) -> u8 {
        let mut byte = [0];
        assert_eq!(read_full_at(&**file, &mut byte, 0).unwrap(), 1);
        byte[0]
    }

    #[test]
    fn a_file_is_opened_once_while_it_is_used_and_the_one_unused_for_longest_goes_first() {
        let (_disk, cache) = cache(4, 2);
        let zero = get(&cache, "a/0");
        let one = get(&cache, "a/1");
        assert!(Arc::ptr_eq(&zero, &get(&cache, "a/0")));
        get(&cache, "a/2");
        assert_eq!(cache.len(), 2);
        assert!(Arc::ptr_eq(&zero, &get(&cache, "a/0")), "just used, so still open");
        assert!(!Arc::ptr_eq(&one, &get(&cache, "a/1")), "unused for longest, so opened anew");
        assert_eq!(first_byte(&one), 1, "who holds an evicted file can still read it");
    }

    #[test]
    fn a_forgotten_file_is_opened_anew_and_so_is_all_below_a_forgotten_directory() {
        let (disk, cache) = cache(2, 10);
        get(&cache, "a/0");
        disk.remove_file(Path::new("a/0")).unwrap();
        put(&disk, "a/0", 9);
        assert_eq!(first_byte(&get(&cache, "a/0")), 0);
        cache.forget(Path::new("a/0"));
        assert_eq!(first_byte(&get(&cache, "a/0")), 9);
        get(&cache, "a/1");
        get(&cache, "ab/1");
        cache.forget_dir(Path::new("a"));
        assert_eq!(cache.len(), 1, "a directory whose name starts alike is another");
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_being_opened_is_not_kept() {
        let (disk, cache) = cache(1, 10);
        let path = Path::new("a/0");
        let before = cache.lock().forgotten;
        let opened = disk.open(path, OpenMode::Read).unwrap();
        cache.forget(path);
        cache.admit(path, opened, before);
        assert!(cache.is_empty());
    }

    #[test]
    fn an_absent_file_is_an_error_and_takes_no_place() {
        let (_disk, cache) = cache(0, 2);
        assert_eq!(cache.get(Path::new("a/9")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_cache_of_nothing_still_opens_files() {
        let (_disk, cache) = cache(1, 0);
        assert_eq!(first_byte(&get(&cache, "a/0")), 0);
        assert!(cache.is_empty());
    }

    #[test]
    fn many_threads_share_the_bound_and_each_gets_the_file_it_asked_for() {
        let (_disk, cache) = cache(20, 5);
        thread::scope(|scope| {
            for seed in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    for _ in 0..2_000 {
                        let number = rng.u8(0..20);
                        assert_eq!(first_byte(&get(cache, &format!("a/{number}"))), number);
                        if rng.u8(0..50) == 0 {
                            cache.forget_dir(Path::new("a"));
                        }
                        assert!(cache.len() <= 5);
                    }
                });
            }
        });
        let open = cache.lock();
        assert_eq!(open.files.len(), open.by_last_use.len());
    }
}
