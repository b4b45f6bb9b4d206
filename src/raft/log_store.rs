//! openraft's log store, over [`LogFiles`].
//!
//! openraft waits for each append to be durable before it makes the next; what arrives meanwhile comes in one append, with
//! one write and one sync. That is its group commit, and nothing is gained by a second one here.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogState as OpenraftLogState, OptionalSend, RaftLogReader, StorageIOError,
};

use super::disk_work::DiskWork;
use super::error::RaftStorageError;
use super::log_files::LogFiles;
use super::types::{LogId, MetadataRaft, StorageError, Vote};

/// What one message of replication may carry of the log: well below the limit of a frame.
const LIMITED_READ_BYTES: usize = 1 << 20;

/// The log of one member. Clones are readers of the same log.
#[derive(Debug)]
pub struct LogStore<C> {
    files: Arc<Mutex<LogFiles>>,
    work: DiskWork,
    config: PhantomData<C>,
}

impl<C> Clone for LogStore<C> {
    fn clone(&self) -> Self {
        Self { files: Arc::clone(&self.files), work: self.work.clone(), config: PhantomData }
    }
}

impl<C: MetadataRaft> LogStore<C> {
    /// A log store that does its disk work on `work`.
    #[must_use]
    pub fn new(files: LogFiles, work: DiskWork) -> Self {
        Self { files: Arc::new(Mutex::new(files)), work, config: PhantomData }
    }

    async fn with_files<T: Send + 'static>(
        &self,
        subject: ErrorSubject<super::RaftId>,
        verb: ErrorVerb,
        work: impl FnOnce(&mut LogFiles) -> Result<T, RaftStorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let files = Arc::clone(&self.files);
        // The work runs one at a time: nobody waits for this lock.
        let locked = move || work(&mut files.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self.work.run(locked).await.and_then(|done| done);
        done.map_err(|error| storage_error(subject, verb, &error))
    }
}

/// What openraft is told. It stops for good: see [`RaftStorageError`].
pub(super) fn storage_error(
    subject: ErrorSubject<super::RaftId>,
    verb: ErrorVerb,
    error: &RaftStorageError,
) -> StorageError {
    tracing::error!(%error, "this controller takes no part in the cluster's metadata any more");
    // Without the error's type in front: people read this.
    StorageIOError::new(subject, verb, AnyError::error(error.to_string())).into()
}

/// The range as `from..to`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl<C: MetadataRaft> LogStore<C> {
    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry<C>>, StorageError> {
        let read = move |files: &mut LogFiles| files.read(from, to, max_bytes);
        let found = self.with_files(ErrorSubject::Logs, ErrorVerb::Read, read).await?;
        Ok(found.into_iter().map(|entry| entry.into_entry()).collect())
    }
}

impl<C: MetadataRaft> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<C>>, StorageError> {
        self.read(start, end, LIMITED_READ_BYTES).await
    }
}

impl<C: MetadataRaft> RaftLogStorage<C> for LogStore<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<OpenraftLogState<C>, StorageError> {
        let state = self.with_files(ErrorSubject::Logs, ErrorVerb::Read, |files| Ok(files.state())).await?;
        Ok(OpenraftLogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.with_files(ErrorSubject::Vote, ErrorVerb::Write, move |files| files.save_vote(vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.with_files(ErrorSubject::Vote, ErrorVerb::Read, |files| Ok(files.vote())).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.with_files(ErrorSubject::Store, ErrorVerb::Write, move |files| files.save_committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.with_files(ErrorSubject::Store, ErrorVerb::Read, |files| Ok(files.committed())).await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let append = move |files: &mut LogFiles| files.append(entries);
        self.with_files(ErrorSubject::Logs, ErrorVerb::Write, append).await?;
        // Without a callback, after an error, openraft stops: it has the error from the call itself.
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let cut = move |files: &mut LogFiles| files.truncate(from.index);
        self.with_files(ErrorSubject::Log(from), ErrorVerb::Delete, cut).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let purge = move |files: &mut LogFiles| files.purge(upto);
        self.with_files(ErrorSubject::Log(upto), ErrorVerb::Delete, purge).await
    }
}
