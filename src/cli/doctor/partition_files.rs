//! Reading the files of one partition: its small files, its records, and what else lies there. Changes nothing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::checks::partition::{PartitionFacts, RecordProblem};
use crate::storage::disk::{Disk, child};
use crate::storage::{PartitionIdentity, PartitionState, Problem, VerifyReport, inspect};
use crate::types::{Offset, TimestampMs, TopicPartition};

/// Files that say whose the partition is and how far it is good: read and judged by themselves.
const SMALL_FILES: [&str; 2] = ["partition.meta", "partition.state"];
/// In the name of what a recovery put aside.
const CUT_MARK: &str = ".cut-";

/// What is read while the user waits.
#[derive(Debug, Default)]
pub struct BytesRead(AtomicU64);

impl BytesRead {
    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the records of a partition say.
#[derive(Default)]
struct Records {
    report: VerifyReport,
    newest: Option<TimestampMs>,
    last_good: Option<(String, u64)>,
}

/// Looks at the partition in `path`, and reads all its records if `read_records` says so.
pub fn gather(
    disk: &dyn Disk,
    path: &Path,
    named: TopicPartition,
    read_records: bool,
    read: &BytesRead,
) -> PartitionFacts {
    let state = PartitionState::read(disk, path);
    let segments = segments(disk, path);
    let (records, unreadable) = match read_records.then(|| records(disk, path, read)) {
        None => (Records::default(), None),
        Some(Ok(records)) => (records, None),
        Some(Err(error)) => (Records::default(), Some(error.to_string())),
    };
    let known = state.as_ref().ok().and_then(Option::as_ref);
    let recovers = known.is_none_or(|state| !is_clean(state, &segments));
    let past_recovery_point = |problem: &Problem| {
        let Some(state) = known.filter(|_| recovers) else { return false };
        let place = (base_of(&problem.file), problem.position);
        place >= (Some(state.recovery.segment), state.recovery.position)
    };
    let is_last = |problem: &Problem| {
        let last_segment = segments.last().is_some_and(|(base, _)| base_of(&problem.file) == Some(*base));
        let good_after = records
            .last_good
            .as_ref()
            .is_some_and(|(file, position)| *file == problem.file && *position > problem.position);
        last_segment && !good_after
    };
    let of_records = records.report.problems.iter().filter(|problem| !SMALL_FILES.contains(&problem.file.as_str()));
    let problems = of_records.map(|problem| RecordProblem {
        problem: problem.clone(),
        past_recovery_point: past_recovery_point(problem),
        at_the_end: is_last(problem),
    });
    let problems = problems.collect();
    // Recovery rebuilds the indexes of what it verifies.
    let rebuilt = |problem: &Problem| {
        recovers && known.is_none_or(|state| base_of(&problem.file) >= Some(state.recovery.segment))
    };
    let index_problems = records.report.index_problems.iter().filter(|problem| !rebuilt(problem)).cloned().collect();
    let names = names(disk, path);
    let named_like = |mark: &str| names.iter().filter(|name| name.contains(mark)).cloned().collect::<Vec<_>>();
    PartitionFacts {
        path: path.to_owned(),
        named,
        identity: PartitionIdentity::read(disk, path),
        boot_id: disk.boot_id().unwrap_or_default(),
        to_scan_bytes: if recovers { to_scan(known, &segments) } else { 0 },
        state,
        problems,
        index_problems,
        unlisted_problems: records.report.unlisted_problems,
        newest: records.newest,
        leftovers: names.iter().filter(|name| name.ends_with(".tmp")).cloned().collect(),
        cuts: named_like(CUT_MARK),
        unreadable,
    }
}

fn records(disk: &dyn Disk, path: &Path, read: &BytesRead) -> Result<Records, crate::storage::LogError> {
    let (mut newest, mut last_good) = (None, None);
    let report = inspect(disk, path, None, &mut |batch| {
        read.0.fetch_add(batch.header.total_bytes() as u64, Ordering::Relaxed);
        newest = newest.max(Some(batch.header.max_timestamp));
        last_good = Some((batch.file, batch.position));
        true
    })?;
    Ok(Records { report, newest, last_good })
}

/// Whether the next start reads no records: the last stop was clean, and the files are as it left them.
fn is_clean(state: &PartitionState, segments: &[(Offset, u64)]) -> bool {
    state.clean.as_ref().is_some_and(|clean| clean.newest == segments.last().copied())
}

/// Bytes past the recovery point.
fn to_scan(state: Option<&PartitionState>, segments: &[(Offset, u64)]) -> u64 {
    let recovery = state.map(|state| state.recovery).unwrap_or_default();
    let past = |(base, size): &(Offset, u64)| match base.cmp(&recovery.segment) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => size.saturating_sub(recovery.position),
        std::cmp::Ordering::Greater => *size,
    };
    segments.iter().map(past).sum()
}

/// Base offset and size of each segment, in order.
fn segments(disk: &dyn Disk, path: &Path) -> Vec<(Offset, u64)> {
    let entries = disk.read_dir(path).unwrap_or_default();
    let mut segments: Vec<_> = entries.iter().filter_map(|entry| Some((base_of(&entry.name)?, entry.length))).collect();
    segments.sort_unstable();
    segments
}

/// The base offset of a segment, by the name of its file.
fn base_of(file: &str) -> Option<Offset> {
    let digits = file
        .strip_suffix(".log")
        .or_else(|| file.strip_suffix(".index"))
        .or_else(|| file.strip_suffix(".timeindex"))?;
    digits.parse().ok().map(Offset)
}

fn names(disk: &dyn Disk, path: &Path) -> Vec<String> {
    disk.read_dir(path).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
}

/// The names in a directory that may not be there.
pub fn names_in(disk: &dyn Disk, root: &Path, name: &str) -> Vec<String> {
    names(disk, &child(root, name))
}
