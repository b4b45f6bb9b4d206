//! The bench's clock: nanoseconds since its start, the same for senders and readers of one process.

use crate::types::{Clock, SystemClock};

/// A monotonic clock. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct BenchClock(SystemClock);

impl BenchClock {
    /// A clock that stands at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(SystemClock::start())
    }

    /// The time since its start.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.now().0.as_nanos()).unwrap_or(u64::MAX)
    }
}
