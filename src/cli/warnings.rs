//! What the client library warns of, such as skipped records: lines on stderr, in the place of a progress line.

use std::io;

use tracing_subscriber::filter::LevelFilter;

use super::progress::print_line;

/// Shows warnings from now on.
pub fn show() {
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).without_time().with_level(false);
    // Failing means that somebody listens already.
    let _ = lines.with_target(false).with_ansi(false).with_writer(|| Warnings).try_init();
}

/// Takes one event with each write.
struct Warnings;

impl io::Write for Warnings {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        print_line(&format!("warning: {}", String::from_utf8_lossy(event).trim_end()));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
