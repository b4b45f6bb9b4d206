//! A file's bytes twice: as written (the page cache) and as durable (the platter), and what may survive of the difference.

use std::collections::BTreeMap;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// What the page cache writes back together, though not as a whole.
const SECTORS_PER_PAGE: usize = 8;
/// Earlier unsynced contents remembered for a sector: the kernel may have written back any of them at any time.
const MAX_EARLIER_CONTENTS: usize = 4;

/// How much of what was not synced survives.
pub(super) struct Survival<'a> {
    pub(super) rng: &'a mut fastrand::Rng,
    /// The probability that a change survives, from 0 (none does) to 1 (all do).
    pub(super) keeps: f64,
}

impl<'a> Survival<'a> {
    /// An arbitrary one: nothing and everything are as likely as a mixture.
    pub(super) fn arbitrary(rng: &'a mut fastrand::Rng) -> Self {
        let keeps = [0.0, 0.2, 0.5, 0.8, 1.0][rng.usize(0..5)];
        Self { rng, keeps }
    }

    pub(super) fn keeps(&mut self) -> bool {
        self.rng.f64() < self.keeps
    }
}

/// The content of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileContent {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Each sector written since the last sync, with the contents it had between that sync and the last write.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The shortest length since the last sync: a truncation below the durable length is pending.
    shortest: usize,
}

impl FileContent {
    pub(super) fn len(&self) -> usize {
        self.written.len()
    }

    pub(super) fn read(&self, buffer: &mut [u8], position: usize) -> usize {
        let available = self.written.get(position..).unwrap_or_default();
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = position + bytes.len();
        for sector in position / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let content = sector_of(&self.written, sector).to_vec();
            match self.dirty.get_mut(&sector) {
                None => {
                    self.dirty.insert(sector, Vec::new());
                }
                Some(earlier) => {
                    if earlier.len() == MAX_EARLIER_CONTENTS {
                        earlier.remove(0);
                    }
                    earlier.push(content);
                }
            }
        }
        self.written.resize(self.written.len().max(end), 0);
        self.written[position..end].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, length: usize) {
        self.written.resize(length, 0);
        self.shortest = self.shortest.min(length);
        let first_gone = length.div_ceil(SECTOR_BYTES);
        self.dirty.split_off(&first_gone);
        // The sector that is cut keeps no memory of what stood behind the cut.
        if let Some(earlier) = self.dirty.get_mut(&(length / SECTOR_BYTES)) {
            earlier.clear();
        }
    }

    pub(super) fn flip_bit(&mut self, position: usize, bit: u8) {
        for bytes in [&mut self.written, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The first byte that a power loss which keeps nothing would change.
    pub(super) fn first_undurable(&self) -> Option<usize> {
        let common = self.durable.iter().zip(&self.written).position(|(durable, written)| durable != written);
        let shorter = self.durable.len().min(self.written.len());
        common.or_else(|| (self.durable.len() != self.written.len()).then_some(shorter))
    }

    /// A successful sync: what is dirty becomes durable, and the size.
    pub(super) fn sync(&mut self) {
        self.durable.truncate(self.shortest);
        self.durable.resize(self.written.len(), 0);
        for sector in self.dirty.keys() {
            put(&mut self.durable, *sector, sector_of(&self.written, *sector));
        }
        self.forget_changes();
    }

    /// What is shown is on the platter, whatever became of earlier syncs.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.written);
        self.forget_changes();
    }

    /// A failed sync, as on Linux: some of it got there, all of it counts as clean, and the page cache still shows it.
    pub(super) fn fail_sync(&mut self, survival: &mut Survival<'_>) {
        self.durable = self.after_power_loss(survival);
        self.forget_changes();
    }

    /// What was not synced is gone, but for an arbitrary part.
    pub(super) fn lose_power(&mut self, survival: &mut Survival<'_>) {
        self.durable = self.after_power_loss(survival);
        self.written.clone_from(&self.durable);
        self.forget_changes();
    }

    fn forget_changes(&mut self) {
        self.dirty.clear();
        self.shortest = self.written.len();
    }

    fn after_power_loss(&self, survival: &mut Survival<'_>) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let truncated = self.shortest < self.durable.len();
        // The journal keeps the order of size changes: what came after a lost truncation did not grow the file either.
        if !truncated || survival.keeps() {
            bytes.truncate(self.shortest);
            let length = surviving_length(bytes.len(), self.written.len(), survival);
            bytes.resize(length, 0);
        }
        let sectors: Vec<_> = self.dirty.iter().collect();
        for page in sectors.chunk_by(|a, b| a.0 / SECTORS_PER_PAGE == b.0 / SECTORS_PER_PAGE) {
            let torn = survival.keeps > 0.0 && survival.keeps < 1.0 && survival.rng.u8(0..4) == 0;
            let page_survives = survival.keeps();
            for (sector, earlier) in page {
                let current = sector_of(&self.written, **sector);
                if !torn && page_survives {
                    put(&mut bytes, **sector, current);
                } else if torn {
                    match survival.rng.usize(0..earlier.len() + 2) {
                        0 => {}
                        1 => put(&mut bytes, **sector, current),
                        index => put(&mut bytes, **sector, &earlier[index - 2]),
                    }
                }
            }
        }
        bytes
    }
}

fn surviving_length(from: usize, to: usize, survival: &mut Survival<'_>) -> usize {
    if to <= from || survival.keeps() {
        return to;
    }
    // Sizes between the two are as possible: the size of a moment when a page was written back.
    if survival.keeps() { survival.rng.usize(from..=to) } else { from }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    &bytes[start..(start + SECTOR_BYTES).min(bytes.len())]
}

fn put(bytes: &mut [u8], sector: usize, content: &[u8]) {
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = (start + content.len()).min(bytes.len());
    bytes[start..end].copy_from_slice(&content[..end - start]);
}
