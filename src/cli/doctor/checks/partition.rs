//! What a look into the files of one partition says.

use std::path::PathBuf;

use super::clock;
use crate::cli::doctor::checks::replicas::{MENDED_FROM_OTHERS, partition_name, ranges};
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::cli::output::counted;
use crate::storage::atomic_file::AtomicFileError;
use crate::storage::{LogError, PartitionIdentity, PartitionState, Problem};
use crate::types::{ClusterId, Offset, TimestampMs, TopicPartition};

/// A partition's directory as it was found.
#[derive(Debug)]
pub struct PartitionFacts {
    /// Where it is.
    pub path: PathBuf,
    /// Which partition its name stands for.
    pub named: TopicPartition,
    /// Which partition its own file says it is.
    pub identity: Result<PartitionIdentity, LogError>,
    /// How far it is known to be good.
    pub state: Result<Option<PartitionState>, AtomicFileError>,
    /// The disk's boot id now: another one than the state's means that the machine was off in between.
    pub boot_id: String,
    /// Bytes that the next start verifies.
    pub to_scan_bytes: u64,
    /// Problems with records.
    pub problems: Vec<RecordProblem>,
    /// Problems with indexes.
    pub index_problems: Vec<Problem>,
    /// Problems that were not listed.
    pub unlisted_problems: u64,
    /// The newest timestamp of its records.
    pub newest: Option<TimestampMs>,
    /// Remainders of files that were being replaced.
    pub leftovers: Vec<String>,
    /// Tails that a recovery put aside.
    pub cuts: Vec<String>,
    /// Why its records could not be read, if they could not.
    pub unreadable: Option<String>,
}

/// What is known of a partition beside its own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The cluster that the data directory belongs to.
    pub cluster: ClusterId,
    /// Whether other brokers have the same records, or may have them.
    pub has_copies: bool,
}

/// A problem with records, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordProblem {
    /// What it is.
    pub problem: Problem,
    /// Whether the next start verifies this place.
    pub past_recovery_point: bool,
    /// Whether nothing good follows in the whole log.
    pub at_the_end: bool,
}

/// Everything that is wrong with a partition.
#[must_use]
pub fn examine(facts: &PartitionFacts, around: Surroundings, now: TimestampMs) -> Vec<Finding> {
    let mut findings = found(facts, around.cluster, now);
    if around.has_copies {
        findings.iter_mut().for_each(mend_from_others);
    }
    findings
}

/// What to do where other brokers may have what is damaged or missing here: no backup is needed for that.
fn mend_from_others(finding: &mut Finding) {
    let fix = match finding.code {
        Code::RecordsDamaged => format!("start the node: {MENDED_FROM_OTHERS}"),
        // With its own fix, starting is enough.
        Code::PartitionUnreadable if finding.fix == Code::PartitionUnreadable.fix() => {
            "move the partition's directory out of the data directory and start the node: it fetches the partition again from \
             the brokers that have it, if one of them is in sync; else restore the directory from a backup"
                .to_owned()
        }
        _ => return,
    };
    finding.fix = fix.into();
}

fn found(facts: &PartitionFacts, cluster: ClusterId, now: TimestampMs) -> Vec<Finding> {
    let path = facts.path.display().to_string();
    let identity = match &facts.identity {
        Ok(identity) => identity,
        Err(error) => {
            let newer = matches!(error, LogError::DamagedMeta(AtomicFileError::NewerVersion { .. }));
            let code = if newer { Code::NewerFormat } else { Code::PartitionUnreadable };
            return vec![Finding::new(code, path, error.to_string())];
        }
    };
    let held = (identity.cluster_id, identity.topic_id, identity.partition);
    if held != (cluster, facts.named.topic, facts.named.partition) {
        return vec![Finding::new(Code::PartitionForeign, path, format!("it holds {identity}"))];
    }
    let about = partition_name(identity.topic.as_str(), identity.partition.0);
    let mut findings = Vec::new();
    findings.extend(state(&about, facts));
    if let Some(why) = &facts.unreadable {
        findings.push(Finding::new(Code::PartitionUnreadable, about.as_str(), why.as_str()));
    }
    findings.extend(records(&about, facts));
    findings.extend(facts.newest.and_then(|newest| clock::in_the_future(&about, newest, now)));
    if let Some(first) = facts.index_problems.first() {
        let count = counted(facts.index_problems.len() as u64, "problem");
        let seen = format!("{count} in {path}, the first in {}: {}", first.file, first.what);
        findings.push(Finding::new(Code::IndexDamaged, about.as_str(), seen));
    }
    for (code, names) in [(Code::LeftoverFiles, &facts.leftovers), (Code::TailsAside, &facts.cuts)] {
        if let Some(first) = names.first() {
            let seen = format!("{} in {path}, such as {first}", counted(names.len() as u64, "file"));
            findings.push(Finding::new(code, about.as_str(), seen));
        }
    }
    findings
}

fn state(about: &str, facts: &PartitionFacts) -> Option<Finding> {
    match &facts.state {
        Ok(Some(_)) => None,
        Ok(None) => {
            let seen = "partition.state is missing";
            let fix = "start the node: it reads the whole log, which takes a while, and writes the file again";
            Some(Finding::new(Code::PartitionUnreadable, about, seen).fixed_by(fix))
        }
        Err(error @ AtomicFileError::NewerVersion { .. }) => {
            Some(Finding::new(Code::NewerFormat, about, error.to_string()))
        }
        Err(error) => {
            let fix = "start the node: it reads the whole log, which takes a while, and writes the file again";
            Some(Finding::new(Code::PartitionUnreadable, about, error.to_string()).fixed_by(fix))
        }
    }
}

/// Damage, and torn tails, which are none.
fn records(about: &str, facts: &PartitionFacts) -> Vec<Finding> {
    let known: &[(Offset, Offset)] = match &facts.state {
        Ok(Some(state)) => &state.damaged,
        _ => &[],
    };
    let boot_differs = matches!(&facts.state, Ok(Some(state)) if state.boot_id != facts.boot_id);
    // After a power loss the log ends at the first bad place past the recovery point, whatever follows.
    let is_torn = |it: &&RecordProblem| it.past_recovery_point && (it.at_the_end || boot_differs);
    let torn: Vec<&RecordProblem> = facts.problems.iter().filter(is_torn).collect();
    let damaged: Vec<&RecordProblem> = facts.problems.iter().filter(|it| !is_torn(it)).collect();
    let place = |it: &RecordProblem| {
        let offset = it.problem.offset.map(|offset| format!(" (offset {offset})")).unwrap_or_default();
        format!("{} at byte {}{offset}: {}", it.problem.file, it.problem.position, it.problem.what)
    };
    let mut findings = Vec::new();
    if let Some(first) = damaged.first() {
        let count = counted(damaged.len() as u64 + facts.unlisted_problems, "damaged place");
        let seen = format!("{count} in {}, the first in {}", facts.path.display(), place(first));
        findings.push(Finding::new(Code::RecordsDamaged, about, seen));
    } else if !known.is_empty() {
        let seen = format!("noted earlier, and not served: {}", ranges(known));
        findings.push(Finding::new(Code::RecordsDamaged, about, seen));
    }
    if let Some(first) = torn.first() {
        findings.push(Finding::new(Code::TornTail, about, place(first)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionIndex, TopicId, TopicName};

    const ALONE: Surroundings = Surroundings { cluster: ClusterId(uuid::Uuid::nil()), has_copies: false };

    /// A partition with one bad place in its records, last written under boot `then`.
    fn facts(past_recovery_point: bool, at_the_end: bool, then: &str) -> PartitionFacts {
        let named = TopicPartition::new(TopicId(uuid::Uuid::from_u128(7)), PartitionIndex(0));
        let problem =
            Problem { file: "0.log".into(), position: 5, offset: Some(Offset(3)), what: "wrong checksum".into() };
        PartitionFacts {
            path: "/data/rides".into(),
            named,
            identity: Ok(PartitionIdentity {
                cluster_id: ClusterId(uuid::Uuid::nil()),
                topic: TopicName::new("rides").expect("legal"),
                topic_id: named.topic,
                partition: named.partition,
            }),
            state: Ok(Some(PartitionState::empty(then.to_owned()))),
            boot_id: "now".to_owned(),
            to_scan_bytes: 0,
            problems: vec![RecordProblem { problem, past_recovery_point, at_the_end }],
            index_problems: Vec::new(),
            unlisted_problems: 0,
            newest: None,
            leftovers: Vec::new(),
            cuts: Vec::new(),
            unreadable: None,
        }
    }

    #[test]
    fn a_bad_place_is_torn_exactly_where_the_next_start_cuts() {
        let code = |facts: PartitionFacts| examine(&facts, ALONE, TimestampMs(0))[0].code;
        // Killed: what was written is there, so that something bad with good batches after it is damage.
        assert_eq!(code(facts(true, true, "now")), Code::TornTail);
        assert_eq!(code(facts(true, false, "now")), Code::RecordsDamaged);
        // Power was lost: the log ends at the first bad place that was not synced.
        assert_eq!(code(facts(true, false, "before")), Code::TornTail);
        for (at_the_end, boot) in [(true, "now"), (true, "before"), (false, "before")] {
            assert_eq!(code(facts(false, at_the_end, boot)), Code::RecordsDamaged, "it was synced");
        }
    }

    #[test]
    fn damage_that_was_noted_is_told_though_no_record_was_read() {
        let mut facts = facts(false, false, "now");
        facts.problems.clear();
        assert_eq!(examine(&facts, ALONE, TimestampMs(0)), []);
        let Ok(Some(state)) = &mut facts.state else { panic!("it has a state") };
        state.damaged.push((Offset(4), Offset(9)));
        let [finding] = &examine(&facts, ALONE, TimestampMs(0))[..] else { panic!("one finding") };
        assert_eq!(finding.code, Code::RecordsDamaged);
        assert!(finding.seen.contains("offsets 4 up to but not 9") && finding.fix.contains("backup"), "{finding:?}");
    }

    #[test]
    fn where_others_have_the_partition_no_backup_is_asked_for() {
        let around = Surroundings { has_copies: true, ..ALONE };
        let mut facts = facts(false, false, "now");
        facts.unreadable = Some("not readable".to_owned());
        let findings = examine(&facts, around, TimestampMs(0));
        let [unreadable, damaged] = &findings[..] else { panic!("two findings: {findings:?}") };
        assert!(damaged.code == Code::RecordsDamaged && damaged.fix.starts_with("start the node: "), "{damaged:?}");
        assert!(unreadable.fix.starts_with("move the partition's directory out"), "{unreadable:?}");
        facts.unreadable = None;
        facts.problems.clear();
        facts.state = Ok(None);
        let [state] = &examine(&facts, around, TimestampMs(0))[..] else { panic!("one finding") };
        assert!(state.fix.contains("reads the whole log"), "its own fix is the better one: {state:?}");
    }

    #[test]
    fn a_partition_of_another_cluster_is_foreign() {
        let around = Surroundings { cluster: ClusterId(uuid::Uuid::from_u128(1)), ..ALONE };
        let [finding] = &examine(&facts(false, false, "now"), around, TimestampMs(0))[..] else {
            panic!("one finding")
        };
        assert!(finding.code == Code::PartitionForeign && finding.seen.contains("in cluster "), "{finding:?}");
    }
}
