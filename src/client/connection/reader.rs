//! The replies of one connection: bytes to frames.
//!
//! Small frames are slices of one buffer, many to a read. A large one gets a buffer of its own, into which the socket is read
//! without a further copy, and which is used again once nobody holds a part of it.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::lock;
use crate::client::spare::Spares;
use crate::protocol::frame::{Frame, FrameCodec, FrameError, LENGTH_BYTES};

/// What one read may bring of small frames: dozens of acknowledgements. Of a large frame at most this much is copied once more.
const READ_BYTES: usize = 16 << 10;
/// The most bytes that are kept of large replies which nobody holds any more: a few fetches of one partition.
const KEPT_BYTES: usize = 8 << 20;

/// Reads frames.
pub(super) struct FrameReader<R> {
    io: R,
    codec: FrameCodec,
    buffer: BytesMut,
    large: Arc<Mutex<Spares>>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, codec: FrameCodec) -> Self {
        Self { io, codec, buffer: BytesMut::new(), large: Arc::new(Mutex::new(Spares::new(KEPT_BYTES))) }
    }

    /// The next frame; `None` when the peer has closed the connection behind the last one.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(length) = self.codec.peek_length(&self.buffer)? {
                if self.buffer.len() >= LENGTH_BYTES + length {
                    // Replies have become small: what is kept for large ones goes, one at a time.
                    lock(&self.large).shrink();
                    return self.codec.take_frame(&mut self.buffer, length).map(Some);
                }
                if length > READ_BYTES {
                    return self.read_large(length).await.map(Some);
                }
            }
            self.buffer.reserve(READ_BYTES);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                let have = self.buffer.len();
                return if have == 0 { Ok(None) } else { Err(FrameError::CutShort { have }) };
            }
        }
    }

    async fn read_large(&mut self, length: usize) -> Result<Frame, FrameError> {
        let whole = LENGTH_BYTES + length;
        let mut bytes = lock(&self.large).take(whole);
        // The length field goes along: without it all that follows would be written four bytes off the alignment that it has
        // in the socket's buffers, which makes the kernel's copy several times slower.
        bytes.extend_from_slice(&self.buffer);
        self.buffer.clear();
        while bytes.len() < whole {
            let missing = whole - bytes.len();
            if self.io.read_buf(&mut (&mut bytes).limit(missing)).await? == 0 {
                return Err(FrameError::CutShort { have: bytes.len() });
            }
        }
        let lent = Lent { bytes, home: Arc::clone(&self.large) };
        Frame::decode(&Bytes::from_owner(lent).slice(LENGTH_BYTES..), self.codec.max_values)
    }
}

/// A large frame's memory, which goes home when the last slice of it is dropped.
struct Lent {
    bytes: BytesMut,
    home: Arc<Mutex<Spares>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&self.home).give(Some(std::mem::take(&mut self.bytes)));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::protocol::frame::{Attachment, FrameHead, OutFrame, SegmentedBuf};
    use crate::types::CorrelationId;

    /// A frame with an attachment of this size, as it stands on the wire.
    fn wire(attachment_bytes: usize) -> Vec<u8> {
        let attachment = Attachment::from(Bytes::from(vec![attachment_bytes as u8; attachment_bytes]));
        let head = FrameHead { api: 1, version: 1, correlation_id: CorrelationId(7) };
        let mut out = SegmentedBuf::new();
        out.put_frame(OutFrame::new(head, vec![0xc0], vec![attachment])).expect("small enough");
        out.copy_to_bytes(out.remaining()).to_vec()
    }

    async fn next(frames: &mut FrameReader<&[u8]>) -> Bytes {
        frames.next().await.expect("well formed").expect("a frame").attachments.remove(0)
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_through_however_the_bytes_are_cut() {
        let sizes = [0, 10, 100_000, 3, READ_BYTES, 1 << 20, 5, 0, 50_000, 50_000];
        let all: Vec<u8> = sizes.iter().flat_map(|size| wire(*size)).collect();
        for step in [1_000, 16 << 10, 70_001, all.len()] {
            let (mut here, there) = tokio::io::duplex(64 << 10);
            let bytes = all.clone();
            let writing = tokio::spawn(async move {
                for part in bytes.chunks(step) {
                    here.write_all(part).await.expect("a reader");
                }
            });
            let mut frames = FrameReader::new(there, FrameCodec::for_replies(8 << 20));
            for size in sizes {
                let frame = frames.next().await.expect("well formed").expect("a frame");
                assert_eq!(frame.attachments, [Bytes::from(vec![size as u8; size])], "{size} bytes in steps of {step}");
            }
            assert_eq!(frames.next().await.expect("no error"), None);
            writing.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn the_memory_of_a_large_frame_is_used_again_once_nobody_holds_a_slice() {
        let all: Vec<u8> = (0..4).flat_map(|_| wire(100_000)).chain(wire(1)).collect();
        let mut frames = FrameReader::new(all.as_slice(), FrameCodec::for_replies(8 << 20));
        let first = next(&mut frames).await;
        let (place, kept) = (first.as_ptr(), first.slice(50..60));
        drop(first);
        assert_ne!(next(&mut frames).await.as_ptr(), place, "a slice of it is still held");
        drop(kept);
        assert_eq!(next(&mut frames).await.as_ptr(), place, "the one that came back last");
        next(&mut frames).await;
        next(&mut frames).await;
        assert_eq!(lock(&frames.large).take(100_000).capacity(), 114_688, "a small frame lets one of the two go");
    }

    #[tokio::test]
    async fn a_connection_that_ends_inside_a_frame_says_how_far_it_came() {
        for (size, cut) in [(10, 7), (100_000, 90_000), (100_000, 3)] {
            let bytes = wire(size);
            let mut frames = FrameReader::new(&bytes[..cut], FrameCodec::for_replies(8 << 20));
            let error = frames.next().await.expect_err("cut short");
            assert!(matches!(error, FrameError::CutShort { have } if have == cut), "{error}");
        }
        let bytes = wire(10_000);
        let mut frames = FrameReader::new(bytes.as_slice(), FrameCodec::for_replies(1_000));
        assert!(matches!(frames.next().await, Err(FrameError::TooLarge { .. })));
    }
}
