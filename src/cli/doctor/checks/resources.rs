//! Whether disk, descriptors, memory and connections suffice.

use crate::actors::node::DESCRIPTORS_OF_ACTIVE_SEGMENTS;
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::bytes;

/// A disk with less free than this part of it is nearly full …
const NEARLY_FULL_PART: u64 = 20;
/// … unless this much is free: a twentieth of a large disk is a lot.
const NEVER_NEARLY_FULL_BYTES: u64 = 10 << 30;

/// The file system of a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes there are in all.
    pub total_bytes: u64,
    /// `storage.min_free_bytes`.
    pub min_free_bytes: u64,
    /// What the node says while it refuses appends.
    pub refusing: Option<String>,
}

/// Whether there is space.
#[must_use]
pub fn disk(about: &str, facts: &DiskFacts) -> Option<Finding> {
    let DiskFacts { free_bytes, total_bytes, min_free_bytes, refusing } = facts;
    let (free, total, least) = (bytes(*free_bytes), bytes(*total_bytes), bytes(*min_free_bytes));
    let seen = format!("{free} of {total} are free, storage.min_free_bytes is {min_free_bytes} ({least})");
    if min_free_bytes > total_bytes {
        return Some(Finding::new(Code::MinFreeExceedsDisk, about, seen));
    }
    if let Some(refusing) = refusing {
        return Some(Finding::new(Code::DiskFull, about, format!("{seen}; appends are refused: {refusing}")));
    }
    if free_bytes < min_free_bytes || *free_bytes == 0 {
        return Some(Finding::new(Code::DiskFull, about, seen));
    }
    let little = *free_bytes < total_bytes / NEARLY_FULL_PART && *free_bytes < NEVER_NEARLY_FULL_BYTES;
    (little || *free_bytes < min_free_bytes.saturating_mul(2)).then(|| Finding::new(Code::DiskNearlyFull, about, seen))
}

/// Descriptors and connections of a running node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorFacts {
    /// Open now, if that is known.
    pub open: Option<u64>,
    /// How many may be open; `None` without a limit.
    pub limit: Option<u64>,
    /// Connections that may be open.
    pub connections_limit: u64,
    /// `limits.max_connections`.
    pub configured_connections: u64,
    /// `storage.open_files`.
    pub open_files: u64,
    /// Connections that were refused since the start.
    pub refused: u64,
}

/// Whether a running node has descriptors for what it is told to serve.
#[must_use]
pub fn descriptors(about: &str, facts: &DescriptorFacts) -> Vec<Finding> {
    let DescriptorFacts { open, limit, connections_limit, configured_connections, open_files, refused } = *facts;
    let mut findings = Vec::new();
    if connections_limit < configured_connections {
        let seen = format!(
            "limits.max_connections is {configured_connections}, and only {connections_limit} are accepted: {} files may be \
             open, and storage.open_files is {open_files}",
            limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string())
        );
        findings.push(Finding::new(Code::DescriptorsFew, about, seen));
    }
    if let (Some(open), Some(limit)) = (open, limit)
        && open > limit / 10 * 9
    {
        let seen = format!("{open} of {limit} descriptors are open");
        findings.push(Finding::new(Code::DescriptorsNearlyUsed, about, seen));
    }
    if refused > 0 {
        let seen = format!("{refused} connections were refused since the start; {connections_limit} may be open");
        findings.push(Finding::new(Code::ConnectionsRefused, about, seen));
    }
    findings
}

/// Whether a node that is started under a hard limit of `limit` open files can have all its connections.
#[must_use]
pub fn descriptors_to_come(about: &str, limit: Option<u64>, connections: u64, open_files: u64) -> Option<Finding> {
    let needed = connections.saturating_add(open_files).saturating_add(DESCRIPTORS_OF_ACTIVE_SEGMENTS as u64);
    limit.filter(|limit| *limit < needed).map(|limit| {
        let seen = format!(
            "this shell allows {limit} open files; limits.max_connections = {connections} and storage.open_files = \
             {open_files} need {needed}"
        );
        Finding::new(Code::DescriptorsFew, about, seen)
    })
}

/// Whether the budgets (by key, in bytes) fit into the memory.
#[must_use]
pub fn memory(about: &str, budgets: &[(&str, u64)], usable_bytes: Option<u64>) -> Option<Finding> {
    let needed = budgets.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    usable_bytes.filter(|usable| *usable < needed).map(|usable| {
        let each: Vec<String> = budgets.iter().map(|(key, budget)| format!("{key} {}", bytes(*budget))).collect();
        let seen = format!(
            "{} of memory can be used, and the budgets add up to {}: {}",
            bytes(usable),
            bytes(needed),
            each.join(", ")
        );
        Finding::new(Code::MemoryExceeded, about, seen)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn code_of_disk(free_bytes: u64, total_bytes: u64, min_free_bytes: u64) -> Option<&'static str> {
        let facts = DiskFacts { free_bytes, total_bytes, min_free_bytes, refusing: None };
        disk("node 1", &facts).map(|finding| finding.code.name())
    }

    #[test]
    fn a_disk_is_fine_nearly_full_full_or_too_small() {
        assert_eq!(code_of_disk(50 * GIB, 100 * GIB, GIB), None);
        assert_eq!(code_of_disk(20 * GIB, 2_000 * GIB, GIB), None, "a hundredth of a large disk is a lot");
        assert_eq!(code_of_disk(4 * GIB, 100 * GIB, GIB), Some("disk-nearly-full"));
        assert_eq!(code_of_disk(19 * GIB, 100 * GIB, 10 * GIB), Some("disk-nearly-full"));
        assert_eq!(code_of_disk(GIB - 1, 100 * GIB, GIB), Some("disk-full"));
        assert_eq!(code_of_disk(0, 100 * GIB, 0), Some("disk-full"));
        assert_eq!(code_of_disk(5 * GIB, 10 * GIB, 11 * GIB), Some("min-free-exceeds-disk"));
        let facts = DiskFacts { free_bytes: GIB, total_bytes: 2 * GIB, min_free_bytes: 0, refusing: Some("no".into()) };
        let finding = disk("node 1", &facts).expect("a finding");
        assert_eq!(finding.code, Code::DiskFull);
        assert!(finding.fix.contains("retention_bytes") && finding.seen.contains("appends are refused: no"));
    }

    #[test]
    fn too_few_descriptors_are_found_before_and_after_they_run_out() {
        let fine = DescriptorFacts {
            open: Some(50),
            limit: Some(30_000),
            connections_limit: 20_000,
            configured_connections: 20_000,
            open_files: 4_096,
            refused: 0,
        };
        assert_eq!(descriptors("node 1", &fine), []);
        let few = DescriptorFacts { open: Some(1_000), limit: Some(1_024), connections_limit: 512, refused: 3, ..fine };
        let codes: Vec<_> = descriptors("node 1", &few).iter().map(|finding| finding.code.name()).collect();
        assert_eq!(codes, ["descriptors-few", "descriptors-nearly-used", "connections-refused"]);
        assert!(descriptors("node 1", &few).iter().all(|finding| finding.fix.contains("limits.max_connections")));
        assert_eq!(descriptors_to_come("the shell", None, 20_000, 4_096), None);
        assert_eq!(descriptors_to_come("the shell", Some(25_120), 20_000, 4_096), None);
        let finding = descriptors_to_come("the shell", Some(25_119), 20_000, 4_096).expect("a finding");
        assert!(finding.fix.contains("ulimit -Hn") && finding.seen.contains("25120"), "{finding:?}");
    }

    #[test]
    fn budgets_beyond_the_memory_are_found_and_named() {
        let budgets = [("limits.node_bytes_in_flight", GIB), ("storage.tail_cache_bytes", GIB)];
        assert_eq!(memory("node 1", &budgets, Some(2 * GIB)), None);
        assert_eq!(memory("node 1", &budgets, None), None);
        let finding = memory("node 1", &budgets, Some(2 * GIB - 1)).expect("a finding");
        assert_eq!(finding.code, Code::MemoryExceeded);
        assert!(
            finding.seen.contains("storage.tail_cache_bytes 1.00 GiB")
                && finding.fix.contains("storage.tail_cache_bytes")
        );
    }
}
