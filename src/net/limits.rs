//! What connections may cost.

use std::time::Duration;

/// The limits of connections. Each is the config key `limits.<name of the field>`; durations have the unit in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// The longest frame that is read after `Hello`, in bytes.
    pub max_frame_bytes: usize,
    /// The longest frame that is read before `Hello`, in bytes: enough for a `Hello` with credentials.
    pub max_frame_bytes_before_hello: usize,
    /// How many connections there may be in all.
    pub max_connections: usize,
    /// How many connections one address may have.
    pub max_connections_per_address: usize,
    /// How many bytes of frames of one connection may be in work.
    pub connection_bytes_in_flight: usize,
    /// How many bytes of frames of all connections may be in work.
    pub node_bytes_in_flight: usize,
    /// How long a connection may stay open with nothing asked and nothing to answer (`limits.idle_timeout_ms`).
    pub idle_timeout: Duration,
    /// How long a frame that has begun may take to arrive (`limits.partial_frame_timeout_ms`).
    pub partial_frame_timeout: Duration,
    /// How many bytes of replies may wait to be sent on one connection.
    pub write_queue_bytes: usize,
    /// How long a client may take nothing of what it is sent (`limits.write_timeout_ms`).
    pub write_timeout: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 16 << 20,
            max_frame_bytes_before_hello: 16 << 10,
            max_connections: 20_000,
            max_connections_per_address: 10_000,
            connection_bytes_in_flight: 16 << 20,
            node_bytes_in_flight: 128 << 20,
            idle_timeout: Duration::from_secs(600),
            partial_frame_timeout: Duration::from_secs(30),
            write_queue_bytes: 16 << 20,
            write_timeout: Duration::from_secs(30),
        }
    }
}
