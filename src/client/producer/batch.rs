//! One batch from its first record to its acknowledgement.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::delivery::Completion;
use crate::client::{ClientError, RecordRef};
use crate::types::record_batch::{BatchBuilder, BatchHeader, HEADER_BYTES, RecordError};
use crate::types::{ProducerEpoch, ProducerId, TimestampMs};

/// A producer's id and epoch.
pub(super) type Identity = (ProducerId, ProducerEpoch);

/// Producer id, epoch and first sequence number of a batch.
pub(super) type Stamp = (ProducerId, ProducerEpoch, i32);

/// A batch and all that is known about it.
#[derive(Debug)]
pub(super) struct Batch {
    pub completion: Arc<Completion>,
    payload: Payload,
    pub records: u32,
    /// Bytes of the producer's buffer that it holds.
    pub reserved_bytes: usize,
    pub created: Instant,
    /// When its records fail if they are not acknowledged.
    pub deadline: Instant,
    /// Its place among the batches of its partition.
    pub order: u64,
    /// Its number, from the first attempt on.
    pub stamp: Option<Stamp>,
    /// Whether an attempt ended without a definite answer.
    pub maybe_appended: bool,
    pub attempts: u32,
    pub last_error: Option<ClientError>,
}

#[derive(Debug)]
enum Payload {
    Building(Box<BatchBuilder>),
    Built {
        bytes: Bytes,
        stamp: Option<Stamp>,
    },
    /// Taken out while it is built.
    Taken,
}

impl Batch {
    /// An empty batch.
    pub fn new(builder: BatchBuilder, completion: Arc<Completion>, created: Instant, deadline: Instant) -> Self {
        Self {
            completion,
            payload: Payload::Building(Box::new(builder)),
            records: 0,
            reserved_bytes: 0,
            created,
            deadline,
            order: 0,
            stamp: None,
            maybe_appended: false,
            attempts: 0,
            last_error: None,
        }
    }

    /// Adds a record for which `bytes` of the producer's buffer were reserved.
    pub fn add(&mut self, record: &RecordRef<'_>, timestamp: TimestampMs, bytes: usize) {
        let Payload::Building(builder) = &mut self.payload else {
            unreachable!("a batch is built only once no record can be added any more");
        };
        builder.append(timestamp, record.key, record.value, record.headers);
        self.records += 1;
        self.reserved_bytes += bytes;
    }

    /// The memory of a batch whose fate is decided, unless somebody else still holds it.
    pub fn into_buffer(self) -> Option<BytesMut> {
        match self.payload {
            Payload::Built { bytes, .. } => bytes.try_into_mut().ok(),
            Payload::Building(_) | Payload::Taken => None,
        }
    }

    /// Its size in bytes: plain while it is not built, as it is sent afterwards.
    pub fn plain_bytes(&self) -> usize {
        match &self.payload {
            Payload::Building(builder) => builder.plain_bytes(),
            Payload::Built { bytes, .. } => bytes.len(),
            Payload::Taken => 0,
        }
    }

    /// The bytes to send: compressed and checksummed the first time, numbered as it is now.
    pub fn encode(&mut self) -> Result<Bytes, RecordError> {
        let bytes = match std::mem::replace(&mut self.payload, Payload::Taken) {
            Payload::Building(mut builder) => {
                if let Some((id, epoch, sequence)) = self.stamp {
                    builder.set_producer(id, epoch, sequence);
                }
                builder.build()?
            }
            Payload::Built { bytes, stamp } if stamp == self.stamp => bytes,
            Payload::Built { bytes, .. } => restamp(&bytes, self.stamp),
            Payload::Taken => Bytes::new(),
        };
        self.payload = Payload::Built { bytes: bytes.clone(), stamp: self.stamp };
        Ok(bytes)
    }
}

/// The same records under another number: a copy, because the bytes may still be on their way to a socket.
fn restamp(bytes: &Bytes, stamp: Option<Stamp>) -> Bytes {
    let mut header = BatchHeader::parse(bytes).expect("this producer built the header itself");
    let (id, epoch, sequence) = stamp.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE, -1));
    (header.producer_id, header.producer_epoch, header.base_sequence) = (id, epoch, sequence);
    let body = &bytes[HEADER_BYTES..];
    let mut copy = BytesMut::with_capacity(bytes.len());
    copy.extend_from_slice(&header.with_checksum_over(body).to_bytes());
    copy.extend_from_slice(body);
    copy.freeze()
}

/// Sequence numbers go from `i32::MAX` on to 0, as Kafka's do.
pub(super) fn sequence_plus(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).expect("the remainder is below 2^31")
}
