//! The format's numbers: zigzag varints of one to ten bytes, small ones first.

/// The most bytes that a number takes.
pub(super) const MAX_VARINT_BYTES: usize = 10;

/// Maps small numbers of both signs to small numbers.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// How many bytes `value` takes.
pub(super) fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads a number off the front of `rest`.
#[inline]
pub(super) fn take_varint(rest: &mut &[u8]) -> Result<i64, &'static str> {
    // Nearly all numbers of a record have one or two bytes.
    let (value, used) = match **rest {
        [low, ..] if low < 0x80 => (u64::from(low), 1),
        [low, high, ..] if high < 0x80 => (u64::from(low & 0x7f) | u64::from(high) << 7, 2),
        _ => long_varint(rest)?,
    };
    *rest = &rest[used..];
    Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

#[cold]
fn long_varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(MAX_VARINT_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(if bytes.len() < MAX_VARINT_BYTES { "cut short" } else { "a number of more than ten bytes" })
}

#[cfg(test)]
mod tests {
    use super::super::encode::Small;
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back_and_take_as_many_bytes_as_foretold() {
        let edges = (0..63).flat_map(|bit| [(1i64 << bit) - 1, 1 << bit, -(1 << bit), -(1 << bit) - 1]);
        for value in edges.chain([i64::MIN, i64::MAX]) {
            let mut small = Small::with_gap();
            small.varint(value);
            let bytes = small.as_slice();
            assert_eq!(bytes.len(), varint_bytes(value), "{value}");
            let mut rest = bytes;
            assert_eq!(take_varint(&mut rest), Ok(value));
            assert_eq!(rest, b"");
            assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), Err("cut short"), "{value}");
        }
        assert_eq!(take_varint(&mut [0xff; 11].as_slice()), Err("a number of more than ten bytes"));
    }
}
