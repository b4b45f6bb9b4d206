//! Memory for large frames and reads, used again and again.
//!
//! ```text
//!   take(bytes) ─► Buffer ─ filled by a socket or a file ─► freeze ─► Bytes, shared by batches, caches, replies
//!        ▲                                                              │ the last share is dropped, on any thread
//!        └────────────────────── free buffers, by size ◄────────────────┘
//! ```
//!
//! Without it each mebibyte that comes in is memory that the allocator has just taken from the kernel: every page of it is
//! faulted in and zeroed (measured: 80,000 faults a gigabyte), and on a virtual machine perhaps fetched from the host, at a
//! tenth of the speed of memory in use (0.35 against 4.8 GB/s). What was used last is handed out first, since a cache may
//! still hold it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Below this a buffer is not worth keeping: the allocator has its own lists for small memory.
pub const SMALLEST_BYTES: usize = 16 * 1_024;

/// Sizes in each doubling: a buffer is at most a quarter larger than what was asked for.
const STEPS: usize = 4;

/// Free buffers of all sizes. Clones share them.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// By [`class_of`]; the newest last.
    classes: Vec<Class>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Class {
    buffers: Vec<Vec<u8>>,
    /// The fewest that were free at any moment since the last [`BufferPool::release_unused`].
    unused: usize,
}

impl BufferPool {
    /// A pool that keeps at most `limit_bytes` of free buffers; 0 keeps none.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { shared: Arc::new(Shared { limit_bytes, free: Mutex::default() }) }
    }

    /// A buffer of at least `bytes` bytes, of any content.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Buffer {
        let class = class_of(bytes);
        let reused = self.shared.lock().take(class);
        Buffer { bytes: reused.unwrap_or_else(|| vec![0; size_of_class(class)]), home: Arc::clone(&self.shared) }
    }

    /// Bytes of free buffers.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// Frees the buffers that nobody needed since the last call. To be called now and then.
    pub fn release_unused(&self) {
        let mut unused = Vec::new();
        let mut free = self.shared.lock();
        for class in &mut free.classes {
            // The oldest of them.
            unused.extend(class.buffers.drain(..class.unused));
            class.unused = class.buffers.len();
        }
        free.bytes -= unused.iter().map(Vec::len).sum::<usize>();
        drop(free);
        drop(unused);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing panics while it is held, and the lists would still be whole.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut free = self.lock();
        if free.bytes + bytes.len() <= self.limit_bytes {
            free.put(bytes);
        }
    }
}

impl Free {
    fn take(&mut self, class: usize) -> Option<Vec<u8>> {
        let class = self.classes.get_mut(class)?;
        let buffer = class.buffers.pop()?;
        class.unused = class.unused.min(class.buffers.len());
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn put(&mut self, buffer: Vec<u8>) {
        let class = class_of(buffer.len());
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Class::default);
        }
        self.bytes += buffer.len();
        self.classes[class].buffers.push(buffer);
    }
}

/// Memory to fill, which goes back to its pool when it, or the last share of what it became, is dropped.
#[derive(Debug)]
pub struct Buffer {
    /// All of it holds bytes that were written once, so that a read needs no zeroing first.
    bytes: Vec<u8>,
    home: Arc<Shared>,
}

impl Buffer {
    /// The first `length` bytes, to be shared.
    #[must_use]
    pub fn freeze(self, length: usize) -> Bytes {
        let mut whole = Bytes::from_owner(self);
        whole.truncate(length);
        whole
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

/// The smallest class whose buffers hold `bytes`.
fn class_of(bytes: usize) -> usize {
    let mut class = 0_usize;
    let (mut size, mut step) = (SMALLEST_BYTES, SMALLEST_BYTES / STEPS);
    while size < bytes {
        size += step;
        class += 1;
        if class.is_multiple_of(STEPS) {
            step *= 2;
        }
    }
    class
}

fn size_of_class(class: usize) -> usize {
    let doubled = SMALLEST_BYTES << (class / STEPS);
    doubled + doubled / STEPS * (class % STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_rounded_up_by_a_quarter_at_most() {
        for bytes in [1, SMALLEST_BYTES, SMALLEST_BYTES + 1, 100_000, 1 << 20, (1 << 20) + 1, 16 << 20] {
            let size = size_of_class(class_of(bytes));
            assert!(
                size >= bytes && (size <= SMALLEST_BYTES || size - bytes <= bytes / STEPS + 1),
                "{bytes} -> {size}"
            );
            assert_eq!(class_of(size), class_of(bytes));
        }
    }

    #[test]
    fn memory_comes_back_with_the_last_share_and_is_used_again() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(50_000);
        buffer[..3].copy_from_slice(b"abc");
        let address = buffer.as_ptr();
        let frame = buffer.freeze(3);
        let share = frame.slice(1..);
        drop(frame);
        assert_eq!((pool.free_bytes(), &share[..]), (0, &b"bc"[..]));
        drop(share);
        assert!(pool.free_bytes() >= 50_000);
        assert_eq!(pool.take(50_000).as_ptr(), address);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let pool = BufferPool::new(100_000);
        let buffers = [pool.take(60_000), pool.take(60_000)];
        drop(buffers);
        assert!((60_000..=100_000).contains(&pool.free_bytes()), "{}", pool.free_bytes());
    }

    #[test]
    fn what_nobody_needed_for_a_while_is_freed_and_what_is_in_use_stays() {
        let pool = BufferPool::new(10 << 20);
        drop((0..10).map(|_| pool.take(60_000)).collect::<Vec<_>>());
        let one = pool.free_bytes() / 10;
        pool.release_unused();
        assert_eq!(pool.free_bytes(), 10 * one, "they were in use since the pool was made");
        drop((0..3).map(|_| pool.take(60_000)).collect::<Vec<_>>());
        pool.release_unused();
        assert_eq!(pool.free_bytes(), 3 * one);
        pool.release_unused();
        assert_eq!(pool.free_bytes(), 0);
    }
}
