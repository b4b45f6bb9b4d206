//! What lies in a stopped node's data directory, against what its metadata says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::actors::controller::{KnownTopics, MetadataError};
use crate::cli::doctor::checks::replicas::partition_name;
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::{bytes, counted};
use crate::storage::atomic_file::AtomicFileError;
use crate::storage::data_dir::{DataDirError, DirectoryLook, DirectoryMeta, EntryKind, partition_dir_name};
use crate::types::TopicPartition;

/// Why the directory's identity cannot be used.
#[must_use]
pub fn identity(root: &Path, error: &DataDirError) -> Finding {
    let newer = matches!(error, DataDirError::File(AtomicFileError::NewerVersion { .. }));
    let code = if newer { Code::NewerFormat } else { Code::IdentityDamaged };
    Finding::new(code, root.display().to_string(), error.to_string())
}

/// Whose the directory is, and how the last stop was, in words.
#[must_use]
pub fn whose(look: &DirectoryLook, meta: &DirectoryMeta) -> String {
    let broker = match meta.broker_epoch {
        Some(epoch) if look.clean_stop => format!("broker epoch {epoch}, stopped cleanly"),
        Some(epoch) => format!("broker epoch {epoch}, not stopped cleanly"),
        None => "no broker was registered with it".to_owned(),
    };
    let votes = if meta.holds_votes { ", votes of a controller" } else { "" };
    format!("whose it is (node {} of cluster {}: {broker}{votes})", meta.node, meta.cluster)
}

/// Why the metadata cannot be read.
#[must_use]
pub fn metadata(root: &Path, meta: &DirectoryMeta, error: &MetadataError) -> Finding {
    let (about, seen, node) = (root.display().to_string(), error.to_string(), meta.node);
    if error.is_newer_format() {
        return Finding::new(Code::NewerFormat, about, seen);
    }
    if error.is_foreign() {
        let fix = "move it back to the data directory it comes from, and put this one's own __cluster_metadata back";
        let finding = Finding::new(Code::MetadataDamaged, about, seen);
        return finding.because("the metadata was copied from another data directory").fixed_by(fix);
    }
    if error.is_missing() && !meta.holds_votes {
        let fix = "if the node is a broker only: set node.roles to [\"broker\"]; else restore the whole directory from one backup";
        let cause = "by its configuration the node is a controller, and its metadata is not there";
        return Finding::new(Code::MetadataDamaged, about, seen).because(cause).fixed_by(fix);
    }
    // What one that was its own and only controller has lost, nobody else has.
    if !(meta.holds_votes && error.is_loss()) {
        return Finding::new(Code::MetadataDamaged, about, seen);
    }
    let fix = format!(
        "where other controllers run: start the node with an empty node.data_dir, and run callboard cluster \
         reset-controller {node} (what it holds as a broker is fetched from the others; keep this directory until it is); the \
         only controller: restore the whole directory from one backup"
    );
    Finding::new(Code::VotesLost, about, seen).fixed_by(fix)
}

/// There is no metadata, and nobody says whether there ought to be.
#[must_use]
pub fn without_metadata(root: &Path) -> Finding {
    let seen = "there is no __cluster_metadata, and no configuration that says what the node is";
    Finding::new(Code::MetadataElsewhere, root.display().to_string(), seen)
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

/// What was said about the last stop, and how much the next start has to verify. A controller leaves no marker: what it writes is
/// synced before it counts.
#[must_use]
pub fn stop(root: &Path, look: &DirectoryLook, to_scan_bytes: u64) -> Option<Finding> {
    let was_broker = look.meta.as_ref().is_some_and(|meta| meta.broker_epoch.is_some());
    (was_broker && !look.clean_stop).then(|| {
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
                let finding = Finding::new(Code::PartitionLost, about, seen);
                findings.push(if topic.copied.contains(number) { fetched_again(finding) } else { finding });
            }
        }
    }
    let mut unknown: Vec<PathBuf> = there
        .iter()
        .filter(|(partition, _)| !known.deleted.contains(&partition.topic))
        .map(|(_, name)| root.join(name))
        .collect();
    unknown.sort();
    if known.may_be_behind() {
        findings.extend(unconfirmed(root, &unknown));
        return findings;
    }
    findings.extend(unknown.into_iter().map(|path| {
        Finding::new(Code::DirectoryUnknown, path.display().to_string(), "no topic of this node has such a partition")
    }));
    findings
}

/// A partition that is gone here, and that other brokers have.
fn fetched_again(finding: Finding) -> Finding {
    let cause = "the partition was here before, and its directory is gone; or the other controllers have moved or deleted it since";
    let fix = "start the node: it fetches the partition again from the brokers that have it; or put the directory back before";
    finding.because(cause).fixed_by(fix)
}

/// Partitions that a controller does not know which may be behind the others.
fn unconfirmed(root: &Path, unknown: &[PathBuf]) -> Option<Finding> {
    let first = unknown.first()?;
    let count = counted(unknown.len() as u64, "partition");
    let seen = format!("{count} in no topic that this controller had heard of, such as {}", first.display());
    Some(Finding::new(Code::DirectoryUnconfirmed, root.display().to_string(), seen))
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
    use crate::actors::controller::KnownTopic;
    use crate::storage::disk::DirEntry;
    use crate::types::{
        BrokerEpoch, ClusterId, DirectoryId, NodeId, PartitionIndex, TopicConfigOverrides, TopicId, TopicName,
    };

    fn meta(broker_epoch: Option<u64>, holds_votes: bool) -> DirectoryMeta {
        let broker_epoch = broker_epoch.map(BrokerEpoch);
        let (cluster, directory) = (ClusterId(uuid::Uuid::nil()), DirectoryId::random());
        DirectoryMeta { cluster, node: NodeId(3), directory, broker_epoch, boot_id: None, holds_votes }
    }

    fn look(meta: DirectoryMeta, clean_stop: bool, partitions: &[TopicPartition]) -> DirectoryLook {
        let entry = |partition: &TopicPartition| {
            let name = partition_dir_name(&TopicName::new("rides").expect("legal"), *partition);
            (DirEntry { name, is_dir: true, length: 0 }, EntryKind::Partition(*partition))
        };
        DirectoryLook { meta: Some(meta), clean_stop, entries: partitions.iter().map(entry).collect() }
    }

    fn codes(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.code.name()).collect()
    }

    #[test]
    fn how_it_stopped_is_told_of_a_broker_and_not_missed_at_a_controller() {
        let root = Path::new("/data");
        let clean = look(meta(Some(7), false), true, &[]);
        let killed = look(meta(Some(7), true), false, &[]);
        let controller = look(meta(None, true), false, &[]);
        let said = |look: &DirectoryLook| whose(look, look.meta.as_ref().expect("one"));
        assert!(said(&clean).ends_with(": broker epoch 7, stopped cleanly)"), "{}", said(&clean));
        assert!(said(&killed).ends_with(": broker epoch 7, not stopped cleanly, votes of a controller)"));
        assert!(said(&controller).ends_with(": no broker was registered with it, votes of a controller)"));
        assert!(stop(root, &clean, 0).is_none() && stop(root, &controller, 0).is_none());
        assert_eq!(stop(root, &killed, 5).expect("a finding").code, Code::UncleanStop);
    }

    #[test]
    fn what_the_other_controllers_may_know_better_is_no_alarm() {
        let root = Path::new("/data");
        let place = |number| TopicPartition::new(TopicId(uuid::Uuid::from_u128(9)), PartitionIndex(number));
        let topic = KnownTopic {
            id: place(0).topic,
            name: TopicName::new("rides").expect("legal"),
            config: TopicConfigOverrides::default(),
            here: vec![PartitionIndex(0), PartitionIndex(1)],
            copied: [PartitionIndex(1)].into(),
            opened: true,
        };
        let mut known = KnownTopics { topics: vec![topic], voters: 1, ..KnownTopics::default() };
        let seen = look(meta(Some(7), false), true, &[place(2), place(3)]);
        let findings = against_metadata(root, &seen, &known);
        let lost = ["partition-lost", "partition-lost"];
        assert_eq!(codes(&findings), [lost[0], lost[1], "directory-unknown", "directory-unknown"]);
        assert!(findings[0].fix.contains("backup") && findings[1].fix.starts_with("start the node"), "{findings:?}");
        known.voters = 3;
        let findings = against_metadata(root, &seen, &known);
        assert_eq!(codes(&findings), [lost[0], lost[1], "directory-unconfirmed"]);
        assert!(findings[2].seen.starts_with("2 partitions in no topic"), "{findings:?}");
    }

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
