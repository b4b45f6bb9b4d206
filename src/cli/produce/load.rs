//! The load: numbered records at a steady pace, each with the time it was sent.
//!
//! A value is `{"n":17,"sent_us":1767225600000000}`: `n` rises by one from 1 for each producer, `sent_us` is the wall clock in
//! microseconds since 1970-01-01 UTC when the record was handed to the producer. A consumer on the same machine subtracts.

use bytes::Bytes;

const SENT_FIELD: &[u8] = b"\"sent_us\":";

/// The value of record `n`.
#[must_use]
pub fn value(n: u64, sent_us: u64) -> Bytes {
    format!("{{\"n\":{n},\"sent_us\":{sent_us}}}").into()
}

/// The send time that a value carries, if it is one of a load.
#[must_use]
pub fn sent_us(value: &[u8]) -> Option<u64> {
    let rest = value.strip_prefix(b"{\"n\":")?;
    let comma = rest.iter().position(|&byte| byte == b',')?;
    let digits = rest[comma + 1..].strip_prefix(SENT_FIELD)?.strip_suffix(b"}")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The wall clock in microseconds since 1970-01-01 UTC.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "latencies end to end are below the millisecond that a TimestampMs holds")]
pub fn wall_us() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_send_time_comes_back_out_of_the_value() {
        assert_eq!(value(17, 1_767_225_600_000_000), "{\"n\":17,\"sent_us\":1767225600000000}");
        assert_eq!(sent_us(&value(u64::MAX, 5)), Some(5));
        assert_eq!(sent_us(&value(1, u64::MAX)), Some(u64::MAX));
    }

    #[test]
    fn other_values_carry_no_send_time() {
        for other in
            ["", "{}", "{\"n\":", "{\"n\":1,\"sent_us\":}", "{\"n\":1,\"sent_us\":-4}", "{\"n\":1,\"sent_us\":4} "]
        {
            assert_eq!(sent_us(other.as_bytes()), None, "{other}");
        }
    }
}
