//! One replica of one partition, between its engine and its log: what actors and simulated brokers do alike.
//!
//! ```text
//!   engine::leader, engine::follower ── commands ──► here ── LogWork ──► storage::queue
//!                                     ◄── events ───      ◄── LogNews ──
//! ```

mod errors;
mod opening;
mod producers;
mod shell;

pub use errors::storage_error;
pub use opening::{JOBS_AT_A_TIME, OpenJob, OpenedReplica, open_all};
pub use producers::ProducerReplay;
pub use shell::{Answer, Effect, ReadState, Replica, ReplicaSettings};

use crate::engine::damage::Damage;
use crate::engine::metadata::LastStop;
use crate::engine::producer_state::ProducerTable;
use crate::engine::replication::ReplicaState;
use crate::storage::Log;
use crate::storage::data_dir::{DataDir, DataDirError};
use crate::types::{EpochHistory, Mutant};

/// What a replica whose log was just opened starts with.
#[must_use]
pub fn state_of(log: &Log, producers: ProducerTable) -> ReplicaState {
    ReplicaState {
        log_start: log.log_start(),
        durable_end: log.durable_end(),
        written_end: log.written_end(),
        high_watermark: log.saved_high_watermark(),
        epochs: EpochHistory::clone(log.leader_epochs()),
        producers,
        damage: Damage::found(&log.reader().damaged_ranges(), log.log_start(), log.written_end()),
    }
}

/// How the last process on the directory ended, as far as it tells. Takes the marker of a clean stop away.
///
/// # Errors
/// The disk's.
pub fn last_stop(directory: &DataDir) -> Result<LastStop, DataDirError> {
    let is_new = directory.meta().broker_epoch.is_none();
    Ok(if directory.take_clean_stop()?.is_some() || is_new {
        LastStop::Clean
    } else if directory.has_seen_another_boot()? && !Mutant::OverlooksPowerLosses.is_on() {
        LastStop::Machine
    } else {
        LastStop::Process
    })
}
