//! Moving bytes from file to file, a megabyte at a time.

use std::io;
use std::ops::Range;

use super::disk::{DiskFile, read_full_at, write_all_at};

const COPY_BYTES: usize = 1 << 20;

/// Writes what `from..to` of a file reads as over itself.
pub(super) fn rewrite(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX))];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let filled = read_full_at(file, &mut buffer[..length], at)?;
        if filled == 0 {
            break;
        }
        write_all_at(file, &buffer[..filled], at)?;
        at += filled as u64;
    }
    Ok(())
}

/// Reads a range of a file, writes it to a place in another one if there is one, and returns whether all bytes are zero.
pub(super) fn copy_range(
    file: &dyn DiskFile,
    range: Range<u64>,
    copy: Option<(&dyn DiskFile, u64)>,
) -> io::Result<bool> {
    let (from, to) = (range.start, range.end);
    let mut buffer = vec![0; COPY_BYTES];
    let (mut at, mut all_zeros) = (from, true);
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        let filled = read_full_at(file, &mut buffer[..length], at)?;
        if filled == 0 {
            break;
        }
        all_zeros &= buffer[..filled].iter().all(|byte| *byte == 0);
        if let Some((copy, start)) = copy {
            write_all_at(copy, &buffer[..filled], start + at - from)?;
        }
        at += filled as u64;
    }
    Ok(all_zeros)
}
