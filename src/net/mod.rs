//! Sockets: who may connect, how bytes come in without flooding memory, how they go out in few system calls.
//!
//! ```text
//!             ┌ Listener ┐      Connection { stream, peer_addr, permit }
//!   clients ─►│ limits   │───────────────┐
//!             └──────────┘               ▼
//!                              ┌ read half ─► Reader ─ permit per frame ─► ReceivedFrame ─► codec, session
//!                              └ write half ◄─ Writer ◄─ bounded in bytes ◄── OutFrame ◄──── codec, session
//! ```
//!
//! Each queue here is bounded in bytes, and each wait has a deadline: a client that sends half a frame, that never reads
//! its replies or that floods costs a bounded amount of memory and time, and TCP pushes back on it. Knows frames, not
//! messages. Runs on any tokio runtime.
//!
//! Reading order: [`limits`], [`listener`], [`budget`], [`reader`], [`mod@writer`].

pub mod budget;
pub mod limits;
pub mod listener;
pub mod read_end;
pub mod reader;
pub mod writer;

pub use budget::{ByteBudget, FramePermit, FrameRoom, NodeBudget};
pub use limits::NetLimits;
pub use listener::{BindError, Connection, ConnectionCounts, ConnectionGate, ConnectionPermit, Listener, bind};
pub use read_end::ReadEnd;
pub use reader::{FrameLimit, Reader, ReceivedFrame};
pub use writer::{SendError, WriteEnd, Writer, WriterHandle, writer};
