//! A member's files before and without openraft: whose they are, beginning with metadata that there is already, and reading
//! them without taking part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use openraft::{CommittedLeaderId, Membership};

use super::error::{RaftIdentity, RaftStorageError};
use super::log_files::{LogFiles, RaftPlace};
use super::open::check_fit;
use super::snapshot_files::SnapshotFiles;
use super::types::{ControllerNode, LogId, SnapshotMeta, StoredMembership};
use super::voter_file::VoterFile;
use crate::engine::metadata::{ApplyError, ClusterImage};
use crate::storage::disk::Disk;

/// Entries are read in portions of this.
const READ_BYTES: usize = 1 << 20;

/// Whose Raft storage lies in `dir`; `None` where there is none.
///
/// # Errors
/// [`RaftStorageError::LostFile`] and the like when it does not tell: there is one, and it cannot be used.
pub fn owner(disk: &dyn Disk, dir: &Path) -> Result<Option<RaftIdentity>, RaftStorageError> {
    VoterFile::owner(disk, dir)
}

/// Creates the storage of a sole voter whose metadata is `image` already: the first snapshot holds it, and the log goes on at its
/// index. After a crash at any instant all of it is there or nothing.
///
/// # Errors
/// [`RaftStorageError::Exists`], or the disk's.
pub fn begin_with(place: &RaftPlace, me: &ControllerNode, image: &ClusterImage) -> Result<(), RaftStorageError> {
    let id = place.identity.id;
    let last = image.index.checked_sub(1).map(|index| LogId::new(CommittedLeaderId::new(0, id), index));
    let members = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, me.clone())]));
    let meta = SnapshotMeta {
        last_log_id: last,
        last_membership: StoredMembership::new(last, members),
        snapshot_id: "earlier metadata".to_owned(),
    };
    LogFiles::create_with(place, |making| SnapshotFiles::create(making, &meta, image)).map(drop)
}

/// The metadata that a member's files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestImage {
    /// As far as it is known to be decided.
    pub image: ClusterImage,
    /// How many vote, as far as the files tell. With one, the image is all that was ever decided.
    pub voters: usize,
}

/// The metadata as the next start will know it, at least: what is known to be decided. With one voter that is all there is.
/// Recovers the files as a start does, so give it a copy.
///
/// # Errors
/// Those that would end that start.
pub fn newest_image(place: &RaftPlace) -> Result<NewestImage, RaftStorageError> {
    let log = LogFiles::open(place)?;
    let (snapshots, newest) = SnapshotFiles::open(place)?;
    check_fit(&log, &snapshots)?;
    let (mut image, mut voters) = match newest {
        Some((meta, image)) => (image, meta.last_membership.voter_ids().count()),
        None => (ClusterImage::empty(place.identity.cluster), 0),
    };
    let decided = log.committed().map_or(0, |last| last.index + 1);
    loop {
        let found = log.read(image.index, log.end(), READ_BYTES)?;
        if found.is_empty() {
            return Ok(NewestImage { image, voters });
        }
        for entry in &found {
            voters = entry.voters().unwrap_or(voters);
            if voters > 1 && entry.id.index >= decided {
                return Ok(NewestImage { image, voters });
            }
            match entry.decision().map_or(Ok(()), |records| image.apply_entry(records)) {
                Err(error @ ApplyError::FeatureLevel { .. }) => return Err(RaftStorageError::Newer(error)),
                // One that did not fit when it was decided does not fit again.
                Ok(()) | Err(_) => image.index = entry.id.index + 1,
            }
        }
    }
}
