//! Reading just enough MessagePack to take a frame apart, and writing just enough to put one together.

use bytes::{BufMut, BytesMut};
use rmp::Marker;

use super::MAX_DEPTH;

/// Where and why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub at: usize,
    pub reason: &'static str,
}

/// Walks over bytes that may lie.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What follows a marker: data of so many bytes, then so many values.
struct Shape {
    data_bytes: usize,
    children: usize,
}

const ENDS_EARLY: &str = "the bytes end inside a value";

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { at: self.at, reason }
    }

    pub fn advance(&mut self, by: usize) -> Result<(), Malformed> {
        if by > self.remaining() {
            return Err(self.malformed("a length that runs past the end of the frame"));
        }
        self.at += by;
        Ok(())
    }

    pub fn u16(&mut self, reason: &'static str) -> Result<u16, Malformed> {
        let at = self.at;
        let number = self.u32(reason)?;
        u16::try_from(number).map_err(|_| Malformed { at, reason })
    }

    pub fn u32(&mut self, reason: &'static str) -> Result<u32, Malformed> {
        let at = self.at;
        let value = match self.marker()? {
            Marker::FixPos(small) => u64::from(small),
            Marker::U8 => self.big_endian(1)?,
            Marker::U16 => self.big_endian(2)?,
            Marker::U32 => self.big_endian(4)?,
            Marker::U64 => self.big_endian(8)?,
            // Some encoders choose signed forms for positive numbers. Negative ones come out too large for a u32.
            Marker::I8 => i64::from(self.big_endian(1)? as u8 as i8).cast_unsigned(),
            Marker::I16 => i64::from(self.big_endian(2)? as u16 as i16).cast_unsigned(),
            Marker::I32 => i64::from(self.big_endian(4)? as u32 as i32).cast_unsigned(),
            Marker::I64 => self.big_endian(8)?,
            _ => return Err(Malformed { at, reason }),
        };
        u32::try_from(value).map_err(|_| Malformed { at, reason })
    }

    pub fn array_length(&mut self) -> Result<usize, Malformed> {
        let at = self.at;
        match self.marker()? {
            Marker::FixArray(length) => Ok(usize::from(length)),
            Marker::Array16 => self.length(2),
            Marker::Array32 => self.length(4),
            _ => Err(Malformed { at, reason: "an array is expected here" }),
        }
    }

    pub fn bin_length(&mut self) -> Result<usize, Malformed> {
        let at = self.at;
        match self.marker()? {
            Marker::Bin8 => self.length(1),
            Marker::Bin16 => self.length(2),
            Marker::Bin32 => self.length(4),
            _ => Err(Malformed { at, reason: "an attachment is a bin" }),
        }
    }

    /// Steps over one value, whatever it is, and returns how many values it consists of. Takes time in proportion to the
    /// bytes stepped over and memory for [`MAX_DEPTH`] counters, no matter what the bytes claim.
    pub fn skip_value(&mut self, max_values: usize) -> Result<usize, Malformed> {
        let mut left = [0usize; MAX_DEPTH + 1];
        let (mut depth, mut values) = (0, 0);
        left[0] = 1;
        loop {
            while left[depth] == 0 {
                if depth == 0 {
                    return Ok(values);
                }
                depth -= 1;
            }
            left[depth] -= 1;
            values += 1;
            if values > max_values {
                return Err(self.malformed("more values than a frame may have: split the request"));
            }
            let shape = self.shape()?;
            self.advance(shape.data_bytes)?;
            if shape.children == 0 {
                continue;
            }
            // Each element takes a byte at least.
            if shape.children > self.remaining() {
                return Err(self.malformed("more elements than the remaining bytes could hold"));
            }
            if depth == MAX_DEPTH {
                return Err(self.malformed("values nested deeper than 32"));
            }
            depth += 1;
            left[depth] = shape.children;
        }
    }

    fn shape(&mut self) -> Result<Shape, Malformed> {
        let at = self.at;
        let data = |data_bytes| Shape { data_bytes, children: 0 };
        let elements = |children| Shape { data_bytes: 0, children };
        Ok(match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::False | Marker::True => data(0),
            Marker::U8 | Marker::I8 => data(1),
            Marker::U16 | Marker::I16 | Marker::FixExt1 => data(2),
            Marker::FixExt2 => data(3),
            Marker::U32 | Marker::I32 | Marker::F32 => data(4),
            Marker::FixExt4 => data(5),
            Marker::U64 | Marker::I64 | Marker::F64 => data(8),
            Marker::FixExt8 => data(9),
            Marker::FixExt16 => data(17),
            Marker::FixStr(length) => data(usize::from(length)),
            Marker::Str8 | Marker::Bin8 => data(self.length(1)?),
            Marker::Str16 | Marker::Bin16 => data(self.length(2)?),
            Marker::Str32 | Marker::Bin32 => data(self.length(4)?),
            Marker::Ext8 => data(self.length(1)? + 1),
            Marker::Ext16 => data(self.length(2)? + 1),
            Marker::Ext32 => data(self.length(4)?.saturating_add(1)),
            Marker::FixArray(length) => elements(usize::from(length)),
            Marker::Array16 => elements(self.length(2)?),
            Marker::Array32 => elements(self.length(4)?),
            Marker::FixMap(length) => elements(usize::from(length) * 2),
            Marker::Map16 => elements(self.length(2)? * 2),
            Marker::Map32 => elements(self.length(4)?.saturating_mul(2)),
            Marker::Reserved => return Err(Malformed { at, reason: "0xc1 is never used in MessagePack" }),
        })
    }

    fn marker(&mut self) -> Result<Marker, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(self.malformed(ENDS_EARLY))?;
        self.at += 1;
        Ok(Marker::from_u8(byte))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Malformed> {
        let length = self.big_endian(bytes)?;
        // Saturating is for machines of 16 bits: the next check against the remaining bytes refuses it.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn big_endian(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let data = self.bytes.get(self.at..self.at + bytes).ok_or(self.malformed(ENDS_EARLY))?;
        self.at += bytes;
        Ok(data.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Writes a number in the shortest form.
pub(super) fn put_uint(out: &mut BytesMut, value: u32) {
    match value {
        0..=0x7f => out.put_u8(value as u8),
        0x80..=0xff => out.put_slice(&[Marker::U8.to_u8(), value as u8]),
        0x100..=0xffff => {
            out.put_u8(Marker::U16.to_u8());
            out.put_u16(value as u16);
        }
        _ => {
            out.put_u8(Marker::U32.to_u8());
            out.put_u32(value);
        }
    }
}

/// The size of what [`put_uint`] writes.
pub(super) fn uint_bytes(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}

/// Writes the start of an array.
pub(super) fn put_array_length(out: &mut BytesMut, length: u32) {
    match length {
        0..=15 => out.put_u8(Marker::FixArray(length as u8).to_u8()),
        16..=0xffff => {
            out.put_u8(Marker::Array16.to_u8());
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(Marker::Array32.to_u8());
            out.put_u32(length);
        }
    }
}

/// The size of what [`put_array_length`] writes.
pub(super) fn array_length_bytes(length: usize) -> usize {
    match length {
        0..=15 => 1,
        16..=0xffff => 3,
        _ => 5,
    }
}

/// Writes the start of a bin.
pub(super) fn put_bin_length(out: &mut BytesMut, length: u32) {
    match length {
        0..=0xff => out.put_slice(&[Marker::Bin8.to_u8(), length as u8]),
        0x100..=0xffff => {
            out.put_u8(Marker::Bin16.to_u8());
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(Marker::Bin32.to_u8());
            out.put_u32(length);
        }
    }
}

/// The size of what [`put_bin_length`] writes.
pub(super) fn bin_length_bytes(length: usize) -> usize {
    match length {
        0..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}
