//! What goes wrong on a virtual disk, when, and what was counted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::super::{DiskError, SyncPoint};

/// What an injected fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultyOperation {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Opening a file, for want of a descriptor.
    Open,
}

/// Lies inside the error of every operation from the moment that [`crash_after_operations`] named.
///
/// [`crash_after_operations`]: super::VirtualDisk::crash_after_operations
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated machine has stopped")]
pub struct Crashed;

/// Whether an error of a virtual disk says that the machine has stopped.
#[must_use]
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| {
        inner.is::<Crashed>() || inner.downcast_ref::<DiskError>().is_some_and(|error| is_crash(&error.cause))
    })
}

#[derive(Clone, Debug)]
struct Scheduled {
    operation: FaultyOperation,
    /// How many more such operations until the one that fails, itself included.
    remaining: u64,
    suffix: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) operations: u64,
    pub(super) short_writes: bool,
    pub(super) capacity: Option<u64>,
    pub(super) skipped: Option<SyncPoint>,
    crash_at: Option<u64>,
    crashed: bool,
    scheduled: Vec<Scheduled>,
    syncs: BTreeMap<SyncPoint, u64>,
    reads: BTreeMap<OsString, u64>,
}

/// Whether a mutating operation takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// The machine stops in the middle of it.
    Crashes,
}

impl Faults {
    pub(super) fn schedule(&mut self, operation: FaultyOperation, nth: u64, suffix: &str) {
        self.scheduled.push(Scheduled { operation, remaining: nth.max(1), suffix: suffix.to_owned() });
    }

    pub(super) fn crash_after(&mut self, operations: u64) {
        self.crash_at = Some(self.operations + operations.max(1));
    }

    pub(super) fn cancel(&mut self) {
        self.cancel_crash();
        self.scheduled.clear();
        (self.short_writes, self.capacity) = (false, None);
    }

    pub(super) fn cancel_crash(&mut self) {
        self.crash_at = None;
    }

    pub(super) fn restart(&mut self) {
        self.crash_at = None;
        self.crashed = false;
    }

    pub(super) fn check_running(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other(Crashed)) } else { Ok(()) }
    }

    /// Counts a mutating operation.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        self.check_running()?;
        self.operations += 1;
        self.crashed = self.crash_at.is_some_and(|at| self.operations >= at);
        Ok(if self.crashed { Step::Crashes } else { Step::Done })
    }

    /// Fails with EIO (EMFILE where a file is opened) when a fault was scheduled for this operation.
    pub(super) fn strike(&mut self, operation: FaultyOperation, path: &Path) -> io::Result<()> {
        if self.scheduled.is_empty() {
            return Ok(());
        }
        let path = path.to_string_lossy();
        let mut struck = false;
        self.scheduled.retain_mut(|fault| {
            if fault.operation == operation && path.ends_with(&fault.suffix) {
                fault.remaining -= 1;
                struck |= fault.remaining == 0;
            }
            fault.remaining > 0
        });
        let errno = if operation == FaultyOperation::Open { rustix::io::Errno::MFILE } else { rustix::io::Errno::IO };
        if struck { Err(errno.into()) } else { Ok(()) }
    }

    pub(super) fn count_sync(&mut self, point: SyncPoint) {
        *self.syncs.entry(point).or_default() += 1;
    }

    pub(super) fn count_read(&mut self, path: &Path) {
        match self.reads.get_mut(path.as_os_str()) {
            Some(count) => *count += 1,
            None => drop(self.reads.insert(path.as_os_str().to_owned(), 1)),
        }
    }

    pub(super) fn syncs(&self, point: SyncPoint) -> u64 {
        self.syncs.get(&point).copied().unwrap_or(0)
    }

    pub(super) fn reads(&self, suffix: &str) -> u64 {
        let matching = self.reads.iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix));
        matching.map(|(_, count)| count).sum()
    }

    pub(super) fn reset_counts(&mut self) {
        self.syncs.clear();
        self.reads.clear();
    }
}
