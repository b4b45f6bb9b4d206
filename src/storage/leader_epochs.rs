//! The leader epochs of a log ([`EpochHistory`]) in their file.

use std::ops::{Deref, Range};
use std::path::Path;

use super::atomic_file::{AtomicFileError, Magic, write_atomically};
use super::disk::{Disk, child};
use super::partition_state::{json, read_json};
use crate::types::{EpochHistory, LeaderEpoch, Offset};

/// The checkpoint file in a partition's directory.
pub const LEADER_EPOCHS_FILE: &str = "leader-epochs";

const MAGIC: Magic = *b"CBle";
const VERSION: u16 = 1;

/// The leader epochs of a log, and whether the file knows of them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    history: EpochHistory,
    /// What the file lacks.
    unsaved: bool,
}

/// The history itself is read as it is; it changes only by what follows, so that nothing is left unsaved.
impl Deref for LeaderEpochs {
    type Target = EpochHistory;

    fn deref(&self) -> &EpochHistory {
        &self.history
    }
}

impl LeaderEpochs {
    /// See [`EpochHistory::note`].
    pub(super) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let is_new = self.history.note(epoch, offset);
        self.unsaved |= is_new;
        is_new
    }

    /// See [`EpochHistory::truncate_to`].
    pub(super) fn truncate_to(&mut self, end: Offset) {
        self.unsaved |= self.history.truncate_to(end);
    }

    /// See [`EpochHistory::replace`].
    pub(super) fn replace(
        &mut self,
        range: Range<Offset>,
        log_end: Offset,
        found: impl Iterator<Item = (LeaderEpoch, Offset)>,
    ) {
        self.history.replace(range, log_end, found);
        self.unsaved = true;
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.truncate_to(Offset::ZERO);
    }

    /// See [`EpochHistory::advance_start`].
    pub(super) fn advance_start(&mut self, log_start: Offset) {
        self.unsaved |= self.history.advance_start(log_start);
    }

    pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, AtomicFileError> {
        let path = child(dir, LEADER_EPOCHS_FILE);
        let entries: Option<Vec<(LeaderEpoch, Offset)>> = read_json(disk, &path, MAGIC, VERSION)?;
        let history = entries.and_then(EpochHistory::from_entries);
        Ok(history.map(|history| Self { history, unsaved: false }))
    }

    /// Whether the file lacks something.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// A copy from a moment ago was saved: if nothing came since, the file lacks nothing.
    pub(super) fn were_saved_as(&mut self, saved: &Self) {
        self.unsaved &= self.history != saved.history;
    }

    /// Replaces the file when it lacks something. Must come before a recovery point that passes what it lacks.
    pub(super) fn save(&mut self, disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
        if self.unsaved {
            write_atomically(disk, &child(dir, LEADER_EPOCHS_FILE), MAGIC, VERSION, &json(&self.history.entries())?)?;
            self.unsaved = false;
        }
        Ok(())
    }
}
