//! Bodies: messages to MessagePack and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Attachment, Frame, FrameHead, MAX_DEPTH, OutFrame, msgpack};
use crate::protocol::messages::peer::PeerRequest;
use crate::protocol::messages::{Outcome, Request};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::CorrelationId;

/// What the body of a request for a partition or two takes at most.
const USUAL_BODY_BYTES: usize = 128;

/// A request as a frame.
#[must_use]
pub fn encode_request<R: Request>(request: &R, id: CorrelationId, attachments: Vec<Attachment>) -> OutFrame {
    let head = FrameHead { api: R::API.number(), version: R::VERSION, correlation_id: id };
    OutFrame::new(head, encode_body(request), attachments)
}

/// A request to another node as a frame.
#[must_use]
pub fn encode_peer_request<R: PeerRequest>(request: &R, id: CorrelationId, attachments: Vec<Attachment>) -> OutFrame {
    let head = FrameHead { api: R::API.number(), version: R::VERSION, correlation_id: id };
    OutFrame::new(head, encode_body(request), attachments)
}

/// The answer to the request with this head: `[error, payload]`, one of them nil.
#[must_use]
pub fn encode_reply<R: Request>(
    head: FrameHead,
    result: Result<R::Reply, ApiError>,
    attachments: Vec<Attachment>,
) -> OutFrame {
    encode_outcome(head, result, attachments)
}

/// The same for a payload of any kind.
#[must_use]
pub fn encode_outcome<T: Serialize>(
    head: FrameHead,
    result: Result<T, ApiError>,
    attachments: Vec<Attachment>,
) -> OutFrame {
    OutFrame::new(head, encode_body(&Outcome::from(result)), attachments)
}

impl OutFrame {
    /// An error for the request with this head, whichever request it was.
    #[must_use]
    pub fn error(head: FrameHead, error: ApiError) -> Self {
        Self::new(head, encode_body(&Outcome::<()>::from(Err(error))), Vec::new())
    }

    /// An error that concerns the connection as a whole, sent before it is closed. Its api and correlation id are 0.
    #[must_use]
    pub fn connection_error(error: ApiError) -> Self {
        let head =
            FrameHead { api: 0, version: crate::protocol::api::PROTOCOL_VERSION, correlation_id: CorrelationId(0) };
        Self::error(head, error)
    }
}

/// Decodes a body that did not come in a [`Frame`]: exactly one value, and all fields of `T`.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] for anything else, trailing bytes and missing fields included.
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = msgpack::Reader::new(bytes);
    reader.skip_value(usize::MAX).map_err(|e| invalid::<T>(&format!("{} at byte {}", e.reason, e.at)))?;
    if reader.remaining() > 0 {
        return Err(invalid::<T>(&format!("{} bytes follow it", reader.remaining())));
    }
    decode_checked(bytes)
}

/// Decodes the answer to a request of type `R`.
///
/// # Errors
/// What the peer answered instead, or [`ErrorCode::InvalidRequest`] when its answer cannot be read.
pub fn decode_reply<R: Request>(frame: &Frame) -> Result<R::Reply, ApiError> {
    decode_outcome(frame)
}

/// Decodes an answer whose payload is a `T`.
///
/// # Errors
/// As [`decode_reply`].
pub fn decode_outcome<T: DeserializeOwned>(frame: &Frame) -> Result<T, ApiError> {
    frame.decode_body::<Outcome<T>>()?.into_result()
}

/// Decodes bytes that are known to be exactly one value whose counts fit its bytes. serde reserves at most a mebibyte for
/// a sequence before its elements came; the depth limit keeps hostile nesting off the stack.
pub(super) fn decode_checked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    // The decoder counts one level more than the nesting of the values.
    decoder.set_max_depth(MAX_DEPTH + 1);
    T::deserialize(&mut decoder).map_err(|e| invalid::<T>(&e.to_string()))
}

fn encode_body<T: Serialize>(message: &T) -> Vec<u8> {
    // Room for what goes with most produces and fetches, or it would grow five times on the way.
    let mut body = Vec::with_capacity(USUAL_BODY_BYTES);
    // Writing to memory cannot fail, and no message has a sequence of unknown length or a foreign number type.
    rmp_serde::encode::write(&mut body, message).expect("a message of this protocol is always encodable");
    body
}

fn invalid<T>(cause: &str) -> ApiError {
    let name = std::any::type_name::<T>();
    // `callboard::protocol::messages::data::Fetch` to `Fetch`; the modules of generic arguments go with it.
    let name = name.split('<').next().and_then(|plain| plain.rsplit("::").next()).unwrap_or(name);
    let text = format!("the body is not a {name} as docs/protocol.md describes it: {cause}");
    ApiError::new(ErrorCode::InvalidRequest, text)
}
