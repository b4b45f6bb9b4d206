//! Ports for nodes: counted up from a base, or free ones.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Where free ports are looked for: below those that systems give to outgoing connections (from 32768 on Linux), so that a
/// node which was killed finds its port free when it comes back.
const CANDIDATES: Range<u16> = 15_000..32_000;
/// So many are tried for each port before this machine counts as full.
const ATTEMPTS: usize = 1_000;

/// What this process has given out: clusters of tests that start side by side must not meet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// The first peer port of a cluster that counts from a base, less the node's number.
const PEER_OFFSET: u16 = 56;
/// The same for HTTP.
const HTTP_OFFSET: u16 = 156;
/// The last port that a cluster may need, above its base.
const SPAN: u16 = HTTP_OFFSET + 100;

/// The ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// Where clients connect; none for a node that is only controller.
    pub native: Option<u16>,
    /// Where other nodes connect.
    pub peer: u16,
    /// Metrics and probes.
    pub http: u16,
}

/// Where the ports of a cluster come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Free ones, different at each start.
    #[default]
    Free,
    /// Native ports from here on; with 9644 they are those of the example configurations: peers at 9700 and HTTP at 9800, plus the
    /// node's number.
    From(u16),
}

impl Ports {
    /// The highest base whose cluster still fits below 65536.
    pub const HIGHEST_BASE: u16 = u16::MAX - SPAN;

    /// Ports for a node with this number, the `broker`th one that serves clients (none: it does not).
    ///
    /// # Errors
    /// That no port is free.
    pub fn of(self, id: u16, broker: Option<u16>) -> io::Result<NodePorts> {
        match self {
            Self::From(base) => Ok(NodePorts {
                native: broker.map(|index| base + index),
                peer: base + PEER_OFFSET + id,
                http: base + HTTP_OFFSET + id,
            }),
            Self::Free => Ok(NodePorts { native: broker.map(|_| free()).transpose()?, peer: free()?, http: free()? }),
        }
    }
}

/// A port of the loopback address that nobody listens on, and that nobody else in this process was given.
fn free() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let port = fastrand::u16(CANDIDATES);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port was found: end some programs that listen"))
}
