//! What lies in a stopped node's data directory, against what its metadata says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::actors::controller::{KnownTopics, MetadataError};
use crate::cli::doctor::checks::replicas::partition_name;
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::{bytes, counted};
use crate::storage::atomic_file::AtomicFileError;
use crate::storage::data_dir::{DataDirError, DirectoryLook, EntryKind, partition_dir_name};
use crate::types::TopicPartition;

/// Why the directory's identity cannot be used.
#[must_use]
pub fn identity(root: &Path, error: &DataDirError) -> Finding {
    let newer = matches!(error, DataDirError::File(AtomicFileError::NewerVersion { .. }));
    let code = if newer { Code::NewerFormat } else { Code::IdentityDamaged };
    Finding::new(code, root.display().to_string(), error.to_string())
}

/// Why the metadata cannot be read.
#[must_use]
pub fn metadata(root: &Path, error: &MetadataError) -> Finding {
    let code = if error.is_newer_format() { Code::NewerFormat } else { Code::MetadataDamaged };
    Finding::new(code, root.display().to_string(), error.to_string())
}

/// What the entries of a directory say without the metadata.
#[must_use]
pub fn entries(root: &Path, look: &DirectoryLook) -> Vec<Finding> {
    let names = |wanted: EntryKind| {
        let of_kind = look.entries.iter().filter(move |(_, kind)| *kind == wanted);
        of_kind.map(|(entry, _)| entry.name.as_str()).collect::<Vec<_>>()
    };
    let shown = root.display().to_string();
    let foreign = names(EntryKind::Unknown);
    if look.meta.is_none() {
        let partitions = look.entries.iter().filter(|(_, kind)| !matches!(kind, EntryKind::Own)).count();
        return vec![match partitions {
            0 => Finding::new(Code::DirectoryNew, shown, "it is empty"),
            count => {
                let first = look.entries.iter().find(|(_, kind)| !matches!(kind, EntryKind::Own));
                let first = first.map_or("", |(entry, _)| entry.name.as_str());
                let seen = format!("it holds {count} other things, such as '{first}', and no callboard.meta");
                Finding::new(Code::NotADataDirectory, shown, seen)
            }
        }];
    }
    let mut findings = Vec::new();
    for name in foreign {
        let fix = "move it out of the data directory; a node leaves it alone";
        let finding =
            Finding::new(Code::DirectoryUnknown, root.join(name).display().to_string(), "no node puts this here");
        findings.push(finding.fixed_by(fix));
    }
    let leftovers = names(EntryKind::Leftover);
    if let Some(first) = leftovers.first() {
        let seen =
            format!("{} of something unfinished, such as '{first}'", counted(leftovers.len() as u64, "remainder"));
        findings.push(Finding::new(Code::LeftoverFiles, shown, seen));
    }
    findings
}

/// What lies in quarantine/.
#[must_use]
pub fn quarantine(path: &Path, names: &[String]) -> Option<Finding> {
    let first = names.first()?;
    let seen = format!("{} put aside, such as '{first}'", counted(names.len() as u64, "thing"));
    Some(Finding::new(Code::DirectoryQuarantined, path.display().to_string(), seen))
}

/// What was said about the last stop, and how much the next start has to verify.
#[must_use]
pub fn stop(root: &Path, look: &DirectoryLook, to_scan_bytes: u64) -> Option<Finding> {
    (!look.clean_stop).then(|| {
        let seen = format!("there is no marker of a clean stop; the next start verifies {}", bytes(to_scan_bytes));
        Finding::new(Code::UncleanStop, root.display().to_string(), seen)
    })
}

/// Partitions that are missing, and directories that no topic accounts for.
#[must_use]
pub fn against_metadata(root: &Path, look: &DirectoryLook, known: &KnownTopics) -> Vec<Finding> {
    let mut there: HashMap<TopicPartition, &str> = HashMap::new();
    for (entry, kind) in &look.entries {
        if let EntryKind::Partition(partition) = kind {
            there.insert(*partition, entry.name.as_str());
        }
    }
    let mut findings = Vec::new();
    for topic in &known.topics {
        for number in &topic.here {
            let partition = TopicPartition::new(topic.id, *number);
            if there.remove(&partition).is_none() && topic.opened {
                let path = root.join(partition_dir_name(&topic.name, partition));
                let seen = format!("{} is missing", path.display());
                let about = partition_name(topic.name.as_str(), number.0);
                findings.push(Finding::new(Code::PartitionLost, about, seen));
            }
        }
    }
    let mut unknown: Vec<PathBuf> = there
        .iter()
        .filter(|(partition, _)| !known.deleted.contains(&partition.topic))
        .map(|(_, name)| root.join(name))
        .collect();
    unknown.sort();
    findings.extend(unknown.into_iter().map(|path| {
        Finding::new(Code::DirectoryUnknown, path.display().to_string(), "no topic of this node has such a partition")
    }));
    findings
}

/// A file or directory and who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The owner's number.
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
}

/// Things that their owner cannot use, or that belong to another user than the directory.
#[must_use]
pub fn rights(root_owner: u32, all: &[Rights]) -> Vec<Finding> {
    let needed = |item: &Rights| if item.is_dir { 0o700 } else { 0o600 };
    let locked: Vec<&Rights> = all.iter().filter(|item| item.mode & needed(item) != needed(item)).collect();
    let foreign: Vec<&Rights> = all.iter().filter(|item| item.owner != root_owner).collect();
    let finding = |code, items: &[&Rights], seen: &dyn Fn(&Rights) -> String| {
        let first = items.first()?;
        let more = if items.len() > 1 { format!(", and {} more like it", items.len() - 1) } else { String::new() };
        Some(Finding::new(code, first.path.display().to_string(), format!("{}{more}", seen(first))))
    };
    let mode = finding(Code::FileMode, &locked, &|item| format!("its mode is {:o}", item.mode & 0o7777));
    let owner = finding(Code::FileOwner, &foreign, &|item| {
        format!("it belongs to user {}, the data directory to user {root_owner}", item.owner)
    });
    mode.into_iter().chain(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_owner_cannot_use_or_another_user_owns_is_found_and_counted() {
        let item = |path: &str, is_dir, owner, mode| Rights { path: path.into(), is_dir, owner, mode };
        let fine = [item("/d", true, 7, 0o40_750), item("/d/a", false, 7, 0o100_640)];
        assert_eq!(rights(7, &fine), []);
        let wrong = [item("/d/b", false, 0, 0o644), item("/d/c", false, 0, 0o400), item("/d/e", true, 7, 0o600)];
        let [mode, owner] = &rights(7, &wrong)[..] else { panic!("two findings") };
        assert_eq!(
            (mode.code, mode.about.as_str(), mode.seen.as_str()),
            (Code::FileMode, "/d/c", "its mode is 400, and 1 more like it")
        );
        assert_eq!((owner.code, owner.about.as_str()), (Code::FileOwner, "/d/b"));
        assert!(mode.fix.contains("chmod") && owner.fix.contains("chown") && owner.seen.contains("user 0"));
    }
}
