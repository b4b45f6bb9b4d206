//! What nodes say to each other: the same frames as clients', with requests of their own.
//!
//! ```text
//!   PeerHello ─► who is it, of which cluster, and whom does it look for     once, first
//!   Ping      ─► is anybody there                                           when nothing else was heard for a while
//!   Find…, Form…      ─► which controller decides; who the controllers of a new cluster are         see `controllers`
//!   Forward…          ─► what clients ask of a node that does not decide it                         see `controllers`
//!   Raft…             ─► the controllers' consensus                                                 see `raft`
//!   Register…, Renew… ─► what brokers ask of the controller that decides                            see `brokers`
//!   FetchReplicas     ─► what followers ask of leaders                                              see `replicas`
//! ```

#[cfg(test)]
mod broker_tests;
mod brokers;
mod controllers;
mod hello;
mod raft;
mod replicas;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::protocol::peer_api::PeerApi;

pub use brokers::*;
pub use controllers::*;
pub use hello::*;
pub use raft::*;
pub use replicas::*;

/// A request body between nodes. A trait of its own, so that none can be sent to, or served by, the side of clients.
pub trait PeerRequest: Serialize + for<'de> Deserialize<'de> + Send + 'static {
    /// Its number in the frame.
    const API: PeerApi;
    /// The version that this code encodes.
    const VERSION: u16 = 1;
    /// What answers it.
    type Reply: Serialize + for<'de> Deserialize<'de> + Send + 'static;
}
