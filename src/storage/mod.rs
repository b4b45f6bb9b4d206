//! The log of a partition on disk, and everything else that a node keeps there.
//!
//! ```text
//!   append(batches) ──► Log ──► one vectored write ──► segment ──► begin_sync ► run ► finish_sync ──► durable
//!                        │            (append)        (segment, index, time_index)      (sync)
//!                        ├──► open: clean stop, or recovery ◄── partition_state, scan
//!                        ├──► retention: deletion at the front; truncate: at the end; follow: a follower's appends; repair
//!                        └──► LogReader: read, offset_for_timestamp        on any thread, sharing `view` with the writer
//!
//!   all of it ──► disk (a trait: the real one, or a virtual one that loses power), atomic_file, file_cache
//! ```
//!
//! Blocking code without actors and without a clock: the caller chooses the thread and passes the time in.
//!
//! A partition's directory holds `partition.meta` (whose it is), `partition.state` (how far it is known to be good),
//! `leader-epochs`, `<offset>.snapshot` (producer state), and for each segment `<base offset>.log`, `.index`, `.timeindex`
//! in Kafka's layout; `<base>.checksum` of one that was closed. `<base>.cut-<position>` is what a recovery after a power loss moved aside.
//!
//! Reading order: [`disk`], `segment`, `index`, `scan`, `log`, `append`, `sync`, `open`, `recovery`, `log_reader`, `retention`,
//! `truncate`, `follow`, `repair`, `checksum`, `scrub`, `log_scrub`.

mod append;
pub mod atomic_file;
mod beside;
mod checkpoint;
mod checksum;
mod copying;
mod create;
pub mod data_dir;
mod delete_records;
pub mod disk;
mod error;
pub mod file_cache;
mod follow;
mod index;
mod inspect;
mod leader_epochs;
mod log;
mod log_reader;
mod log_scrub;
mod open;
mod partition_state;
mod place;
mod producer_snapshots;
pub mod queue;
mod rebuild;
mod recovery;
mod repair;
mod replay;
mod retention;
mod scan;
mod scrub;
mod segment;
mod sync;
mod time_index;
mod time_lookup;
mod truncate;
mod view;

#[cfg(test)]
mod log_tests;

pub use append::Appended;
pub use beside::{SideDone, SideJob};
pub use create::{CREATING_SUFFIX, NewLog};
pub use error::LogError;
pub use inspect::{BatchAt, Problem, VerifyReport, fuzz_segment_scan, inspect};
pub use leader_epochs::LeaderEpochs;
pub use log::{Log, LogConfig};
pub use log_reader::{LogReader, LogSlice};
pub use log_scrub::{LogScrub, ScrubbedPart};
pub use open::{Cut, OpenReport};
pub use partition_state::{CleanStop, PartitionIdentity, PartitionState, RecoveryPoint};
pub use producer_snapshots::Replay;
pub use retention::{DeletedSegment, RetentionOutcome};
pub use scrub::{Digest, Scrubbed};
pub use sync::{SyncDone, SyncJob};
pub use truncate::TruncateLeave;
