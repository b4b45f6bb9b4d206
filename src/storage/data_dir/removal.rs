//! What leaves a data directory: deleted partitions, what a crash left of them, and what nobody recognises.

use std::io;
use std::path::PathBuf;

use super::names::parse_partition_dir_name;
use super::{DELETED_SUFFIX, DataDir, QUARANTINE_DIR};
use crate::storage::create::CREATING_SUFFIX;
use crate::storage::disk::SyncPoint;

impl DataDir {
    /// Moves a directory or file that nobody recognises out of the way, and returns its new path. Nothing is removed.
    ///
    /// # Errors
    /// The disk's.
    pub fn quarantine(&self, name: &str) -> io::Result<PathBuf> {
        let quarantine = self.root.join(QUARANTINE_DIR);
        self.disk.create_dir_all(&quarantine)?;
        let mut target = quarantine.join(name);
        let mut number = 1;
        while self.disk.exists(&target)? {
            target = quarantine.join(format!("{name}.{number}"));
            number += 1;
        }
        self.disk.rename(&self.root.join(name), &target)?;
        // A rename is one change of the file system's journal, and follows the creation of the directory it leads to: synced
        // on one side it is durable as a whole.
        self.disk.sync_dir(&self.root, SyncPoint::PartitionDeleted)?;
        Ok(target)
    }

    /// Removes a partition's directory. Once this returns it does not come back, not even in part: it is renamed first, and
    /// what a crash leaves of it under the other name is removed at the next start.
    ///
    /// # Errors
    /// The disk's.
    pub fn delete_partition_dir(&self, name: &str) -> io::Result<()> {
        let doomed = self.root.join(format!("{name}{DELETED_SUFFIX}"));
        if self.disk.exists(&doomed)? {
            self.disk.remove_dir_all(&doomed)?;
        }
        self.disk.rename(&self.root.join(name), &doomed)?;
        self.disk.sync_dir(&self.root, SyncPoint::PartitionDeleted)?;
        self.disk.remove_dir_all(&doomed)
    }

    /// Removes what a crash left of partitions whose deletion had begun, or whose creation was never completed.
    pub(super) fn remove_leftovers(&self) -> io::Result<()> {
        for entry in self.disk.read_dir(&self.root)? {
            let name = entry.name.as_str();
            let partition = name.strip_suffix(DELETED_SUFFIX).or_else(|| name.strip_suffix(CREATING_SUFFIX));
            if entry.is_dir && partition.and_then(parse_partition_dir_name).is_some() {
                self.disk.remove_dir_all(&self.root.join(entry.name))?;
            }
        }
        Ok(())
    }
}
