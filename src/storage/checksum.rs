//! Checksums of what no batch's own checksum covers: base offset, length, leader epoch, magic, and that checksum itself.
//!
//! ```text
//!   0000.log        │ head body │ head body │ head body │ head body │ …          a block: the batches that start in one MiB
//!                     └────────── crc ────────┘ └──── crc ─────┘
//!   0000.checksum   segment's size │ end │ batches, crc of their heads │ …
//! ```
//!
//! Written beside the appends, once, for a segment that was closed: see docs/adr/0020. A head is the first
//! [`CHECKSUMMED_FROM`] bytes of a batch; its own checksum, which is among them, vouches for the rest. A segment that is
//! still appended to has none: there the leader epochs in memory vouch for the epoch, and contiguity for offset and length.

use std::io;
use std::path::Path;

use super::atomic_file::{AtomicFileError, Magic, read_checked, write_atomically};
use super::disk::{Disk, DiskFile};
use super::scan::{Check, Scanner, Step};
use super::segment::segment_path;
use super::view::Shared;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;
use crate::types::record_batch::header::{CHECKSUMMED_FROM, Crc32c};

/// Ends the name of a segment's file of checksums.
pub const CHECKSUM_SUFFIX: &str = ".checksum";

const MAGIC: Magic = *b"CBck";
const VERSION: u16 = 1;
/// One checksum for the batches that start within this many bytes: 8 KiB of checksums for a segment of 1 GiB.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// The batches that start in one block of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub batches: u32,
    pub crc: u32,
}

/// What a segment's file of checksums says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentChecksum {
    /// The size of the segment in bytes.
    pub size: u64,
    /// Its end, exclusive.
    pub end: Offset,
    pub blocks: Vec<Block>,
}

/// Takes headers in order and makes blocks of them.
#[derive(Debug, Default)]
pub(super) struct Summing {
    /// The number of the first block.
    first: u64,
    blocks: Vec<Block>,
    crc: Crc32c,
    batches: u32,
}

impl Summing {
    /// Begins with the block that holds `position`, where its first batch starts.
    pub(super) fn from(position: u64) -> Self {
        Self { first: position / BLOCK_BYTES, ..Self::default() }
    }

    /// Takes the batch at `position`.
    pub(super) fn add(&mut self, header: &BatchHeader, position: u64) {
        self.end_before(position / BLOCK_BYTES);
        self.crc.update(&header.to_bytes()[..CHECKSUMMED_FROM]);
        self.batches += 1;
    }

    fn end_before(&mut self, block: u64) {
        while self.first + (self.blocks.len() as u64) < block {
            let crc = std::mem::take(&mut self.crc).finish();
            self.blocks.push(Block { batches: std::mem::take(&mut self.batches), crc });
        }
    }

    /// The blocks up to `end` of the segment.
    pub(super) fn finish(mut self, end: u64) -> Vec<Block> {
        self.end_before(end.div_ceil(BLOCK_BYTES));
        self.blocks
    }
}

impl SegmentChecksum {
    /// Reads the headers of a segment. `None` when they are not in order up to `size` and `end`: what is damaged already gets
    /// no checksum that would vouch for it.
    pub(super) fn of_segment(
        file: &(dyn DiskFile + '_),
        base: Offset,
        size: u64,
        end: Offset,
    ) -> io::Result<Option<Self>> {
        let mut scanner = Scanner::new(file, size, 0, Some(base), Check::Headers);
        let mut summing = Summing::default();
        loop {
            match scanner.step()? {
                Step::Batch { header, position } => summing.add(&header, position),
                Step::End if scanner.expected == Some(end) => {
                    return Ok(Some(Self { size, end, blocks: summing.finish(size) }));
                }
                Step::End | Step::Bad { .. } => return Ok(None),
            }
        }
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, base: Offset) -> io::Result<()> {
        let mut payload = Vec::with_capacity(16 + self.blocks.len() * 8);
        payload.extend_from_slice(&self.size.to_be_bytes());
        payload.extend_from_slice(&self.end.0.to_be_bytes());
        for block in &self.blocks {
            payload.extend_from_slice(&block.batches.to_be_bytes());
            payload.extend_from_slice(&block.crc.to_be_bytes());
        }
        write_atomically(disk, &segment_path(dir, base, CHECKSUM_SUFFIX), MAGIC, VERSION, &payload)
    }

    /// Reads it; `None` when there is none, as for segments of older releases.
    pub(super) fn read(disk: &dyn Disk, dir: &Path, base: Offset) -> Result<Option<Self>, AtomicFileError> {
        let path = segment_path(dir, base, CHECKSUM_SUFFIX);
        let Some((_, payload)) = read_checked(disk, &path, MAGIC, VERSION)? else {
            return Ok(None);
        };
        Self::decode(&payload)
            .map(Some)
            .ok_or_else(|| AtomicFileError::Damaged { path, reason: "it is too short for what it says".to_owned() })
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (size, rest) = payload.split_first_chunk()?;
        let (end, rest) = rest.split_first_chunk()?;
        let (blocks, []) = rest.as_chunks::<8>() else { return None };
        let block = |bytes: &[u8; 8]| {
            let [a, b, c, d, e, f, g, h] = *bytes;
            Block { batches: u32::from_be_bytes([a, b, c, d]), crc: u32::from_be_bytes([e, f, g, h]) }
        };
        let (size, end) = (u64::from_be_bytes(*size), Offset(u64::from_be_bytes(*end)));
        let blocks: Vec<_> = blocks.iter().map(block).collect();
        (blocks.len() as u64 == size.div_ceil(BLOCK_BYTES)).then_some(Self { size, end, blocks })
    }

    /// The bytes of the segment (start, end exclusive) whose batches' heads are not those that were summed. `found` begins with the
    /// block that holds `position`.
    pub(super) fn differing(&self, position: u64, found: &[Block]) -> Vec<(u64, u64)> {
        let numbered =
            self.blocks.iter().enumerate().skip(usize::try_from(position / BLOCK_BYTES).unwrap_or(usize::MAX));
        let wrong = numbered.zip(found).filter(|((_, due), found)| due != found).map(|((at, _), _)| at as u64);
        wrong.map(|at| (at * BLOCK_BYTES, ((at + 1) * BLOCK_BYTES).min(self.size))).collect()
    }
}

impl Shared {
    /// Removes a segment's file of checksums, if it has one. The directory is to be synced before the segment changes.
    pub(super) fn remove_checksum(&self, base: Offset) -> io::Result<()> {
        match self.disk.remove_file(&self.path(base, CHECKSUM_SUFFIX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::VirtualDisk;
    use super::super::log_tests::batch;
    use super::*;

    #[test]
    fn the_file_is_the_documented_one_and_damage_to_it_is_found() {
        let disk = VirtualDisk::new(1);
        let dir = Path::new("/");
        let header = batch(7, 3, 0, 2, 10).header;
        let mut summing = Summing::default();
        summing.add(&header, 0);
        let checksum = SegmentChecksum { size: 80, end: Offset(9), blocks: summing.finish(80) };
        let heads = crate::types::record_batch::header::crc32c(&header.to_bytes()[..21]);
        assert_eq!(checksum.blocks, [Block { batches: 1, crc: heads }]);
        checksum.write(&disk, dir, Offset(7)).unwrap();
        assert_eq!(SegmentChecksum::read(&disk, dir, Offset(7)).unwrap(), Some(checksum));
        assert_eq!(SegmentChecksum::read(&disk, dir, Offset(8)).unwrap(), None);
        disk.flip_bit(&segment_path(dir, Offset(7), CHECKSUM_SUFFIX), 30, 1).unwrap();
        assert!(matches!(SegmentChecksum::read(&disk, dir, Offset(7)), Err(AtomicFileError::Damaged { .. })));
        for short in [&[0; 15][..], &[0; 17], &[1; 16]] {
            assert_eq!(SegmentChecksum::decode(short), None);
        }
    }

    #[test]
    fn a_block_without_a_batch_is_there_and_the_block_that_differs_is_named() {
        let header = batch(0, 1, 0, 1, 10).header;
        let blocks = |epoch| {
            let mut summing = Summing::default();
            for position in [0, 100, BLOCK_BYTES * 2, BLOCK_BYTES * 3 - 1] {
                let mut header = header;
                header.leader_epoch.0 = if position == BLOCK_BYTES * 2 { epoch } else { 1 };
                summing.add(&header, position);
            }
            summing.finish(BLOCK_BYTES * 3 + 200)
        };
        let whole = SegmentChecksum { size: BLOCK_BYTES * 3 + 200, end: Offset(4), blocks: blocks(1) };
        assert_eq!(whole.blocks.iter().map(|block| block.batches).collect::<Vec<_>>(), [2, 0, 2, 0]);
        assert_eq!(whole.differing(0, &blocks(1)), []);
        assert_eq!(whole.differing(0, &blocks(2)), [(BLOCK_BYTES * 2, BLOCK_BYTES * 3)]);
        assert_eq!(whole.differing(BLOCK_BYTES + 7, &blocks(2)[1..]), [(BLOCK_BYTES * 2, BLOCK_BYTES * 3)]);
    }
}
