//! Opening a replica's log: producers rebuilt, leftovers of an interrupted creation replaced.

use std::path::PathBuf;
use std::sync::Arc;

use super::ProducerReplay;
use crate::engine::producer_state::ProducerTable;
use crate::storage::disk::Disk;
use crate::storage::file_cache::FileCache;
use crate::storage::{Log, LogConfig, LogError, NewLog, OpenReport, PartitionIdentity};

/// What it takes to open a replica. Blocks.
#[derive(Clone)]
pub struct OpenJob {
    /// Where.
    pub disk: Arc<dyn Disk>,
    /// The open files that all logs share.
    pub files: Arc<FileCache>,
    /// Its directory.
    pub dir: PathBuf,
    /// Whose it is.
    pub identity: PartitionIdentity,
    /// How it is kept.
    pub config: LogConfig,
    /// Whether the partition may not have been on this disk before. If it was, a directory that is missing was lost.
    pub may_be_new: bool,
}

/// A replica whose log is open.
#[derive(Debug)]
pub struct OpenedReplica {
    /// Its log.
    pub log: Log,
    /// The producers at its end.
    pub producers: ProducerTable,
    /// What opening found; `None` for a new one.
    pub report: Option<OpenReport>,
}

/// How many replicas one job opens or creates. New ones share a sync of their parent; the threads still share the work.
pub const JOBS_AT_A_TIME: usize = 32;

/// Runs each job, and tells `done` its number and what came of it. What is not there is created, all of it together.
pub fn open_all(jobs: Vec<OpenJob>, mut done: impl FnMut(usize, Result<OpenedReplica, LogError>)) {
    let (mut numbers, mut new) = (Vec::new(), Vec::new());
    let Some((disk, files)) = jobs.first().map(|job| (Arc::clone(&job.disk), Arc::clone(&job.files))) else { return };
    for (number, job) in jobs.into_iter().enumerate() {
        match disk.exists(&job.dir) {
            Err(error) => done(number, Err(error.into())),
            Ok(false) if job.may_be_new => {
                numbers.push(number);
                new.push(NewLog { dir: job.dir, identity: job.identity, config: job.config });
            }
            Ok(false) => done(number, Err(LogError::LostPartition { path: job.dir })),
            Ok(true) => done(number, job.open()),
        }
    }
    let opened = |log| OpenedReplica { log, producers: ProducerTable::default(), report: None };
    for (number, created) in numbers.into_iter().zip(Log::create_all(&disk, &files, new)) {
        done(number, created.map(opened));
    }
}

impl OpenJob {
    fn open(self) -> Result<OpenedReplica, LogError> {
        let Self { disk, files, dir, identity, config, may_be_new: _ } = self;
        let mut replay = ProducerReplay::default();
        let (log, report) = Log::open(disk, files, &dir, &identity, config, &mut replay)?;
        Ok(OpenedReplica { log, producers: replay.0, report: Some(report) })
    }
}
