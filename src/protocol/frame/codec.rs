//! Frames in a stream of bytes.

use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{Frame, FrameError, LENGTH_BYTES, MAX_REQUEST_VALUES, MIN_FRAME_BYTES, OutFrame, SegmentedBuf};
use crate::types::CorrelationId;

/// The config key of the limit that holds once a client has said hello.
pub const MAX_FRAME_BYTES_KEY: &str = "limits.max_frame_bytes";

/// Finds frames in a stream and writes them into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCodec {
    /// The longest frame that is accepted, in bytes after the length field.
    pub max_frame_bytes: usize,
    /// The config key that sets it, for the error.
    pub limit_key: &'static str,
    /// The most MessagePack values that body and attachments may have: see [`MAX_REQUEST_VALUES`].
    pub max_values: usize,
}

impl FrameCodec {
    /// For a node that reads requests.
    #[must_use]
    pub fn new(max_frame_bytes: usize) -> Self {
        Self { max_frame_bytes, limit_key: MAX_FRAME_BYTES_KEY, max_values: MAX_REQUEST_VALUES }
    }

    /// For a client that reads replies: the node it chose to talk to may describe a cluster of any size.
    #[must_use]
    pub fn for_replies(max_frame_bytes: usize) -> Self {
        Self { max_values: usize::MAX, ..Self::new(max_frame_bytes) }
    }

    /// The length of the frame that starts `bytes`, without its length field; `None` while that is incomplete.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] above the limit, [`FrameError::Malformed`] for a length that no frame can have.
    pub fn peek_length(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(field) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*field);
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= self.max_frame_bytes) else {
            return Err(FrameError::TooLarge {
                length: length.into(),
                limit: self.max_frame_bytes as u64,
                key: self.limit_key,
            });
        };
        if length < MIN_FRAME_BYTES {
            let reason = "a length below 6, the shortest frame there is";
            return Err(FrameError::Malformed { at: 0, reason, correlation_id: CorrelationId(0) });
        }
        Ok(Some(length))
    }

    /// Cuts a frame off the front of `source`, which holds all of its `length` bytes and the length field.
    ///
    /// # Errors
    /// See [`Frame::decode`].
    pub fn take_frame(&self, source: &mut BytesMut, length: usize) -> Result<Frame, FrameError> {
        source.advance(LENGTH_BYTES);
        Frame::decode(&source.split_to(length).freeze(), self.max_values)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.peek_length(source)? else {
            return Ok(None);
        };
        let whole = LENGTH_BYTES + length;
        if source.len() < whole {
            source.reserve(whole - source.len());
            return Ok(None);
        }
        self.take_frame(source, length).map(Some)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            None if !source.is_empty() => Err(FrameError::CutShort { have: source.len() }),
            decoded => Ok(decoded),
        }
    }
}

impl Encoder<OutFrame> for FrameCodec {
    type Error = FrameError;

    /// Copies the frame into `out`. A writer that cares uses [`SegmentedBuf`], which copies no attachment.
    fn encode(&mut self, frame: OutFrame, out: &mut BytesMut) -> Result<(), FrameError> {
        let mut segments = SegmentedBuf::new();
        out.reserve(frame.wire_bytes());
        segments.put_frame(frame)?;
        while segments.has_remaining() {
            let chunk = segments.chunk();
            let step = chunk.len();
            out.extend_from_slice(chunk);
            segments.advance(step);
        }
        Ok(())
    }
}
