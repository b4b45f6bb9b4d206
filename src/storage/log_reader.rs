//! Reading a log, from any thread, while it is written.
//!
//! ```text
//!   offset ──► segment (in memory) ──► position (a remembered place, or the index) ──► one read ──► whole batches
//! ```
//!
//! Every batch's checksum is verified before it is served. What is found damaged is remembered and never served; what
//! lies around it is. A read that was overtaken by a deletion or a truncation starts over and then says
//! [`LogError::OffsetOutOfRange`] instead of showing the file system's error.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{DiskFile, read_full_at};
use super::error::LogError;
use super::index::{Lookup, OffsetEntry};
use super::leader_epochs::LeaderEpochs;
use super::place::Start;
use super::scan::{Check, MAX_PLAUSIBLE_BATCH_BYTES, Scanner, Step};
use super::segment::LOG_SUFFIX;
use super::view::{SegmentRef, Shared};
use crate::types::record_batch::{BatchHeader, HEADER_BYTES};
use crate::types::{BufferPool, LeaderEpoch, Mutant, Offset};

/// Read besides what was asked for when only an earlier batch's position is known, so that one read is enough.
const LEAD_BYTES: u64 = 64 << 10;

/// How far ahead of a reader that goes through a segment the disk is asked to fetch. The kernel's own read-ahead, 128 KiB, is
/// less than one read here, so that disk and sockets would take turns (measured: half the disk's speed).
const READ_AHEAD_BYTES: u64 = 4 << 20;

/// Batches as they lie on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSlice {
    /// Whole batches, back to back. The first one holds the offset asked for, perhaps not as its first record.
    pub bytes: Bytes,
    /// The offset to read on from.
    pub next: Offset,
}

/// Reads a log. Cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// A segment to read from, and up to where.
struct Place {
    segment: SegmentRef,
    lookup: Lookup<OffsetEntry>,
    upper: Offset,
    epochs: Arc<LeaderEpochs>,
    generation: u64,
}

/// Where a batch starts in a buffer, or that a closer look is needed.
enum Found {
    At(usize, BatchHeader),
    LookCloser,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.shared.read().log_start
    }

    /// The end of what was written, exclusive.
    #[must_use]
    pub fn written_end(&self) -> Offset {
        self.shared.read().written_end
    }

    /// Bytes of records in all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.read().segments.iter().map(|segment| segment.size).sum()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.shared.read().segments.len()
    }

    /// The ranges (start, end exclusive) known to be damaged, in order.
    #[must_use]
    pub fn damaged_ranges(&self) -> Vec<(Offset, Offset)> {
        self.shared.read().damaged.clone()
    }

    /// The epoch of the record at `offset`; `None` before the log's start and for an empty log. Of an offset that is not
    /// written yet it says the newest epoch. The epoch *before* a fetch at `from` is that of `from - 1`.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let view = self.shared.read();
        view.epochs.epoch_of(offset)
    }
    /// The leader epochs in the log and its written end, as of one moment.
    #[must_use]
    pub fn leader_epochs(&self) -> (LeaderEpochs, Offset) {
        let view = self.shared.read();
        (LeaderEpochs::clone(&view.epochs), view.written_end)
    }

    /// Whole batches from the one that holds `from` on: at least one, however large, then as many as fit in
    /// `max_bytes`, none that reaches past `upper_exclusive` or into the next segment. Empty when `from` has reached the
    /// end, or when its batch reaches past `upper_exclusive`.
    ///
    /// Consumers are served up to the high watermark, followers up to the written end: [`Offset::MAX`].
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`], [`LogError::Damaged`], or the disk's.
    pub fn read(&self, from: Offset, upper_exclusive: Offset, max_bytes: usize) -> Result<LogSlice, LogError> {
        loop {
            let Some(place) = self.locate(from, upper_exclusive)? else {
                return Ok(LogSlice { bytes: Bytes::new(), next: from });
            };
            let slice = self.read_place(&place, from, max_bytes);
            // Each turn takes another deletion or truncation, of which there are far fewer than reads.
            if self.shared.read().generation == place.generation {
                return slice;
            }
        }
    }

    fn locate(&self, from: Offset, upper: Offset) -> Result<Option<Place>, LogError> {
        let view = self.shared.read();
        if from < view.log_start || from > view.written_end {
            return Err(view.out_of_range(from));
        }
        let upper = upper.min(view.written_end);
        if from >= upper {
            return Ok(None);
        }
        if let Some((start, end)) = view.damage_at(from) {
            return Err(LogError::Damaged { from: start, next_valid: (end < view.written_end).then_some(end) });
        }
        let Some(at) = view.position_of_segment(from) else {
            return Err(view.out_of_range(from));
        };
        let (segment, lookup) = (view.segment_ref(at), view.offset_floor(at, from));
        Ok(Some(Place { segment, lookup, upper, epochs: Arc::clone(&view.epochs), generation: view.generation }))
    }

    fn read_place(&self, place: &Place, from: Offset, max_bytes: usize) -> Result<LogSlice, LogError> {
        let segment = &place.segment;
        let file = self.shared.log_file(segment)?;
        let remembered = self.shared.recall_place(place.generation, segment.base, from);
        let (start, lead) = match remembered.filter(|position| *position < segment.size) {
            Some(position) => (Start { position, first: Some(from), last: None }, 0),
            None => (self.shared.follow_index(segment, place.lookup, from), LEAD_BYTES),
        };
        let wanted = (max_bytes as u64).max(HEADER_BYTES as u64).saturating_add(lead);
        let buffer = read_buffer(
            self.shared.files.buffers(),
            &*file,
            start.position,
            wanted.min(segment.size - start.position),
        )?;
        let (position, header) = match find_batch(&buffer, start, from) {
            // Not believed before its checksum was looked at.
            Found::At(at, header) if header.end_offset_exclusive() > place.upper => {
                (start.position + at as u64, header)
            }
            Found::At(at, header) => {
                match self.whole_batches(place, buffer.slice(at..), start.position + at as u64, max_bytes) {
                    Some(slice) => {
                        if lead == 0 {
                            let end = start.position + (at + slice.bytes.len()) as u64;
                            read_ahead(&*file, segment, end, slice.bytes.len() as u64);
                        }
                        return Ok(slice);
                    }
                    None => (start.position + at as u64, header),
                }
            }
            // Further on than the buffer reaches, or the index is wrong, or there is damage.
            Found::LookCloser => self.seek(segment, &*file, start, from, Check::Headers)?,
        };
        if let Some(slice) = self.slice_at(place, &*file, (position, header), from, max_bytes)? {
            return Ok(slice);
        }
        // Its header was believed, and led here: a damaged one may claim the offsets of the batches that follow.
        let (position, header) = self.seek(segment, &*file, Start::of_segment(segment.base), from, Check::Checksums)?;
        match self.slice_at(place, &*file, (position, header), from, max_bytes)? {
            Some(slice) => Ok(slice),
            None => Err(self.damage_from(segment, &*file, position, &header)?),
        }
    }

    /// The batches from that at `position` on; nothing, if it reaches past what may be read. `None` when it is damaged.
    fn slice_at(
        &self,
        place: &Place,
        file: &dyn DiskFile,
        (position, header): (u64, BatchHeader),
        from: Offset,
        max_bytes: usize,
    ) -> Result<Option<LogSlice>, LogError> {
        let rest = place.segment.size - position;
        if header.total_bytes() as u64 > MAX_PLAUSIBLE_BATCH_BYTES.min(rest) {
            return Ok(None);
        }
        let wanted = max_bytes.max(header.total_bytes()) as u64;
        let buffer = read_buffer(self.shared.files.buffers(), file, position, wanted.min(rest))?;
        if header.end_offset_exclusive() <= place.upper {
            return Ok(self.whole_batches(place, buffer, position, max_bytes));
        }
        let is_good = buffer.get(..header.total_bytes()).is_some_and(|batch| header.verify_checksum(batch).is_ok());
        Ok(is_good.then_some(LogSlice { bytes: Bytes::new(), next: from }))
    }

    /// The good batches at the start of `buffer`; `None` when the first one is not whole or not good.
    fn whole_batches(&self, place: &Place, mut buffer: Bytes, position: u64, max_bytes: usize) -> Option<LogSlice> {
        let mut end = 0;
        let mut next = BatchHeader::parse(&buffer).ok()?.base_offset;
        while let Ok(header) = BatchHeader::parse(&buffer[end..]) {
            let after = end + header.total_bytes();
            let fits = after <= buffer.len() && (end == 0 || after <= max_bytes);
            if !fits || header.base_offset != next || header.end_offset_exclusive() > place.upper {
                break;
            }
            // The epoch is not under the checksum: the log's own list of them, which has one of its own, vouches for it.
            // By its last record: the log may start within it.
            let known = place.epochs.epoch_of(header.last_offset()).is_none_or(|known| known == header.leader_epoch);
            let is_good = known && header.verify_checksum(&buffer[end..after]).is_ok();
            if !is_good && !Mutant::ServesDamage.is_on() {
                break;
            }
            (end, next) = (after, header.end_offset_exclusive());
        }
        if end == 0 {
            return None;
        }
        buffer.truncate(end);
        self.shared.remember_place(place.generation, place.segment.base, next, position + end as u64);
        Some(LogSlice { bytes: buffer, next })
    }

    /// Finds the batch that holds `from` header by header, past damaged places. When the batch at `start` is not the one
    /// that the index speaks of, the search goes through the whole segment.
    pub(super) fn seek(
        &self,
        segment: &SegmentRef,
        file: &dyn DiskFile,
        start: Start,
        from: Offset,
        check: Check,
    ) -> Result<(u64, BatchHeader), LogError> {
        let mut start = start;
        let mut scanner = Scanner::new(file, segment.size, start.position, start.first, check);
        loop {
            let step = scanner.step()?;
            let astray = match &step {
                Step::Batch { header, position } => *position == start.position && !start.fits(header),
                Step::Bad { position, .. } => *position == start.position,
                Step::End => false,
            };
            if astray && start.position > 0 && start.last.is_some() {
                self.shared.distrust_index(segment);
                start = Start::of_segment(segment.base);
                scanner = Scanner::new(file, segment.size, start.position, start.first, check);
                continue;
            }
            match step {
                Step::Batch { header, position } if header.end_offset_exclusive() > from => {
                    return Ok((position, header));
                }
                Step::Batch { .. } => {}
                Step::Bad { .. } | Step::End => {
                    let next = scanner.resync(segment.end)?.map(|(header, _)| header.base_offset);
                    let damaged_from = scanner.bad_place.1.unwrap_or(segment.base);
                    if let Some(damaged) = self
                        .shared
                        .note_damage(segment, damaged_from, next)
                        .filter(|_| next.is_none_or(|next| next > from))
                    {
                        return Err(damaged);
                    }
                }
            }
        }
    }

    /// Notes that the batch at `position` is damaged.
    fn damage_from(
        &self,
        segment: &SegmentRef,
        file: &dyn DiskFile,
        position: u64,
        header: &BatchHeader,
    ) -> Result<LogError, LogError> {
        let mut scanner = Scanner::new(file, segment.size, position, Some(header.base_offset.next()), Check::Checksums);
        let next = scanner.resync(segment.end)?.map(|(header, _)| header.base_offset);
        let damaged = self.shared.note_damage(segment, header.base_offset, next);
        Ok(damaged.unwrap_or(LogError::Damaged { from: header.base_offset, next_valid: next }))
    }
}

impl Shared {
    /// Remembers a damaged range of the segment, up to `next` or to its end, and returns the error that tells of it.
    pub(super) fn note_damage(&self, segment: &SegmentRef, from: Offset, next: Option<Offset>) -> Option<LogError> {
        let end = next.unwrap_or(segment.end);
        let mut view = self.write();
        // After a truncation the bytes that were read mean nothing.
        if view.generation == segment.generation && !view.knows_damage(from, end) {
            let file = self.path(segment.base, LOG_SUFFIX);
            tracing::error!(file = %file.display(), %from, to = %end, "damaged records found, they are not served");
            view.add_damage(from, end);
        }
        let next_valid = (end < view.written_end).then_some(end);
        (from < end || next.is_none()).then_some(LogError::Damaged { from, next_valid })
    }
}

/// A reader that goes on where it stopped has read `length` bytes up to `end`: the part as long as that which now comes within
/// [`READ_AHEAD_BYTES`] is fetched. A short read leaves it to the kernel.
fn read_ahead(file: &dyn DiskFile, segment: &SegmentRef, end: u64, length: u64) {
    let from = (end + READ_AHEAD_BYTES).saturating_sub(length).max(end);
    let to = (end + READ_AHEAD_BYTES).min(segment.size);
    if length >= LEAD_BYTES && from < to {
        file.will_read(from, to - from);
    }
}

fn read_buffer(pool: &BufferPool, file: &dyn DiskFile, position: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut buffer = pool.take(length);
    let filled = read_full_at(file, &mut buffer[..length], position)?;
    Ok(buffer.freeze(filled))
}

/// The batch that holds `from`, if it is in `buffer` and all headers before it are in order.
fn find_batch(buffer: &[u8], start: Start, from: Offset) -> Found {
    let (mut at, mut due) = (0, start.first);
    while let Some(Ok(header)) = buffer.get(at..).map(BatchHeader::parse) {
        let in_order = due.is_none_or(|due| due == header.base_offset) && header.base_offset <= from;
        if !in_order || header.last_offset_delta < 0 || (at == 0 && !start.fits(&header)) {
            return Found::LookCloser;
        }
        if header.end_offset_exclusive() > from {
            return Found::At(at, header);
        }
        at += header.total_bytes();
        due = Some(header.end_offset_exclusive());
    }
    Found::LookCloser
}
