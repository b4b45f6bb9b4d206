//! Looking for damage before somebody asks for it, and comparing replicas.
//!
//! ```text
//!   scrub:   segment ──► batches' checksums, order, epochs, checksums of heads ──► damaged ranges, noted
//!            │ part │ part │ part │      each of whole blocks of the file of checksums (`checksum`)
//!   digest:  batches from one offset to another ──► one number, the same on every replica that has the same batches
//! ```

use std::sync::Arc;

use bytes::Buf;

use super::atomic_file::AtomicFileError;
use super::checksum::{BLOCK_BYTES, SegmentChecksum, Summing};
use super::error::LogError;
use super::leader_epochs::LeaderEpochs;
use super::log_reader::LogReader;
use super::scan::{Check, Scanner, Step};
use super::view::SegmentRef;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;
use crate::types::record_batch::header::CHECKSUMMED_FROM;

/// Read at once for a digest, in bytes.
const DIGEST_READ_BYTES: usize = 1 << 20;

/// What a scrub of one segment found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where the next segment starts: scrub on from there. At the log's end, that.
    pub next: Offset,
    /// Bytes of batches that were read and are good.
    pub good_bytes: u64,
    /// Damaged ranges (start, end exclusive), which are not served from now on.
    pub damaged: Vec<(Offset, Offset)>,
    /// Whether the heads of the batches were compared with the segment's file of checksums, up to the first damaged one. A segment
    /// that is still appended to has none, nor has one that an older release closed.
    pub heads_verified: bool,
}

/// A look through one segment that goes on part by part, so that nothing waits long for its disk or its thread.
#[derive(Debug)]
pub(super) struct SegmentScrub {
    segment: SegmentRef,
    /// The view's when it began.
    rewritten: u64,
    /// Where the next part begins, and the offset that is due there.
    position: u64,
    expected: Offset,
    due: Option<SegmentChecksum>,
    /// A damaged batch may hide others: from there on blocks differ for that.
    has_bad_batch: bool,
    pub found: Scrubbed,
}

/// What was read of a segment at once.
#[derive(Debug)]
struct Part {
    good_bytes: u64,
    damaged: Vec<(Offset, Offset)>,
    has_bad_batch: bool,
    /// Where the next one begins, and the offset that is due there.
    position: u64,
    expected: Offset,
    summing: Summing,
    /// Position, first offset and end of each batch.
    places: Vec<(u64, Offset, Offset)>,
}

impl SegmentScrub {
    /// How many bytes were looked through.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn take(&mut self, part: Part) -> bool {
        self.found.good_bytes += part.good_bytes;
        self.found.damaged.extend(part.damaged);
        self.has_bad_batch |= part.has_bad_batch;
        (self.position, self.expected) = (part.position, part.expected);
        self.position >= self.segment.size
    }
}

impl Part {
    fn from(position: u64, expected: Offset) -> Self {
        let (damaged, places) = (Vec::new(), Vec::new());
        let (good_bytes, has_bad_batch, summing) = (0, false, Summing::from(position));
        Self { good_bytes, damaged, has_bad_batch, position, expected, summing, places }
    }

    fn take(&mut self, header: &BatchHeader, position: u64, epochs: &LeaderEpochs) {
        let (first, end) = (header.base_offset, header.end_offset_exclusive());
        if epochs.epoch_of(header.last_offset()).is_some_and(|known| known != header.leader_epoch) {
            self.damaged.push((first, end));
        } else {
            self.good_bytes += header.total_bytes() as u64;
        }
        self.summing.add(header, position);
        self.places.push((position, first, end));
    }

    /// Compares the blocks from the one that holds `start` on with the segment's file of checksums. All batches of a block that differs
    /// count as damaged: which of them is, cannot be told. Unless some of them lie before the log's start, where the list of epochs
    /// begins: the others have the epochs that are due, so it is one of those, which nobody is served.
    fn compare_heads(&mut self, due: &SegmentChecksum, start: u64, epochs: &LeaderEpochs) {
        let first_known = self.places.partition_point(|(_, _, end)| epochs.epoch_before(*end).is_none());
        // The block in which the next batch starts is that of the next part.
        let end = if self.position < due.size { self.position - self.position % BLOCK_BYTES } else { due.size };
        for (from, to) in due.differing(start, &std::mem::take(&mut self.summing).finish(end)) {
            let inside = |place: &&(u64, Offset, Offset)| (from..to).contains(&place.0);
            if self.places[..first_known].iter().any(|place| inside(&place)) {
                continue;
            }
            let first = self.places.iter().find(inside).map(|place| place.1);
            let last = self.places.iter().rfind(inside).map(|place| place.2);
            self.damaged.extend(first.zip(last));
        }
    }
}

/// What stands for the content of a range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The end of what was read, exclusive: that of the last whole batch before the end asked for.
    pub end: Offset,
    /// How many batches.
    pub batches: u64,
    /// CRC-64 over offset, leader epoch, length and checksum of each batch, whose content was checked against that.
    pub checksum: u64,
}

impl LogReader {
    /// Verifies the segment that holds `from`, whole, and notes what is damaged. Reads all of it: call it where the disk may
    /// block, one segment at a time.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`], or the disk's.
    pub fn scrub(&self, from: Offset) -> Result<Scrubbed, LogError> {
        let mut scrub = self.begin_scrub(from)?;
        while !self.scrub_on(&mut scrub, u64::MAX)? {}
        Ok(scrub.found)
    }

    /// Begins to look through the segment that holds `from`.
    pub(super) fn begin_scrub(&self, from: Offset) -> Result<SegmentScrub, LogError> {
        let (segment, next, rewritten) = {
            let view = self.shared.read();
            let at = view.position_of_segment(from).filter(|_| from < view.written_end && from >= view.log_start);
            let Some(at) = at else { return Err(view.out_of_range(from)) };
            let next = view.segments.get(at + 1).map_or(view.written_end, |next| next.base);
            (view.segment_ref(at), next, view.rewritten)
        };
        let found = Scrubbed { next, ..Scrubbed::default() };
        Ok(SegmentScrub {
            expected: segment.base,
            position: 0,
            segment,
            rewritten,
            due: None,
            has_bad_batch: false,
            found,
        })
    }

    /// Verifies about `max_bytes` more, one block at least, and notes what is damaged. Returns whether the segment is through.
    pub(super) fn scrub_on(&self, scrub: &mut SegmentScrub, max_bytes: u64) -> Result<bool, LogError> {
        loop {
            let part = self.read_part(scrub, max_bytes);
            for (from, end) in part.iter().flat_map(|part| &part.damaged) {
                self.shared.note_damage(&scrub.segment, *from, Some(*end));
            }
            let view = self.shared.read();
            if view.generation == scrub.segment.generation {
                drop(view);
                return Ok(scrub.take(part?));
            }
            // Overtaken by a truncation, a deletion or a repair: what was read means nothing. A busy log deletes segments more often than
            // one is looked through at leisure, so that alone is no reason to begin anew.
            let base = scrub.segment.base;
            if view.rewritten != scrub.rewritten {
                let from = base.max(view.log_start);
                drop(view);
                *scrub = self.begin_scrub(from)?;
            } else if view.segments.front().is_none_or(|oldest| base < oldest.base) {
                return Ok(true);
            } else {
                scrub.segment.generation = view.generation;
            }
        }
    }

    fn read_part(&self, scrub: &mut SegmentScrub, max_bytes: u64) -> Result<Part, LogError> {
        if scrub.position == 0 {
            scrub.due = self.checksums_due(&scrub.segment)?;
            scrub.found.heads_verified = scrub.due.is_some();
        }
        let segment = &scrub.segment;
        let file = self.shared.log_file(segment)?;
        let epochs = Arc::clone(&self.shared.read().epochs);
        let end = scrub.position.saturating_add(max_bytes.max(1)).checked_next_multiple_of(BLOCK_BYTES);
        let limit = end.unwrap_or(u64::MAX).min(segment.size);
        let mut scanner = Scanner::new(&*file, segment.size, scrub.position, Some(scrub.expected), Check::Checksums);
        let mut part = Part::from(scrub.position, scrub.expected);
        while scanner.position < limit {
            match scanner.step()? {
                Step::Batch { header, position } => part.take(&header, position, &epochs),
                Step::Bad { .. } => {
                    let good = scanner.resync(segment.end)?.map(|(header, _)| header.base_offset);
                    let from = scanner.bad_place.1.unwrap_or(segment.base);
                    part.damaged.push((from, good.unwrap_or(segment.end)));
                    if good.is_none() {
                        scanner.position = segment.size;
                    }
                }
                Step::End => break,
            }
        }
        (part.position, part.expected) = (scanner.position, scanner.expected.unwrap_or(segment.end));
        part.has_bad_batch = !part.damaged.is_empty();
        if let Some(due) = scrub.due.as_ref().filter(|_| !scrub.has_bad_batch && !part.has_bad_batch) {
            part.compare_heads(due, scrub.position, &epochs);
        }
        Ok(part)
    }

    /// What the heads of a segment's batches are compared with, if there is anything.
    fn checksums_due(&self, segment: &SegmentRef) -> Result<Option<SegmentChecksum>, LogError> {
        let due = match SegmentChecksum::read(&*self.shared.disk, &self.shared.dir, segment.base) {
            Ok(due) => due,
            Err(error @ AtomicFileError::Damaged { .. }) => {
                tracing::warn!(%error, "the heads of this segment's batches cannot be verified");
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(due.filter(|due| segment.handles.is_none() && due.size == segment.size))
    }

    /// A checksum over the batches from the one that holds `from` up to `to` (exclusive): whole batches only. Two replicas
    /// that hold the same batches there have the same one, however their segments are cut. Reads and verifies all of it:
    /// call it where the disk may block, for committed records (up to the high watermark).
    ///
    /// # Errors
    /// As [`LogReader::read`]; [`LogError::OffsetOutOfRange`] when `to` lies past the written end.
    pub fn digest(&self, from: Offset, to: Offset) -> Result<Digest, LogError> {
        if to > self.written_end() {
            return Err(self.shared.read().out_of_range(to));
        }
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        let (mut batches, mut end) = (0, from);
        while end < to {
            let slice = self.read(end, to, DIGEST_READ_BYTES)?;
            if slice.bytes.is_empty() {
                break;
            }
            let mut bytes = slice.bytes;
            while let Ok(header) = BatchHeader::parse(&bytes) {
                // The head has the batch's own checksum in it, which the read has verified.
                crc.update(&header.to_bytes()[..CHECKSUMMED_FROM]);
                batches += 1;
                bytes.advance(header.total_bytes().min(bytes.len()));
            }
            end = slice.next;
        }
        Ok(Digest { end, batches, checksum: crc.finalize() })
    }
}
