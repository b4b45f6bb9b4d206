//! The threads of a node: core arbiters for sessions and partitions, disk arbiters for what may block.
//!
//! ```text
//!   core 0 … core n-1     sessions, codecs, partition leaders, log writers      nothing here blocks for long
//!   sync 0 … sync m-1     syncs, writes that may block                           the least busy one takes the next job
//!   background 0 … m-1    cold reads, opening, deleting, checkpoints, retention  likewise
//!   control               the controller: no client load delays it
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Arbiter, ArbiterHandle, System};

use super::machine;

/// Which threads a job runs on: what acknowledgements wait for must not queue behind what takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Writes and syncs of records.
    Sync,
    /// Everything else: opening, deleting, reading, checkpoints, retention.
    Background,
}

/// Threads for work that may block, in two lanes.
#[derive(Clone)]
pub struct DiskPool {
    sync: Arc<[DiskThread]>,
    background: Arc<[DiskThread]>,
}

struct DiskThread {
    handle: ArbiterHandle,
    waiting: AtomicUsize,
}

impl DiskPool {
    /// A pool over these arbiters.
    ///
    /// # Panics
    /// With an empty lane; a node has at least one thread in each.
    #[must_use]
    pub fn new(sync: &[Arbiter], background: &[Arbiter]) -> Self {
        assert!(!sync.is_empty() && !background.is_empty(), "a node has at least one disk thread in each lane");
        let thread = |arbiter: &Arbiter| DiskThread { handle: arbiter.handle(), waiting: AtomicUsize::new(0) };
        Self { sync: sync.iter().map(thread).collect(), background: background.iter().map(thread).collect() }
    }

    fn least_busy(&self, lane: Lane) -> (&Arc<[DiskThread]>, usize) {
        let threads = match lane {
            Lane::Sync => &self.sync,
            Lane::Background => &self.background,
        };
        let waiting = |n: &usize| threads[*n].waiting.load(Ordering::Relaxed);
        (threads, (0..threads.len()).min_by_key(waiting).unwrap_or(0))
    }

    /// Runs `job` on the thread of `lane` with the fewest jobs waiting. After the threads have stopped, `job` is dropped.
    pub fn run(&self, lane: Lane, job: impl FnOnce() + Send + 'static) {
        let (threads, chosen) = self.least_busy(lane);
        let threads = Arc::clone(threads);
        threads[chosen].waiting.fetch_add(1, Ordering::Relaxed);
        threads[chosen].handle.clone().spawn_fn(move || {
            job();
            threads[chosen].waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Runs `future` on a background thread: for a job that first has to wait for something. What blocks in it goes
    /// through [`DiskPool::run`].
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let (threads, chosen) = self.least_busy(Lane::Background);
        threads[chosen].handle.spawn(future);
    }
}

impl std::fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskPool({} + {} threads)", self.sync.len(), self.background.len())
    }
}

/// Starts so many arbiters at once. Each start waits until its thread runs: one after the other, a machine that is busy makes
/// a node wait for its scheduler once for each (measured: 4 ms each, 28 of the 60 to 80 ms that a start took there).
fn start_arbiters(count: usize) -> Vec<Arbiter> {
    let system = System::current();
    std::thread::scope(|scope| {
        let start = |_| {
            let system = system.clone();
            scope.spawn(move || {
                System::set_current(system);
                Arbiter::new()
            })
        };
        let starting: Vec<_> = (0..count).map(start).collect();
        starting.into_iter().map(|thread| thread.join().expect("a thread that cannot be started panics here")).collect()
    })
}

/// How many core threads there are: as many as are `configured`; 0 means one for every two CPUs (ADR 16).
fn core_threads(configured: usize, cpus: usize) -> usize {
    if configured == 0 { cpus.div_ceil(2) } else { configured }
}

/// All threads of a node.
pub struct Threads {
    core: Vec<Arbiter>,
    sync: Vec<Arbiter>,
    background: Vec<Arbiter>,
    control: Arbiter,
    next_session: AtomicUsize,
}

impl Threads {
    /// Starts them. `core` of 0 means one for every two CPUs; `disk` is the number of threads in each lane.
    #[must_use]
    pub fn start(core: usize, disk: usize) -> Self {
        let (core, disk) = (core_threads(core, machine::cpus()), disk.max(1));
        let mut started = start_arbiters(core + 2 * disk + 1);
        let mut take = |count| started.drain(..count).collect::<Vec<_>>();
        let (core, sync, background) = (take(core), take(disk), take(disk));
        let control = started.pop().expect("one more was started than taken");
        Self { core, sync, background, control, next_session: AtomicUsize::new(0) }
    }

    /// Starts them beside what the caller does meanwhile, which belongs to an actix system too.
    #[must_use]
    pub fn start_aside(core: usize, disk: usize) -> std::thread::JoinHandle<Self> {
        let system = System::current();
        std::thread::spawn(move || {
            System::set_current(system);
            Self::start(core, disk)
        })
    }

    /// The pool for work that may block.
    #[must_use]
    pub fn disk_pool(&self) -> DiskPool {
        DiskPool::new(&self.sync, &self.background)
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
        for arbiter in self.core.into_iter().chain(self.sync).chain(self.background).chain([self.control]) {
            arbiter.stop();
            // An arbiter that panicked has aborted the process already; there is nothing left to report here.
            let _ = arbiter.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_core_thread_for_every_two_cpus_unless_the_configuration_says_how_many() {
        assert_eq!([1, 2, 3, 8].map(|cpus| core_threads(0, cpus)), [1, 1, 2, 4]);
        assert_eq!(core_threads(3, 8), 3);
    }
}
