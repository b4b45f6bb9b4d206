//! Where Raft's blocking disk work is done: on a thread of its own, in the order in which it was asked for.
//!
//! ```text
//!   run(closure) ──► bounded queue ──► thread: one after the other ──► reply
//!   run(closure) ──► done here and now                                           in a seeded test
//! ```

use std::io;

use tokio::sync::{mpsc, oneshot};

use super::error::RaftStorageError;

/// Jobs that wait at most: each of the few tasks of one Raft (its core, its state machine, one reader for each other member)
/// has one under way, so that a full queue only makes a burst wait.
const QUEUED_JOBS: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// Runs closures that block.
#[derive(Clone, Debug)]
pub struct DiskWork(Option<mpsc::Sender<Job>>);

impl DiskWork {
    /// A thread of that name. It ends when all clones of this are gone.
    ///
    /// # Errors
    /// The system's, when there can be no more threads.
    pub fn thread(name: &str) -> io::Result<Self> {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUED_JOBS);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                job();
            }
        })?;
        Ok(Self(Some(sender)))
    }

    /// Does the work on the thread that asks. For a single-threaded simulation, where a second thread would make the order of
    /// events a matter of chance.
    #[must_use]
    pub fn here() -> Self {
        Self(None)
    }

    /// Runs `work` after all that was asked for before it. It runs to its end even if nobody waits for it any more.
    ///
    /// # Errors
    /// [`RaftStorageError::ThreadEnded`] when `work`, or something before it, panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RaftStorageError> {
        let Some(thread) = &self.0 else {
            return Ok(work());
        };
        let (reply, done) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever asked may have gone; the work is done all the same.
            let _ = reply.send(work());
        });
        thread.send(job).await.map_err(|_| RaftStorageError::ThreadEnded)?;
        done.await.map_err(|_| RaftStorageError::ThreadEnded)
    }
}
