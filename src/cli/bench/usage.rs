//! What a process uses: CPU time and memory, of the bench itself and of a node on this machine.

use std::fs;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// CPU time so far, and the most memory so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Seconds of CPU, user and system.
    pub cpu_seconds: f64,
    /// The most memory that was resident at a time since the process started, in bytes.
    pub peak_bytes: u64,
}

/// The ticks of `/proc/PID/stat`: Linux shows 100 a second to programs, whatever it counts itself.
const TICKS_A_SECOND: f64 = 100.0;

impl Usage {
    /// Of this process.
    #[must_use]
    pub fn own() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let peak_bytes = fs::read_to_string("/proc/self/status").ok().and_then(|text| peak(&text)).unwrap_or_default();
        Self { cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9, peak_bytes }
    }

    /// Of a process on this machine; nothing when there is none that may be looked at.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self { cpu_seconds: cpu_seconds(&stat)?, peak_bytes: peak(&status)? })
    }

    /// What was used since `before`. The peak is that of the whole life: the kernel keeps no other.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu_seconds: (self.cpu_seconds - before.cpu_seconds).max(0.0), peak_bytes: self.peak_bytes }
    }
}

/// The fields after the program's name, which may hold spaces and parentheses itself; user and system time are the 14th
/// and 15th of all.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_A_SECOND)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let stat = "4242 (call (board) x) S 1 4242 4242 0 -1 4194560 900 0 0 0 250 175 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(4.25));
        assert_eq!(peak("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n"), Some(2 << 20));
        assert_eq!((cpu_seconds("nonsense"), peak("VmHWM: many\n")), (None, None));
    }

    #[test]
    fn a_process_uses_time_and_memory() {
        let before = Usage::own();
        let mut sum = 0_u64;
        let used = loop {
            sum = std::hint::black_box(sum.wrapping_add(1));
            let used = Usage::own().since(before);
            if used.cpu_seconds > 0.0 {
                break used;
            }
        };
        assert!(used.peak_bytes > 100_000, "{used:?}");
        assert!(Usage::of(std::process::id()).is_some_and(|seen| seen.peak_bytes > 100_000));
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
