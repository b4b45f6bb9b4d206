//! Frames: the head and its attachments, before and after the bytes.
//!
//! ```text
//!   socket ─► FrameCodec ─► Frame { head, body, attachments }     slices of the bytes that came in, nothing copied
//!                             │ decode_body / decode_reply
//!                             ▼
//!                        protocol::messages
//!                             │ encode_request / encode_reply
//!                             ▼
//!   socket ◄─ SegmentedBuf ◄─ OutFrame { head, body, attachments }   the head is encoded, attachments follow as they are
//! ```
//!
//! A frame is a `u32` big-endian length and one MessagePack array of five: `[api, version, correlation id, body, [bin, …]]`.
//! The decoder knows no message: it steps over the body without recursion and slices the attachments off. What the
//! sender claims (lengths, counts, depth) is checked against the bytes that are there before anything is reserved for it.
//!
//! Reading order: this file, [`codec`], [`out`], [`body`]; docs/protocol.md specifies the bytes.

pub mod body;
pub mod codec;
mod msgpack;
pub mod out;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{ApiError, ErrorCode};
use crate::types::CorrelationId;

pub use body::{
    decode_body, decode_outcome, decode_reply, encode_outcome, encode_peer_request, encode_reply, encode_request,
};
pub use codec::FrameCodec;
pub use out::{Attachment, OutFrame, SegmentedBuf};

/// Bytes of the length field in front of a frame. It does not count itself.
pub const LENGTH_BYTES: usize = 4;
/// The fewest bytes a frame can have after its length: the array, three small numbers, an empty body, no attachments.
pub const MIN_FRAME_BYTES: usize = 6;
/// The most MessagePack values that a request's body and attachments may consist of. A value of one byte can cost dozens
/// in memory (an empty string costs 24), so bytes alone do not bound what decoding costs.
pub const MAX_REQUEST_VALUES: usize = 262_144;
/// How deep the values of a body may nest. The deepest message of this protocol nests eight deep.
pub const MAX_DEPTH: usize = 32;

/// The first three elements of a frame. A reply repeats those of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Which request: see [`super::Api`].
    pub api: u16,
    /// Which version of it.
    pub version: u16,
    /// Chosen by the client to match the reply. 0 also marks an error that concerns the connection as a whole.
    pub correlation_id: CorrelationId,
}

/// A frame that came in. All parts share the bytes that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub head: FrameHead,
    /// One MessagePack value, checked for its form, not decoded.
    pub body: Bytes,
    /// Record batches and the like, in the order in which the body names them.
    pub attachments: Vec<Bytes>,
}

impl Frame {
    /// Takes a frame apart. `payload` is what follows the length field; at most `max_values` MessagePack values are
    /// accepted in its body and attachments together.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] says where and why. It carries the correlation id if that could be read.
    pub fn decode(payload: &Bytes, max_values: usize) -> Result<Self, FrameError> {
        let mut correlation_id = CorrelationId(0);
        decode_parts(payload, max_values, &mut correlation_id).map_err(|at| FrameError::Malformed {
            at: at.at,
            reason: at.reason,
            correlation_id,
        })
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] when it is not what `T` is made of.
    pub fn decode_body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        body::decode_checked(&self.body)
    }
}

fn decode_parts(
    payload: &Bytes,
    max_values: usize,
    correlation_id: &mut CorrelationId,
) -> Result<Frame, msgpack::Malformed> {
    let mut reader = msgpack::Reader::new(payload);
    if reader.array_length()? != 5 {
        return Err(reader.malformed("a frame is an array of five: api, version, correlation id, body, attachments"));
    }
    let api = reader.u16("the api is no number from 0 to 65535")?;
    let version = reader.u16("the version is no number from 0 to 65535")?;
    *correlation_id = CorrelationId(reader.u32("the correlation id is no number from 0 to 4294967295")?);
    let body_from = reader.position();
    let values = reader.skip_value(max_values)?;
    let body = payload.slice(body_from..reader.position());
    let count = reader.array_length()?;
    // The shortest attachment takes two bytes: a marker and a length of 0.
    if count > reader.remaining() / 2 {
        return Err(reader.malformed("more attachments than the remaining bytes could hold"));
    }
    if count + values > max_values {
        return Err(reader.malformed("more values than a frame may have: split the request"));
    }
    let mut attachments = Vec::with_capacity(count);
    for _ in 0..count {
        let length = reader.bin_length()?;
        let from = reader.position();
        reader.advance(length)?;
        attachments.push(payload.slice(from..from + length));
    }
    if reader.remaining() > 0 {
        return Err(reader.malformed("bytes follow the attachments"));
    }
    Ok(Frame { head: FrameHead { api, version, correlation_id: *correlation_id }, body, attachments })
}

/// Why bytes are not a frame, or could not be read. None can be retried on the same connection: where the next frame
/// starts is not known.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the limit in force.
    #[error("a frame of {length} bytes is above the limit of {limit} bytes: send smaller frames or raise {key}")]
    TooLarge {
        /// What the length field says.
        length: u64,
        /// The limit in force.
        limit: u64,
        /// The config key that sets the limit.
        key: &'static str,
    },
    /// Not a frame.
    #[error("the frame is malformed at byte {at}: {reason}")]
    Malformed {
        /// Where, from the first byte after the length field.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
        /// The frame's correlation id, 0 if it could not be read.
        correlation_id: CorrelationId,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame, {have} bytes after its start")]
    CutShort {
        /// Bytes that came, those of the length field included.
        have: usize,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

impl FrameError {
    /// The error that a peer is told, and under which correlation id.
    #[must_use]
    pub fn to_api_error(&self) -> (CorrelationId, ApiError) {
        let (id, code) = match self {
            Self::TooLarge { .. } => (CorrelationId(0), ErrorCode::FrameTooLarge),
            Self::Malformed { correlation_id, .. } => (*correlation_id, ErrorCode::InvalidRequest),
            Self::CutShort { .. } => (CorrelationId(0), ErrorCode::InvalidRequest),
            Self::Io(_) => (CorrelationId(0), ErrorCode::Unknown),
        };
        (id, ApiError::new(code, self.to_string()))
    }
}

#[cfg(test)]
mod tests;
