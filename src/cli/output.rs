//! What commands print: tables for people, JSON for programs.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};

use super::error::CliError;
use crate::types::TimestampMs;

/// Writes `text` and a line end to stdout.
///
/// # Errors
/// [`CliError::OutputClosed`] when the reader is gone, [`CliError::Output`] for anything else.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|error| CliError::writing("standard output", &error))
}

/// Writes a JSON value over several lines to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &serde_json::Value) -> Result<(), CliError> {
    print(&format!("{value:#}"))
}

/// A table of aligned columns without lines, as other command line tools print them.
#[must_use]
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let columns = table.column_iter_mut();
    for column in columns {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// "1 topic", "2 topics".
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    let ending = match count {
        1 => "",
        _ if what.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {what}{ending}")
}

/// A number of bytes for people: three digits and a binary unit.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A moment for people: RFC 3339, in UTC, as commands take it.
#[must_use]
pub fn time(time: TimestampMs) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| format!("@{}", time.0), |moment| format!("{moment:.3}"))
}

/// A time in microseconds for people.
#[must_use]
pub fn micros(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} µs"),
        1_000..1_000_000 => format!("{:.1} ms", count as f64 / 1e3),
        _ => format!("{:.1} s", count as f64 / 1e6),
    }
}

/// A time that passed, for people.
#[must_use]
pub fn duration(time: Duration) -> String {
    micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 1_023, 1_024, 1_536, 10 << 10, 150 << 20, 5 << 40].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 KiB", "150 MiB", "5.00 TiB"]);
        assert_eq!([0, 999, 1_500, 2_000_000].map(micros), ["0 µs", "999 µs", "1.5 ms", "2.0 s"]);
    }

    #[test]
    fn a_moment_is_printed_as_it_can_be_given() {
        assert_eq!(time(TimestampMs(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert_eq!(time(TimestampMs(i64::MAX)), format!("@{}", i64::MAX));
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "batch")), ["0 batches", "1 batch", "2 batches"]);
        assert_eq!([0, 1, 2].map(|count| counted(count, "record")), ["0 records", "1 record", "2 records"]);
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_spaces() {
        let rows = [vec!["orders".to_owned(), "2".to_owned()], vec!["a".to_owned(), "10".to_owned()]];
        assert_eq!(table(&["TOPIC", "PARTITIONS"], rows), "TOPIC   PARTITIONS\norders  2\na       10");
    }
}
