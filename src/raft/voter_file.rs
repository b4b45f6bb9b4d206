//! The one small file on which the safety of elections rests: whom this member voted for.
//!
//! ```text
//!   voter     whose directory it is; vote; committed and purged position; a truncation that is under way
//! ```
//!
//! It is there from the first moment of a directory, so that a directory without it has lost it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{RaftIdentity, RaftStorageError};
use super::format::{StoredLogId, StoredVote};
use super::types::RaftId;
use crate::storage::atomic_file::{AtomicFileError, Magic, read_checked, write_atomically};
use crate::storage::disk::{Disk, child};
use crate::types::{ClusterId, DirectoryId};

const FILE: &str = "voter";
const MAGIC: Magic = *b"CBrv";
const VERSION: u16 = 1;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Voter {
    cluster: ClusterId,
    directory: DirectoryId,
    id: u64,
    pub vote: Option<StoredVote>,
    pub committed: Option<StoredLogId>,
    /// The last entry that was deleted at the front.
    pub purged: Option<StoredLogId>,
    /// Entries from this index on are being cut off. A crash meanwhile may leave any of them, which proves no loss.
    pub truncating_from: Option<u64>,
}

impl Voter {
    fn new(identity: RaftIdentity) -> Self {
        let RaftIdentity { cluster, directory, id } = identity;
        Self { cluster, directory, id: id.0, vote: None, committed: None, purged: None, truncating_from: None }
    }

    fn identity(&self) -> RaftIdentity {
        RaftIdentity { cluster: self.cluster, directory: self.directory, id: RaftId(self.id) }
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Voter, RaftStorageError> {
    let Some((_, payload)) = read_checked(disk, path, MAGIC, VERSION)? else {
        return Err(RaftStorageError::LostFile { path: path.to_owned() });
    };
    let damaged =
        |error: rmp_serde::decode::Error| AtomicFileError::Damaged { path: path.to_owned(), reason: error.to_string() };
    Ok(rmp_serde::from_slice(&payload).map_err(damaged)?)
}

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct VoterFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    voter: Voter,
}

impl VoterFile {
    /// Writes the file of a member that has not voted yet.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, identity: RaftIdentity) -> Result<Self, RaftStorageError> {
        let file = Self { disk, path: child(dir, FILE), voter: Voter::new(identity) };
        file.write(&file.voter)?;
        Ok(file)
    }

    /// Reads the file in `dir`, after checking that it is `expected`'s.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, expected: RaftIdentity) -> Result<Self, RaftStorageError> {
        let path = child(dir, FILE);
        let voter = read(&*disk, &path)?;
        let found = voter.identity();
        if found != expected {
            return Err(RaftStorageError::Foreign { path: dir.to_owned(), found, expected });
        }
        Ok(Self { disk, path, voter })
    }

    /// Whose files lie in `dir`; `None` where there are none.
    pub fn owner(disk: &dyn Disk, dir: &Path) -> Result<Option<RaftIdentity>, RaftStorageError> {
        if !disk.exists(dir)? {
            return Ok(None);
        }
        read(disk, &child(dir, FILE)).map(|voter| Some(voter.identity()))
    }

    pub fn get(&self) -> &Voter {
        &self.voter
    }

    /// Changes what the file says. Durable when this returns; after an error either may be on disk, and memory keeps the old.
    pub fn update(&mut self, change: impl FnOnce(&mut Voter)) -> Result<(), RaftStorageError> {
        let mut voter = self.voter.clone();
        change(&mut voter);
        if voter != self.voter {
            self.write(&voter)?;
            self.voter = voter;
        }
        Ok(())
    }

    fn write(&self, voter: &Voter) -> Result<(), RaftStorageError> {
        let payload = rmp_serde::to_vec_named(voter).map_err(std::io::Error::other)?;
        Ok(write_atomically(&*self.disk, &self.path, MAGIC, VERSION, &payload)?)
    }
}
