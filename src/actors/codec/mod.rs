//! One socket: bytes in, typed messages out, replies encoded. Shared by every kind of session: what there is to ask, and how
//! it is answered, is the [`Dialect`], a type. So the compiler makes a codec of its own for each kind, and a request costs what it
//! would cost if there were only one.
//!
//! * **Is told**: frames by its reader task, replies by its session.
//! * **Does**: decodes bodies, answers what no session needs to see (unknown requests, bad bodies), encodes replies.
//! * **Remembers**: the writer's queue, the frame limit.
//!
//! ```text
//!   socket ─► reader task ─ FrameArrived ─► Codec ── Incoming ─────► session
//!             (byte permits)                  │  ◄──── Reply ───────
//!   socket ◄─ writer task ◄─ bounded queue ◄──┘
//! ```
//!
//! Invariants: a frame's permits live until its reply is queued; what a client leaves unread stays within its queue and
//! the room of the fetches in work; when either direction ends, so do the other, the session and this actor.

mod actor;
mod dialect;
mod errors;
mod messages;

pub use actor::{Codec, CodecSettings, ReplyRoom, RoomFreed, serve};
pub use dialect::{Dialect, Native};
pub use messages::*;
