//! `callboard log`: looks into a partition's directory without a node.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::args::LogCommand;
use super::consume::format::text_json;
use super::error::CliError;
use super::output::{self, counted};
use crate::storage::disk::RealDisk;
use crate::storage::{BatchAt, Problem, VerifyReport, inspect};
use crate::types::TimestampMs;
use crate::types::record_batch::{Compression, Record};

/// What every partition's directory holds.
const META_FILE: &str = "partition.meta";

/// The most bytes that one batch is inflated to for showing its records.
const DECODE_LIMIT_BYTES: usize = 256 << 20;

/// Carries out one command.
///
/// # Errors
/// [`CliError::Failed`] when something is wrong with the log, after it was printed.
pub fn run(command: &LogCommand, json: bool) -> Result<(), CliError> {
    let (LogCommand::Dump { directory, .. } | LogCommand::Verify { directory }) = command;
    check_directory(directory)?;
    let report = match command {
        LogCommand::Dump { records, .. } => dump(directory, *records, json)?,
        LogCommand::Verify { .. } => {
            let report = look(directory, None, &mut |_| true)?;
            if json {
                output::print_json(&report_json(&report))?
            } else {
                output::print(&report_text(&report))?
            }
            report
        }
    };
    if report.is_good() {
        return Ok(());
    }
    let first = report.problems.first().or(report.index_problems.first()).map(problem_text).unwrap_or_default();
    let count = (report.problems.len() + report.index_problems.len()) as u64 + report.unlisted_problems;
    let problems = counted(count, "problem");
    let first_one = if count == 1 { "" } else { "the first one: " };
    Err(CliError::Failed(format!("{problems} in {}: {first_one}{first}", directory.display())))
}

/// A directory that is not there or is no partition's is a slip of the hand, not a damaged log.
fn check_directory(directory: &Path) -> Result<(), CliError> {
    let entries = std::fs::read_dir(directory)
        .map_err(|error| CliError::Usage(format!("cannot read {}: {error}; check the path", directory.display())))?;
    // A partition that holds no record yet has no segment file, but it knows whose it is.
    let is_log = |name: &std::ffi::OsStr| {
        name == META_FILE || Path::new(name).extension().is_some_and(|extension| extension == "log")
    };
    if entries.filter_map(Result::ok).any(|entry| is_log(&entry.file_name())) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "{} holds no segment file: give the directory of one partition, such as DATA_DIR/<topic>-<topic id>-<partition>",
        directory.display()
    )))
}

fn look(
    directory: &Path,
    decode_limit: Option<usize>,
    visit: &mut dyn FnMut(BatchAt) -> bool,
) -> Result<VerifyReport, CliError> {
    inspect(&RealDisk, directory, decode_limit, visit).map_err(|error| CliError::Failed(error.to_string()))
}

fn dump(directory: &Path, records: bool, json: bool) -> Result<VerifyReport, CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let report = look(directory, records.then_some(DECODE_LIMIT_BYTES), &mut |batch| {
        written = if json { writeln!(out, "{}", batch_json(&batch)) } else { write_batch(&mut out, &batch) };
        written.is_ok()
    })?;
    written.and_then(|()| out.flush()).map_err(|error| CliError::writing("standard output", &error))?;
    Ok(report)
}

fn write_batch(out: &mut impl Write, batch: &BatchAt) -> io::Result<()> {
    let header = &batch.header;
    let offsets = match (header.base_offset, header.last_offset()) {
        (first, last) if first == last => format!("offset {first}"),
        (first, last) => format!("offsets {first} to {last}"),
    };
    write!(
        out,
        "{}@{}  {offsets}  {}  {} bytes  {}  epoch {}  {}",
        batch.file,
        batch.position,
        counted(u64::from(header.record_count.unsigned_abs()), "record"),
        header.total_bytes(),
        compression(batch),
        header.leader_epoch,
        time(header.max_timestamp),
    )?;
    if header.is_idempotent() {
        write!(out, "  producer {}/{} sequence {}", header.producer_id, header.producer_epoch, header.base_sequence)?;
    }
    if header.attributes.is_control() {
        write!(out, "  control")?;
    }
    writeln!(out)?;
    for record in batch.records.iter().flatten() {
        let (key, value) = (text_json(record.key.as_deref()), text_json(record.value.as_deref()));
        writeln!(out, "  {}  {}  {key}  {value}", record.offset, time(record.timestamp))?;
    }
    Ok(())
}

fn compression(batch: &BatchAt) -> &'static str {
    match batch.header.attributes.compression() {
        Some(Compression::None) => "none",
        Some(Compression::Gzip) => "gzip",
        Some(Compression::Snappy) => "snappy",
        Some(Compression::Lz4) => "lz4",
        Some(Compression::Zstd) => "zstd",
        None => "unknown",
    }
}

/// As in RFC 3339, "-" for none, or the number where no calendar reaches.
fn time(timestamp: TimestampMs) -> String {
    if timestamp.0 == -1 {
        return "-".to_owned();
    }
    jiff::Timestamp::from_millisecond(timestamp.0).map_or_else(|_| timestamp.to_string(), |moment| moment.to_string())
}

fn batch_json(batch: &BatchAt) -> Value {
    let header = &batch.header;
    let record = |record: &Record| {
        json!({
            "offset": record.offset, "timestamp": record.timestamp,
            "key": text_json(record.key.as_deref()), "value": text_json(record.value.as_deref()),
            "headers": record.headers.iter()
                .map(|header| json!({"key": header.key, "value": text_json(header.value.as_deref())}))
                .collect::<Vec<_>>(),
        })
    };
    json!({
        "file": batch.file,
        "position": batch.position,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "record_count": header.record_count,
        "bytes": header.total_bytes(),
        "compression": compression(batch),
        "leader_epoch": header.leader_epoch,
        "max_timestamp": header.max_timestamp,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "control": header.attributes.is_control(),
        "records": batch.records.as_ref().map(|records| records.iter().map(record).collect::<Vec<_>>()),
    })
}

fn problem_text(problem: &Problem) -> String {
    let due = problem.offset.map(|offset| format!(" (offset {offset})")).unwrap_or_default();
    format!("{} at byte {}{due}: {}", problem.file, problem.position, problem.what)
}

fn report_text(report: &VerifyReport) -> String {
    let mut lines = Vec::new();
    if let Some(identity) = &report.identity {
        lines.push(format!(
            "topic {} (id {}), partition {}, cluster {}",
            identity.topic, identity.topic_id, identity.partition, identity.cluster_id
        ));
    }
    let offsets =
        report.offsets.map_or_else(|| "none".to_owned(), |(first, end)| format!("{first} up to but not {end}"));
    lines.push(format!(
        "{}, {}, {}, {}; offsets {offsets}",
        counted(report.segments as u64, "segment"),
        counted(report.batches, "batch"),
        counted(report.records, "record"),
        output::bytes(report.bytes)
    ));
    lines.extend(report.problems.iter().map(|problem| format!("PROBLEM {}", problem_text(problem))));
    let rebuilt = |problem: &Problem| format!("INDEX {} (the next start rebuilds it)", problem_text(problem));
    lines.extend(report.index_problems.iter().map(rebuilt));
    if report.unlisted_problems > 0 {
        lines.push(format!("and {} more", counted(report.unlisted_problems, "problem")));
    }
    if report.is_good() {
        lines.push("everything is as it should be".to_owned());
    }
    lines.join("\n")
}

fn report_json(report: &VerifyReport) -> Value {
    let problem = |problem: &Problem| json!({"file": problem.file, "position": problem.position, "offset": problem.offset, "what": problem.what});
    json!({
        "good": report.is_good(),
        "topic": report.identity.as_ref().map(|identity| identity.topic.to_string()),
        "topic_id": report.identity.as_ref().map(|identity| identity.topic_id.to_string()),
        "partition": report.identity.as_ref().map(|identity| identity.partition),
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "start_offset": report.offsets.map(|(first, _)| first),
        "end_offset": report.offsets.map(|(_, end)| end),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
        "index_problems": report.index_problems.iter().map(problem).collect::<Vec<_>>(),
        "unlisted_problems": report.unlisted_problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    #[test]
    fn a_report_tells_what_was_read_and_each_problem() {
        let problem =
            Problem { file: "a.log".into(), position: 9, offset: Some(Offset(4)), what: "wrong checksum".into() };
        let mut report = VerifyReport { segments: 1, offsets: Some((Offset(0), Offset(4))), ..VerifyReport::default() };
        let read = "1 segment, 0 batches, 0 records, 0 B; offsets 0 up to but not 4";
        assert_eq!(report_text(&report), format!("{read}\neverything is as it should be"));
        assert_eq!(report_json(&report)["good"], true);
        report.problems.push(problem);
        assert_eq!(report_text(&report), format!("{read}\nPROBLEM a.log at byte 9 (offset 4): wrong checksum"));
        assert_eq!(report_json(&report)["problems"][0]["what"], "wrong checksum");
    }

    #[test]
    fn a_directory_without_segments_is_a_slip_of_the_hand() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for path in [directory.path().to_path_buf(), directory.path().join("missing")] {
            let error = run(&LogCommand::Verify { directory: path }, false).expect_err("no partition");
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_segment_is_reported_as_a_problem() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("00000000000000000000.log"), [7; 100]).expect("a small file");
        let error = run(&LogCommand::Verify { directory: directory.path().to_path_buf() }, true).expect_err("damaged");
        assert_eq!(error.exit_code(), 1, "{error}");
    }
}
