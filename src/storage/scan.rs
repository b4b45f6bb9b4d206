//! Reading a segment from front to back: batch by batch, or past a bad place to the next whole batch.
//!
//! ```text
//!   ┌───────┬───────┬──────────▒▒▒▒▒▒▒▒▒▒▒▒▒┬───────┐
//!   │ batch │ batch │   bad    ▒▒▒▒▒▒▒▒▒▒▒▒▒│ batch │   end of the file
//!   └───────┴───────┴──────────▒▒▒▒▒▒▒▒▒▒▒▒▒┴───────┘
//!      step    step    step: Bad            resync ──► step
//! ```
//!
//! A scan never panics, always ends, and holds at most one batch in memory, whatever the bytes are.

use std::io;

use bytes::Bytes;

use super::disk::{DiskFile, read_full_at};
use crate::types::record_batch::header::{LENGTH_PREFIX_BYTES, MAGIC};
use crate::types::record_batch::{BatchError, BatchHeader, HEADER_BYTES, RecordBatch};
use crate::types::{LeaderEpoch, Offset};

/// No batch is larger: twice the largest `max_batch_bytes` that can be set. A length field above it is damage.
pub(super) const MAX_PLAUSIBLE_BATCH_BYTES: u64 = 128 << 20;

/// Read at once when only headers are looked at.
const HEADER_WINDOW_BYTES: usize = 32 << 10;
/// Read at once when whole batches are checked.
const VERIFY_WINDOW_BYTES: usize = 1 << 20;

/// A search for the next whole batch gives up after it has checksummed this much in vain. Content that was made to look
/// like headers everywhere would keep it busy for hours otherwise; this takes about a second.
const RESYNC_BUDGET_BYTES: u64 = 2 << 30;

/// Where the bytes come from.
pub(super) trait ScanSource {
    /// Reads until `buffer` is full or the source ends, and returns how many bytes came.
    fn read_full(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
}

impl ScanSource for dyn DiskFile + '_ {
    fn read_full(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        read_full_at(self, buffer, position)
    }
}

impl ScanSource for [u8] {
    fn read_full(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let rest = usize::try_from(position).ok().and_then(|from| self.get(from..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// How closely a batch is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The header's form and its place in the order of offsets.
    Headers,
    /// The checksum too.
    Checksums,
}

/// Why no batch can be read at a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Badness {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("a batch starts at offset {found} where {expected} is due")]
    Offset { expected: Offset, found: Offset },
    #[error("a batch carries leader epoch {found} after {last}")]
    Epoch { last: LeaderEpoch, found: LeaderEpoch },
    #[error("a batch's last offset delta is {delta}")]
    Delta { delta: i32 },
    #[error("a batch claims {bytes} bytes")]
    TooLarge { bytes: u64 },
}

/// What stands at the scanner's position.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch, good as far as was checked. The scanner stands behind it.
    Batch { header: BatchHeader, position: u64 },
    /// No batch. The scanner stays here: see [`Scanner::resync`].
    Bad { position: u64, why: Badness },
    /// The end.
    End,
}

enum Candidate {
    /// A position, and the size that the header claims.
    At(u64, u64),
    LookOnAt(u64),
    NoMore,
}

/// Walks over the batches of a segment.
pub(super) struct Scanner<'a, S: ScanSource + ?Sized> {
    source: &'a S,
    /// Where the scan ends: bytes beyond are not looked at.
    limit: u64,
    pub position: u64,
    /// The offset that is due next; `None` takes what comes.
    pub expected: Option<Offset>,
    /// Epochs below this are bad, if it is set. Readers do not set it: the epoch is not under the checksum, and one that
    /// was damaged upwards must not hide what follows.
    pub epoch: Option<LeaderEpoch>,
    /// Where the damage begins that the last [`Scanner::resync`] passed, and the offset that was due there.
    pub bad_place: (u64, Option<Offset>),
    /// Whether the last [`Scanner::resync`] gave up: something good may follow all the same.
    pub gave_up: bool,
    /// The last batch that was passed by its header alone.
    unverified: Option<(BatchHeader, u64)>,
    check: Check,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a, S: ScanSource + ?Sized> Scanner<'a, S> {
    pub(super) fn new(source: &'a S, limit: u64, position: u64, expected: Option<Offset>, check: Check) -> Self {
        let (window, window_start) = (Vec::new(), 0);
        let (bad_place, unverified) = ((position, expected), None);
        let (epoch, gave_up) = (None, false);
        Self { source, limit, position, expected, epoch, bad_place, gave_up, unverified, check, window, window_start }
    }

    /// Looks at the current position.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let position = self.position;
        if position >= self.limit {
            return Ok(Step::End);
        }
        let header = match self.examine(position)? {
            Ok(header) => header,
            Err(why) => return Ok(Step::Bad { position, why }),
        };
        self.position += header.total_bytes() as u64;
        self.expected = Some(header.end_offset_exclusive());
        self.unverified = (self.check == Check::Headers).then_some((header, position));
        self.epoch = self.epoch.map(|_| header.leader_epoch);
        Ok(Step::Batch { header, position })
    }

    /// Goes on from another place.
    fn jump(&mut self, position: u64, expected: Option<Offset>) {
        self.unverified = None;
        self.position = position;
        self.expected = expected;
    }

    /// The bytes of the batch that a step just returned.
    pub(super) fn batch(&mut self, header: &BatchHeader, position: u64) -> io::Result<RecordBatch> {
        let bytes = self.bytes(position, header.total_bytes())?;
        Ok(RecordBatch { header: *header, body: Bytes::copy_from_slice(bytes.get(HEADER_BYTES..).unwrap_or_default()) })
    }

    /// Whether the bad place that a step has found is what a kill leaves of the last write: a batch whose end is missing. What has all
    /// its bytes was damaged after it was written: by its own length, or because the checksum is right up to the end of the file, or up
    /// to where the length would lead but for one bit.
    pub(super) fn is_torn(&mut self, position: u64, why: &Badness) -> io::Result<bool> {
        if !matches!(why, Badness::Batch(BatchError::Truncated { .. })) {
            return Ok(false);
        }
        let rest = usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX);
        let Ok(header) = BatchHeader::parse(self.bytes(position, HEADER_BYTES)?) else { return Ok(true) };
        let flipped = (0..u32::BITS).map(|bit| header.batch_length ^ (1_i32 << bit));
        let lengths =
            flipped.filter_map(|length| usize::try_from(length).ok()).map(|length| length + LENGTH_PREFIX_BYTES);
        for bytes in lengths.chain([rest]).filter(|bytes| *bytes <= rest) {
            if let Some(whole) = header.with_total_bytes(bytes)
                && whole.verify_checksum(self.bytes(position, bytes)?).is_ok()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next place from a bad one on where a whole batch with a right checksum stands, with an offset that is due or
    /// later and all its records before `before`. The scanner moves there.
    pub(super) fn resync(&mut self, before: Offset) -> io::Result<Option<(BatchHeader, u64)>> {
        self.step_back_if_led_astray()?;
        self.bad_place = (self.position, self.expected);
        let from = self.position;
        // A batch that merely comes too late is good itself, unless it is the offset that is damaged: no checksum of its own covers that.
        if let Some(found) = self.whole_batch_at(from, before)? {
            if self.is_confirmed(&found.0, from, before)? {
                return Ok(Some(found));
            }
            self.jump(from, self.bad_place.1);
        }
        // When only the body is damaged the length still tells where the next batch starts. It goes first, because a
        // record's value may hold bytes that look like a batch.
        if let Ok(header) = BatchHeader::parse(self.bytes(from, HEADER_BYTES)?) {
            let next = from + header.total_bytes() as u64;
            if let Some(found) = self.whole_batch_at(next, before)? {
                return Ok(Some(found));
            }
        }
        let (mut position, mut budget) = (from + 1, RESYNC_BUDGET_BYTES);
        self.gave_up = false;
        while position + HEADER_BYTES as u64 <= self.limit {
            match self.next_candidate(position, before)? {
                Candidate::At(candidate, bytes) => {
                    if let Some(found) = self.whole_batch_at(candidate, before)? {
                        return Ok(Some(found));
                    }
                    if bytes > budget {
                        self.gave_up = true;
                        break;
                    }
                    (position, budget) = (candidate + 1, budget - bytes);
                }
                Candidate::LookOnAt(next) => position = next,
                Candidate::NoMore => break,
            }
        }
        Ok(None)
    }

    /// Whether what follows on a batch agrees with its offset. The last one has to end where the log does; where nobody knows that,
    /// a recovery that believed it could let the log end anywhere.
    fn is_confirmed(&mut self, header: &BatchHeader, position: u64, before: Offset) -> io::Result<bool> {
        let (end, next) = (header.end_offset_exclusive(), position + header.total_bytes() as u64);
        if next >= self.limit {
            return Ok(end == before);
        }
        let (expected, check, epoch) = (self.expected.take(), self.check, self.epoch.take());
        self.check = Check::Checksums;
        let follows = self.examine(next);
        (self.expected, self.check, self.epoch) = (expected, check, epoch);
        Ok(follows?.map_or(before < Offset::MAX, |follows| follows.base_offset >= end))
    }

    /// When the batch before this place is damaged itself, its length is what led here: the scanner goes back to it, where the damage
    /// begins. Returns whether it did.
    pub(super) fn step_back_if_led_astray(&mut self) -> io::Result<bool> {
        let Some((header, position)) = self.unverified.take() else { return Ok(false) };
        let is_damaged = header.verify_checksum(self.bytes(position, header.total_bytes())?).is_err();
        if is_damaged {
            (self.position, self.expected) = (position, Some(header.base_offset));
        }
        Ok(is_damaged)
    }

    /// The first position in the window from `position` on whose bytes could be a header.
    fn next_candidate(&mut self, position: u64, before: Offset) -> io::Result<Candidate> {
        let due = self.expected.unwrap_or(Offset::ZERO);
        if self.bytes(position, HEADER_BYTES)?.len() < HEADER_BYTES {
            return Ok(Candidate::NoMore);
        }
        let room = self.limit - position;
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        let looks_like_a_header = |head: &[u8]| {
            head[16] == MAGIC
                && BatchHeader::parse(head).is_ok_and(|header| {
                    header.total_bytes() as u64 <= room.min(MAX_PLAUSIBLE_BATCH_BYTES)
                        && header.base_offset >= due
                        && header.last_offset() < before
                })
        };
        let window = self.window.get(start..).unwrap_or_default();
        Ok(match window.windows(HEADER_BYTES).position(looks_like_a_header) {
            Some(at) => {
                let claimed =
                    window.get(at + 8..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes));
                Candidate::At(position + at as u64, u64::from(claimed))
            }
            // A header that starts in the window's last bytes ends in the next window.
            None => Candidate::LookOnAt(self.window_end() - HEADER_BYTES as u64 + 1),
        })
    }

    fn whole_batch_at(&mut self, position: u64, before: Offset) -> io::Result<Option<(BatchHeader, u64)>> {
        let (due, check) = (self.expected, self.check);
        (self.expected, self.check) = (None, Check::Checksums);
        let examined = self.examine(position);
        (self.expected, self.check) = (due, check);
        let usable =
            |header: &BatchHeader| header.base_offset >= due.unwrap_or(Offset::ZERO) && header.last_offset() < before;
        match examined? {
            Ok(header) if usable(&header) => {
                self.jump(position, Some(header.base_offset));
                Ok(Some((header, position)))
            }
            _ => Ok(None),
        }
    }

    fn examine(&mut self, position: u64) -> io::Result<Result<BatchHeader, Badness>> {
        let rest = self.limit.saturating_sub(position);
        let header = match BatchHeader::parse(self.bytes(position, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(why) = self.check_place(&header, rest) {
            return Ok(Err(why));
        }
        if self.check == Check::Checksums {
            let bytes = self.bytes(position, header.total_bytes())?;
            return Ok(header.verify_checksum(bytes).map(|()| header).map_err(Badness::Batch));
        }
        Ok(Ok(header))
    }

    fn check_place(&self, header: &BatchHeader, rest: u64) -> Result<(), Badness> {
        let bytes = header.total_bytes() as u64;
        if bytes > MAX_PLAUSIBLE_BATCH_BYTES {
            return Err(Badness::TooLarge { bytes });
        }
        if bytes > rest {
            let have = usize::try_from(rest).unwrap_or(usize::MAX);
            return Err(BatchError::Truncated { have, need: header.total_bytes() }.into());
        }
        if header.last_offset_delta < 0 || header.base_offset.0 + header.last_offset_delta as u64 >= Offset::MAX.0 {
            return Err(Badness::Delta { delta: header.last_offset_delta });
        }
        match self.expected {
            Some(expected) if expected != header.base_offset => {
                Err(Badness::Offset { expected, found: header.base_offset })
            }
            _ => match self.epoch {
                Some(last) if header.leader_epoch < last => Err(Badness::Epoch { last, found: header.leader_epoch }),
                _ => Ok(()),
            },
        }
    }

    fn window_end(&self) -> u64 {
        self.window_start + self.window.len() as u64
    }

    /// `length` bytes at `position`, fewer where the segment ends.
    fn bytes(&mut self, position: u64, length: usize) -> io::Result<&[u8]> {
        let rest = usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = length.min(rest);
        if position < self.window_start || position + length as u64 > self.window_end() {
            let window = if self.check == Check::Checksums { VERIFY_WINDOW_BYTES } else { HEADER_WINDOW_BYTES };
            self.window.resize(length.max(window).min(rest), 0);
            let filled = self.source.read_full(&mut self.window, position)?;
            self.window.truncate(filled);
            self.window_start = position;
        }
        let start = usize::try_from(position - self.window_start).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
}
