//! A decision is a batch of records that belong together: all of them are applied, or none.
//!
//! ```text
//!   image ── clone ──► copy ── apply each record ──┬─ all fit ──► the copy takes the image's place
//!                                                  └─ one does not ──► the image stays; only its index moves
//! ```

use super::{ApplyError, ClusterImage, MetadataRecord};

impl ClusterImage {
    /// Applies a decision as a whole. The index is `index` afterwards in any case: every node counts the same decisions.
    ///
    /// # Errors
    /// [`ApplyError`] of the first record whose precondition does not hold; nothing but the index has changed then.
    pub fn apply_all(&mut self, records: &[MetadataRecord], index: u64) -> Result<(), ApplyError> {
        // Topics are shared, so that the copy costs little; those that a record changes are copied by `apply`.
        let mut copy = self.clone();
        let applied = records.iter().try_for_each(|record| copy.apply(record));
        if applied.is_ok() {
            *self = copy;
        }
        self.index = index;
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, ProducerId};

    fn reserved(next: i64) -> MetadataRecord {
        MetadataRecord::ProducerIdsReserved { next: ProducerId(next) }
    }

    #[test]
    fn a_decision_is_applied_as_a_whole_or_not_at_all() {
        let mut image = ClusterImage::empty(ClusterId(uuid::Uuid::nil()));
        assert_eq!(image.apply_all(&[reserved(10), reserved(20)], 5), Ok(()));
        assert_eq!((image.next_producer_id, image.index), (ProducerId(20), 5));
        let before = image.clone();
        let error = ApplyError::ProducerIdsGoBack { next: ProducerId(25) };
        assert_eq!(image.apply_all(&[reserved(30), reserved(25)], 6), Err(error));
        assert_eq!(image, ClusterImage { index: 6, ..before }, "nothing but the index changed");
    }
}
