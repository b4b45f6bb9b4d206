//! The 61-byte header of a record batch: parsing, checking, stamping.

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::compression::Compression;

/// The size of a batch header in bytes.
pub const HEADER_BYTES: usize = 61;
/// What stands in front of the part that the length field counts: base offset and the length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the checksummed part starts: everything after the checksum field.
pub const CHECKSUMMED_FROM: usize = 21;
/// The only batch format there is here.
pub const MAGIC: u8 = 2;
/// The fewest bytes that a record can have: length, attributes, two deltas, key and value lengths, header count.
pub const MIN_RECORD_BYTES: usize = 7;

const ATTRIBUTES_KNOWN: i16 = 0b0111_1111;

/// What is wrong with a batch. None of these is worth a retry with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header says, or than a header has.
    #[error("the batch is cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// More bytes than the header says, where one batch is expected.
    #[error("{extra} bytes follow the batch of {length}: send one batch for each partition named")]
    TrailingBytes {
        /// Bytes of the batch.
        length: usize,
        /// Bytes after it.
        extra: usize,
    },
    /// The length field does not fit a batch.
    #[error("the batch's length field says {length}, which no batch can have")]
    InvalidLength {
        /// The field.
        length: i32,
    },
    /// An older or newer format.
    #[error("record format {magic} is not supported: send record batches with magic 2 (Kafka 0.11 and later)")]
    UnsupportedMagic {
        /// The format found.
        magic: u8,
    },
    /// The checksum does not match: damaged on the way, or encoded wrongly.
    #[error(
        "the batch's checksum is {stored:#010x}, its bytes have {computed:#010x}: it was damaged or encoded wrongly"
    )]
    WrongChecksum {
        /// The field.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Record count and last offset delta contradict each other or the size.
    #[error(
        "the batch claims {record_count} records with a last offset delta of {last_offset_delta} in {body_bytes} bytes"
    )]
    WrongCounts {
        /// The count field.
        record_count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
        /// The size of the records.
        body_bytes: usize,
    },
    /// A negative base offset or leader epoch.
    #[error("the batch's base offset {base_offset} or leader epoch {leader_epoch} is negative")]
    NegativeField {
        /// The base offset field.
        base_offset: i64,
        /// The leader epoch field.
        leader_epoch: i32,
    },
    /// Attributes with unknown bits or an unknown compression.
    #[error("the batch's attributes {attributes:#06x} are not known here: a newer format, or damage")]
    UnknownAttributes {
        /// The field.
        attributes: i16,
    },
    /// Producer id, epoch and sequence contradict each other.
    #[error("producer id {producer_id}, epoch {producer_epoch} and sequence {base_sequence} do not fit together")]
    InvalidProducer {
        /// The producer id field.
        producer_id: i64,
        /// The producer epoch field.
        producer_epoch: i16,
        /// The base sequence field.
        base_sequence: i32,
    },
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;

    /// Attributes with this compression and nothing else.
    #[must_use]
    pub fn with_compression(compression: Compression) -> Self {
        Self(compression.code())
    }

    /// How the records are compressed; `None` for a code that is not known.
    #[must_use]
    pub fn compression(self) -> Option<Compression> {
        Compression::from_code(self.0 & Self::COMPRESSION)
    }

    /// Whether the broker stamped the time.
    #[must_use]
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// With the log-append-time bit set.
    #[must_use]
    pub fn with_log_append_time(self) -> Self {
        Self(self.0 | Self::LOG_APPEND_TIME)
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record (a transaction marker) rather than data.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    fn has_unknown_bits(self) -> bool {
        self.0 & !ATTRIBUTES_KNOWN != 0 || self.compression().is_none()
    }
}

/// A parsed batch header. [`BatchHeader::parse`] and [`BatchHeader::to_bytes`] are inverses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record. A producer sends anything here; the broker assigns it.
    pub base_offset: Offset,
    /// Bytes of the batch after the length field.
    pub batch_length: i32,
    /// The epoch of the leader that appended it. Written by the broker.
    pub leader_epoch: LeaderEpoch,
    /// CRC32C of everything after this field.
    pub crc: u32,
    /// Compression, timestamp type, transactional, control.
    pub attributes: Attributes,
    /// The offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// The time of the first record.
    pub first_timestamp: TimestampMs,
    /// The newest time in the batch.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its epoch, or [`ProducerEpoch::NONE`].
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records the batch holds.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks what concerns the format: magic, length, signs. The checksum and
    /// the counts are checked by [`BatchHeader::verify_checksum`] and [`BatchHeader::check_for_append`].
    ///
    /// # Errors
    /// [`BatchError`] says what the header cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated { have: bytes.len(), need: HEADER_BYTES });
        };
        let (base_offset, batch_length, leader_epoch) = (i64_at(head, 0), i32_at(head, 8), i32_at(head, 12));
        if head[16] != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic: head[16] });
        }
        if usize::try_from(batch_length).map_or(true, |length| length < HEADER_BYTES - LENGTH_PREFIX_BYTES) {
            return Err(BatchError::InvalidLength { length: batch_length });
        }
        // Producers send leader epoch -1: it is not theirs to know.
        let (Some(base_offset), Ok(leader_epoch)) =
            (Offset::from_wire(base_offset), u32::try_from(leader_epoch.max(0)).map(LeaderEpoch))
        else {
            return Err(BatchError::NegativeField { base_offset, leader_epoch });
        };
        Ok(Self {
            base_offset,
            batch_length,
            leader_epoch,
            crc: i32_at(head, 17).cast_unsigned(),
            attributes: Attributes(i16_at(head, 21)),
            last_offset_delta: i32_at(head, 23),
            first_timestamp: TimestampMs(i64_at(head, 27)),
            max_timestamp: TimestampMs(i64_at(head, 35)),
            producer_id: ProducerId(i64_at(head, 43)),
            producer_epoch: ProducerEpoch(i16_at(head, 51)),
            base_sequence: i32_at(head, 53),
            record_count: i32_at(head, 57),
        })
    }

    /// The header as it stands on disk and on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        head[0..8].copy_from_slice(&self.base_offset.to_wire().to_be_bytes());
        head[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        head[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        head[16] = MAGIC;
        head[17..21].copy_from_slice(&self.crc.to_be_bytes());
        head[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        head[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        head[27..35].copy_from_slice(&self.first_timestamp.0.to_be_bytes());
        head[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        head[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        head[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        head[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        head[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        head
    }

    /// The size of the whole batch in bytes, header included.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        // parse() admits only lengths of at least 49; a header built by hand is checked when it is parsed back.
        usize::try_from(self.batch_length).unwrap_or(0) + LENGTH_PREFIX_BYTES
    }

    /// The size of the records in bytes, compressed as they are.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.total_bytes().saturating_sub(HEADER_BYTES)
    }

    /// The offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::try_from(self.last_offset_delta).unwrap_or(0))
    }

    /// The offset that the next batch gets.
    #[must_use]
    pub fn end_offset_exclusive(&self) -> Offset {
        self.last_offset().next()
    }

    /// The sequence number of the last record, wrapping from `i32::MAX` to 0 as Kafka's does.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }

    /// Whether an idempotent producer sent it.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.producer_id != ProducerId::NONE
    }

    /// Checks the checksum. `batch` is the whole batch, header first, and nothing after it.
    ///
    /// # Errors
    /// [`BatchError::WrongChecksum`]; [`BatchError::Truncated`] or [`BatchError::TrailingBytes`] when `batch` is not the whole.
    pub fn verify_checksum(&self, batch: &[u8]) -> Result<(), BatchError> {
        let length = self.total_bytes();
        if batch.len() < length {
            return Err(BatchError::Truncated { have: batch.len(), need: length });
        }
        if batch.len() > length {
            return Err(BatchError::TrailingBytes { length, extra: batch.len() - length });
        }
        let computed = crc32c(&batch[CHECKSUMMED_FROM..]);
        if computed == self.crc { Ok(()) } else { Err(BatchError::WrongChecksum { stored: self.crc, computed }) }
    }

    /// The same batch, if it had so many bytes; `None` when no batch can. For one whose length may be damaged: no checksum covers that.
    #[must_use]
    pub fn with_total_bytes(mut self, bytes: usize) -> Option<Self> {
        self.batch_length = i32::try_from(bytes.checked_sub(LENGTH_PREFIX_BYTES)?).ok()?;
        (bytes >= HEADER_BYTES).then_some(self)
    }

    /// Recomputes the checksum over the header's checksummed fields and `body`: needed after one of them was changed.
    #[must_use]
    pub fn with_checksum_over(mut self, body: &[u8]) -> Self {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.to_bytes()[CHECKSUMMED_FROM..]);
        digest.update(body);
        self.crc = low_32_bits(digest.finalize());
        self
    }

    /// Checks what a client's batch must satisfy to be appended: counts that agree, known attributes, a whole producer.
    ///
    /// # Errors
    /// [`BatchError`] names the contradiction.
    pub fn check_for_append(&self) -> Result<(), BatchError> {
        self.check_counts()?;
        if self.attributes.has_unknown_bits() {
            return Err(BatchError::UnknownAttributes { attributes: self.attributes.0 });
        }
        let (id, epoch, sequence) = (self.producer_id.0, self.producer_epoch.0, self.base_sequence);
        let idempotent = id >= 0 && epoch >= 0 && sequence >= 0;
        let plain = id == -1 && epoch == -1 && sequence == -1;
        if !idempotent && !plain {
            return Err(BatchError::InvalidProducer {
                producer_id: id,
                producer_epoch: epoch,
                base_sequence: sequence,
            });
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), BatchError> {
        let body_bytes = self.body_bytes();
        let count = usize::try_from(self.record_count).unwrap_or(0);
        let counts_agree = count > 0 && self.last_offset_delta == self.record_count - 1;
        // Compressed records may be smaller than their count suggests; plain ones cannot.
        let plain = self.attributes.compression() == Some(Compression::None);
        if !counts_agree || (plain && count > body_bytes / MIN_RECORD_BYTES) {
            return Err(BatchError::WrongCounts {
                record_count: self.record_count,
                last_offset_delta: self.last_offset_delta,
                body_bytes,
            });
        }
        Ok(())
    }
}

/// `sequence + delta` as Kafka counts: after `i32::MAX` comes 0.
#[must_use]
pub fn sequence_plus(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    i32::try_from(sum).unwrap_or_else(|_| i32::try_from(sum - i64::from(i32::MAX) - 1).unwrap_or(0))
}

/// The CRC32C (Castagnoli) of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    low_32_bits(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes))
}

/// A CRC32C that is computed piece by piece.
#[derive(Debug)]
pub struct Crc32c(crc_fast::Digest);

impl Default for Crc32c {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl Crc32c {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all of them.
    #[must_use]
    pub fn finish(self) -> u32 {
        low_32_bits(self.0.finalize())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a 32-bit checksum is returned in a u64")]
fn low_32_bits(checksum: u64) -> u32 {
    checksum as u32
}

fn i16_at(head: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes([head[at], head[at + 1]])
}

fn i32_at(head: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn i64_at(head: &[u8; HEADER_BYTES], at: usize) -> i64 {
    (i64::from(i32_at(head, at)) << 32) | i64::from(i32_at(head, at + 4).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BatchHeader {
        BatchHeader {
            base_offset: Offset(7),
            batch_length: 49 + 21,
            leader_epoch: LeaderEpoch(3),
            crc: 0,
            attributes: Attributes::default(),
            last_offset_delta: 2,
            first_timestamp: TimestampMs(1_700_000_000_000),
            max_timestamp: TimestampMs(1_700_000_000_002),
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(1),
            base_sequence: i32::MAX - 1,
            record_count: 3,
        }
        .with_checksum_over(&[0xab; 21])
    }

    #[test]
    fn the_checksum_is_castagnoli() {
        // The check value of CRC-32/ISCSI in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn parsing_undoes_writing() {
        let header = sample();
        assert_eq!(BatchHeader::parse(&header.to_bytes()), Ok(header));
        assert_eq!(header.check_for_append(), Ok(()));
        assert_eq!((header.last_offset(), header.end_offset_exclusive()), (Offset(9), Offset(10)));
        assert_eq!(header.last_sequence(), 0, "sequences wrap to 0 after i32::MAX");
    }

    #[test]
    fn a_flipped_bit_anywhere_under_the_checksum_is_noticed() {
        let header = sample();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&[0xab; 21]);
        assert_eq!(header.verify_checksum(&bytes), Ok(()));
        for at in CHECKSUMMED_FROM..bytes.len() {
            bytes[at] ^= 0x10;
            let parsed = BatchHeader::parse(&bytes).expect("only magic and length are checked by parse");
            assert!(parsed.verify_checksum(&bytes).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
    }

    #[test]
    fn wrong_counts_formats_and_producers_are_named() {
        let header = sample();
        let miscounted = BatchHeader { record_count: 4, ..header };
        assert!(matches!(miscounted.check_for_append(), Err(BatchError::WrongCounts { record_count: 4, .. })));
        let crowded = BatchHeader { record_count: 4, last_offset_delta: 3, ..header };
        assert!(matches!(crowded.check_for_append(), Err(BatchError::WrongCounts { body_bytes: 21, .. })));
        let unknown = BatchHeader { attributes: Attributes(5), ..header };
        assert_eq!(unknown.check_for_append(), Err(BatchError::UnknownAttributes { attributes: 5 }));
        let halfway = BatchHeader { base_sequence: -1, ..header };
        assert!(matches!(halfway.check_for_append(), Err(BatchError::InvalidProducer { base_sequence: -1, .. })));
        let mut future = header.to_bytes();
        future[16] = 3;
        assert_eq!(BatchHeader::parse(&future), Err(BatchError::UnsupportedMagic { magic: 3 }));
        let mut short = header.to_bytes();
        short[8..12].copy_from_slice(&48i32.to_be_bytes());
        assert_eq!(BatchHeader::parse(&short), Err(BatchError::InvalidLength { length: 48 }));
    }
}
