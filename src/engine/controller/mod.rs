//! What the controller decides: which records a request, a lease or a loss becomes. The image is the only input beside the
//! request, so that whichever controller is in office decides the same.
//!
//! ```text
//!   topics         create, alter, delete, producer ids
//!   brokers        registration, unfencing, fencing, stopping ─┐
//!   damage         replicas that were lost or are damaged      │
//!   in_sync        what a leader proposes: who joins, who      ├─► elections: settles each partition that it touches
//!                  leaves, who takes over                      │
//!   reassignment   other replicas, in one swap ────────────────┘
//!   leases         who is silent for too long: the only part that remembers, and forgets with its office
//!   balance        which leaderships go back to where they were meant to be
//! ```
//!
//! A decision is drafted on a copy of the image, record by record, so that each meets what those before it leave. The records of
//! one decision are one entry of the metadata log: all of them are applied, or none.

mod balance;
mod brokers;
mod damage;
mod elections;
mod in_sync;
mod leases;
mod reassignment;
mod topics;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
pub(crate) mod test_support;

use super::metadata::{ApplyError, ClusterImage, MetadataRecord};
use crate::protocol::{ApiError, ErrorCode};

pub use balance::{Balance, Gentleness, HandOver, out_of_place, to_preferred};
pub use brokers::{fence, register, stopping, unfence};
pub use damage::{DamageOutcome, report_damaged, report_lost};
pub use elections::{Recovery, ReplicaEnd, elect_from_last_members, settle_all, without_members};
pub use in_sync::{InSyncAccepted, InSyncProposal, InSyncRefusal, Member, alter_in_sync};
pub use leases::{LeaseTable, Leases, Renewal};
pub use reassignment::{cancel_reassignment, reassign};
pub use topics::{ControllerPolicy, INTERNAL_PREFIX, PRODUCER_ID_BLOCK};

/// What a request becomes: records for the metadata log, and the answer once they are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    /// To be appended as one entry, in this order.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub answer: T,
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(code, message))
}

/// A decision in the making: records, and the image that they leave.
struct Draft {
    image: ClusterImage,
    records: Vec<MetadataRecord>,
}

impl Draft {
    fn new(image: &ClusterImage) -> Self {
        Self { image: image.clone(), records: Vec::new() }
    }

    fn push(&mut self, record: MetadataRecord) -> Result<(), ApplyError> {
        self.image.apply(&record)?;
        self.records.push(record);
        Ok(())
    }

    fn decide<T>(self, answer: T) -> Decision<T> {
        Decision { records: self.records, answer }
    }
}

/// What did not fit the image is said to whoever asked.
fn stale(error: &ApplyError) -> ApiError {
    ApiError::new(ErrorCode::StaleMetadata, format!("{error}: refresh the metadata and try again"))
}
