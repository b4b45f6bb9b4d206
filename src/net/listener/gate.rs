//! How many connections there are, and whether one more may come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The node has as many connections as it may have.
    #[error("the node has {limit} connections, the limit set by limits.max_connections: close some or raise it")]
    Node {
        /// The limit.
        limit: usize,
    },
    /// The address has as many connections as it may have.
    #[error(
        "{address} has {limit} connections, the limit set by limits.max_connections_per_address: close some or raise it"
    )]
    Address {
        /// Who.
        address: IpAddr,
        /// The limit.
        limit: usize,
    },
}

/// Counts connections against their limits. Clones share the count.
#[derive(Clone, Debug)]
pub struct ConnectionGate {
    limit: usize,
    limit_per_address: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    so_far: ConnectionCounts,
    /// Only addresses that have a connection are in here, so it is bounded by the limit in all.
    by_address: HashMap<IpAddr, usize>,
}

/// How many connections there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: usize,
    /// Let in so far.
    pub accepted: u64,
    /// Refused so far because of the limit in all.
    pub refused_by_node_limit: u64,
    /// Refused so far because of the limit of their address.
    pub refused_by_address_limit: u64,
}

impl ConnectionGate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(limit: usize, limit_per_address: usize) -> Self {
        Self { limit, limit_per_address, counts: Arc::default() }
    }

    /// Lets a connection from `address` in, if it may.
    ///
    /// # Errors
    /// [`Refused`] names the limit.
    pub fn admit(&self, address: IpAddr) -> Result<ConnectionPermit, Refused> {
        // An IPv4 client of a socket for both families is the same client.
        let address = address.to_canonical();
        let mut counts = self.lock();
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.so_far.open >= self.limit {
            counts.so_far.refused_by_node_limit += 1;
            return Err(Refused::Node { limit: self.limit });
        }
        if of_address >= self.limit_per_address {
            counts.so_far.refused_by_address_limit += 1;
            return Err(Refused::Address { address, limit: self.limit_per_address });
        }
        counts.so_far.open += 1;
        counts.so_far.accepted += 1;
        counts.by_address.insert(address, of_address + 1);
        drop(counts);
        Ok(ConnectionPermit { gate: self.clone(), address })
    }

    /// How many there are and were.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        self.lock().so_far
    }

    /// How many connections there may be in all.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.counts().open
    }

    /// Connections that were refused so far.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        let counts = self.counts();
        counts.refused_by_node_limit + counts.refused_by_address_limit
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place. Dropping it lets another one in.
#[derive(Debug)]
pub struct ConnectionPermit {
    gate: ConnectionGate,
    address: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        counts.so_far.open -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}
