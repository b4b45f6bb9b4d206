//! The native protocol: what a frame is, which requests there are, what can go wrong.
//!
//! ```text
//!   u32 length ─► [api, version, correlation id, body, [bin, …]]      one MessagePack array a frame
//!                  ───────────┬───────────────── ────┬────── ───┬────
//!                           frame                messages    attachments: record batches, never copied
//! ```
//!
//! Reading order: [`api`], [`frame`], [`messages`], [`error`]; between nodes [`peer_api`], [`messages::peer`]. docs/protocol.md specifies the same for other languages.

pub mod api;
pub mod error;
pub mod frame;
pub mod messages;
pub mod peer_api;

pub use api::Api;
pub use error::{ApiError, ErrorCode};
pub use peer_api::PeerApi;
