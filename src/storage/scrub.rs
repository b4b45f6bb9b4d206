//! Looking for damage before somebody asks for it, and comparing replicas.
//!
//! ```text
//!   scrub:   segment ──► batches' checksums, order, epochs, checksums of heads ──► damaged ranges, noted
//!   digest:  batches from one offset to another ──► one number, the same on every replica that has the same batches
//! ```

use bytes::Buf;

use super::atomic_file::AtomicFileError;
use super::checksum::{SegmentChecksum, Summing};
use super::error::LogError;
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
    /// Whether the heads of the batches were compared with the segment's file of checksums. A segment that is still
    /// appended to has none, nor has one that an older release closed.
    pub heads_verified: bool,
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
        loop {
            let (segment, next) = {
                let view = self.shared.read();
                let at = view.position_of_segment(from).filter(|_| from < view.written_end && from >= view.log_start);
                let Some(at) = at else { return Err(view.out_of_range(from)) };
                (view.segment_ref(at), view.segments.get(at + 1).map_or(view.written_end, |next| next.base))
            };
            let scrubbed = self.scrub_segment(&segment, next);
            // Overtaken by a truncation, a deletion or a repair: what was read means nothing.
            if self.shared.read().generation == segment.generation {
                return scrubbed;
            }
        }
    }

    fn scrub_segment(&self, segment: &SegmentRef, next: Offset) -> Result<Scrubbed, LogError> {
        let file = self.shared.log_file(segment)?;
        let (epochs, _) = self.leader_epochs();
        let mut scanner = Scanner::new(&*file, segment.size, 0, Some(segment.base), Check::Checksums);
        let mut found = Scrubbed { next, ..Scrubbed::default() };
        let (mut summing, mut places) = (Summing::default(), Vec::new());
        loop {
            match scanner.step()? {
                Step::Batch { header, position } => {
                    let (first, end) = (header.base_offset, header.end_offset_exclusive());
                    if epochs.epoch_of(header.last_offset()).is_some_and(|known| known != header.leader_epoch) {
                        found.damaged.push((first, end));
                    } else {
                        found.good_bytes += header.total_bytes() as u64;
                    }
                    summing.add(&header, position);
                    places.push((position, first, end));
                }
                Step::Bad { .. } => {
                    let good = scanner.resync(segment.end)?.map(|(header, _)| header.base_offset);
                    let from = scanner.bad_place.1.unwrap_or(segment.base);
                    found.damaged.push((from, good.unwrap_or(segment.end)));
                    if good.is_none() {
                        break;
                    }
                }
                Step::End => break,
            }
        }
        if found.damaged.is_empty() {
            // The list of epochs begins with the log: batches before that are vouched for by nothing else.
            let first_known = places.partition_point(|(_, _, end)| epochs.epoch_before(*end).is_none());
            self.compare_heads(segment, summing, (&places, first_known), &mut found)?;
        }
        for (from, end) in &found.damaged {
            self.shared.note_damage(segment, *from, Some(*end));
        }
        Ok(found)
    }

    /// Compares with the segment's file of checksums. All batches of a block that differs count as damaged: which of them is,
    /// cannot be told. Unless some of them lie before the log's start, below `first_known`: the others have the epochs that are due, so
    /// it is one of those, which nobody is served.
    fn compare_heads(
        &self,
        segment: &SegmentRef,
        summing: Summing,
        (places, first_known): (&[(u64, Offset, Offset)], usize),
        found: &mut Scrubbed,
    ) -> Result<(), LogError> {
        let due = match SegmentChecksum::read(&*self.shared.disk, &self.shared.dir, segment.base) {
            Ok(due) => due,
            Err(error @ AtomicFileError::Damaged { .. }) => {
                tracing::warn!(%error, "the heads of this segment's batches cannot be verified");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let Some(due) = due.filter(|due| segment.handles.is_none() && due.size == segment.size) else {
            return Ok(());
        };
        found.heads_verified = true;
        for (start, end) in due.differing(&summing.finish(segment.size)) {
            let inside = |place: &&(u64, Offset, Offset)| (start..end).contains(&place.0);
            if places[..first_known].iter().any(|place| inside(&place)) {
                continue;
            }
            let first = places.iter().find(inside).map(|place| place.1);
            let last = places.iter().rfind(inside).map(|place| place.2);
            found.damaged.extend(first.zip(last));
        }
        Ok(())
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
