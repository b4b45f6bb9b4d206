//! Records read where they are: nothing is allocated or counted for one.

use bytes::Bytes;

use super::batch::RecordBatch;
use super::records::{Header, Record, RecordError};
use super::varint::take_varint;
use crate::types::{Offset, TimestampMs};

/// The records of one batch, inflated if need be and checked: reading them cannot fail any more.
#[derive(Clone, Debug)]
pub struct Records {
    plain: Bytes,
    base_offset: Offset,
    first_timestamp: TimestampMs,
    /// The broker's time for all of them, with log-append time.
    append_time: Option<TimestampMs>,
}

/// One record that borrows from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its position in the partition.
    pub offset: Offset,
    /// When it was made, or appended: see [`crate::types::TimestampType`].
    pub timestamp: TimestampMs,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, if any.
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl Records {
    /// Opens `batch`. Plain records are shared with it, compressed ones inflate to at most `limit_bytes`.
    ///
    /// # Errors
    /// [`RecordError`] for damage, for a count that is not true, and beyond the limit.
    pub fn open(batch: &RecordBatch, limit_bytes: usize) -> Result<Self, RecordError> {
        let header = &batch.header;
        let malformed = |index, reason| RecordError::Malformed { base_offset: header.base_offset, index, reason };
        let Some(compression) = header.attributes.compression() else {
            return Err(malformed(0, "unknown compression"));
        };
        let records = Self {
            plain: compression.decompress(&batch.body, limit_bytes)?,
            base_offset: header.base_offset,
            first_timestamp: header.first_timestamp,
            append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
        };
        let mut rest = records.plain.as_ref();
        // The count is the sender's claim: it ends where the bytes do.
        for index in 0..header.record_count {
            let view = records.take_record(&mut rest).map_err(|reason| malformed(index, reason))?;
            view.check_headers().map_err(|reason| malformed(index, reason))?;
        }
        if rest.is_empty() { Ok(records) } else { Err(malformed(header.record_count, "bytes follow the last record")) }
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordView<'_>> {
        let mut from = 0;
        std::iter::from_fn(move || self.next(&mut from))
    }

    /// The record at byte `from`, which is then where the next one is; 0 is where the first one is. `None` at the end.
    #[inline]
    pub fn next(&self, from: &mut usize) -> Option<RecordView<'_>> {
        let mut rest = self.plain.get(*from..).filter(|rest| !rest.is_empty())?;
        // `open` has read all of them before.
        let view = self.take_record(&mut rest).ok()?;
        *from = self.plain.len() - rest.len();
        Some(view)
    }

    /// The record on its own, sharing the memory of the batch.
    #[must_use]
    pub fn to_record(&self, view: &RecordView<'_>) -> Record {
        Record {
            offset: view.offset,
            timestamp: view.timestamp,
            key: self.share(view.key),
            value: self.share(view.value),
            headers: self.to_headers(view),
        }
    }

    /// A field of a record of this batch on its own, sharing the memory of the batch.
    #[inline]
    #[must_use]
    pub fn share(&self, field: Option<&[u8]>) -> Option<Bytes> {
        field.map(|bytes| self.plain.slice_ref(bytes))
    }

    /// The headers of a record of this batch on their own, sharing the memory of the batch.
    #[inline]
    #[must_use]
    pub fn to_headers(&self, view: &RecordView<'_>) -> Vec<Header> {
        if view.header_count == 0 {
            return Vec::new();
        }
        view.headers().map(|(key, value)| Header { key: key.to_owned(), value: self.share(value) }).collect()
    }

    #[inline]
    fn take_record<'a>(&self, rest: &mut &'a [u8]) -> Result<RecordView<'a>, &'static str> {
        let length = usize::try_from(take_varint(rest)?).map_err(|_| "negative length")?;
        let (record, behind) = rest.split_at_checked(length).ok_or("longer than the batch")?;
        *rest = behind;
        let (_attributes, mut record) = record.split_first().ok_or("empty")?;
        let timestamp_delta = take_varint(&mut record)?;
        let offset_delta = u64::try_from(take_varint(&mut record)?).map_err(|_| "negative offset delta")?;
        let created = || TimestampMs(self.first_timestamp.0.wrapping_add(timestamp_delta));
        Ok(RecordView {
            offset: self.base_offset.plus(offset_delta),
            timestamp: self.append_time.unwrap_or_else(created),
            key: take_field(&mut record)?,
            value: take_field(&mut record)?,
            header_count: usize::try_from(take_varint(&mut record)?).map_err(|_| "negative header count")?,
            headers: record,
        })
    }
}

impl<'a> RecordView<'a> {
    /// Names and values of the headers, in order. Names may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.headers;
        // `Records::open` has read all of them before.
        (0..self.header_count).map_while(move |_| take_header(&mut rest).ok())
    }

    #[inline]
    fn check_headers(&self) -> Result<(), &'static str> {
        if self.header_count == 0 && self.headers.is_empty() {
            return Ok(());
        }
        // A header has at least two bytes.
        if self.header_count > self.headers.len() / 2 {
            return Err("more headers than bytes");
        }
        let mut rest = self.headers;
        for _ in 0..self.header_count {
            take_header(&mut rest)?;
        }
        if rest.is_empty() { Ok(()) } else { Err("bytes follow the last header") }
    }
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Result<(&'a str, Option<&'a [u8]>), &'static str> {
    let name = take_field(rest)?.ok_or("a header without a name")?;
    let name = std::str::from_utf8(name).map_err(|_| "a header name that is not UTF-8")?;
    Ok((name, take_field(rest)?))
}

#[inline]
fn take_field<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    match take_varint(rest)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| "negative field length")?;
            let (field, behind) = rest.split_at_checked(length).ok_or("a field longer than its record")?;
            *rest = behind;
            Ok(Some(field))
        }
    }
}
