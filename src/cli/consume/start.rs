//! Where to start reading, as it is typed.

use crate::client::StartAt;
use crate::types::{Offset, TimestampMs};

/// A place that `--from` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(pub StartAt);

impl From {
    /// `earliest`, `latest`, an offset in digits, `@` and milliseconds since 1970, or a time as in RFC 3339.
    ///
    /// # Errors
    /// A sentence that lists these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "give earliest, latest, an offset, a time with its zone such as 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970"
                .to_owned()
        };
        Ok(Self(match text {
            "earliest" => StartAt::Earliest,
            "latest" => StartAt::Latest,
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let offset = text.parse().ok().map(Offset).filter(|offset| *offset <= Offset::MAX);
                StartAt::Offset(offset.ok_or_else(|| format!("an offset is at most {}", Offset::MAX))?)
            }
            _ => StartAt::Timestamp(time(text).map_err(|_| wrong())?),
        }))
    }
}

/// `@` and milliseconds since 1970, or a time as in RFC 3339.
///
/// # Errors
/// A sentence that says so.
pub fn time(text: &str) -> Result<TimestampMs, String> {
    let millis = |digits: &str| {
        let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok().map(TimestampMs)
    };
    text.strip_prefix('@')
        .map_or_else(|| timestamp(text), millis)
        .ok_or_else(|| "give a time with its zone such as 2026-01-31T12:00:00Z, or @MILLISECONDS since 1970".to_owned())
}

/// A moment with its zone; parts of a millisecond are rounded up, so that nothing before that moment is read.
fn timestamp(text: &str) -> Option<TimestampMs> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    let floor = moment.as_millisecond();
    let exact = moment.subsec_nanosecond().rem_euclid(1_000_000) == 0;
    // `as_millisecond` cuts towards zero, which is up already before 1970; those moments are refused below anyway.
    let millis = if exact { floor } else { floor + 1 };
    (millis >= 0).then_some(TimestampMs(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_start_is_understood() {
        let cases = [
            ("earliest", StartAt::Earliest),
            ("latest", StartAt::Latest),
            ("0", StartAt::Offset(Offset(0))),
            ("1767225600000", StartAt::Offset(Offset(1_767_225_600_000))),
            ("9223372036854775807", StartAt::Offset(Offset::MAX)),
            ("@1767225600000", StartAt::Timestamp(TimestampMs(1_767_225_600_000))),
            ("2026-01-01T00:00:00Z", StartAt::Timestamp(TimestampMs(1_767_225_600_000))),
            ("2026-01-01T01:00:00+01:00", StartAt::Timestamp(TimestampMs(1_767_225_600_000))),
            ("2026-01-01 00:00:00.5Z", StartAt::Timestamp(TimestampMs(1_767_225_600_500))),
            ("2026-01-01T00:00:00.0001Z", StartAt::Timestamp(TimestampMs(1_767_225_600_001))),
        ];
        for (text, expected) in cases {
            assert_eq!(From::parse(text), Ok(From(expected)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_legal() {
        for text in ["", "first", "-1", "@", "@x", "@-1", "2026-01-01", "2026-01-01T00:00:00", "1969-01-01T00:00:00Z"] {
            let error = From::parse(text).expect_err(text);
            assert!(error.starts_with("give earliest, latest, "), "{text}: {error}");
        }
        let error = From::parse("9223372036854775808").expect_err("beyond the largest offset");
        assert_eq!(error, "an offset is at most 9223372036854775807");
    }
}
