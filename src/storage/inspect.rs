//! Looking into a partition's directory without opening the log: read-only, without a running node, without locks.
//!
//! ```text
//!   directory ──► segments ──► batches ──► visit(BatchAt)      dump
//!                    └──► indexes ──► problems                 verify
//! ```
//!
//! What is read may change meanwhile when a node is running: a batch that is being written shows as a torn tail.

use std::path::Path;

use super::checksum::{CHECKSUM_SUFFIX, SegmentChecksum, Summing};
use super::disk::{Disk, DiskFile, OpenMode, child};
use super::error::LogError;
use super::index::{IndexEntry, OffsetEntry, entry_at};
use super::partition_state::{PartitionIdentity, PartitionState};
use super::scan::{Check, Scanner, Step};
use super::segment::{INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, base_of, segment_path};
use super::time_index::TimeEntry;
use crate::types::Offset;
use crate::types::record_batch::{BatchHeader, Record, decode_records};

/// Problems beyond this many are counted, not listed.
const LISTED_PROBLEMS: usize = 1_000;

/// A batch and where it stands.
#[derive(Clone, Debug)]
pub struct BatchAt {
    /// The file's name.
    pub file: String,
    /// The position in it in bytes.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// Its records, when they were asked for and can be decoded.
    pub records: Option<Vec<Record>>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// The position in it in bytes.
    pub position: u64,
    /// The offset that was due there, where that is known.
    pub offset: Option<Offset>,
    /// What is wrong.
    pub what: String,
}

/// What a look at a partition found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whose directory it is; `None` when that cannot be read (which is a problem too).
    pub identity: Option<PartitionIdentity>,
    /// The state that was written down last.
    pub state: Option<PartitionState>,
    /// Segments read.
    pub segments: usize,
    /// Good batches.
    pub batches: u64,
    /// Records in them, by their headers.
    pub records: u64,
    /// Bytes of good batches.
    pub bytes: u64,
    /// The first offset and the end (exclusive) of what was read.
    pub offsets: Option<(Offset, Offset)>,
    /// Problems with records.
    pub problems: Vec<Problem>,
    /// Problems with indexes: the next open rebuilds them.
    pub index_problems: Vec<Problem>,
    /// Problems that are not listed for want of room.
    pub unlisted_problems: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.index_problems.is_empty()
    }

    fn problem(&mut self, file: &str, position: u64, offset: Option<Offset>, what: String) {
        let problem = Problem { file: file.to_owned(), position, offset, what };
        if self.problems.len() < LISTED_PROBLEMS { self.problems.push(problem) } else { self.unlisted_problems += 1 }
    }

    fn index_problem(&mut self, file: &str, position: u64, offset: Option<Offset>, what: String) {
        let problem = Problem { file: file.to_owned(), position, offset, what };
        if self.index_problems.len() < LISTED_PROBLEMS {
            self.index_problems.push(problem);
        } else {
            self.unlisted_problems += 1;
        }
    }
}

/// Reads every batch of the partition in `dir`, checks checksums, offsets, epochs and indexes, and shows each good batch to
/// `visit`, in order, until it returns false. Records are decoded to at most `decode_limit` bytes a batch if it is given.
///
/// # Errors
/// The disk's. What is wrong with the data is in the report.
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    decode_limit: Option<usize>,
    visit: &mut dyn FnMut(BatchAt) -> bool,
) -> Result<VerifyReport, LogError> {
    let mut report = VerifyReport::default();
    match PartitionIdentity::read(disk, dir) {
        Ok(identity) => report.identity = Some(identity),
        Err(error) => report.problem(super::partition_state::META_FILE, 0, None, error.to_string()),
    }
    match PartitionState::read(disk, dir) {
        Ok(Some(state)) => report.state = Some(state),
        Ok(None) => report.problem(super::partition_state::STATE_FILE, 0, None, "the file is missing".to_owned()),
        Err(error) => report.problem(super::partition_state::STATE_FILE, 0, None, error.to_string()),
    }
    let mut logs: Vec<(Offset, u64)> = disk
        .read_dir(dir)?
        .iter()
        .filter_map(|entry| Some((base_of(&entry.name, LOG_SUFFIX)?, entry.length)))
        .collect();
    logs.sort_unstable();
    let mut due = None;
    for (at, (base, length)) in logs.iter().enumerate() {
        let file_name = format!("{:020}{LOG_SUFFIX}", base.0);
        if let Some(due) = due.filter(|due| due != base) {
            report.problem(&file_name, 0, Some(due), format!("the segment starts at offset {base} where {due} is due"));
        }
        let next_base = logs.get(at + 1).map_or(Offset::MAX, |(next, _)| *next);
        let (end, goes_on) = inspect_segment(disk, dir, (*base, *length, next_base), decode_limit, visit, &mut report)?;
        report.segments += 1;
        report.offsets = Some((report.offsets.map_or(*base, |(first, _)| first), end));
        if !goes_on {
            break;
        }
        inspect_index::<OffsetEntry>(disk, dir, *base, INDEX_SUFFIX, &mut report, |entry, log| {
            let mut scanner = Scanner::new(log, *length, entry.position, None, Check::Headers);
            match scanner.step()? {
                Step::Batch { header, .. } if header.last_offset() == entry.last_offset => Ok(None),
                _ => {
                    Ok(Some(format!("no batch that ends at offset {} stands at {}", entry.last_offset, entry.position)))
                }
            }
        })?;
        inspect_index::<TimeEntry>(disk, dir, *base, TIME_INDEX_SUFFIX, &mut report, |entry, _| {
            let outside = entry.last_offset < *base || entry.last_offset >= end;
            Ok(outside.then(|| format!("offset {} is not in the segment", entry.last_offset)))
        })?;
        due = Some(end);
    }
    Ok(report)
}

fn inspect_segment(
    disk: &dyn Disk,
    dir: &Path,
    (base, length, next_base): (Offset, u64, Offset),
    decode_limit: Option<usize>,
    visit: &mut dyn FnMut(BatchAt) -> bool,
    report: &mut VerifyReport,
) -> Result<(Offset, bool), LogError> {
    let file_name = format!("{:020}{LOG_SUFFIX}", base.0);
    let file = disk.open(&segment_path(dir, base, LOG_SUFFIX), OpenMode::Read)?;
    let mut scanner = Scanner::new(&*file, length, 0, Some(base), Check::Checksums);
    let mut summing = Some(Summing::default());
    loop {
        let due = scanner.expected;
        match scanner.step()? {
            Step::Batch { header, position } => {
                summing.iter_mut().for_each(|summing| summing.add(&header, position));
                report.batches += 1;
                report.records += u64::try_from(header.record_count).unwrap_or(0);
                report.bytes += header.total_bytes() as u64;
                let decoded = match decode_limit {
                    Some(limit) => Some(decode_records(&scanner.batch(&header, position)?, limit)),
                    None => None,
                };
                if let Some(Err(error)) = &decoded {
                    report.problem(&file_name, position, Some(header.base_offset), error.to_string());
                }
                let records = decoded.and_then(Result::ok);
                if !visit(BatchAt { file: file_name.clone(), position, header, records }) {
                    return Ok((header.end_offset_exclusive(), false));
                }
            }
            Step::End => {
                let end = due.unwrap_or(base);
                // The newest one may be appended to: what a crash left of its checksums goes at the next open.
                if let Some(summing) = summing.filter(|_| next_base < Offset::MAX) {
                    inspect_checksum(disk, dir, (base, length, end), summing, report)?;
                }
                return Ok((end, true));
            }
            Step::Bad { position, why } => {
                let next = scanner.resync(next_base)?;
                // What is wrong is told: that the heads are not all there goes without saying.
                summing = None;
                let lost = match next {
                    Some((header, next)) => {
                        format!("; the next good batch is at {next}, offset {}", header.base_offset)
                    }
                    None => format!("; nothing good follows in its {} last bytes", length - position),
                };
                report.problem(&file_name, position, due, format!("{why}{lost}"));
                if next.is_none() {
                    return Ok((due.unwrap_or(base), true));
                }
            }
        }
    }
}

/// Compares the heads of a segment's batches with its file of checksums, if it has one.
fn inspect_checksum(
    disk: &dyn Disk,
    dir: &Path,
    (base, length, end): (Offset, u64, Offset),
    summing: Summing,
    report: &mut VerifyReport,
) -> Result<(), LogError> {
    let name = format!("{:020}{CHECKSUM_SUFFIX}", base.0);
    let due = match SegmentChecksum::read(disk, dir, base) {
        Ok(Some(due)) => due,
        Ok(None) => return Ok(()),
        Err(error) => {
            report.problem(&name, 0, None, error.to_string());
            return Ok(());
        }
    };
    if (due.size, due.end) != (length, end) {
        let what =
            format!("it was made of {} bytes up to offset {}, {length} up to {end} are there", due.size, due.end);
        report.problem(&name, 0, Some(end), what);
        return Ok(());
    }
    for (start, end) in due.differing(0, &summing.finish(length)) {
        let what = format!("offset, length or leader epoch of a batch between {start} and {end} was changed on disk");
        report.problem(&format!("{:020}{LOG_SUFFIX}", base.0), start, None, what);
    }
    Ok(())
}

fn inspect_index<E: IndexEntry>(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    suffix: &str,
    report: &mut VerifyReport,
    check: impl Fn(&E, &(dyn DiskFile + 'static)) -> Result<Option<String>, LogError>,
) -> Result<(), LogError> {
    let name = format!("{:020}{suffix}", base.0);
    if !disk.exists(&child(dir, &name))? {
        report.index_problem(&name, 0, None, "the file is missing".to_owned());
        return Ok(());
    }
    let file = disk.open(&child(dir, &name), OpenMode::Read)?;
    let log = disk.open(&segment_path(dir, base, LOG_SUFFIX), OpenMode::Read)?;
    let (length, entry_bytes) = (file.len()?, E::BYTES as u64);
    if length % entry_bytes != 0 {
        report.index_problem(&name, length, None, format!("its {length} bytes are no multiple of {entry_bytes}"));
    }
    let mut previous: Option<E> = None;
    for at in 0..length / entry_bytes {
        let entry: E = entry_at(&*file, base, at)?;
        let position = at * entry_bytes;
        if previous.is_some_and(|previous| previous.key() >= entry.key()) {
            report.index_problem(&name, position, None, "the entries do not rise".to_owned());
        } else if let Some(what) = check(&entry, &*log)? {
            report.index_problem(&name, position, None, what);
        }
        previous = Some(entry);
    }
    Ok(())
}

/// Scans arbitrary bytes as a segment, passing every bad place, and returns how many whole batches it found. Never panics,
/// holds no more memory than the bytes take, and ends: the body of a fuzz target.
#[must_use]
pub fn fuzz_segment_scan(bytes: &[u8]) -> usize {
    let mut found = 0;
    for check in [Check::Checksums, Check::Headers] {
        let mut scanner = Scanner::new(bytes, bytes.len() as u64, 0, None, check);
        loop {
            match scanner.step() {
                Ok(Step::Batch { header, position }) => {
                    found += usize::from(check == Check::Checksums);
                    assert!(position + header.total_bytes() as u64 <= bytes.len() as u64, "a batch beyond the end");
                    if let (Check::Checksums, Ok(batch)) = (check, scanner.batch(&header, position)) {
                        // Decoding is bounded by the limit; what it says of the records does not matter here.
                        let _ = decode_records(&batch, 1 << 20);
                    }
                }
                Ok(Step::Bad { .. }) => match scanner.resync(Offset::MAX) {
                    Ok(Some(_)) => {}
                    _ => break,
                },
                _ => break,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::log_tests::{DIR, Story, batch};
    use super::*;

    #[test]
    fn a_good_partition_is_shown_batch_by_batch_with_its_records() {
        let mut story = Story::new();
        story.fill(40);
        story.close(400, b"");
        let mut seen = Vec::new();
        let mut records = 0;
        let report = inspect(&story.disk, Path::new(DIR), Some(1 << 20), &mut |batch| {
            seen.push(batch.header.base_offset.0);
            records += batch.records.map_or(0, |records| records.len());
            true
        })
        .unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(seen, (0..40).map(|batch| batch * 10).collect::<Vec<_>>());
        assert_eq!((report.segments, report.batches, report.records, records), (3, 40, 400, 400));
        assert_eq!(report.offsets, Some((Offset(0), Offset(400))));
        assert_eq!(report.identity, Some(super::super::log_tests::identity()));
        let mut first = 0;
        inspect(&story.disk, Path::new(DIR), None, &mut |_| {
            first += 1;
            first < 3
        })
        .unwrap();
        assert_eq!(first, 3, "a dump can stop early");
    }

    #[test]
    fn damage_is_named_by_file_position_and_offset_and_nothing_is_changed() {
        let mut story = Story::new();
        story.fill(40);
        story.close(400, b"");
        story.damage_batch(140, 200);
        story.open_for_damage(&story.path(280, ".index")).set_len(5).unwrap();
        story.disk.remove_file(&story.path(0, ".timeindex")).unwrap();
        story.disk.flip_bit(&story.path(140, ".index"), 3, 1).unwrap();
        let operations = story.disk.operations();
        let report = inspect(&story.disk, Path::new(DIR), None, &mut |_| true).unwrap();
        assert_eq!(story.disk.operations(), operations);
        let [problem] = &report.problems[..] else { panic!("{report:?}") };
        assert_eq!((problem.offset, problem.file.as_str()), (Some(Offset(200)), "00000000000000000140.log"));
        assert!(problem.what.contains("checksum") && problem.what.contains("offset 210"), "{}", problem.what);
        let indexes: Vec<_> = report.index_problems.iter().map(|problem| problem.file.as_str()).collect();
        assert_eq!(
            indexes,
            ["00000000000000000000.timeindex", "00000000000000000140.index", "00000000000000000280.index"]
        );
        assert_eq!(report.batches, 39);
    }

    #[test]
    fn a_scan_finds_every_whole_batch_between_garbage() {
        let mut bytes = vec![7; 100];
        for at in 0..5 {
            bytes.extend(batch(at * 10, 0, 1, 3, 50).to_vec());
            bytes.extend([2; 90]);
        }
        assert_eq!(fuzz_segment_scan(&bytes), 5);
    }

    #[test]
    fn content_that_looks_like_headers_everywhere_does_not_keep_a_scan_busy_for_ever() {
        let mut header = batch(0, 0, 1, 1, 10).header;
        header.batch_length = 600_000;
        let bytes = header.to_bytes().repeat((1 << 20) / 61);
        assert_eq!(fuzz_segment_scan(&bytes), 0);
    }

    proptest! {
        #[test]
        fn a_scan_of_arbitrary_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(fuzz_segment_scan(&bytes), 0);
        }

        #[test]
        fn a_scan_of_mutilated_batches_ends(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes: Vec<u8> = (0..8).flat_map(|at| batch(at * 3, 1, 5, 3, 20).to_vec()).collect();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(fuzz_segment_scan(&bytes) <= 8);
        }
    }
}
