//! Indexes are disposable: built anew from the segment when they are missing, of a wrong size, or lead astray.

use std::path::Path;

use super::disk::{Disk, OpenMode, SyncPoint};
use super::error::LogError;
use super::segment::{Handles, INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX, segment_path};
use crate::types::Offset;

/// Builds a segment's indexes anew from the headers of its batches.
pub(super) fn rebuild_indexes(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    size: u64,
    end: Offset,
    index_interval_bytes: u64,
) -> Result<Segment, LogError> {
    tracing::warn!(dir = %dir.display(), %base, "rebuilding the indexes of a segment");
    let handles = Handles {
        log: disk.open(&segment_path(dir, base, LOG_SUFFIX), OpenMode::Read)?,
        index: disk.open(&segment_path(dir, base, INDEX_SUFFIX), OpenMode::Create)?,
        time_index: disk.open(&segment_path(dir, base, TIME_INDEX_SUFFIX), OpenMode::Create)?,
    };
    let mut segment = Segment::empty(base);
    segment.resume(&handles, size, end, index_interval_bytes)?;
    segment.index_largest_time();
    segment.offsets.flush(&*handles.index)?;
    segment.times.flush(&*handles.time_index)?;
    for file in [&handles.index, &handles.time_index] {
        file.sync_data(SyncPoint::RecoveredTail)?;
    }
    disk.sync_dir(dir, SyncPoint::RecoveredTail)?;
    Ok(segment)
}
