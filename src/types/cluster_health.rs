//! How a cluster is, in figures.

/// Brokers by their state, and partitions that are not as they should be. One counts wherever it fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Brokers that are counted on and stay.
    pub brokers_up: u64,
    /// Brokers that are counted on, and about to stop.
    pub brokers_stopping: u64,
    /// Brokers that are registered, and not counted on.
    pub brokers_fenced: u64,
    /// Partitions that nobody leads.
    pub without_leader: u64,
    /// Partitions with fewer replicas in sync than `min_insync_replicas`.
    pub below_minimum: u64,
    /// Partitions with a replica that is not in sync.
    pub under_replicated: u64,
}
