//! What nodes say to each other: the same frames as clients', with requests of their own.
//!
//! ```text
//!   PeerHello ─► who is it, of which cluster, and whom does it look for     once, first
//!   Ping      ─► is anybody there                                           when nothing else was heard for a while
//!   Raft…     ─► the controllers' consensus                                 see `raft`
//! ```

mod hello;
mod raft;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::protocol::peer_api::PeerApi;

pub use hello::*;
pub use raft::*;

/// A request body between nodes. A trait of its own, so that none can be sent to, or served by, the side of clients.
pub trait PeerRequest: Serialize + for<'de> Deserialize<'de> + Send + 'static {
    /// Its number in the frame.
    const API: PeerApi;
    /// The version that this code encodes.
    const VERSION: u16 = 1;
    /// What answers it.
    type Reply: Serialize + for<'de> Deserialize<'de> + Send + 'static;
}
