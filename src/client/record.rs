//! Records on their way out and in.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::record_batch::Header;
use crate::types::{Offset, TimestampMs, TimestampType};

/// A record to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// The topic. Shared: who sends many records keeps one `Arc<str>`.
    pub topic: Arc<str>,
    /// The partition; `None` lets the key choose it, or the producer when there is no key either.
    pub partition: Option<u32>,
    /// The key. Records with the same key keep their order.
    pub key: Option<Bytes>,
    /// The value. `None` marks the key as deleted in compacted topics.
    pub value: Option<Bytes>,
    /// Names and values that travel along.
    pub headers: Vec<Header>,
    /// When it was made; `None` for now.
    pub timestamp: Option<TimestampMs>,
}

impl OutgoingRecord {
    /// An empty record for `topic`.
    #[must_use]
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), partition: None, key: None, value: None, headers: Vec::new(), timestamp: None }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Adds a header. Names may repeat.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Sets the timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: TimestampMs) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// A record to send that owns nothing: its bytes are copied once, into the batch that takes it, and sent from there. Its topic
/// is that of the [`super::TopicProducer`] that sends it.
///
/// ```
/// use callboard::client::RecordRef;
/// let record = RecordRef::new(b"52.52,13.40").key(b"alice");
/// assert_eq!((record.key, record.partition), (Some(b"alice".as_slice()), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The partition; `None` lets the key choose it, or the producer when there is no key either.
    pub partition: Option<u32>,
    /// The key. Records with the same key keep their order.
    pub key: Option<&'a [u8]>,
    /// The value. `None` marks the key as deleted in compacted topics.
    pub value: Option<&'a [u8]>,
    /// Names and values that travel along.
    pub headers: &'a [Header],
    /// When it was made; `None` for now.
    pub timestamp: Option<TimestampMs>,
}

impl<'a> RecordRef<'a> {
    /// A record with this value and nothing else.
    #[must_use]
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { value: Some(value.as_ref()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = Some(key.as_ref());
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header]) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the timestamp.
    #[must_use]
    pub fn timestamp(mut self, timestamp: TimestampMs) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

impl<'a> From<&'a OutgoingRecord> for RecordRef<'a> {
    /// All but the topic.
    fn from(record: &'a OutgoingRecord) -> Self {
        Self {
            partition: record.partition,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp: record.timestamp,
        }
    }
}

/// Where a delivered record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Its offset; `None` with `acks = 0`, where nobody says.
    pub offset: Option<Offset>,
    /// Its timestamp in the log: the broker's with log-append time, else the record's own.
    pub timestamp: TimestampMs,
}

/// A record that was read. Key, value and header values share the memory of the fetch that brought them: copy what is kept
/// for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Its position in the partition.
    pub offset: Offset,
    /// When it was made, or appended: see `timestamp_type`.
    pub timestamp: TimestampMs,
    /// Whose clock `timestamp` is.
    pub timestamp_type: TimestampType,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value, if any.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}
