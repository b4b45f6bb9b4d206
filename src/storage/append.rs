//! Appending: a group of batches becomes one vectored write, then index entries, then readers see it.
//!
//! ```text
//!   batches ──► checked ──► [roll] ──► headers and bodies in one write ──► segment, indexes, epochs ──► written end
//!                                              └── fails: final
//! ```

use std::io::{self, IoSlice};

use super::disk::{DiskFile, OpenMode, is_out_of_descriptors, write_all_at};
use super::error::LogError;
use super::index::MAX_PENDING;
use super::log::{Log, Tail};
use super::partition_state::PartitionState;
use super::segment::{Handles, INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX};
use super::view::Shared;
use crate::types::record_batch::{BatchError, BatchHeader, HEADER_BYTES, RecordBatch};
use crate::types::{Offset, TimestampMs};

/// The most slices in one vectored write (Linux's `UIO_MAXIOV`): a header and a body for each batch.
const MAX_SLICES: usize = 1024;

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The written end after it, exclusive.
    pub end: Offset,
    /// Whether a segment was closed on the way: a good moment for a producer snapshot and a checkpoint.
    pub rolled: bool,
}

/// Buffers of an append, kept between appends.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    headers: Vec<[u8; HEADER_BYTES]>,
    slices: Vec<IoSlice<'static>>,
    index_bytes: Vec<u8>,
}

impl Log {
    /// Appends batches that are stamped already: their offsets follow on the written end, their epochs never fall. What
    /// was appended can be read at once; it is durable after [`Log::begin_sync`] and [`Log::finish_sync`].
    ///
    /// # Errors
    /// [`LogError::NotContiguous`], [`LogError::EpochWentBack`] and [`LogError::InvalidBatch`] change nothing.
    /// After [`LogError::NoDescriptor`] those of the batches that lie past the written end may be appended again.
    /// [`LogError::DiskFull`] and [`LogError::Failed`] are final: part of the batches may be on disk.
    pub fn append(&mut self, now: TimestampMs, batches: &[RecordBatch]) -> Result<Appended, LogError> {
        self.check_alive()?;
        self.check_batches(self.written_end(), batches)?;
        let (mut rest, mut rolled) = (batches, false);
        while let Some(first) = rest.first() {
            if self.must_roll(now, &first.header) {
                self.roll().map_err(|error| self.fail(error))?;
                rolled = true;
            }
            let (group, after) = rest.split_at(self.fitting(rest));
            let handles = self.before_write()?;
            self.write_group(now, group, &handles).map_err(|error| self.fail(error))?;
            rest = after;
        }
        Ok(Appended { end: self.written_end(), rolled })
    }

    /// Whether appending `bytes` may do more than write to open files: create some, or sync. A guess for whoever has to
    /// choose a thread, made without looking at the batches.
    #[must_use]
    pub fn append_may_block(&self, now: TimestampMs, bytes: usize) -> bool {
        if self.state.clean.is_some() || !matches!(self.tail, Tail::Open(_)) {
            return true;
        }
        let view = self.shared.read();
        view.segments.back().is_none_or(|active| {
            active.size + bytes as u64 > self.config.segment_bytes || is_aged(active, now, self.config.segment_ms)
        })
    }

    /// Refuses batches that do not begin at `due`, or do not follow on each other.
    pub(super) fn check_batches(&self, due: Offset, batches: &[RecordBatch]) -> Result<(), LogError> {
        let mut expected = due;
        let mut last = self.epochs.latest().unwrap_or_default();
        for RecordBatch { header, body } in batches {
            let base_offset = header.base_offset;
            if base_offset != expected {
                return Err(LogError::NotContiguous { expected, found: base_offset });
            }
            if header.leader_epoch < last {
                return Err(LogError::EpochWentBack { last, found: header.leader_epoch });
            }
            check_form(header, body.len()).map_err(|cause| LogError::InvalidBatch { base_offset, cause })?;
            expected = header.end_offset_exclusive();
            last = header.leader_epoch;
        }
        Ok(())
    }

    fn must_roll(&self, now: TimestampMs, next: &BatchHeader) -> bool {
        let view = self.shared.read();
        let active = if matches!(self.tail, Tail::Sealed) { None } else { view.segments.back() };
        active.is_some_and(|active| {
            !active.has_room_for(next, self.config.segment_bytes) || is_aged(active, now, self.config.segment_ms)
        })
    }

    /// How many of `batches`, at least one, go into the active segment before it is full.
    fn fitting(&self, batches: &[RecordBatch]) -> usize {
        let view = self.shared.read();
        let (base, mut size) = match (&self.tail, view.segments.back()) {
            (Tail::Closed | Tail::Open(_), Some(active)) => (active.base, active.size),
            _ => (view.written_end, 0),
        };
        let mut probe = Segment::empty(base);
        let fits = |batch: &&RecordBatch| {
            probe.size = size;
            size += batch.total_bytes() as u64;
            probe.has_room_for(&batch.header, self.config.segment_bytes)
        };
        batches.iter().take_while(fits).count().max(1)
    }

    /// What has to be there before the first byte is written. When it lacks a descriptor, those of files that are only read
    /// are closed; when that is not enough, nothing was done, and the same append may be tried again.
    fn before_write(&mut self) -> Result<Handles, LogError> {
        let mut prepared = self.prepare_write();
        if prepared.as_ref().is_err_and(is_out_of_descriptors) {
            self.shared.files.close_all();
            prepared = self.prepare_write();
        }
        prepared.map_err(|cause| match is_out_of_descriptors(&cause) {
            true => LogError::NoDescriptor { cause },
            false => self.fail(cause),
        })
    }

    fn prepare_write(&mut self) -> io::Result<Handles> {
        self.mark_written()?;
        self.open_tail()
    }

    fn write_group(&mut self, now: TimestampMs, group: &[RecordBatch], handles: &Handles) -> io::Result<()> {
        let size = self.shared.read().segments.back().map_or(0, |active| active.size);
        self.scratch.write_batches(&*handles.log, group, size)?;

        let mut view = self.shared.write();
        let interval = self.config.index_interval_bytes;
        let (mut must_flush, mut new_epoch) = (false, false);
        if let Some(active) = view.segments.back_mut() {
            active.opened_at.get_or_insert(now);
            for batch in group {
                active.observe(&batch.header, interval);
                new_epoch |= self.epochs.note(batch.header.leader_epoch, batch.header.base_offset);
            }
            must_flush = active.offsets.pending.len() >= MAX_PENDING || active.times.pending.len() >= MAX_PENDING;
            view.written_end = view.segments.back().map_or(view.written_end, |active| active.end);
        }
        if new_epoch {
            view.set_epochs(&self.epochs);
        }
        drop(view);
        if must_flush { self.flush_indexes(handles) } else { Ok(()) }
    }

    /// Before the first write after a clean stop: from here on a crash must lead to recovery.
    pub(super) fn mark_written(&mut self) -> io::Result<()> {
        if self.state.clean.is_none() {
            return Ok(());
        }
        let state = PartitionState { clean: None, boot_id: self.shared.disk.boot_id()?, ..self.state.clone() };
        state.write(&*self.shared.disk, &self.shared.dir)?;
        self.state = state;
        Ok(())
    }

    pub(super) fn open_tail(&mut self) -> io::Result<Handles> {
        let handles = match &self.tail {
            Tail::Open(handles) => return Ok(handles.clone()),
            Tail::Closed => self.reopen_newest()?,
            Tail::Sealed => self.create_segment()?,
        };
        if let Some(active) = self.shared.write().segments.back_mut() {
            active.handles = Some(handles.clone());
        }
        self.tail = Tail::Open(handles.clone());
        Ok(handles)
    }

    fn open_files(&self, base: Offset, mode: OpenMode) -> io::Result<Handles> {
        let open = |suffix| self.shared.disk.open(&self.shared.path(base, suffix), mode);
        Ok(Handles { log: open(LOG_SUFFIX)?, index: open(INDEX_SUFFIX)?, time_index: open(TIME_INDEX_SUFFIX)? })
    }

    fn create_segment(&mut self) -> io::Result<Handles> {
        let base = self.written_end();
        let handles = self.open_files(base, OpenMode::Create)?;
        self.new_names = true;
        self.shared.write().segments.push_back(Segment::empty(base));
        Ok(handles)
    }

    fn reopen_newest(&mut self) -> io::Result<Handles> {
        let Some(base) = self.shared.read().segments.back().map(|newest| newest.base) else {
            return self.create_segment();
        };
        self.open_files(base, OpenMode::Write)
    }

    /// Writes the index entries that wait in memory. Not synced: an index can be rebuilt.
    pub(super) fn flush_indexes(&mut self, handles: &Handles) -> io::Result<()> {
        // Encoded under the lock, written without it: this is the only writer, so nothing is added meanwhile.
        let bytes = &mut self.scratch.index_bytes;
        let at = encode_with(&self.shared, |segment| {
            segment.offsets.encode_pending(bytes);
            segment.offsets.file_bytes()
        });
        write_all_at(&*handles.index, bytes, at)?;
        let at = encode_with(&self.shared, |segment| {
            segment.times.encode_pending(bytes);
            segment.times.file_bytes()
        });
        write_all_at(&*handles.time_index, bytes, at)?;
        if let Some(active) = self.shared.write().segments.back_mut() {
            active.offsets.pending_written();
            active.times.pending_written();
        }
        Ok(())
    }

    /// Seals the active segment. The next append creates a new one.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        if let Tail::Open(handles) = &self.tail {
            let handles = handles.clone();
            if let Some(active) = self.shared.write().segments.back_mut() {
                active.index_largest_time();
            }
            self.flush_indexes(&handles)?;
            if let Some(active) = self.shared.write().segments.back_mut() {
                active.handles = None;
                self.unsummed.push(active.base);
            }
            self.sealed_unsynced.extend([handles.log, handles.index, handles.time_index]);
        }
        self.tail = Tail::Sealed;
        Ok(())
    }
}

/// Whether a header describes a batch with so many bytes of records.
pub(super) fn check_form(header: &BatchHeader, body_bytes: usize) -> Result<(), BatchError> {
    if header.body_bytes() != body_bytes || header.last_offset_delta < 0 {
        return Err(BatchError::Truncated { have: HEADER_BYTES + body_bytes, need: header.total_bytes() });
    }
    Ok(())
}

/// Whether the segment's first record is older than a segment may get.
pub(super) fn is_aged(segment: &Segment, now: TimestampMs, segment_ms: u64) -> bool {
    let age = |opened_at: TimestampMs| u64::try_from(now.0.saturating_sub(opened_at.0)).unwrap_or(0);
    segment.size > 0 && segment.opened_at.is_some_and(|opened_at| age(opened_at) > segment_ms)
}

fn encode_with(shared: &Shared, encode: impl FnOnce(&Segment) -> u64) -> u64 {
    shared.read().segments.back().map_or(0, encode)
}

impl Scratch {
    /// Writes whole batches at `position` in as few vectored writes as the operating system allows.
    pub(super) fn write_batches(
        &mut self,
        file: &dyn DiskFile,
        batches: &[RecordBatch],
        mut position: u64,
    ) -> io::Result<()> {
        for group in batches.chunks(MAX_SLICES / 2) {
            self.headers.clear();
            self.headers.extend(group.iter().map(|batch| batch.header.to_bytes()));
            let mut slices = recycled(std::mem::take(&mut self.slices));
            for (header, batch) in self.headers.iter().zip(group) {
                slices.push(IoSlice::new(header));
                slices.push(IoSlice::new(&batch.body));
            }
            position += write_all_vectored(file, &mut slices, position)?;
            self.slices = recycled(slices);
        }
        Ok(())
    }
}

/// An empty vector with the memory of `slices`: collecting a mapped vector of the same layout reuses its allocation.
fn recycled<'b>(mut slices: Vec<IoSlice<'_>>) -> Vec<IoSlice<'b>> {
    slices.clear();
    slices.into_iter().map(|_| IoSlice::new(&[])).collect()
}

fn write_all_vectored(file: &dyn DiskFile, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<u64> {
    let mut rest = slices;
    let mut written = 0;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored_at(rest, position + written) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no byte of a write")),
            Ok(taken) => {
                written += taken as u64;
                IoSlice::advance_slices(&mut rest, taken);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
