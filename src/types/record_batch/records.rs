//! The records inside a batch: how a producer encodes them and a consumer reads them. The broker does neither.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::RecordBatch;
use super::compression::{Compression, CompressionError};
use super::header::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, MIN_RECORD_BYTES};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// A name and a value that travel with a record. Names may repeat; order is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub key: String,
    /// The value, if any.
    pub value: Option<Bytes>,
}

/// One record, as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position in the partition.
    pub offset: Offset,
    /// When it was made, or appended: see [`crate::types::TimestampType`].
    pub timestamp: TimestampMs,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value, if any.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Vec<Header>,
}

/// Why records could not be encoded or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// See [`CompressionError`].
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The records do not have the form that the format gives them.
    #[error("record {index} of the batch at offset {base_offset} is malformed: {reason}")]
    Malformed {
        /// The batch.
        base_offset: Offset,
        /// Which record in it, from 0.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too many records or bytes for the format's 32-bit fields.
    #[error("the batch has {records} records in {bytes} bytes, more than the format can hold: make smaller batches")]
    TooLarge {
        /// Records in it.
        records: usize,
        /// Bytes in it.
        bytes: usize,
    },
}

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
        let mut records = BytesMut::with_capacity(HEADER_BYTES + capacity_bytes);
        // The header is written in front when the batch is built, so that a plain batch is never copied.
        records.put_bytes(0, HEADER_BYTES);
        Self {
            compression,
            records,
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
        let timestamp_delta = timestamp.0.wrapping_sub(self.first_timestamp.0);
        let offset_delta = i64::from(self.count);
        let length = 1
            + varint_bytes(timestamp_delta)
            + varint_bytes(offset_delta)
            + field_bytes(key.map(<[u8]>::len))
            + field_bytes(value.map(<[u8]>::len))
            + varint_bytes(length_i64(headers.len()))
            + headers.iter().map(header_bytes).sum::<usize>();
        let out = &mut self.records;
        out.reserve(length + 5);
        put_varint(out, length_i64(length));
        out.put_u8(0);
        put_varint(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_field(out, key);
        put_field(out, value);
        put_varint(out, length_i64(headers.len()));
        for header in headers {
            put_field(out, Some(header.key.as_bytes()));
            put_field(out, header.value.as_deref());
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

/// Reads the records of `batch`. Plain batches are shared, not copied; compressed ones inflate to at most `limit_bytes`.
///
/// # Errors
/// [`RecordError`] for damage, for a count that is not true, and beyond the limit.
pub fn decode_records(batch: &RecordBatch, limit_bytes: usize) -> Result<Vec<Record>, RecordError> {
    let header = &batch.header;
    let malformed = |index, reason| RecordError::Malformed { base_offset: header.base_offset, index, reason };
    let Some(compression) = header.attributes.compression() else {
        return Err(malformed(0, "unknown compression"));
    };
    let mut plain = compression.decompress(&batch.body, limit_bytes)?;
    // The count is the sender's claim: memory is reserved only for what the bytes can hold.
    let count = usize::try_from(header.record_count).unwrap_or(0);
    let mut records = Vec::with_capacity(count.min(plain.len() / MIN_RECORD_BYTES));
    for index in 0..header.record_count {
        records.push(decode_record(&mut plain, header).map_err(|reason| malformed(index, reason))?);
    }
    if plain.has_remaining() {
        return Err(malformed(header.record_count, "bytes follow the last record"));
    }
    Ok(records)
}

fn decode_record(rest: &mut Bytes, header: &BatchHeader) -> Result<Record, &'static str> {
    let length = usize::try_from(get_varint(rest)?).map_err(|_| "negative length")?;
    if length > rest.len() {
        return Err("longer than the batch");
    }
    let mut bytes = rest.split_to(length);
    if !bytes.has_remaining() {
        return Err("empty");
    }
    bytes.advance(1);
    let timestamp_delta = get_varint(&mut bytes)?;
    let offset_delta = u64::try_from(get_varint(&mut bytes)?).map_err(|_| "negative offset delta")?;
    let timestamp = if header.attributes.is_log_append_time() {
        header.max_timestamp
    } else {
        TimestampMs(header.first_timestamp.0.wrapping_add(timestamp_delta))
    };
    let key = get_field(&mut bytes)?;
    let value = get_field(&mut bytes)?;
    let header_count = usize::try_from(get_varint(&mut bytes)?).map_err(|_| "negative header count")?;
    // A header has at least two bytes.
    if header_count > bytes.len() / 2 {
        return Err("more headers than bytes");
    }
    let mut headers = Vec::with_capacity(header_count);
    for _ in 0..header_count {
        let name = get_field(&mut bytes)?.ok_or("a header without a name")?;
        let key = std::str::from_utf8(&name).map_err(|_| "a header name that is not UTF-8")?.to_owned();
        headers.push(Header { key, value: get_field(&mut bytes)? });
    }
    if bytes.has_remaining() {
        return Err("bytes follow the last header");
    }
    Ok(Record { offset: header.base_offset.plus(offset_delta), timestamp, key, value, headers })
}

fn get_field(bytes: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
    match get_varint(bytes)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| "negative field length")?;
            if length > bytes.len() { Err("a field longer than its record") } else { Ok(Some(bytes.split_to(length))) }
        }
    }
}

fn get_varint(bytes: &mut Bytes) -> Result<i64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| "cut short")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    Err("a number of more than ten bytes")
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_field(out: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, length_i64(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

fn field_bytes(length: Option<usize>) -> usize {
    length.map_or(1, |length| varint_bytes(length_i64(length)) + length)
}

fn header_bytes(header: &Header) -> usize {
    field_bytes(Some(header.key.len())) + field_bytes(header.value.as_ref().map(Bytes::len))
}

fn length_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(compression, 0);
        let headers = [
            Header { key: "trace".into(), value: Some(Bytes::from_static(b"1")) },
            Header { key: "trace".into(), value: None },
        ];
        builder.append(TimestampMs(1_000), Some(b"user1"), Some(b"first"), &headers);
        builder.append(TimestampMs(990), None, Some(&[b'v'; 300]), &[]);
        builder.append(TimestampMs(1_500), Some(b""), None, &[]);
        builder.build().expect("builds")
    }

    #[test]
    fn what_a_producer_encodes_a_consumer_reads_back_in_each_compression() {
        for compression in Compression::ALL {
            let batch = RecordBatch::from_client(build(compression)).expect("a good batch");
            assert_eq!(
                (batch.header.first_timestamp, batch.header.max_timestamp),
                (TimestampMs(1_000), TimestampMs(1_500))
            );
            let records = decode_records(&batch.stamped(Offset(40), LeaderEpoch(2), None), 1 << 20).expect("decodes");
            assert_eq!(records.len(), 3);
            assert_eq!(records[0].headers.len(), 2, "repeated header names are kept");
            assert_eq!((records[0].offset, records[0].key.as_deref()), (Offset(40), Some(b"user1".as_ref())));
            assert_eq!((records[1].timestamp, records[1].key.as_deref()), (TimestampMs(990), None));
            assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(b"".as_ref()), None));
        }
    }

    #[test]
    fn golden_bytes_of_a_batch() {
        // By hand from the format's description: length 8, attributes, deltas, key, value, no headers (zigzag varints).
        let mut builder = BatchBuilder::new(Compression::None, 0);
        builder.append(TimestampMs(5), Some(b"k"), Some(b"v"), &[]);
        let bytes = builder.build().expect("builds");
        let body = [0x10, 0, 0, 0, 2, b'k', 2, b'v', 0];
        assert_eq!(&bytes[HEADER_BYTES..], body);
        assert_eq!(bytes.len(), HEADER_BYTES + body.len());
    }

    #[test]
    fn log_append_time_replaces_every_timestamp_and_keeps_the_checksum_true() {
        let batch = RecordBatch::from_client(build(Compression::None)).expect("a good batch");
        let stamped = batch.stamped(Offset(1), LeaderEpoch(0), Some(TimestampMs(77)));
        assert_eq!(stamped.header.verify_checksum(&stamped.to_vec()), Ok(()));
        let records = decode_records(&stamped, 1 << 20).expect("decodes");
        assert!(records.iter().all(|record| record.timestamp == TimestampMs(77)));
    }

    #[test]
    fn a_count_that_is_not_true_is_found() {
        let batch = RecordBatch::from_client(build(Compression::Zstd)).expect("a good batch");
        for count in [2, 4, i32::MAX] {
            let mut lying = batch.clone();
            lying.header.record_count = count;
            assert!(matches!(decode_records(&lying, 1 << 20), Err(RecordError::Malformed { .. })), "{count}");
        }
    }
}
