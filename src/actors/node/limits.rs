//! What connections may cost on this machine: the configuration, and the descriptors that there are.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::NodeConfig;
use crate::net::NetLimits;

/// Descriptors kept for segments that are being written, beside those of `storage.open_files`.
pub const DESCRIPTORS_OF_ACTIVE_SEGMENTS: usize = 1_024;

/// Raises the soft limit of open files to the hard one, and returns how many files this process may have open: each
/// connection is one, and an active segment has three.
pub(super) fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// How many connections may be open: when descriptors are few, connections are refused, and never an append for want of
/// a file. Half of them at least are left to connections.
fn most_connections(wanted: usize, open_files: usize, descriptors: usize) -> usize {
    let for_logs = open_files.saturating_add(DESCRIPTORS_OF_ACTIVE_SEGMENTS).min(descriptors / 2);
    let most = wanted.min(descriptors - for_logs);
    if most < wanted {
        tracing::debug!(
            most,
            wanted,
            descriptors,
            "fewer connections than limits.max_connections: raise `ulimit -Hn` for more"
        );
    }
    most
}

pub(super) fn net_limits(config: &NodeConfig, descriptors: usize) -> NetLimits {
    let limits = &config.limits;
    NetLimits {
        max_frame_bytes: limits.max_frame_bytes as usize,
        max_frame_bytes_before_hello: limits.max_frame_bytes_before_hello as usize,
        max_connections: most_connections(limits.max_connections, config.storage.open_files, descriptors),
        max_connections_per_address: limits.max_connections_per_address,
        connection_bytes_in_flight: limits.connection_bytes_in_flight,
        node_bytes_in_flight: limits.node_bytes_in_flight,
        idle_timeout: Duration::from_millis(limits.idle_timeout_ms),
        partial_frame_timeout: Duration::from_millis(limits.partial_frame_timeout_ms),
        write_queue_bytes: limits.write_queue_bytes,
        write_timeout: Duration::from_millis(limits.write_timeout_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_descriptors_are_few_logs_keep_theirs_and_connections_are_fewer() {
        assert_eq!(most_connections(20_000, 4_096, usize::MAX), 20_000);
        assert_eq!(most_connections(20_000, 4_096, 20_000), 20_000 - 4_096 - 1_024);
        assert_eq!(most_connections(20_000, 4_096, 1_024), 512);
    }
}
