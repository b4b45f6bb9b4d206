//! Opening all of a member's files at once, and whether they fit together.
//!
//! ```text
//!   <dir>/voter        vote, committed and purged position
//!         log/         entries, a storage::Log
//!         snapshot     the image at some entry
//!
//!   entries:  … purged ┤ log start ─── … ─── log end       snapshot: at or after purged
//!             committed: at or before what log and snapshot hold together
//! ```

use tokio::sync::watch;

use super::disk_work::DiskWork;
use super::error::RaftStorageError;
use super::log_files::{LogFiles, RaftPlace};
use super::log_store::LogStore;
use super::recent_entries::RecentEntries;
use super::snapshot_files::SnapshotFiles;
use super::state_machine::{AppliedImage, StateMachine};
use super::types::MetadataRaft;

/// A member's storage, to be handed to openraft.
#[derive(Debug)]
pub struct RaftStorage<C> {
    /// The log and the vote.
    pub log: LogStore<C>,
    /// The image.
    pub machine: StateMachine<C>,
    /// Each image after entries were applied.
    pub images: watch::Receiver<AppliedImage>,
    /// The newest entries that led to it.
    pub entries: RecentEntries,
    /// Whether the member knows of any other, or has voted: what it holds is not the empty log of a group that is to be formed.
    pub is_begun: bool,
}

impl<C: MetadataRaft> RaftStorage<C> {
    /// Creates the storage of a member that has never voted.
    ///
    /// # Errors
    /// [`RaftStorageError::Exists`], or the disk's.
    pub fn create(place: &RaftPlace, work: &RaftWork) -> Result<Self, RaftStorageError> {
        let log = LogFiles::create(place)?;
        Self::assemble(place, log, work)
    }

    /// Opens a member's storage. Blocks, and reads all of the log once.
    ///
    /// # Errors
    /// [`RaftStorageError`]: this member must not vote.
    pub fn open(place: &RaftPlace, work: &RaftWork) -> Result<Self, RaftStorageError> {
        let log = LogFiles::open(place)?;
        Self::assemble(place, log, work)
    }

    fn assemble(place: &RaftPlace, log: LogFiles, work: &RaftWork) -> Result<Self, RaftStorageError> {
        let (files, snapshot) = SnapshotFiles::open(place)?;
        check_fit(&log, &files)?;
        let is_begun = log.end() > 0 || log.vote().is_some() || snapshot.is_some();
        let (machine, images) = StateMachine::new(files, snapshot, work.snapshots.clone());
        let entries = machine.recent_entries();
        Ok(Self { log: LogStore::new(log, work.log.clone()), machine, images, entries, is_begun })
    }
}

/// Where the disk work of a member is done. Snapshots have a place of their own: they are large, and no append waits for one.
#[derive(Clone, Debug)]
pub struct RaftWork {
    /// Appends, votes, and reads of the log.
    pub log: DiskWork,
    /// Snapshots.
    pub snapshots: DiskWork,
}

impl RaftWork {
    /// A thread for each.
    ///
    /// # Errors
    /// The system's.
    pub fn threads() -> std::io::Result<Self> {
        Ok(Self { log: DiskWork::thread("raft-log")?, snapshots: DiskWork::thread("raft-snapshot")? })
    }

    /// On the thread that asks: for a single-threaded simulation.
    #[must_use]
    pub fn here() -> Self {
        Self { log: DiskWork::here(), snapshots: DiskWork::here() }
    }
}

/// Whether log and snapshot belong together, and hold all that is known to be committed.
pub(super) fn check_fit(log: &LogFiles, snapshots: &SnapshotFiles) -> Result<(), RaftStorageError> {
    let covered = snapshots.current().and_then(|meta| meta.last_log_id).map_or(0, |last| last.index + 1);
    let state = log.state();
    if log.start() > covered {
        // openraft purges only what a snapshot covers.
        let reason = format!("the log starts at {} and the snapshot ends before {covered}", log.start());
        return Err(RaftStorageError::LostEntries { index: covered, reason });
    }
    let end = log.end().max(covered);
    match log.committed().filter(|committed| committed.index >= end) {
        Some(committed) => {
            let reason = format!("entries up to {} were committed, the log ends at {:?}", committed.index, state.last);
            Err(RaftStorageError::LostEntries { index: end, reason })
        }
        None => Ok(()),
    }
}
