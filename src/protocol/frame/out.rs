//! Frames on their way out: encoded heads and shared slices in one queue of bytes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{FrameError, FrameHead, LENGTH_BYTES, msgpack};
use crate::types::CorrelationId;
use crate::types::record_batch::RecordBatch;

/// Slices up to this size are copied behind the head before them: one slice more in a system call costs about as much as
/// copying a kibibyte or two.
const COPY_UP_TO_BYTES: usize = 2_048;

/// One attachment: slices that follow each other on the wire and are never put together in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    slices: Vec<Bytes>,
    bytes: usize,
}

impl Attachment {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a slice.
    pub fn push(&mut self, slice: Bytes) {
        self.bytes += slice.len();
        self.slices.push(slice);
    }

    /// Appends a batch: its header as it is now, its records shared.
    pub fn push_batch(&mut self, batch: &RecordBatch) {
        self.push(Bytes::copy_from_slice(&batch.header.to_bytes()));
        self.push(batch.body.clone());
    }

    /// The size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl From<Bytes> for Attachment {
    fn from(slice: Bytes) -> Self {
        Self { bytes: slice.len(), slices: vec![slice] }
    }
}

impl From<&RecordBatch> for Attachment {
    fn from(batch: &RecordBatch) -> Self {
        let mut attachment = Self::new();
        attachment.push_batch(batch);
        attachment
    }
}

impl FromIterator<Bytes> for Attachment {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        let mut attachment = Self::new();
        slices.into_iter().for_each(|slice| attachment.push(slice));
        attachment
    }
}

/// A frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutFrame {
    head: FrameHead,
    body: Vec<u8>,
    attachments: Vec<Attachment>,
}

impl OutFrame {
    /// A frame of these parts. `body` is one encoded MessagePack value.
    #[must_use]
    pub fn new(head: FrameHead, body: Vec<u8>, attachments: Vec<Attachment>) -> Self {
        Self { head, body, attachments }
    }

    /// The same frame under another correlation id: for whoever encodes before the id is known.
    #[must_use]
    pub fn with_correlation_id(mut self, id: CorrelationId) -> Self {
        self.head.correlation_id = id;
        self
    }

    /// Its head.
    #[must_use]
    pub fn head(&self) -> FrameHead {
        self.head
    }

    /// What it takes on the wire in bytes, the length field included.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let attachment_bytes = |attachment: &Attachment| msgpack::bin_length_bytes(attachment.len()) + attachment.len();
        LENGTH_BYTES
            + 1
            + msgpack::uint_bytes(self.head.api.into())
            + msgpack::uint_bytes(self.head.version.into())
            + msgpack::uint_bytes(self.head.correlation_id.0)
            + self.body.len()
            + msgpack::array_length_bytes(self.attachments.len())
            + self.attachments.iter().map(attachment_bytes).sum::<usize>()
    }
}

/// Bytes to be written, in segments: what is small stands together in one buffer, what is large stays where it is. As a
/// [`Buf`] it hands all segments to one vectored write.
#[derive(Debug, Default)]
pub struct SegmentedBuf {
    segments: VecDeque<Bytes>,
    /// What follows the segments: the end of the queue, where small things are written.
    tail: BytesMut,
    segment_bytes: usize,
}

impl SegmentedBuf {
    /// An empty queue. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when its length does not fit the length field. Nothing is appended then.
    pub fn put_frame(&mut self, frame: OutFrame) -> Result<(), FrameError> {
        let payload_bytes = frame.wire_bytes() - LENGTH_BYTES;
        // With the whole below 4 GiB, every count and length inside it is.
        let length = u32::try_from(payload_bytes).map_err(|_| FrameError::TooLarge {
            length: payload_bytes as u64,
            limit: u32::MAX.into(),
            key: "limits.max_frame_bytes",
        })?;
        self.tail.reserve(LENGTH_BYTES + 32 + frame.body.len().min(COPY_UP_TO_BYTES));
        self.tail.put_u32(length);
        msgpack::put_array_length(&mut self.tail, 5);
        msgpack::put_uint(&mut self.tail, frame.head.api.into());
        msgpack::put_uint(&mut self.tail, frame.head.version.into());
        msgpack::put_uint(&mut self.tail, frame.head.correlation_id.0);
        if frame.body.len() <= COPY_UP_TO_BYTES {
            self.tail.put_slice(&frame.body);
        } else {
            self.put_shared(frame.body.into());
        }
        msgpack::put_array_length(&mut self.tail, frame.attachments.len() as u32);
        for attachment in frame.attachments {
            msgpack::put_bin_length(&mut self.tail, attachment.len() as u32);
            attachment.slices.into_iter().for_each(|slice| self.put_shared(slice));
        }
        Ok(())
    }

    /// Gives memory back that an empty queue does not need. An idle connection holds none.
    pub fn release_memory(&mut self) {
        if !self.has_remaining() {
            *self = Self::default();
        }
    }

    /// How many segments a vectored write would hand over.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len() + usize::from(!self.tail.is_empty())
    }

    fn put_shared(&mut self, slice: Bytes) {
        if slice.len() <= COPY_UP_TO_BYTES {
            self.tail.put_slice(&slice);
            return;
        }
        if !self.tail.is_empty() {
            let sealed = self.tail.split().freeze();
            self.push_segment(sealed);
        }
        self.push_segment(slice);
    }

    fn push_segment(&mut self, segment: Bytes) {
        self.segment_bytes += segment.len();
        self.segments.push_back(segment);
    }
}

impl Buf for SegmentedBuf {
    fn remaining(&self) -> usize {
        self.segment_bytes + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&self.tail, |segment| segment)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail: &[u8] = &self.tail;
        let all = self.segments.iter().map(Bytes::as_ref).chain((!tail.is_empty()).then_some(tail));
        let mut count = 0;
        for (slot, segment) in out.iter_mut().zip(all) {
            *slot = IoSlice::new(segment);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut by: usize) {
        assert!(by <= self.remaining(), "advancing past the end of the queue");
        while by > 0 {
            let Some(front) = self.segments.front_mut() else {
                self.tail.advance(by);
                return;
            };
            let step = by.min(front.len());
            front.advance(step);
            by -= step;
            self.segment_bytes -= step;
            if front.is_empty() {
                self.segments.pop_front();
            }
        }
    }
}
