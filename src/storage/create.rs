//! Creating logs: whole or not at all, and many with few syncs.
//!
//! ```text
//!   <dir>.creating/ ─ partition.meta, partition.state, each synced ─ their names synced ─ renamed to <dir>/ ┐
//!   <dir>.creating/ ─ …                                                                                     ├─ parent synced
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, SyncPoint, child};
use super::error::LogError;
use super::file_cache::FileCache;
use super::leader_epochs::LeaderEpochs;
use super::log::{Log, LogConfig, Tail};
use super::partition_state::{PartitionIdentity, PartitionState};
use super::view::{Shared, View};
use crate::types::Offset;

/// Ends the name of a partition directory that is being created. One found at start is what a crash left. A suffix, because
/// a topic's name may start with anything: `.creating-x` is a legal one.
pub const CREATING_SUFFIX: &str = ".creating";

/// A log that is to be created.
#[derive(Clone, Debug)]
pub struct NewLog {
    /// Its directory, whose parents are created as needed.
    pub dir: PathBuf,
    /// Whose it is.
    pub identity: PartitionIdentity,
    /// How it is kept.
    pub config: LogConfig,
}

impl Log {
    /// Creates the log of a new partition in `dir`, whose parents are created as needed. After a crash at any instant the
    /// directory is either there with all that belongs in it, or not there.
    ///
    /// # Errors
    /// [`LogError::AlreadyExists`], or the disk's.
    pub fn create(
        disk: Arc<dyn Disk>,
        files: Arc<FileCache>,
        dir: &Path,
        identity: &PartitionIdentity,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        let new = NewLog { dir: dir.to_owned(), identity: identity.clone(), config };
        let created = Self::create_all(&disk, &files, vec![new]).pop();
        created.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::InvalidInput).into()))
    }

    /// Creates several, one outcome each, in order. Their parent is synced once for all of them, which takes about as long
    /// as for one.
    #[must_use]
    pub fn create_all(disk: &Arc<dyn Disk>, files: &Arc<FileCache>, new: Vec<NewLog>) -> Vec<Result<Self, LogError>> {
        let parents: BTreeSet<PathBuf> = new.iter().filter_map(|new| new.dir.parent().map(Path::to_owned)).collect();
        let created: Vec<_> = new.into_iter().map(|new| create_before_sync(disk, files, new)).collect();
        match parents.iter().try_for_each(|parent| disk.sync_dir(parent, SyncPoint::PartitionCreated)) {
            Ok(()) => created,
            // Whether any of the names is durable is not known.
            Err(error) => {
                let failed = || LogError::from(io::Error::new(error.kind(), error.to_string()));
                created.into_iter().map(|created| created.and_then(|_| Err(failed()))).collect()
            }
        }
    }
}

/// Everything but the sync of the parent: until then a power loss may take the whole directory.
fn create_before_sync(disk: &Arc<dyn Disk>, files: &Arc<FileCache>, new: NewLog) -> Result<Log, LogError> {
    let NewLog { dir, identity, config } = new;
    if disk.exists(&dir)? {
        return Err(LogError::AlreadyExists { path: dir });
    }
    let temporary = creating_path(&dir)?;
    if disk.exists(&temporary)? {
        disk.remove_dir_all(&temporary)?;
    }
    disk.create_dir_all(&temporary)?;
    // Nobody reads the directory under this name, so its files need no temporary names of their own.
    identity.write_new(&**disk, &temporary)?;
    let state = PartitionState::empty(disk.boot_id()?);
    state.write_new(&**disk, &temporary)?;
    disk.sync_dir(&temporary, SyncPoint::AtomicFileRename)?;
    disk.rename(&temporary, &dir)?;
    let shared = Shared::new(Arc::clone(disk), Arc::clone(files), dir, View::empty(Offset::ZERO));
    Ok(Log::assemble(shared, identity, config, state, LeaderEpochs::default(), Tail::Sealed))
}

fn creating_path(dir: &Path) -> Result<PathBuf, LogError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a partition's directory needs a name").into());
    };
    Ok(child(parent, &format!("{}{CREATING_SUFFIX}", name.to_string_lossy())))
}
