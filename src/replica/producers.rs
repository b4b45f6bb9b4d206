//! The producers of a partition, rebuilt from its log.

use crate::engine::producer_state::{ProducerTable, Verdict};
use crate::storage::Replay;
use crate::types::Offset;
use crate::types::record_batch::BatchHeader;

/// A table that takes in what a log says of its producers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerReplay(pub ProducerTable);

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

    /// The log holds only what was new when it was appended.
    fn fits(&self, header: &BatchHeader) -> bool {
        self.0.has_gaps() || self.0.judge(header) == Verdict::New
    }

    fn gap(&mut self) {
        self.0.note_gap();
    }
}
