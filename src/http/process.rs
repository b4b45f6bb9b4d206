//! The process as the operating system sees it: the figures that every Prometheus client library has, from `/proc`.

use std::fs;
use std::io;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// One look at the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessSample {
    /// CPU time of all threads, in user mode and in the kernel.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// How many descriptors there may be.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// When it started, in seconds since 1970.
    pub start_time_seconds: f64,
}

impl ProcessSample {
    /// Takes a look.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or reads unlike the manual page.
    pub fn take() -> io::Result<Self> {
        let odd = || io::Error::other("/proc reads unlike its manual page");
        let (stat, machine) = (fs::read_to_string("/proc/self/stat")?, fs::read_to_string("/proc/stat")?);
        let ticks = clock_ticks_per_second() as f64;
        let stat = Stat::parse(&stat).ok_or_else(odd)?;
        let booted = machine.lines().find_map(|line| line.strip_prefix("btime ")).ok_or_else(odd)?;
        let booted: f64 = booted.trim().parse().map_err(|_| odd())?;
        Ok(Self {
            cpu_seconds: stat.cpu_ticks as f64 / ticks,
            resident_bytes: stat.resident_pages * page_size() as u64,
            virtual_bytes: stat.virtual_bytes,
            // Without the one that this listing is read through.
            open_fds: (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            threads: stat.threads,
            start_time_seconds: booted + stat.start_ticks as f64 / ticks,
        })
    }
}

/// The fields of `/proc/self/stat` that matter here. See proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field, the name in parentheses, may hold anything: what counts starts with the third.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_whatever_the_program_is_called() {
        let text =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 90 0 1 0 30 12 0 0 20 0 9 0 5500 2048000 321 18446744073709551615 1 2";
        let expected =
            Stat { cpu_ticks: 42, threads: 9, start_ticks: 5_500, virtual_bytes: 2_048_000, resident_pages: 321 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let sample = ProcessSample::take().expect("linux");
        assert!(sample.resident_bytes > 1 << 20 && sample.virtual_bytes > sample.resident_bytes, "{sample:?}");
        assert!(sample.open_fds >= 3 && sample.max_fds >= sample.open_fds && sample.threads >= 1, "{sample:?}");
        assert!(sample.cpu_seconds >= 0.0 && sample.start_time_seconds > 1.7e9, "{sample:?}");
    }
}
