//! What must never be found in a history: one variant for each way in which a rule of [`super::history`] is broken.

use super::history::{Place, RecordId};
use crate::types::Offset;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Rule 1.
    #[error("{reader} saw offset {after} of {place} after offset {before}")]
    NotRising {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// The offset seen first.
        before: Offset,
        /// The offset seen next.
        after: Offset,
    },
    /// Rule 2.
    #[error("{reader} saw '{value}' at {place}@{offset}, which nobody sent there")]
    NeverSent {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// At which offset.
        offset: Offset,
        /// What.
        value: String,
    },
    /// Rule 3.
    #[error("{place}@{offset} is record {first} to {first_witness} and record {second} to {second_witness}")]
    TwoContents {
        /// Where.
        place: Place,
        /// At which offset.
        offset: Offset,
        /// One content.
        first: RecordId,
        /// Who has it.
        first_witness: String,
        /// The other.
        second: RecordId,
        /// Who has that.
        second_witness: String,
    },
    /// Rule 4.
    #[error("record {record} is at {place}@{first} to {first_witness} and at {place}@{second} to {second_witness}")]
    Twice {
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// One offset.
        first: Offset,
        /// Who saw it there.
        first_witness: String,
        /// The other.
        second: Offset,
        /// Who saw it there.
        second_witness: String,
    },
    /// Rule 5.
    #[error("{reader} saw record {later} before record {earlier} in {place}")]
    OutOfOrder {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// What was sent first and seen last.
        earlier: RecordId,
        /// What was sent last and seen first.
        later: RecordId,
    },
    /// Rule 6: it is not there.
    #[error("{reader} never saw record {record}, which was acknowledged at {place}@{offset}")]
    Missing {
        /// Who.
        reader: String,
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// Where it should be.
        offset: Offset,
    },
    /// Rule 6: it is somewhere else.
    #[error("{reader} saw record {record} at {place}@{seen}, it was acknowledged at {place}@{acknowledged}")]
    Elsewhere {
        /// Who.
        reader: String,
        /// What.
        record: RecordId,
        /// Where.
        place: Place,
        /// Where it was seen.
        seen: Offset,
        /// Where it should be.
        acknowledged: Offset,
    },
    /// Rule 7.
    #[error("{reader} passed over {place}@{offset}, where {witness} saw record {record}")]
    Skipped {
        /// Who.
        reader: String,
        /// Where.
        place: Place,
        /// The offset that it did not see.
        offset: Offset,
        /// What is there.
        record: RecordId,
        /// Who saw it.
        witness: String,
    },
}
