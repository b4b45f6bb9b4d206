//! What the operating system says of this process and of the machine: the one place that reads `/proc` and the control
//! group.
//!
//! These are files, and reading them takes up to a few hundred microseconds in a process with many descriptors: a node asks
//! from a disk thread.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::protocol::messages::ProcessUsage;

/// The memory there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The machine's, in bytes; `None` where the system does not tell.
    pub machine_bytes: Option<u64>,
    /// What the control group of this process may use, in bytes; `None` without a limit.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// What this process can use at most.
    #[must_use]
    pub fn usable_bytes(&self) -> Option<u64> {
        [self.machine_bytes, self.limit_bytes].into_iter().flatten().min()
    }
}

/// CPUs that this process may run on.
#[must_use]
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What this process has used so far.
#[must_use]
pub fn process_usage() -> ProcessUsage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let total = clock_gettime(ClockId::ProcessCPUTime);
    let total_us =
        u64::try_from(total.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(total.tv_nsec / 1_000).unwrap_or(0);
    let system_cpu_us = system_ticks(&stat).map_or(0, ticks_to_us).min(total_us);
    let descriptors = getrlimit(Resource::Nofile);
    ProcessUsage {
        pid: std::process::id(),
        user_cpu_us: total_us - system_cpu_us,
        system_cpu_us,
        resident_bytes: kib_of(&status, "VmRSS:"),
        peak_resident_bytes: kib_of(&status, "VmHWM:"),
        // The listing opens one itself.
        open_descriptors: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
        descriptor_limit: descriptors.current,
        descriptor_hard_limit: descriptors.maximum,
    }
}

/// The memory that this process can use.
#[must_use]
pub fn memory() -> Memory {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Memory {
        machine_bytes: kib_of(&machine, "MemTotal:"),
        limit_bytes: limit_of_group(&group, |path| fs::read_to_string(path).ok()),
    }
}

/// The number of KiB on the line that starts with `name`, in bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// The fifteenth field of `/proc/self/stat`. The second is the program's name in parentheses, which may hold anything.
fn system_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(12)?.parse().ok()
}

fn ticks_to_us(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1)
}

/// The lowest limit that stands for the group or one above it. `/proc/self/cgroup` names it: `0::/path` in version 2 of
/// control groups, `N:memory:/path` in version 1.
fn limit_of_group(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let named = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path.to_owned())),
            list if list.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path.to_owned()))
            }
            _ => None,
        }
    };
    let limits = groups.lines().filter_map(named).flat_map(|(root, file, path)| {
        let above = Path::new(&path).ancestors().map(|path| path.strip_prefix("/").unwrap_or(path).to_owned());
        above.map(|group| Path::new(root).join(group).join(file)).collect::<Vec<_>>()
    });
    // "max" is no number, and version 1 writes "no limit" as one near 2^63.
    let limit = |text: String| text.trim().parse::<u64>().ok().filter(|bytes| *bytes < 1 << 60);
    limits.filter_map(|path| read(&path).and_then(limit)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_memory_and_descriptors() {
        let before = process_usage();
        let _open = fs::File::open("/proc/self/stat").expect("Linux");
        // Until the clock has moved: any work does.
        let worked = (0..u32::MAX).find(|_| {
            let now = process_usage();
            now.user_cpu_us + now.system_cpu_us > before.user_cpu_us + before.system_cpu_us
        });
        assert!(worked.is_some());
        let usage = process_usage();
        assert_eq!(usage.pid, std::process::id());
        assert!(usage.resident_bytes > Some(1 << 20) && usage.peak_resident_bytes >= Some(1 << 20), "{usage:?}");
        assert!(usage.open_descriptors >= Some(4) && usage.descriptor_limit >= usage.open_descriptors, "{usage:?}");
        assert!(memory().usable_bytes() > Some(64 << 20), "{:?}", memory());
    }

    #[test]
    fn fields_are_found_behind_names_that_hold_anything() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14";
        assert_eq!(system_ticks(stat), Some(12));
        assert_eq!(system_ticks(""), None);
        assert_eq!(kib_of("VmPeak: 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12_288));
        assert_eq!(kib_of("VmRSS: x", "VmRSS:"), None);
    }

    #[test]
    fn the_lowest_limit_of_the_group_and_those_above_it_counts() {
        let limit = |groups: &str, files: &[(&str, &str)]| {
            limit_of_group(groups, |path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, text)| (*text).to_owned())
            })
        };
        let two = [("/sys/fs/cgroup/a/b/memory.max", "max\n"), ("/sys/fs/cgroup/a/memory.max", "1000\n")];
        assert_eq!(limit("0::/a/b\n", &two), Some(1_000));
        assert_eq!(limit("0::/\n", &[("/sys/fs/cgroup/memory.max", "5")]), Some(5));
        assert_eq!(limit("0::/a/b\n", &two[..1]), None);
        let one = [
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "77"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        assert_eq!(limit("3:cpu,memory:/c\n2:cpu:/d\n", &one), Some(77));
        assert_eq!(limit("3:memory:/d\n", &one), None);
    }
}
