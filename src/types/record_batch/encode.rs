//! Records to a batch: each is copied once, into the place from which it is sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::Compression;
use super::header::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use super::records::{Header, RecordError};
use super::varint::{MAX_VARINT_BYTES, varint_bytes, zigzag};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Room for five numbers and the attributes, the longest part of a record between two fields: a power of two.
const SMALL_BYTES: usize = 64;
/// What such a part nearly always has at most.
const COPIED_BYTES: usize = 24;

/// Encodes records into a batch, one after the other.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    records: BytesMut,
    count: i32,
    first_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    producer: (ProducerId, ProducerEpoch, i32),
}

impl BatchBuilder {
    /// An empty batch with room for `capacity_bytes` of records before it has to grow.
    #[must_use]
    pub fn new(compression: Compression, capacity_bytes: usize) -> Self {
        Self::in_buffer(compression, BytesMut::with_capacity(HEADER_BYTES + capacity_bytes + SMALL_BYTES))
    }

    /// An empty batch in memory that was used before. What stands there is overwritten.
    #[must_use]
    pub fn in_buffer(compression: Compression, mut buffer: BytesMut) -> Self {
        buffer.clear();
        // The header is written in front when the batch is built, so that a plain batch is never copied.
        buffer.put_bytes(0, HEADER_BYTES);
        Self {
            compression,
            records: buffer,
            count: 0,
            first_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
            producer: (ProducerId::NONE, ProducerEpoch::NONE, -1),
        }
    }

    /// Marks the batch as sent by an idempotent producer.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) {
        self.producer = (id, epoch, base_sequence);
    }

    /// Adds a record.
    pub fn append(&mut self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) {
        if self.count == 0 {
            self.first_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let (key_bytes, value_bytes) = (key.map_or(0, <[u8]>::len), value.map_or(0, <[u8]>::len));
        // What stands before the key, or before the value where there is no key; then what stands between the two.
        let (mut before, mut between) = (Small::with_gap(), Small::with_gap());
        before.byte(0);
        before.varint(timestamp.0.wrapping_sub(self.first_timestamp.0));
        before.varint(i64::from(self.count));
        before.length(key);
        if key.is_some() { &mut between } else { &mut before }.length(value);
        let tail_bytes = if headers.is_empty() { 1 } else { headers_bytes(headers) };
        let length = before.len() + key_bytes + between.len() + value_bytes + tail_bytes;
        before.fill_gap(length_i64(length));
        self.records.reserve(length + 3 * SMALL_BYTES);
        before.move_to(&mut self.records);
        if let Some(key) = key {
            self.records.extend_from_slice(key);
            between.move_to(&mut self.records);
        }
        self.records.extend_from_slice(value.unwrap_or_default());
        if headers.is_empty() {
            self.records.put_u8(0)
        } else {
            put_headers(&mut self.records, headers)
        }
        self.count += 1;
    }

    /// How many records it holds.
    #[must_use]
    pub fn record_count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// The size of the batch in bytes if it were not compressed.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.records.len()
    }

    /// Compresses, checksums and returns the batch, with base offset 0.
    ///
    /// # Errors
    /// [`RecordError`] when the encoder fails or the batch is too large for the format.
    pub fn build(mut self) -> Result<Bytes, RecordError> {
        if self.compression != Compression::None {
            let small = self.compression.compress(&self.records[HEADER_BYTES..])?;
            self.records.truncate(HEADER_BYTES);
            self.records.extend_from_slice(&small);
        }
        let too_large = RecordError::TooLarge { records: self.record_count(), bytes: self.records.len() };
        let Ok(batch_length) = i32::try_from(self.records.len() - LENGTH_PREFIX_BYTES) else {
            return Err(too_large);
        };
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            batch_length,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: Attributes::with_compression(self.compression),
            last_offset_delta: self.count - 1,
            first_timestamp: self.first_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.count,
        }
        .with_checksum_over(&self.records[HEADER_BYTES..]);
        self.records[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Ok(self.records.freeze())
    }
}

/// The few bytes between two fields, gathered on the stack: one copy of a fixed length, which is a few instructions, in the
/// place of a call for each number. In front is a gap for the length of the whole, which is known last.
pub(super) struct Small {
    bytes: [u8; SMALL_BYTES],
    from: usize,
    end: usize,
}

impl Small {
    pub(super) fn with_gap() -> Self {
        Self { bytes: [0; SMALL_BYTES], from: MAX_VARINT_BYTES, end: MAX_VARINT_BYTES }
    }

    fn len(&self) -> usize {
        self.end - self.from
    }

    fn byte(&mut self, byte: u8) {
        // Five numbers and a byte fit. The mask says so to the compiler, which leaves the check out.
        self.bytes[self.end & (SMALL_BYTES - 1)] = byte;
        self.end += 1;
    }

    pub(super) fn varint(&mut self, value: i64) {
        let mut rest = zigzag(value);
        while rest >= 0x80 {
            self.byte((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    fn length(&mut self, field: Option<&[u8]>) {
        self.varint(field.map_or(-1, |bytes| length_i64(bytes.len())));
    }

    fn fill_gap(&mut self, value: i64) {
        let mut number = Self { bytes: [0; SMALL_BYTES], from: 0, end: 0 };
        number.varint(value);
        self.from = MAX_VARINT_BYTES - number.end;
        for (slot, byte) in self.bytes[self.from..].iter_mut().zip(&number.bytes[..number.end]) {
            *slot = *byte;
        }
    }

    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.from..self.end]
    }

    /// Copies more than there is and takes back what was too much: a copy of unknown length would be a call.
    fn move_to(&self, out: &mut BytesMut) {
        let end = out.len() + self.len();
        match self.bytes[self.from..].first_chunk::<COPIED_BYTES>() {
            Some(chunk) if self.len() <= COPIED_BYTES => out.extend_from_slice(chunk),
            _ => out.extend_from_slice(&self.bytes[self.from..self.end]),
        }
        out.truncate(end);
    }
}

fn headers_bytes(headers: &[Header]) -> usize {
    let field_bytes = |length: usize| varint_bytes(length_i64(length)) + length;
    let header_bytes = |header: &Header| {
        field_bytes(header.key.len()) + header.value.as_ref().map_or(1, |value| field_bytes(value.len()))
    };
    varint_bytes(length_i64(headers.len())) + headers.iter().map(header_bytes).sum::<usize>()
}

fn put_headers(out: &mut BytesMut, headers: &[Header]) {
    put_varint(out, length_i64(headers.len()));
    for header in headers {
        put_varint(out, length_i64(header.key.len()));
        out.extend_from_slice(header.key.as_bytes());
        put_varint(out, header.value.as_ref().map_or(-1, |value| length_i64(value.len())));
        out.extend_from_slice(header.value.as_deref().unwrap_or_default());
    }
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut small = Small::with_gap();
    small.varint(value);
    small.move_to(out);
}

fn length_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
