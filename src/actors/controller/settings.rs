//! What a controller is made with.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::peer::{Dial, TcpDial};
use crate::engine::controller::{ControllerPolicy, Gentleness, Leases};
use crate::metrics::Metrics;
use crate::types::{Clock, SystemClock};

/// What a controller is made with.
#[derive(Clone)]
pub struct ControllerSettings {
    /// The limits and defaults of topics.
    pub policy: ControllerPolicy,
    /// How long brokers are counted on without a sign of life.
    pub leases: Leases,
    /// How gently leaderships go back to where they were meant to be.
    pub gentleness: Gentleness,
    /// What leases and patience are measured with.
    pub clock: Arc<dyn Clock>,
    /// How a broker is reached whose connection was lost.
    pub dial: Arc<dyn Dial>,
    /// Where it says how it stands.
    pub metrics: Arc<Metrics>,
}

impl ControllerSettings {
    /// A lease, from when a broker sent its renewal.
    pub const LEASE: Duration = Duration::from_secs(5);
    /// Clocks that run apart by so much within a lease are 2 % off: far more than quartz is.
    pub const DRIFT: Duration = Duration::from_millis(100);
    /// Each hand-over stops appends to a partition for a moment; more of them at once would only wait for each other.
    const GENTLENESS: Gentleness =
        Gentleness { at_most: 50, settling_time: Duration::from_secs(3), retry_after: Duration::from_secs(2) };

    /// The usual ones: the system's clock, TCP.
    #[must_use]
    pub fn new(policy: ControllerPolicy) -> Self {
        Self {
            policy,
            leases: Leases { duration: Self::LEASE, drift: Self::DRIFT },
            gentleness: Self::GENTLENESS,
            clock: Arc::new(SystemClock::start()),
            dial: Arc::new(TcpDial),
            metrics: Arc::default(),
        }
    }
}
