//! How much went how fast.

use std::time::Duration;

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that were acknowledged.
    pub bytes: u64,
    /// From the first byte to the last acknowledgement.
    pub elapsed: Duration,
}
