//! A batch in memory: a parsed header, and the records as shared bytes.

use bytes::Bytes;

use super::header::{BatchError, BatchHeader, HEADER_BYTES};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// A record batch: stamping an offset or an epoch changes the header and never touches the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The parsed header.
    pub header: BatchHeader,
    /// The records, compressed as the producer sent them. Shared with the frame or the read that brought them.
    pub body: Bytes,
}

impl RecordBatch {
    /// Splits the first batch off the front of `bytes`, without copying and without checking the checksum.
    ///
    /// # Errors
    /// [`BatchError`] when no whole batch stands there; `bytes` is unchanged then.
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let need = header.total_bytes();
        if bytes.len() < need {
            return Err(BatchError::Truncated { have: bytes.len(), need });
        }
        let mut batch = bytes.split_to(need);
        let body = batch.split_off(HEADER_BYTES);
        Ok(Self { header, body })
    }

    /// Reads a batch that a client sent: exactly one, checksum and counts checked.
    ///
    /// # Errors
    /// [`BatchError`] says what is wrong with it.
    pub fn from_client(mut bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        header.verify_checksum(&bytes)?;
        header.check_for_append()?;
        Self::split_from(&mut bytes)
    }

    /// Writes the broker's fields. Log-append time is under the checksum, which is then computed anew.
    #[must_use]
    pub fn stamped(mut self, base: Offset, epoch: LeaderEpoch, append_time: Option<TimestampMs>) -> Self {
        self.header.base_offset = base;
        self.header.leader_epoch = epoch;
        if let Some(time) = append_time {
            self.header.attributes = self.header.attributes.with_log_append_time();
            self.header.max_timestamp = time;
            self.header = self.header.with_checksum_over(&self.body);
        }
        self
    }

    /// Checks the checksum over the header's fields and the records.
    ///
    /// # Errors
    /// [`BatchError::WrongChecksum`].
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.header.crc, self.header.with_checksum_over(&self.body).crc);
        if stored == computed { Ok(()) } else { Err(BatchError::WrongChecksum { stored, computed }) }
    }

    /// The size in bytes, header included.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The batch as contiguous bytes: a copy, for tests and tools.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.total_bytes());
        bytes.extend_from_slice(&self.header.to_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
