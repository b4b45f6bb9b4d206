//! Opening a replica's log, on a disk thread: producers rebuilt, leftovers of an interrupted creation replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::messages::OpenedReplica;
use crate::engine::producer_state::ProducerTable;
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::storage::{Log, LogConfig, LogError, PartitionIdentity, Replay};
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// What a disk thread needs to open a replica.
pub(super) struct OpenJob {
    pub disk: Arc<dyn Disk>,
    pub files: Arc<FileCache>,
    pub dir: PathBuf,
    pub identity: PartitionIdentity,
    pub config: LogConfig,
    /// Whether the partition may not have been on this disk before. If it was, a directory that is missing was lost.
    pub may_be_new: bool,
}

#[derive(Default)]
struct ProducerReplay(ProducerTable);

impl Replay for ProducerReplay {
    fn snapshot(&mut self, _at: Offset, payload: &[u8]) -> bool {
        match ProducerTable::from_snapshot(payload) {
            Some(table) => {
                self.0 = table;
                true
            }
            None => false,
        }
    }

    fn batch(&mut self, header: &BatchHeader) {
        self.0.record(header);
    }
}

impl OpenJob {
    /// Opens the log, or creates it when its directory does not exist.
    pub(super) fn run(self) -> Result<OpenedReplica, LogError> {
        let Self { disk, files, dir, identity, config, may_be_new } = self;
        if !disk.exists(&dir)? {
            if !may_be_new {
                return Err(LogError::LostPartition { path: dir });
            }
            let log = Log::create(disk, files, &dir, &identity, config)?;
            return Ok(OpenedReplica { log, producers: ProducerTable::default(), report: None });
        }
        let mut replay = ProducerReplay::default();
        let (log, report) = Log::open(disk, files, &dir, &identity, config, &mut replay)?;
        Ok(OpenedReplica { log, producers: replay.0, report: Some(report) })
    }
}

/// The last part of a path, as text for a person.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
