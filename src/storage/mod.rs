//! Storage.
pub mod atomic_file;
mod checkpoint;
pub mod data_dir;
pub mod disk;
mod error;
pub mod file_cache;
mod index;
mod inspect;
mod leader_epochs;
mod log;
mod log_reader;
mod open;
mod partition_state;
mod producer_snapshots;
mod recovery;
mod retention;
mod scan;
mod segment;
mod sync;
mod time_index;
mod time_lookup;
mod view;

#[cfg(test)]
mod log_tests;

pub use error::LogError;
pub use inspect::{BatchAt, Problem, VerifyReport, fuzz_segment_scan, inspect};
pub use leader_epochs::LeaderEpochs;
pub use log::{Appended, CREATING_SUFFIX, Log, LogConfig};
pub use log_reader::{LogReader, LogSlice};
pub use open::{Cut, OpenReport};
pub use partition_state::{CleanStop, PartitionIdentity, PartitionState, RecoveryPoint};
pub use producer_snapshots::Replay;
pub use retention::{DeletedSegment, RetentionOutcome};
pub use sync::{SyncDone, SyncJob};
