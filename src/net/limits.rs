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

impl NetLimits {
    /// The limits of connections between nodes, on both ends. They are fixed: what a cluster of any size needs is known, and a node
    /// that speaks to its like has no other load to weigh them against.
    ///
    /// | limit | value | reason |
    /// | --- | --- | --- |
    /// | frame | 16 MiB | a message of entries has 1 MiB, or one entry: the largest decision, on 20,000 partitions, has about 1 MiB; a chunk of a snapshot 1 to 3 MiB |
    /// | frame before the hello | 4 KiB | a hello has some 200 bytes |
    /// | connections | 1,024, from any address | two for each other node, and two more while it comes back, of 256 nodes |
    /// | bytes in work | 32 MiB a connection, 128 MiB in all | two frames of the largest size; four nodes at once |
    /// | idle | 60 s | a link that has nothing to say pings every second |
    /// | frame that has begun, replies not read | 10 s | there is no slow network between nodes that work |
    /// | waiting to be written | 32 MiB | as bytes in work |
    #[must_use]
    pub const fn between_nodes() -> Self {
        Self {
            max_frame_bytes: 16 << 20,
            max_frame_bytes_before_hello: 4 << 10,
            max_connections: 1_024,
            max_connections_per_address: 1_024,
            connection_bytes_in_flight: 32 << 20,
            node_bytes_in_flight: 128 << 20,
            idle_timeout: Duration::from_secs(60),
            partial_frame_timeout: Duration::from_secs(10),
            write_queue_bytes: 32 << 20,
            write_timeout: Duration::from_secs(10),
        }
    }
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
