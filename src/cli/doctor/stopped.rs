//! A stopped node's data directory, and its configuration: reads them, and hands what is there to the checks.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use super::args::DoctorArgs;
use super::checks::directory::Rights;
use super::checks::partition::Surroundings;
use super::checks::resources::DiskFacts;
use super::checks::{config as config_checks, directory, partition, resources, topics};
use super::code::Code;
use super::finding::Finding;
use super::partition_files::{BytesRead, gather, names_in};
use super::report::Report;
use crate::actors::controller::{KnownTopic, KnownTopics, Rehearsed, rehearse};
use crate::actors::machine;
use crate::cli::error::CliError;
use crate::cli::output::{bytes, counted};
use crate::cli::progress::Progress;
use crate::config::{self, NodeConfig, Role, topics_file};
use crate::storage::data_dir::{
    DataDirError, DirectoryLook, DirectoryMeta, EntryKind, METADATA_DIR, QUARANTINE_DIR, check_unused, look,
};
use crate::storage::disk::{Disk, RealDisk};
use crate::types::{Clock, PartitionIndex, SystemClock, TopicPartition};

/// Looks at the data directory `root`. Nothing is changed.
///
/// # Errors
/// [`CliError::Usage`] when a node uses the directory.
pub fn examine(args: &DoctorArgs, root: &Path) -> Result<Report, CliError> {
    unused(root)?;
    let mut report = Report::default();
    let config = configuration(args, &mut report);
    match root.is_dir() {
        true => directory_findings(root, config.as_ref(), !args.skip_records, &mut report),
        false => {
            let seen = "there is no such directory";
            report.findings.push(Finding::new(Code::DirectoryMissing, root.display().to_string(), seen));
        }
    }
    // Whoever started meanwhile has changed what was read.
    unused(root)?;
    Ok(report)
}

fn unused(root: &Path) -> Result<(), CliError> {
    check_unused(root).map_err(|error| match error {
        DataDirError::InUse { root, owner } => CliError::Usage(format!(
            "data directory {} is in use by another process{owner}: look at the running node with 'callboard doctor \
             --server HOST:PORT', or stop it first",
            root.display()
        )),
        error => CliError::Failed(error.to_string()),
    })
}

/// The configuration that was given; `None` without one, or when it cannot be used, which is a finding.
fn configuration(args: &DoctorArgs, report: &mut Report) -> Option<NodeConfig> {
    if !args.names_a_config() && config::environment().next().is_none() {
        report.checked.push("no configuration (give --config FILE)".to_owned());
        return None;
    }
    match config::load(args.config.config.as_deref(), config::environment(), &args.config.set) {
        Ok(config) => {
            report.checked.push("the configuration".to_owned());
            report.findings.extend(config_checks::alone(&config));
            if let Some(Err(error)) = config.topics.file.as_deref().map(topics_file::read) {
                report.findings.push(Finding::new(Code::TopicsFileInvalid, "topics.file", error.to_string()));
            }
            report.findings.extend(limits(&config));
            Some(config)
        }
        Err(error) => {
            report.checked.push("the configuration (no further: it is not valid)".to_owned());
            report.findings.push(Finding::new(Code::ConfigInvalid, "the configuration", error.to_string()));
            None
        }
    }
}

/// Whether this machine has what the configuration takes.
fn limits(config: &NodeConfig) -> Vec<Finding> {
    // What a controller by itself takes is fixed, and small.
    if !config.node.roles.contains(&Role::Broker) {
        return Vec::new();
    }
    let about = "the configuration";
    let in_flight = config.limits.node_bytes_in_flight as u64;
    let tail_cache = config.storage.tail_cache_bytes as u64;
    let pools = [
        ("requests (limits.node_bytes_in_flight)", in_flight),
        ("reads (limits.node_bytes_in_flight)", in_flight),
        ("tail caches (storage.tail_cache_bytes)", tail_cache),
        ("replies from them (storage.tail_cache_bytes)", tail_cache),
    ];
    let memory = resources::memory(about, &pools, machine::memory().usable_bytes());
    let (connections, open_files) = (config.limits.max_connections as u64, config.storage.open_files as u64);
    // A node raises its soft limit to the hard one.
    let descriptors =
        resources::descriptors_to_come(about, getrlimit(Resource::Nofile).maximum, connections, open_files);
    memory.into_iter().chain(descriptors).collect()
}

fn directory_findings(root: &Path, config: Option<&NodeConfig>, read_records: bool, report: &mut Report) {
    let seen = match look(&RealDisk, root) {
        Ok(seen) => seen,
        Err(error) => {
            report.findings.push(directory::identity(root, &error));
            return;
        }
    };
    if let Some(config) = config {
        report.findings.extend(config_checks::against_directory(config, root, seen.meta.as_ref()));
    }
    report.findings.extend(file_system(root, config));
    report.findings.extend(directory::entries(root, &seen));
    report.findings.extend(rights(root, &seen));
    report.checked.push(format!("{}: disk, files, rights", root.display()));
    let Some(meta) = seen.meta.clone() else { return };
    let quarantined = names_in(&RealDisk, root, QUARANTINE_DIR);
    report.findings.extend(directory::quarantine(&root.join(QUARANTINE_DIR), &quarantined));
    report.checked.push(directory::whose(&seen, &meta));
    let known = metadata_findings(root, &seen, &meta, config, report);
    let partitions = seen.entries.iter().filter_map(|(entry, kind)| match kind {
        EntryKind::Partition(partition) if !known.has_deleted(*partition) => Some((entry.name.as_str(), *partition)),
        _ => None,
    });
    let around = |partition| Surroundings { cluster: meta.cluster, has_copies: known.has_copies(partition) };
    let to_scan_bytes = partition_findings(root, &partitions.collect::<Vec<_>>(), around, read_records, report);
    // One that is no broker any more starts without looking at partitions.
    if has_role(config, Role::Broker) != Some(false) {
        report.findings.extend(directory::stop(root, &seen, to_scan_bytes));
    }
}

/// Whether the configuration gives the node this role; `None` without a configuration.
fn has_role(config: Option<&NodeConfig>, role: Role) -> Option<bool> {
    config.map(|config| config.node.roles.contains(&role))
}

/// What is known of partitions beside their files.
enum Known {
    /// What a controller's metadata says.
    Here {
        /// As the next start will know it.
        topics: KnownTopics,
        /// Each partition of this node, and whether other brokers have it, too.
        copied: HashMap<TopicPartition, bool>,
    },
    /// Other nodes know more than is here.
    ByOthers,
    /// Nobody else can know, and here it cannot be read.
    ByNobody,
}

impl Known {
    fn here(topics: KnownTopics) -> Self {
        let of_topic = |topic: &KnownTopic| {
            let id = topic.id;
            let copied = |number: &PartitionIndex| (TopicPartition::new(id, *number), topic.copied.contains(number));
            topic.here.iter().map(copied).collect::<Vec<_>>()
        };
        let copied = topics.topics.iter().flat_map(of_topic).collect();
        Self::Here { topics, copied }
    }

    fn has_deleted(&self, partition: TopicPartition) -> bool {
        matches!(self, Self::Here { topics, .. } if topics.deleted.contains(&partition.topic))
    }

    /// Whether other brokers have the partition's records, or may have them.
    fn has_copies(&self, partition: TopicPartition) -> bool {
        match self {
            Self::Here { topics, copied } => copied.get(&partition).copied().unwrap_or_else(|| topics.may_be_behind()),
            Self::ByOthers => true,
            Self::ByNobody => false,
        }
    }
}

fn file_system(root: &Path, config: Option<&NodeConfig>) -> Vec<Finding> {
    let about = root.display().to_string();
    let least =
        config.map_or_else(|| NodeConfig::default().storage.min_free_bytes, |config| config.storage.min_free_bytes);
    let mut findings = Vec::new();
    match (RealDisk.free_bytes(root), RealDisk.total_bytes(root)) {
        (Ok(free_bytes), Ok(total_bytes)) => {
            let facts = DiskFacts { free_bytes, total_bytes, min_free_bytes: least, refusing: None };
            findings.extend(resources::disk(&about, &facts));
        }
        (Err(error), _) | (_, Err(error)) => {
            findings.push(Finding::new(Code::NotChecked, about.as_str(), error.to_string()));
        }
    }
    if lies_in_memory(root) {
        findings.push(Finding::new(Code::DataDirInMemory, about, "its file system is tmpfs or ramfs"));
    }
    findings
}

#[cfg(target_os = "linux")]
fn lies_in_memory(root: &Path) -> bool {
    /// From statfs(2).
    const MAGICS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    rustix::fs::statfs(root).is_ok_and(|found| MAGICS.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

#[cfg(not(target_os = "linux"))]
fn lies_in_memory(_: &Path) -> bool {
    false
}

/// Owner and mode of the directory, what is in it, and what is in each partition.
fn rights(root: &Path, seen: &DirectoryLook) -> Vec<Finding> {
    let right = |path: std::path::PathBuf| {
        let metadata = std::fs::metadata(&path).ok()?;
        Some(Rights { is_dir: metadata.is_dir(), owner: metadata.uid(), mode: metadata.mode(), path })
    };
    let Some(of_root) = right(root.to_owned()) else { return Vec::new() };
    let owner = of_root.owner;
    let mut all = vec![of_root];
    for (entry, kind) in &seen.entries {
        let path = root.join(&entry.name);
        if matches!(kind, EntryKind::Partition(_)) {
            let inside = std::fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            all.extend(inside.filter_map(|file| right(file.path())));
        }
        // A file system's own directory is root's, and nobody reads it.
        if entry.name != "lost+found" {
            all.extend(right(path));
        }
    }
    directory::rights(owner, &all)
}

fn metadata_findings(
    root: &Path,
    seen: &DirectoryLook,
    meta: &DirectoryMeta,
    config: Option<&NodeConfig>,
    report: &mut Report,
) -> Known {
    let known = match rehearse(&RealDisk, &root.join(METADATA_DIR), meta, has_role(config, Role::Controller)) {
        Ok(Rehearsed::Known(known)) => known,
        Ok(Rehearsed::NoneYet) => KnownTopics::default(),
        Ok(Rehearsed::Elsewhere { is_certain }) => {
            if !is_certain {
                report.findings.push(directory::without_metadata(root));
            }
            report
                .checked
                .push("no metadata (the controllers have it: what else should be here is not known)".to_owned());
            return Known::ByOthers;
        }
        Err(error) => {
            report.findings.push(directory::metadata(root, meta, &error));
            return if meta.holds_votes { Known::ByOthers } else { Known::ByNobody };
        }
    };
    report.findings.extend(directory::against_metadata(root, seen, &known));
    let defaults = config.map(|config| config.topic_defaults.clone()).unwrap_or_default();
    let frame = config.map(|config| u64::from(config.limits.max_frame_bytes));
    for topic in &known.topics {
        // What a topic does not override was judged with the defaults.
        let overridden = !topic.config.0.is_empty();
        if let Ok(settings) = topic.config.resolve(&defaults)
            && overridden
        {
            report.findings.extend(topics::settings(&format!("topic {}", topic.name), &settings, frame));
        }
    }
    let whose = match known.voters {
        0 | 1 => String::new(),
        voters => format!(", as one of {voters} controllers knew it"),
    };
    report.checked.push(format!("the metadata of {}{whose}", counted(known.topics.len() as u64, "topic")));
    Known::here(known)
}

/// Looks at each partition. Returns how many bytes the next start verifies.
fn partition_findings(
    root: &Path,
    partitions: &[(&str, TopicPartition)],
    around: impl Fn(TopicPartition) -> Surroundings,
    read_records: bool,
    report: &mut Report,
) -> u64 {
    let now = SystemClock::start().wall();
    let read = Arc::new(BytesRead::default());
    let shown = Arc::clone(&read);
    let progress = Progress::start(read_records, move |_| format!("{} read and verified", bytes(shown.get())));
    let mut to_scan_bytes = 0;
    for (name, named) in partitions {
        let facts = gather(&RealDisk, &root.join(name), *named, read_records, &read);
        to_scan_bytes += facts.to_scan_bytes;
        report.findings.extend(partition::examine(&facts, around(*named), now));
    }
    drop(progress);
    let partitions = counted(partitions.len() as u64, "partition");
    report.checked.push(if read_records {
        format!("{partitions} with {} of records, all read and verified", bytes(read.get()))
    } else {
        format!("{partitions} (records were not read: --skip-records)")
    });
    to_scan_bytes
}
