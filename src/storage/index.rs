//! Sparse indexes: where in a segment's file to start looking for an offset. Kafka's layout, readable by its tools.
//!
//! ```text
//!   .index       4-byte offset less the segment's base │ 4-byte position       the last offset of the batch there
//!   .timeindex   8-byte timestamp │ 4-byte offset less the base                see time_index
//! ```
//!
//! The newest entries stand in memory (at most [`MAX_PENDING`]), the rest in the file, where a binary search with
//! positioned reads finds them. An index is a hint: whoever follows it checks the batch it points to.

use std::io;

use super::disk::{DiskFile, read_full_at, write_all_at};
use crate::types::Offset;

/// Entries are written to the file when this many have gathered: one 512-byte write for 256 KiB of records.
pub(super) const MAX_PENDING: usize = 64;

/// Below this many entries a search reads them all at once instead of probing on.
const LAST_PROBE_ENTRIES: u64 = 64;

/// An entry of fixed size. Entries rise strictly by key.
pub(super) trait IndexEntry: Copy {
    const BYTES: usize;
    type Key: Copy + Ord;
    fn key(&self) -> Self::Key;
    fn encode(&self, base: Offset, out: &mut Vec<u8>);
    /// `bytes` has exactly [`IndexEntry::BYTES`] bytes.
    fn decode(base: Offset, bytes: &[u8]) -> Self;
}

/// Points to a batch by the offset of its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    pub last_offset: Offset,
    pub position: u64,
}

impl IndexEntry for OffsetEntry {
    const BYTES: usize = 8;
    type Key = Offset;

    fn key(&self) -> Offset {
        self.last_offset
    }

    fn encode(&self, base: Offset, out: &mut Vec<u8>) {
        out.extend_from_slice(&relative(self.last_offset, base).to_be_bytes());
        // A segment is rolled long before 4 GiB: see `Segment::has_room_for`.
        out.extend_from_slice(&u32::try_from(self.position).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn decode(base: Offset, bytes: &[u8]) -> Self {
        Self { last_offset: base.plus(u64::from(u32_at(bytes, 0))), position: u64::from(u32_at(bytes, 4)) }
    }
}

/// `offset` as indexes write it. A segment is rolled before this overflows: see `Segment::has_room_for`.
pub(super) fn relative(offset: Offset, base: Offset) -> u32 {
    u32::try_from(offset.distance_from(base)).unwrap_or(u32::MAX)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_be_bytes(*chunk))
}

/// One index of one segment: how many entries its file holds, and those that are not in the file yet.
#[derive(Debug)]
pub(super) struct SparseIndex<E> {
    pub base: Offset,
    pub in_file: u64,
    pub pending: Vec<E>,
}

/// The answer to a lookup, or where to look on without holding a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup<E> {
    /// The entry, `None` before the first one.
    Known(Option<E>),
    /// Among the first so many entries of the file.
    InFile(u64),
}

impl<E: IndexEntry> SparseIndex<E> {
    pub(super) fn new(base: Offset, in_file: u64) -> Self {
        Self { base, in_file, pending: Vec::new() }
    }

    /// The last entry whose key is at most `key`.
    pub(super) fn floor(&self, key: E::Key) -> Lookup<E> {
        match self.pending.partition_point(|entry| entry.key() <= key).checked_sub(1) {
            Some(at) => Lookup::Known(Some(self.pending[at])),
            None if self.in_file == 0 => Lookup::Known(None),
            None => Lookup::InFile(self.in_file),
        }
    }

    /// How many bytes of the file are in use.
    pub(super) fn file_bytes(&self) -> u64 {
        self.in_file * E::BYTES as u64
    }

    /// The pending entries as the file is to hold them.
    pub(super) fn encode_pending(&self, out: &mut Vec<u8>) {
        out.clear();
        for entry in &self.pending {
            entry.encode(self.base, out);
        }
    }

    /// Notes that the pending entries are in the file.
    pub(super) fn pending_written(&mut self) {
        self.in_file += self.pending.len() as u64;
        self.pending.clear();
    }

    /// Writes the pending entries behind the others.
    pub(super) fn flush(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.pending.len() * E::BYTES);
        self.encode_pending(&mut bytes);
        write_all_at(file, &bytes, self.file_bytes())?;
        self.pending_written();
        Ok(())
    }

    /// Keeps the entries for which `keep` holds (a prefix) and cuts the file there.
    pub(super) fn truncate_where(&mut self, file: &dyn DiskFile, keep: impl Fn(&E) -> bool) -> io::Result<()> {
        self.in_file = partition_point(file, self.base, self.in_file, &keep)?;
        self.pending.retain(keep);
        file.set_len(self.file_bytes())
    }

    /// The newest entry.
    pub(super) fn last(
        &self,
        file: impl FnOnce() -> io::Result<std::sync::Arc<dyn DiskFile>>,
    ) -> io::Result<Option<E>> {
        match (self.pending.last(), self.in_file.checked_sub(1)) {
            (Some(entry), _) => Ok(Some(*entry)),
            (None, None) => Ok(None),
            (None, Some(at)) => entry_at(&*file()?, self.base, at).map(Some),
        }
    }
}

/// How many entries of the whole file one can trust: those that rise strictly, up to the first that does not or that
/// `usable` refuses.
pub(super) fn usable_entries<E: IndexEntry>(
    file: &dyn DiskFile,
    base: Offset,
    usable: impl Fn(&E) -> bool,
) -> io::Result<u64> {
    let entries = file.len()? / E::BYTES as u64;
    let mut previous: Option<E> = None;
    let mut at = 0;
    while at < entries {
        let batch = read_entries::<E>(file, base, at, (entries - at).min(4096))?;
        if batch.is_empty() {
            break;
        }
        for entry in batch {
            if previous.is_some_and(|previous| previous.key() >= entry.key()) || !usable(&entry) {
                return Ok(at);
            }
            previous = Some(entry);
            at += 1;
        }
    }
    Ok(at)
}

/// The last of the first `entries` entries of `file` whose key is at most `key`.
pub(super) fn floor_in_file<E: IndexEntry>(
    file: &dyn DiskFile,
    base: Offset,
    entries: u64,
    key: E::Key,
) -> io::Result<Option<E>> {
    match partition_point(file, base, entries, |entry: &E| entry.key() <= key)?.checked_sub(1) {
        Some(at) => entry_at(file, base, at).map(Some),
        None => Ok(None),
    }
}

/// How many of the first `entries` entries fulfil `holds`, which is true for a prefix of them.
pub(super) fn partition_point<E: IndexEntry>(
    file: &dyn DiskFile,
    base: Offset,
    entries: u64,
    holds: impl Fn(&E) -> bool,
) -> io::Result<u64> {
    let (mut low, mut high) = (0, entries);
    while high - low > LAST_PROBE_ENTRIES {
        let middle = low + (high - low) / 2;
        if holds(&entry_at(file, base, middle)?) { low = middle + 1 } else { high = middle }
    }
    let rest = read_entries(file, base, low, high - low)?;
    Ok(low + rest.partition_point(holds) as u64)
}

/// The entry number `at`, from 0.
pub(super) fn entry_at<E: IndexEntry>(file: &dyn DiskFile, base: Offset, at: u64) -> io::Result<E> {
    read_entries(file, base, at, 1)?.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn read_entries<E: IndexEntry>(file: &dyn DiskFile, base: Offset, at: u64, count: u64) -> io::Result<Vec<E>> {
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX) * E::BYTES];
    let filled = read_full_at(file, &mut bytes, at * E::BYTES as u64)?;
    Ok(bytes[..filled].chunks_exact(E::BYTES).map(|entry| E::decode(base, entry)).collect())
}
