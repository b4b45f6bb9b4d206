//! The Raft log on disk: blocking code, one owner. `log_store` lends it to the thread that may block.
//!
//! ```text
//!   append ──► batches ──► storage::Log ──► fdatasync ──► durable
//!   purge     ──► voter file: purged up to ──► the log's start moves
//!   truncate  ──► voter file: cutting from ──► the log is cut, synced ──► voter file: done
//! ```
//!
//! The log's offsets are Raft's indexes.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::Entry;

use super::error::{RaftIdentity, RaftStorageError};
use super::format::{FoundEntry, decode_batches, encode};
use super::lost_entries::find_lost_entries;
use super::types::{LogId, MetadataRaft, Vote};
use super::voter_file::VoterFile;
use crate::storage::disk::{Disk, SyncPoint, child};
use crate::storage::file_cache::FileCache;
use crate::storage::{CREATING_SUFFIX, Log, LogConfig, LogError, PartitionIdentity, TruncateLeave};
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicConfig, TopicId, TopicName};

const LOG_DIR: &str = "log";
const READ_BYTES: usize = 1 << 20;

/// What a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry that was deleted at the front.
    pub purged: Option<LogId>,
    /// The newest entry; the last one purged when there is none.
    pub last: Option<LogId>,
}

/// The log, the vote, and what else a member must not forget.
#[derive(Debug)]
pub struct LogFiles {
    log: Log,
    voter: VoterFile,
    last: Option<LogId>,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct RaftPlace {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The cache of open files that the log's segments go through.
    pub files: Arc<FileCache>,
    /// The directory of all of Raft's files.
    pub dir: PathBuf,
    /// Whose it is.
    pub identity: RaftIdentity,
    /// A segment of the log is closed before it would grow beyond this many bytes; [`RaftPlace::SEGMENT_BYTES`] in a node.
    pub segment_bytes: u64,
}

impl RaftPlace {
    /// Purged entries go by whole segments, and a start reads them all: the size of some ten thousand decisions.
    pub const SEGMENT_BYTES: u64 = 16 << 20;

    fn log_identity(&self) -> PartitionIdentity {
        PartitionIdentity {
            cluster_id: self.identity.cluster,
            topic: TopicName::new("__cluster_metadata").expect("a legal name"),
            topic_id: TopicId(uuid::Uuid::nil()),
            partition: PartitionIndex(0),
        }
    }

    fn log_config(&self) -> LogConfig {
        let settings = TopicConfig { retention_ms: -1, segment_bytes: self.segment_bytes, ..TopicConfig::default() };
        // Segments are closed by size only: a log without a clock needs no other.
        LogConfig { segment_ms: u64::MAX, ..LogConfig::from(&settings) }
    }
}

impl LogFiles {
    /// Creates the files of a member that has never voted. After a crash at any instant the directory is either there with
    /// all that belongs in it, or not there.
    ///
    /// # Errors
    /// [`RaftStorageError::Exists`], or the disk's.
    pub fn create(place: &RaftPlace) -> Result<Self, RaftStorageError> {
        Self::create_with(place, |_| Ok(()))
    }

    /// The same, with what `fill` puts into the directory beside them, under the place where it is being made.
    pub(super) fn create_with(
        place: &RaftPlace,
        fill: impl FnOnce(&RaftPlace) -> Result<(), RaftStorageError>,
    ) -> Result<Self, RaftStorageError> {
        let RaftPlace { disk, files, dir, identity, .. } = place;
        if disk.exists(dir)? {
            return Err(RaftStorageError::Exists { path: dir.clone() });
        }
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into());
        };
        let temporary = child(parent, &format!("{}{CREATING_SUFFIX}", name.to_string_lossy()));
        if disk.exists(&temporary)? {
            disk.remove_dir_all(&temporary)?;
        }
        disk.create_dir_all(&temporary)?;
        VoterFile::create(Arc::clone(disk), &temporary, *identity)?;
        Log::create(
            Arc::clone(disk),
            Arc::clone(files),
            &child(&temporary, LOG_DIR),
            &place.log_identity(),
            place.log_config(),
        )?;
        fill(&RaftPlace { dir: temporary.clone(), ..place.clone() })?;
        disk.rename(&temporary, dir)?;
        // Until here a power loss may take the whole directory, and nobody has been told of it.
        disk.sync_dir(parent, SyncPoint::PartitionCreated)?;
        Self::open(place)
    }

    /// Opens the files, after checking that they are whole and this member's. A torn tail, which was never acknowledged, is
    /// cut off.
    ///
    /// # Errors
    /// [`RaftStorageError`]: this member must not vote.
    pub fn open(place: &RaftPlace) -> Result<Self, RaftStorageError> {
        let RaftPlace { disk, files, dir, identity, .. } = place;
        if !disk.exists(dir)? {
            return Err(RaftStorageError::Missing { path: dir.clone() });
        }
        // What a killed process renamed is seen before it is durable. A vote that was shown must not go back.
        disk.sync_dir(dir, SyncPoint::AtomicFileRename)?;
        crate::storage::atomic_file::remove_temporaries(&**disk, dir)?;
        let voter = VoterFile::open(Arc::clone(disk), dir, *identity)?;
        let log_dir = child(dir, LOG_DIR);
        if !disk.exists(&log_dir)? {
            return Err(RaftStorageError::LostFile { path: log_dir });
        }
        // Before anything is cut: afterwards what tells of a loss may be gone.
        find_lost_entries(&**disk, &log_dir, voter.get().truncating_from)?;
        let (disk, files) = (Arc::clone(disk), Arc::clone(files));
        let (log, report) = Log::open(disk, files, &log_dir, &place.log_identity(), place.log_config(), &mut ())?;
        if let Some((from, _)) = report.damaged.first() {
            return Err(RaftStorageError::LostEntries { index: from.0, reason: "its checksum is wrong".to_owned() });
        }
        if let Some(cut) = &report.cut {
            tracing::warn!(?cut, "the Raft log had a torn tail: entries that nobody was told of were dropped");
        }
        let mut opened = Self { log, voter, last: None };
        opened.finish_what_was_begun()?;
        opened.last = opened.read_last()?;
        Ok(opened)
    }

    /// A truncation or a purge that a crash interrupted.
    fn finish_what_was_begun(&mut self) -> Result<(), RaftStorageError> {
        if let Some(from) = self.voter.get().truncating_from {
            self.cut_from(from)?;
        }
        match self.voter.get().purged {
            Some(purged) => self.advance_to(purged.index + 1),
            None => Ok(()),
        }
    }

    fn read_last(&self) -> Result<Option<LogId>, RaftStorageError> {
        let end = self.end();
        if self.log.log_start().0 == end {
            return Ok(self.purged());
        }
        Ok(self.read(end - 1, end, usize::MAX)?.pop().map(|entry| entry.id))
    }

    /// The index that the next entry gets.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.log.written_end().0
    }

    /// The first entry that may be read.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.log.log_start().0
    }

    fn purged(&self) -> Option<LogId> {
        self.voter.get().purged.map(Into::into)
    }

    /// What the log holds.
    #[must_use]
    pub fn state(&self) -> LogState {
        LogState { purged: self.purged(), last: self.last }
    }

    /// The vote that was saved last.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.voter.get().vote.map(Into::into)
    }

    /// The committed position that was saved last.
    #[must_use]
    pub fn committed(&self) -> Option<LogId> {
        self.voter.get().committed.map(Into::into)
    }

    /// Saves the vote. Durable when this returns.
    ///
    /// # Errors
    /// The disk's: nobody may be told of the vote then.
    pub fn save_vote(&mut self, vote: Vote) -> Result<(), RaftStorageError> {
        self.voter.update(|voter| voter.vote = Some(vote.into()))
    }

    /// Saves the committed position. Durable when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), RaftStorageError> {
        self.voter.update(|voter| voter.committed = committed.map(Into::into))
    }

    /// Appends entries as one write, and syncs them. Durable when this returns.
    ///
    /// # Errors
    /// [`RaftStorageError::NotContiguous`] changes nothing; after any other error it is not known what is on disk.
    pub fn append<C: MetadataRaft>(&mut self, mut entries: Vec<Entry<C>>) -> Result<(), RaftStorageError> {
        // What was purged is in a snapshot, and so was committed. Only openraft's test suite appends such entries.
        let purged = self.purged();
        entries.retain(|entry| purged.is_none_or(|purged| entry.log_id.index > purged.index));
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (first, last) = (first.log_id.index, last.log_id);
        if self.end() == 0 && self.purged().is_none() {
            // Only openraft's test suite begins a log elsewhere than at 0.
            self.log.truncate_fully_and_start_at(Offset(first), TruncateLeave::default(), None)?;
        }
        let synced_before = self.end();
        let batches = entries.into_iter().map(|entry| encode(entry, synced_before)).collect::<Result<Vec<_>, _>>()?;
        match self.log.append(TimestampMs::NONE, &batches) {
            Err(LogError::NotContiguous { expected, found }) => {
                return Err(RaftStorageError::NotContiguous { expected: expected.0, found: found.0 });
            }
            appended => appended?,
        };
        self.sync()?;
        self.last = Some(last);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), RaftStorageError> {
        while let Some(job) = self.log.begin_sync() {
            self.log.finish_sync(job.run())?;
        }
        Ok(())
    }

    /// Cuts off the entries from `from` on. When this returns they are gone for good.
    ///
    /// # Errors
    /// The disk's.
    pub fn truncate(&mut self, from: u64) -> Result<(), RaftStorageError> {
        if from >= self.end() {
            return Ok(());
        }
        self.voter.update(|voter| voter.truncating_from = Some(from))?;
        self.cut_from(from)?;
        self.last = self.read_last()?;
        Ok(())
    }

    fn cut_from(&mut self, from: u64) -> Result<(), RaftStorageError> {
        self.log.truncate_to(Offset(from), TruncateLeave::default())?;
        self.voter.update(|voter| voter.truncating_from = None)
    }

    /// Deletes the entries up to `upto`, inclusive, which may lie beyond the newest one: a snapshot stands in their place.
    ///
    /// # Errors
    /// The disk's.
    pub fn purge(&mut self, upto: LogId) -> Result<(), RaftStorageError> {
        if self.purged().is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        // First: a log that starts later than anybody knows why would be taken for a loss.
        self.voter.update(|voter| voter.purged = Some(upto.into()))?;
        self.advance_to(upto.index + 1)?;
        if self.start() == self.end() {
            self.last = Some(upto);
        }
        Ok(())
    }

    fn advance_to(&mut self, start: u64) -> Result<(), RaftStorageError> {
        if start > self.end() {
            self.log.truncate_fully_and_start_at(Offset(start), TruncateLeave::default(), None)?;
        } else {
            self.log.advance_log_start(Offset(start))?;
        }
        Ok(())
    }

    /// The entries from `from` to `to` (exclusive) that there are, as many as fit in `max_bytes`, at least one.
    ///
    /// # Errors
    /// [`RaftStorageError::LostEntries`] on a wrong checksum, or the disk's.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<FoundEntry>, RaftStorageError> {
        let (mut next, end) = (Offset(from.max(self.start())), Offset(to.min(self.end())));
        let (reader, mut found, mut left) = (self.log.reader(), Vec::new(), max_bytes);
        while next < end && (left > 0 || found.is_empty()) {
            let slice = match reader.read(next, end, READ_BYTES.min(left)) {
                Err(LogError::Damaged { from, .. }) => {
                    let reason = "its checksum is wrong".to_owned();
                    return Err(RaftStorageError::LostEntries { index: from.0, reason });
                }
                slice => slice?,
            };
            left = left.saturating_sub(slice.bytes.len().max(1));
            let seen = found.len();
            decode_batches(slice.bytes, &mut found)?;
            if let Some((_, index)) = found[seen..].iter().zip(next.0..).find(|(entry, due)| entry.id.index != *due) {
                // A batch's offset is outside its checksum.
                let reason = "another entry stands in its place".to_owned();
                return Err(RaftStorageError::LostEntries { index, reason });
            }
            next = slice.next;
        }
        Ok(found)
    }
}
