//! The progress line: one line on stderr that is written over, on a terminal only; elsewhere a line now and then, where one is wanted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often the line is renewed.
const EVERY: Duration = Duration::from_millis(250);

/// How often a line is written where none can be written over, if nothing happens that is worth one.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// Whether an unfinished progress line stands on the terminal, which the next message must replace.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Writes a whole line to stderr, in the place of a progress line. Failing to complain is no failure.
pub fn print_line(line: &str) {
    let clear = if SHOWN.swap(false, Ordering::Relaxed) { "\r\x1b[K" } else { "" };
    let _ = writeln!(io::stderr().lock(), "{clear}{line}");
}

/// Whether people look at stderr.
#[must_use]
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// A progress line, renewed until it is dropped.
#[derive(Debug)]
pub struct Progress {
    shown: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Progress {
    /// Shows what `describe` makes of the time since the start, if `wanted` and stderr is a terminal.
    pub fn start(wanted: bool, describe: impl Fn(Duration) -> String + Send + 'static) -> Self {
        if !wanted || !is_watched() {
            return Self { shown: None };
        }
        // `wide_msg` cuts the line to the terminal: one that wraps could not be written over.
        let style = ProgressStyle::with_template("{wide_msg}").expect("a template of one known part");
        let bar = ProgressBar::new_spinner().with_style(style);
        let drawn = bar.clone();
        let started = Instant::now();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                ticks.tick().await;
                SHOWN.store(true, Ordering::Relaxed);
                drawn.set_message(describe(started.elapsed()));
                drawn.tick();
            }
        });
        Self { shown: Some((bar, task)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((bar, task)) = self.shown.take() {
            task.abort();
            bar.finish_and_clear();
            SHOWN.store(false, Ordering::Relaxed);
        }
    }
}

/// What is told of something that takes minutes or hours.
#[derive(Debug)]
pub struct Bulletin {
    line: Arc<Mutex<String>>,
    _shown: Progress,
    told: Option<(u64, Instant)>,
}

impl Bulletin {
    /// Nothing is told yet.
    #[must_use]
    pub fn start() -> Self {
        let line = Arc::new(Mutex::new(String::new()));
        let newest = Arc::clone(&line);
        let describe = move |_| newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { line, _shown: Progress::start(true, describe), told: None }
    }

    /// On a terminal this is what the line says from here on. Elsewhere it is written when `step` is another one than before, and now
    /// and then.
    pub fn tell(&mut self, step: u64, line: String) {
        let now = Instant::now();
        let is_news = self.told.is_none_or(|(told, at)| told != step || now.duration_since(at) >= NOW_AND_THEN);
        if is_news && !is_watched() {
            print_line(&line);
            self.told = Some((step, now));
        }
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// "12,345 records, 1.20 MiB, 4,115 records/s" for this many in this time.
#[must_use]
pub fn rates(records: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-6);
    let (record_rate, byte_rate) = ((records as f64 / seconds) as u64, (bytes as f64 / seconds) as u64);
    format!(
        "{} records, {}, {} records/s, {}/s",
        grouped(records),
        super::output::bytes(bytes),
        grouped(record_rate),
        super::output::bytes(byte_rate)
    )
}

/// A number with a comma between thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn rates_hold_for_no_time_at_all() {
        assert_eq!(rates(0, 0, Duration::ZERO), "0 records, 0 B, 0 records/s, 0 B/s");
        assert_eq!(
            rates(2_000, 4 << 20, Duration::from_secs(2)),
            "2,000 records, 4.00 MiB, 1,000 records/s, 2.00 MiB/s"
        );
    }
}
