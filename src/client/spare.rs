//! The memory of batches and replies that are done, kept for those to come. Memory that was touched lately is several times
//! quicker to write to than memory that the allocator has just got from the system.

use bytes::BytesMut;

/// Smaller buffers are as quickly allocated.
const WORTH_KEEPING_BYTES: usize = 4 << 10;

/// A bounded stack of buffers: the one used last is taken first.
#[derive(Debug, Default)]
pub(in crate::client) struct Spares {
    buffers: Vec<BytesMut>,
    bytes: usize,
    limit_bytes: usize,
}

impl Spares {
    /// Keeps `limit_bytes` at most.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// A buffer with room for `capacity_bytes`, and for twice as much at most: an old one, or a new one.
    pub fn take(&mut self, capacity_bytes: usize) -> BytesMut {
        let fits = |buffer: &BytesMut| (capacity_bytes..=2 * capacity_bytes).contains(&buffer.capacity());
        match self.buffers.iter().rposition(fits) {
            Some(at) => {
                let buffer = self.buffers.remove(at);
                self.bytes -= buffer.capacity();
                buffer
            }
            None => BytesMut::with_capacity(rounded_up(capacity_bytes)),
        }
    }

    /// Lets one buffer go, if there is one.
    pub fn shrink(&mut self) {
        if let Some(buffer) = self.buffers.pop() {
            self.bytes -= buffer.capacity();
        }
    }

    /// Keeps `buffer` if there is room.
    pub fn give(&mut self, buffer: Option<BytesMut>) {
        let Some(mut buffer) = buffer else { return };
        buffer.clear();
        let bytes = buffer.capacity();
        if bytes >= WORTH_KEEPING_BYTES && self.bytes + bytes <= self.limit_bytes {
            self.bytes += bytes;
            self.buffers.push(buffer);
        }
    }
}

/// So that what comes next and is a little longer still fits: a quarter more at most.
fn rounded_up(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_for_what_has_its_size_and_what_is_kept_is_bounded() {
        let mut spares = Spares::new(100_000);
        for capacity in [1_000, 30_000, 60_000, 20_000] {
            spares.give(Some(BytesMut::with_capacity(capacity)));
        }
        assert_eq!(spares.bytes, 90_000, "too small to keep, kept, kept, one too many");
        assert_eq!(spares.take(5_000).capacity(), 5_120, "no old one is that small");
        assert_eq!(spares.take(30_000).capacity(), 60_000, "the one that came last");
        assert_eq!(spares.take(20_000).capacity(), 30_000);
        assert_eq!((spares.take(20_000).capacity(), spares.bytes), (20_480, 0));
        spares.give(None);
        assert_eq!(spares.bytes, 0);
        spares.give(Some(BytesMut::with_capacity(50_000)));
        spares.shrink();
        spares.shrink();
        assert_eq!((spares.bytes, spares.buffers.len()), (0, 0));
    }
}
