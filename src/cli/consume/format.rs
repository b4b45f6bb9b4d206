//! A record as bytes of output.

use serde_json::{Value, json};

use crate::cli::produce::lines::Delimiter;
use crate::client::ConsumedRecord;

/// What is printed of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its value.
    Value,
    /// Its key, a separator and its value; the value alone when it has no key.
    KeyValue,
    /// One JSON object with all there is to it.
    Json,
}

impl Format {
    /// From its name on the command line.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "value" => Ok(Self::Value),
            "key=value" => Ok(Self::KeyValue),
            "json" => Ok(Self::Json),
            _ => Err("give value, key=value or json".to_owned()),
        }
    }
}

/// Turns records into bytes with a delimiter between them.
#[derive(Debug)]
pub struct Formatter {
    /// What is printed.
    pub format: Format,
    /// What stands between key and value.
    pub key_separator: Delimiter,
    /// What ends a record.
    pub delimiter: Delimiter,
    /// Whether the last record goes without its delimiter.
    pub open_end: bool,
    /// Whether a record was written whose delimiter is still owed.
    owes_delimiter: bool,
}

impl Formatter {
    /// A formatter that has written nothing.
    #[must_use]
    pub fn new(format: Format, key_separator: Delimiter, delimiter: Delimiter, open_end: bool) -> Self {
        Self { format, key_separator, delimiter, open_end, owes_delimiter: false }
    }

    /// Appends `record` to `out`.
    pub fn append(&mut self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        if self.owes_delimiter {
            out.extend_from_slice(self.delimiter.as_bytes());
        }
        match self.format {
            Format::Value => {}
            Format::KeyValue => {
                if let Some(key) = &record.key {
                    out.extend_from_slice(key);
                    out.extend_from_slice(self.key_separator.as_bytes());
                }
            }
            Format::Json => out.extend_from_slice(to_json(record).to_string().as_bytes()),
        }
        if self.format != Format::Json {
            out.extend_from_slice(record.value.as_deref().unwrap_or_default());
        }
        self.owes_delimiter = self.open_end;
        if !self.open_end {
            out.extend_from_slice(self.delimiter.as_bytes());
        }
    }
}

fn to_json(record: &ConsumedRecord) -> Value {
    let headers =
        record.headers.iter().map(|header| json!({"key": header.key, "value": text_json(header.value.as_deref())}));
    json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "key": text_json(record.key.as_deref()),
        "value": text_json(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// Text as it is, other bytes as `{"base64": "…"}`, nothing as null.
#[must_use]
pub fn text_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => json!({"base64": base64(bytes)}),
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Header;
    use crate::types::{Offset, TimestampMs, TimestampType};

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 1,
            offset: Offset(7),
            timestamp: TimestampMs(1_000),
            timestamp_type: TimestampType::CreateTime,
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers: Vec::new(),
        }
    }

    fn formatted(format: Format, open_end: bool, records: &[ConsumedRecord]) -> Vec<u8> {
        let delimiter = |text| Delimiter::parse(text).expect("a good delimiter");
        let mut formatter = Formatter::new(format, delimiter("="), delimiter("\\n"), open_end);
        let mut out = Vec::new();
        records.iter().for_each(|record| formatter.append(record, &mut out));
        out
    }

    #[test]
    fn values_are_written_as_the_bytes_they_are() {
        let records = [record(Some(b"k"), Some(b"a\r")), record(None, Some(b"\xff\x00")), record(None, Some(b""))];
        assert_eq!(formatted(Format::Value, false, &records), b"a\r\n\xff\x00\n\n");
    }

    #[test]
    fn an_open_end_leaves_out_the_last_delimiter_only() {
        let records = [record(None, Some(b"a")), record(None, Some(b"b"))];
        assert_eq!(formatted(Format::Value, true, &records), b"a\nb");
        assert_eq!(formatted(Format::Value, true, &[]), b"");
    }

    #[test]
    fn keys_stand_before_their_values_and_their_absence_shows() {
        let records = [record(Some(b"k"), Some(b"v")), record(None, Some(b"w")), record(Some(b"gone"), None)];
        assert_eq!(formatted(Format::KeyValue, false, &records), b"k=v\nw\ngone=\n");
    }

    #[test]
    fn json_tells_everything_and_keeps_bytes_that_are_no_text() {
        let mut first = record(Some(b"k"), Some(b"\xff"));
        first.headers = vec![Header { key: "h".into(), value: None }];
        let out = formatted(Format::Json, false, &[first, record(None, None)]);
        let lines: Vec<Value> = out.split(|&b| b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
        assert_eq!(
            lines,
            [
                json!({"topic": "t", "partition": 1, "offset": 7, "timestamp": 1000, "key": "k", "value": {"base64": "/w=="},
                       "headers": [{"key": "h", "value": null}]}),
                json!({"topic": "t", "partition": 1, "offset": 7, "timestamp": 1000, "key": null, "value": null, "headers": []}),
            ]
        );
    }

    #[test]
    fn base64_is_as_in_its_specification() {
        let examples = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(examples, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
