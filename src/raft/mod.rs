//! The controllers' consensus: openraft over our storage, with the metadata image as its state machine.
//!
//! ```text
//!   controller ── Decision ──► openraft ──┬─► LogStore ──► LogFiles: storage::Log, voter file     on a thread that blocks
//!        ▲                         │ ▲    └─► StateMachine ──► ClusterImage, SnapshotFiles
//!        └──────── Decided ────────┘ │
//!                       Network ─► RaftTransport ◄─► other members
//! ```
//!
//! What openraft is trusted with: who leads, what is committed, who is a member. What is ours, and has to hold for that:
//! 1. What was acknowledged is on disk: an entry, a vote, a purge, a snapshot. [`LogFiles`], [`SnapshotFiles`].
//! 2. A member that has forgotten something takes no part: a damaged or missing file, a hole in the log, or another
//!    directory's files end the start with an error. It comes back as a new member with an empty directory.
//! 3. A decision is applied as a whole or not at all, the same on every member. [`StateMachine`].
//! 4. What was applied never goes back, whatever snapshot arrives.
//!
//! An entry's index is an offset of the log, and one more is the image's index after it.
//!
//! Reading order: [`types`](self::RaftId), `format`, [`LogFiles`], [`SnapshotFiles`], [`RaftStorage`], [`StateMachine`],
//! [`begin_with`], [`RaftTransport`]. ADR 21 says why openraft, ADR 19 how far it runs deterministically.

mod beginning;
mod disk_work;
mod error;
mod format;
mod log_files;
mod log_store;
mod lost_entries;
mod open;
mod recent_entries;
mod snapshot_files;
mod state_machine;
mod transport;
mod types;
mod voter_file;

pub use beginning::{NewestImage, begin_with, newest_image, owner};
pub use disk_work::DiskWork;
pub use error::{EntryError, RaftIdentity, RaftStorageError, cause_of};
pub use format::{FoundEntry, decode_entry, encode_entry};
pub use log_files::{LogFiles, LogState, RaftPlace};
pub use log_store::LogStore;
pub use open::{RaftStorage, RaftWork};
pub use recent_entries::RecentEntries;
pub use snapshot_files::{SavedSnapshot, SnapshotFiles, decode_image, encode_image};
pub use state_machine::{AppliedImage, SnapshotBuilder, StateMachine};
pub use transport::{Addressee, Network, Peer, RaftTransport, TransportError};
pub use types::{
    ControllerNode, Decided, Decision, Fatal, LogId, MetadataRaft, RaftId, SnapshotMeta, StorageError,
    StoredMembership, TypeConfig, Vote,
};

/// Raft as a controller runs it.
pub type Raft = openraft::Raft<TypeConfig>;
