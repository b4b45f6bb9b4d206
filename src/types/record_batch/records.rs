//! The records inside a batch, as who owns them sees them. The broker does not.

use bytes::Bytes;

use super::batch::RecordBatch;
use super::compression::CompressionError;
use super::view::Records;
use crate::types::{Offset, TimestampMs};

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

/// Reads the records of `batch` into a list of their own. Plain batches are shared, not copied; compressed ones inflate to at
/// most `limit_bytes`. [`Records`] does without the list.
///
/// # Errors
/// As [`Records::open`].
pub fn decode_records(batch: &RecordBatch, limit_bytes: usize) -> Result<Vec<Record>, RecordError> {
    let records = Records::open(batch, limit_bytes)?;
    // True, now that the records were read.
    let mut list = Vec::with_capacity(usize::try_from(batch.header.record_count).unwrap_or(0));
    list.extend(records.iter().map(|view| records.to_record(&view)));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::super::encode::BatchBuilder;
    use super::super::{Compression, HEADER_BYTES};
    use super::*;
    use crate::types::LeaderEpoch;

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
