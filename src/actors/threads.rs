//! The threads of a node: core arbiters for sessions and partitions, disk arbiters for what may block.
//!
//! ```text
//!   core 0 … core n-1     sessions, codecs, partition leaders, log writers      nothing here blocks for long
//!   disk 0 … disk m-1     syncs, cold reads, opening and closing logs           the least busy one takes the next job
//!   control               the controller: no client load delays it
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Arbiter, ArbiterHandle};

/// Threads for work that may block.
#[derive(Clone)]
pub struct DiskPool {
    threads: Arc<[DiskThread]>,
}

struct DiskThread {
    handle: ArbiterHandle,
    waiting: AtomicUsize,
}

impl DiskPool {
    /// A pool over these arbiters.
    ///
    /// # Panics
    /// With no arbiter; the config demands at least one.
    #[must_use]
    pub fn new(arbiters: &[Arbiter]) -> Self {
        assert!(!arbiters.is_empty(), "a node has at least one disk thread");
        let thread = |arbiter: &Arbiter| DiskThread { handle: arbiter.handle(), waiting: AtomicUsize::new(0) };
        Self { threads: arbiters.iter().map(thread).collect() }
    }

    /// Runs `job` on the thread with the fewest jobs waiting. After the pool's threads have stopped, `job` is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let waiting = |n: &usize| self.threads[*n].waiting.load(Ordering::Relaxed);
        let chosen = (0..self.threads.len()).min_by_key(waiting).unwrap_or(0);
        let pool = Arc::clone(&self.threads);
        self.threads[chosen].waiting.fetch_add(1, Ordering::Relaxed);
        self.threads[chosen].handle.spawn_fn(move || {
            job();
            pool[chosen].waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Runs `future` on one of the threads: for a job that first has to wait for something.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let waiting = |n: &usize| self.threads[*n].waiting.load(Ordering::Relaxed);
        let chosen = (0..self.threads.len()).min_by_key(waiting).unwrap_or(0);
        self.threads[chosen].handle.spawn(future);
    }
}

impl std::fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskPool({} threads)", self.threads.len())
    }
}

/// All threads of a node.
pub struct Threads {
    core: Vec<Arbiter>,
    disk: Vec<Arbiter>,
    control: Arbiter,
    next_session: AtomicUsize,
}

impl Threads {
    /// Starts them. `core` of 0 means one for each CPU.
    #[must_use]
    pub fn start(core: usize, disk: usize) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let core = if core == 0 { cpus } else { core };
        Self {
            core: (0..core).map(|_| Arbiter::new()).collect(),
            disk: (0..disk.max(1)).map(|_| Arbiter::new()).collect(),
            control: Arbiter::new(),
            next_session: AtomicUsize::new(0),
        }
    }

    /// The pool for work that may block.
    #[must_use]
    pub fn disk_pool(&self) -> DiskPool {
        DiskPool::new(&self.disk)
    }

    /// The controller's thread.
    #[must_use]
    pub fn control(&self) -> ArbiterHandle {
        self.control.handle()
    }

    /// Where the next connection goes: each core in turn.
    #[must_use]
    pub fn next_session(&self) -> ArbiterHandle {
        let turn = self.next_session.fetch_add(1, Ordering::Relaxed);
        self.core[turn % self.core.len()].handle()
    }

    /// The core threads, for the broker to place partitions on.
    #[must_use]
    pub fn core(&self) -> Vec<ArbiterHandle> {
        self.core.iter().map(Arbiter::handle).collect()
    }

    /// Stops them and waits for their end.
    pub fn stop(self) {
        for arbiter in self.core.into_iter().chain(self.disk).chain([self.control]) {
            arbiter.stop();
            // An arbiter that panicked has aborted the process already; there is nothing left to report here.
            let _ = arbiter.join();
        }
    }
}
