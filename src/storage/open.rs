//! Opening a log: after a clean stop by its small files alone, otherwise through [`recovery`](super::recovery).
//!
//! ```text
//!   partition.meta ── is it this partition? ──► partition.state ── clean, and the newest segment as it was left? ──► done
//!                                                       └── no ──► recovery ──► synced, written down ──► done
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::atomic_file::{AtomicFileError, TEMPORARY_SUFFIX};
use super::checksum::CHECKSUM_SUFFIX;
use super::disk::{Disk, SyncPoint, child};
use super::error::LogError;
use super::file_cache::FileCache;
use super::follow::{ANEW_PRODUCERS_FILE, finish_starting_anew};
use super::leader_epochs::LeaderEpochs;
use super::log::{Log, LogConfig, Tail};
use super::partition_state::{CleanStop, PartitionIdentity, PartitionState};
use super::producer_snapshots::{Replay, SNAPSHOT_SUFFIX, replay_snapshot};
use super::rebuild::rebuild_indexes;
use super::recovery::{Recovered, Recovery};
use super::replay::{for_each_header, rebuild_epochs};
use super::segment::{INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX, base_of, segment_path};
use super::view::{Shared, View};
use crate::types::{Mutant, Offset};

/// What was cut off the end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log ends here now.
    pub offset: Offset,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// Whether they were nothing but zeros: space that was reserved and never written.
    pub all_zeros: bool,
    /// The files in the partition's directory that keep the bytes, if they may be of use.
    pub saved_as: Vec<String>,
}

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The last stop was clean; no record data was read.
    pub clean: bool,
    /// Bytes of records whose checksums were verified.
    pub scanned_bytes: u64,
    /// What was cut off.
    pub cut: Option<Cut>,
    /// Records that had been synced may be missing: something other than zeros was cut off after a power loss, or files are
    /// shorter than they were known to be, now or at an earlier open. To be trusted only where no intact replica exists, until
    /// [`Log::mark_verified`].
    pub doubtful: bool,
    /// Damaged ranges (start, end exclusive).
    pub damaged: Vec<(Offset, Offset)>,
    /// How many segments' indexes were rebuilt because they were missing or did not fit.
    pub rebuilt_indexes: usize,
    /// The high watermark that was written down last.
    pub high_watermark: Offset,
}

/// The files in a partition's directory, by kind.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Base offset and size of each segment, in order.
    pub logs: Vec<(Offset, u64)>,
    pub indexes: BTreeMap<Offset, u64>,
    pub time_indexes: BTreeMap<Offset, u64>,
    pub checksums: BTreeMap<Offset, u64>,
    pub snapshots: Vec<Offset>,
}

impl Listing {
    /// Lists `dir` and removes what a crash in the middle of replacing a file left.
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let mut found = Self::default();
        for entry in disk.read_dir(dir)?.into_iter().filter(|entry| !entry.is_dir) {
            let name = entry.name.as_str();
            if let Some(base) = base_of(name, LOG_SUFFIX) {
                found.logs.push((base, entry.length));
            } else if let Some(base) = base_of(name, INDEX_SUFFIX) {
                found.indexes.insert(base, entry.length);
            } else if let Some(base) = base_of(name, TIME_INDEX_SUFFIX) {
                found.time_indexes.insert(base, entry.length);
            } else if let Some(base) = base_of(name, CHECKSUM_SUFFIX) {
                found.checksums.insert(base, entry.length);
            } else if let Some(at) = base_of(name, SNAPSHOT_SUFFIX) {
                found.snapshots.push(at);
            } else if name.ends_with(TEMPORARY_SUFFIX) {
                disk.remove_file(&child(dir, name))?;
            }
        }
        found.logs.sort_unstable();
        found.snapshots.sort_unstable();
        Ok(found)
    }

    /// Removes segments that lie before the log's start as a whole (a crash came between writing the start down and
    /// removing them), and indexes and checksums without a segment.
    fn remove_leftovers(&mut self, disk: &dyn Disk, dir: &Path, log_start: Offset) -> Result<(), LogError> {
        let stale = self.logs.windows(2).take_while(|pair| pair[1].0 <= log_start).count();
        for (base, _) in self.logs.drain(..stale) {
            disk.remove_file(&segment_path(dir, base, LOG_SUFFIX))?;
        }
        let known: Vec<Offset> = self.logs.iter().map(|(base, _)| *base).collect();
        for (files, suffix) in [
            (&mut self.indexes, INDEX_SUFFIX),
            (&mut self.time_indexes, TIME_INDEX_SUFFIX),
            (&mut self.checksums, CHECKSUM_SUFFIX),
        ] {
            let orphans: Vec<_> = files.keys().filter(|base| known.binary_search(base).is_err()).copied().collect();
            for base in orphans {
                disk.remove_file(&segment_path(dir, base, suffix))?;
                files.remove(&base);
            }
        }
        Ok(())
    }

    /// The segment with this base as its files' sizes describe it; `None` when its indexes have to be rebuilt.
    pub(super) fn segment(&self, base: Offset, size: u64, end: Offset) -> Option<Segment> {
        let entries = |files: &BTreeMap<Offset, u64>, bytes| {
            files.get(&base).filter(|size| *size % bytes == 0).map(|size| size / bytes)
        };
        let mut segment = Segment::empty(base);
        segment.offsets.in_file = entries(&self.indexes, 8)?;
        segment.times.in_file = entries(&self.time_indexes, 12)?;
        (segment.size, segment.end) = (size, end);
        Some(segment)
    }
}

impl Log {
    /// Opens the log in `dir`, after checking that it is `identity`'s. After a clean stop no record data is read. After a
    /// crash everything past the recovery point is verified, and what is kept is synced before this returns.
    ///
    /// `replay` is told what the producers have done: see [`Replay`].
    ///
    /// # Errors
    /// [`LogError::MissingPartition`], [`LogError::WrongPartition`], [`LogError::DamagedMeta`], or the disk's.
    pub fn open(
        disk: Arc<dyn Disk>,
        files: Arc<FileCache>,
        dir: &Path,
        identity: &PartitionIdentity,
        config: LogConfig,
        replay: &mut dyn Replay,
    ) -> Result<(Self, OpenReport), LogError> {
        let found = PartitionIdentity::read(&*disk, dir)?;
        if found != *identity {
            let (found, expected) = (found.to_string(), identity.to_string());
            return Err(LogError::WrongPartition { path: dir.to_owned(), found, expected });
        }
        let boot_id = disk.boot_id()?;
        let (mut listing, state, state_is_lost) = read_listing_and_state(&*disk, dir, &boot_id)?;
        let epochs = load_epochs(&*disk, dir)?;

        let interval = config.index_interval_bytes;
        let clean = state.clean.filter(|clean| clean.newest == listing.logs.last().copied());
        let (high_watermark, doubtful) = (state.high_watermark, state.doubtful);
        let mut report = OpenReport { high_watermark, doubtful, ..OpenReport::default() };
        let recovered = match clean {
            Some(clean) => open_clean(&*disk, dir, &listing, &state, clean, interval, &mut report)?,
            None => {
                let is_same = state.boot_id == boot_id || Mutant::TakesAPowerLossForAKill.is_on();
                let same_boot = is_same && !state_is_lost;
                report.doubtful |= state_is_lost;
                let epoch_there = epochs.as_ref().and_then(|epochs| epochs.epoch_before(state.recovery.offset));
                let epoch = epoch_there.unwrap_or_default();
                Recovery::new(&*disk, dir, &state, interval, same_boot, epoch, &mut report).run(&listing)?
            }
        };
        let end = recovered.end;
        let view = View {
            log_start: state.log_start.min(end),
            written_end: end,
            segments: recovered.segments,
            damaged: recovered.damaged,
            epochs: Arc::default(),
            generation: 0,
            rewritten: 0,
        };
        let tail_is_sealed = view.segments.back().is_none_or(|newest| newest.base < recovered.place.segment);
        let tail = if tail_is_sealed { Tail::Sealed } else { Tail::Closed };
        let shared = Shared::new(disk, files, dir.to_owned(), view);
        let epochs = match epochs {
            Some(epochs) => with_recovered(epochs, &recovered.new_epochs, recovered.scanned_from, end),
            None => rebuild_epochs(&shared)?,
        };
        let mut epochs = epochs;
        epochs.advance_start(shared.read().log_start);
        shared.write().set_epochs(&epochs);
        let mut log = Self::assemble(shared, identity.clone(), config, state, epochs, tail);
        log.snapshots = std::mem::take(&mut listing.snapshots);
        log.synced = recovered.place;
        log.unsummed = log.lack_checksums(&listing, recovered.scanned_from);
        log.drop_newest_checksum(&listing)?;
        if clean.is_none() {
            log.finish_recovery(boot_id, report.doubtful)?;
        } else {
            report.clean = true;
        }
        log.replay_producers(replay)?;
        report.damaged = log.reader().damaged_ranges();
        Ok((log, report))
    }

    /// The newest segment may be appended to again, and may be shorter than it was: what is left here of its checksums must be
    /// gone for good by then.
    fn drop_newest_checksum(&self, listing: &Listing) -> Result<(), LogError> {
        let newest = self.shared.read().segments.back().map(|newest| newest.base);
        if let Some(newest) = newest.filter(|newest| listing.checksums.contains_key(newest)) {
            self.shared.remove_checksum(newest)?;
            self.shared.disk.sync_dir(&self.shared.dir, SyncPoint::AtomicFileRename)?;
        }
        Ok(())
    }

    /// Closed segments that were just verified and have no file of checksums.
    fn lack_checksums(&self, listing: &Listing, scanned_from: Offset) -> Vec<Offset> {
        let view = self.shared.read();
        let closed = view.segments.len().saturating_sub(usize::from(!matches!(self.tail, Tail::Sealed)));
        let scanned = view.segments.iter().take(closed).filter(|segment| segment.end > scanned_from);
        scanned.map(|segment| segment.base).filter(|base| !listing.checksums.contains_key(base)).collect()
    }

    /// Writes down what recovery found, once it is synced: a crash from here on need not scan it again.
    fn finish_recovery(&mut self, boot_id: String, doubtful: bool) -> Result<(), LogError> {
        let end = self.written_end();
        self.drop_snapshots_after(end)?;
        let high_watermark = self.state.high_watermark.min(end);
        let state = PartitionState { clean: None, boot_id, doubtful, ..self.state_now(high_watermark) };
        self.save_state(state)
    }

    /// Tells what the producers have done, as the log is now: the newest snapshot that is left, then the headers of the batches
    /// after it. For whoever keeps a producer state beside the log, after a truncation: what was cut off must be forgotten.
    /// Reads headers of batches; call it where the disk may block.
    ///
    /// # Errors
    /// The disk's, and [`LogError::DamagedMeta`] for a snapshot of a newer format.
    pub fn replay_producers(&self, replay: &mut dyn Replay) -> Result<(), LogError> {
        let shared = &*self.shared;
        let from = replay_snapshot(&*shared.disk, &shared.dir, &self.snapshots, self.log_start(), replay)?;
        if !replay.wants_batches() {
            return Ok(());
        }
        for_each_header(shared, from, replay)
    }
}

/// What files there are and what is noted of them, when an interrupted change of either has been finished. The last says whether
/// the note was lost.
fn read_listing_and_state(
    disk: &dyn Disk,
    dir: &Path,
    boot_id: &str,
) -> Result<(Listing, PartitionState, bool), LogError> {
    let mut listing = Listing::read(disk, dir)?;
    let (mut state, is_lost) = read_state(disk, dir, &listing)?;
    if state.boot_id == boot_id || is_lost {
        // What a killed process renamed is seen before it is durable. A log start that was shown must not go back after a power
        // loss, nor files be removed on the word of one that does. What has survived a boot is durable; a directory's sync
        // takes milliseconds even when there is nothing to write.
        disk.sync_dir(dir, SyncPoint::AtomicFileRename)?;
    }
    if state.starting_anew {
        finish_starting_anew(disk, dir, &mut listing, &mut state)?;
    }
    if disk.exists(&child(dir, ANEW_PRODUCERS_FILE))? {
        // The log has started anew, or was about to and does not know it.
        disk.remove_file(&child(dir, ANEW_PRODUCERS_FILE))?;
    }
    listing.remove_leftovers(disk, dir, state.log_start)?;
    Ok((listing, state, is_lost))
}

/// The state file's content, or what can be said without it: then everything has to be looked at.
fn read_state(disk: &dyn Disk, dir: &Path, listing: &Listing) -> Result<(PartitionState, bool), LogError> {
    match PartitionState::read(disk, dir) {
        Ok(Some(state)) => return Ok((state, false)),
        Ok(None) => tracing::warn!(dir = %dir.display(), "partition.state is missing, the whole log is checked"),
        Err(error @ AtomicFileError::Damaged { .. }) => tracing::warn!(%error, "the whole log is checked instead"),
        Err(error) => return Err(error.into()),
    }
    let log_start = listing.logs.first().map_or(Offset::ZERO, |(base, _)| *base);
    let recovery = super::partition_state::RecoveryPoint { offset: log_start, segment: log_start, position: 0 };
    let state = PartitionState { log_start, recovery, clean: None, ..PartitionState::empty(String::new()) };
    Ok((state, true))
}

fn load_epochs(disk: &dyn Disk, dir: &Path) -> Result<Option<LeaderEpochs>, LogError> {
    match LeaderEpochs::load(disk, dir) {
        Err(error @ AtomicFileError::Damaged { .. }) => {
            tracing::warn!(%error, "the leader epochs are read from the log instead");
            Ok(None)
        }
        loaded => Ok(loaded?),
    }
}

fn with_recovered(
    mut epochs: LeaderEpochs,
    found: &[(crate::types::LeaderEpoch, Offset)],
    scanned_from: Offset,
    end: Offset,
) -> LeaderEpochs {
    // What the scan saw goes above what the file says of the same offsets.
    epochs.truncate_to(scanned_from);
    for (epoch, start) in found {
        epochs.note(*epoch, *start);
    }
    epochs.truncate_to(end);
    epochs
}

fn open_clean(
    disk: &dyn Disk,
    dir: &Path,
    listing: &Listing,
    state: &PartitionState,
    clean: CleanStop,
    index_interval_bytes: u64,
    report: &mut OpenReport,
) -> Result<Recovered, LogError> {
    let mut recovered = Recovered::nothing_at(clean.end, state.recovery, state.damaged.clone());
    for (at, (base, size)) in listing.logs.iter().enumerate() {
        let end = listing.logs.get(at + 1).map_or(clean.end, |(next, _)| *next);
        let segment = match listing.segment(*base, *size, end) {
            Some(segment) => segment,
            None => {
                report.rebuilt_indexes += 1;
                rebuild_indexes(disk, dir, *base, *size, end, index_interval_bytes)?
            }
        };
        recovered.segments.push_back(segment);
    }
    if let Some(newest) = recovered.segments.back_mut() {
        (newest.largest, newest.opened_at) = (clean.largest, clean.opened_at);
        newest.last_indexed_time = clean.largest.map_or(newest.last_indexed_time, |(timestamp, _)| timestamp);
    }
    Ok(recovered)
}
