//! What a process uses: CPU time and memory, of the bench itself and of the node, which tells it of itself.

use std::fs;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::client::{Admin, ClientError};

/// CPU time so far, and the most memory so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Seconds of CPU, user and system.
    pub cpu_seconds: f64,
    /// The most memory that was resident at a time since the process started, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Of this process.
    #[must_use]
    pub fn own() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let peak_bytes = fs::read_to_string("/proc/self/status").ok().and_then(|text| peak(&text)).unwrap_or_default();
        Self { cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9, peak_bytes }
    }

    /// Of the node, as it says itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of_node(admin: &Admin) -> Result<Self, ClientError> {
        let process = admin.describe_node().await?.process;
        let cpu_us = process.user_cpu_us + process.system_cpu_us;
        let peak_bytes = process.peak_resident_bytes.unwrap_or_default();
        Ok(Self { cpu_seconds: cpu_us as f64 / 1e6, peak_bytes })
    }

    /// What was used since `before`. The peak is that of the whole life: the kernel keeps no other.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu_seconds: (self.cpu_seconds - before.cpu_seconds).max(0.0), peak_bytes: self.peak_bytes }
    }
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
        assert_eq!(peak("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n"), Some(2 << 20));
        assert_eq!(peak("VmHWM: many\n"), None);
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
    }
}
