//! The power fails at every single operation of the disk: what was acknowledged is there, and nothing that was not there before.

use std::sync::Arc;

use callboard::engine::metadata::ClusterImage;
use callboard::raft::{
    LogFiles, LogId, RaftPlace, RaftStorageError, SnapshotFiles, SnapshotMeta, StoredMembership, Vote, encode_image,
};
use callboard::storage::disk::virtual_disk::is_crash;
use callboard::storage::disk::{Disk, SyncPoint, VirtualDisk};
use openraft::Membership;

use crate::support::{DIR, cluster, entries, log_id, node, place_of_small_segments as place};

/// What a member is told to do.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many entries of this term.
    Append(u64, u64),
    Truncate(u64),
    Purge(u64, u64),
    Vote(u64),
    Commit(u64, u64),
    /// A snapshot whose last entry is of this term and index.
    Snapshot(u64, u64),
}

use Step::{Append, Commit, Purge, Snapshot, Truncate, Vote as SaveVote};

const STORIES: [(&str, &[Step]); 8] = [
    ("appending", &[Append(1, 1), Append(1, 3), Append(2, 2)]),
    ("truncating", &[Append(1, 5), Truncate(2), Append(3, 2), Truncate(3), Append(4, 1)]),
    (
        "truncating over segments, of entries that tell of each other",
        &[Append(1, 2), Append(1, 2), Append(1, 2), Append(1, 2), Append(1, 2), Truncate(1), Append(3, 2)],
    ),
    ("purging", &[Append(1, 5), Purge(1, 1), Append(1, 1), Purge(1, 5), Append(2, 1)]),
    ("purging beyond the end", &[Append(1, 3), Purge(2, 10), Append(3, 2), Purge(5, 40), Append(6, 1)]),
    ("voting", &[SaveVote(1), SaveVote(2), Append(2, 1), SaveVote(3)]),
    ("committing", &[Append(1, 3), Commit(1, 0), Commit(1, 2), SaveVote(2), Append(2, 1), Commit(2, 3)]),
    (
        "snapshots",
        &[Append(1, 3), Snapshot(1, 1), Purge(1, 1), Snapshot(2, 8), Purge(2, 8), Append(2, 1), Snapshot(2, 9)],
    ),
];

/// What a member's files hold, in as far as anybody can see it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
    snapshot: Option<LogId>,
}

impl Content {
    /// Where the next entry goes.
    fn end(&self) -> u64 {
        let after = |id: &LogId| id.index + 1;
        self.entries.last().map(after).or(self.purged.as_ref().map(after)).unwrap_or(0)
    }

    fn after(&self, step: Step) -> Self {
        let mut next = self.clone();
        match step {
            Append(term, count) => {
                next.entries.extend((self.end()..self.end() + count).map(|index| log_id(term, index)));
            }
            Truncate(from) => next.entries.retain(|id| id.index < from),
            Purge(term, index) => {
                next.purged = Some(log_id(term, index));
                next.entries.retain(|id| id.index > index);
            }
            SaveVote(term) => next.vote = Some(vote(term)),
            Commit(term, index) => next.committed = Some(log_id(term, index)),
            Snapshot(term, index) => next.snapshot = Some(log_id(term, index)),
        }
        next
    }

    /// Whether a crash in the middle of `step` may leave this: the old, the new, or the first of several entries.
    fn is_between(&self, old: &Self, step: Step) -> bool {
        let new = old.after(step);
        let first_entries = matches!(step, Append(..))
            && new.entries.starts_with(&self.entries)
            && self.entries.starts_with(&old.entries)
            && Self { entries: new.entries.clone(), ..self.clone() } == new;
        // The purge is on record before entries go.
        *self == *old || *self == new || first_entries
    }
}

fn vote(term: u64) -> Vote {
    Vote::new(term, callboard::raft::RaftId(term % 3))
}

struct Member {
    log: LogFiles,
    snapshots: SnapshotFiles,
}

impl Member {
    fn open(place: &RaftPlace) -> Result<Self, RaftStorageError> {
        let log = if place.disk.exists(&place.dir)? { LogFiles::open(place)? } else { LogFiles::create(place)? };
        let (snapshots, _) = SnapshotFiles::open(place)?;
        Ok(Self { log, snapshots })
    }

    fn run(&mut self, step: Step) -> Result<(), RaftStorageError> {
        match step {
            Append(term, count) => self.log.append(entries(term, self.log.end()..self.log.end() + count)),
            Truncate(from) => self.log.truncate(from),
            Purge(term, index) => self.log.purge(log_id(term, index)),
            SaveVote(term) => self.log.save_vote(vote(term)),
            Commit(term, index) => self.log.save_committed(Some(log_id(term, index))),
            Snapshot(term, index) => {
                let membership = Membership::new(
                    vec![[callboard::raft::RaftId(1)].into()],
                    [(callboard::raft::RaftId(1), node(1))].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                );
                let meta = SnapshotMeta {
                    last_log_id: Some(log_id(term, index)),
                    last_membership: StoredMembership::new(Some(log_id(1, 0)), membership),
                    snapshot_id: format!("{term}-{index}"),
                };
                let image = ClusterImage { index: index + 1, ..ClusterImage::empty(cluster()) };
                self.snapshots.save(&meta, encode_image(&image)?)
            }
        }
    }

    fn content(&self) -> Content {
        let state = self.log.state();
        let found = self.log.read(0, u64::MAX, usize::MAX).expect("entries that can be read");
        let content = Content {
            vote: self.log.vote(),
            committed: self.log.committed(),
            purged: state.purged,
            entries: found.iter().map(|entry| entry.id).collect(),
            snapshot: self.snapshots.current().and_then(|meta| meta.last_log_id),
        };
        assert_eq!(state.last, content.entries.last().copied().or(content.purged), "the state tells the last entry");
        let saved = self.snapshots.load().expect("a snapshot that can be read");
        assert_eq!(saved.and_then(|saved| saved.meta.last_log_id), content.snapshot);
        content
    }
}

fn is_power_loss(disk: &VirtualDisk) -> bool {
    disk.exists(std::path::Path::new("/")).is_err_and(|error| is_crash(&error))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    Kill,
    PowerLoss(u64),
    TotalLoss,
}

fn go_down(disk: &VirtualDisk, outage: Outage) {
    match outage {
        Outage::Kill => disk.kill(),
        Outage::PowerLoss(seed) => disk.power_loss(&mut fastrand::Rng::with_seed(seed)),
        Outage::TotalLoss => disk.power_loss_keeping_nothing(),
    }
}

/// Runs a story on a machine that stops at its `operation`-th operation, starts it, and compares. Then the machine stops again
/// while it recovers, at every operation. Returns whether the story came to its end first.
fn stop_at(operation: u64, story: &[Step], outage: Outage, skipped: Option<SyncPoint>) -> Result<bool, String> {
    let disk = Arc::new(VirtualDisk::new(operation));
    disk.skip_sync(skipped);
    disk.crash_after_operations(operation);
    let (mut before, mut doing, mut done) = (Content::default(), None, false);
    if let Ok(mut member) = Member::open(&place(&disk, 1)) {
        done = story.iter().all(|step| {
            doing = Some(*step);
            let ran = member.run(*step).is_ok();
            if ran {
                before = before.after(*step);
                doing = None;
            }
            ran
        });
    }
    if !done && !is_power_loss(&disk) {
        return Err("an error without a power loss".to_owned());
    }
    disk.cancel_crash();
    go_down(&disk, outage);
    for again in 1.. {
        disk.crash_after_operations(again);
        let opened = Member::open(&place(&disk, 1));
        if let Err(error) = &opened
            && !is_power_loss(&disk)
        {
            return Err(format!("does not open: {error}"));
        }
        disk.cancel_crash();
        if let Ok(member) = opened {
            let found = member.content();
            let fits = doing.map_or(found == before, |step| found.is_between(&before, step));
            return if fits { Ok(done) } else { Err(format!("{doing:?} on {before:#?} left {found:#?}")) };
        }
        go_down(&disk, outage);
    }
    Ok(done)
}

fn stop_everywhere(skipped: Option<SyncPoint>) -> Result<u64, String> {
    let mut stops = 0;
    for (name, story) in STORIES {
        for outage in
            [Outage::Kill, Outage::TotalLoss, Outage::PowerLoss(1), Outage::PowerLoss(2), Outage::PowerLoss(3)]
        {
            for operation in 1.. {
                let done = stop_at(operation, story, outage, skipped)
                    .map_err(|wrong| format!("'{name}' stopped at operation {operation}, {outage:?}: {wrong}"))?;
                stops += 1;
                if done {
                    break;
                }
            }
        }
    }
    Ok(stops)
}

#[test]
fn whatever_was_acknowledged_survives_a_stop_at_any_operation() {
    let stops = stop_everywhere(None).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(stops > 500, "only {stops} stops");
}

#[test]
fn without_the_syncs_something_acknowledged_is_lost() {
    // Each sync that makes an acknowledged entry, vote, purge or snapshot durable. Those of the log's own files are
    // looked after by tests/power_loss.
    for point in
        [SyncPoint::LogData, SyncPoint::AtomicFileContent, SyncPoint::AtomicFileRename, SyncPoint::PartitionCreated]
    {
        let caught = std::panic::catch_unwind(|| stop_everywhere(Some(point)));
        assert!(!matches!(caught, Ok(Ok(_))), "{point:?} is not needed by any story");
    }
}

#[test]
fn a_directory_is_created_whole_or_not_at_all() {
    for operation in 1.. {
        let disk = Arc::new(VirtualDisk::new(operation));
        disk.crash_after_operations(operation);
        let created = LogFiles::create(&place(&disk, 1)).is_ok();
        disk.cancel_crash();
        disk.power_loss(&mut fastrand::Rng::with_seed(operation));
        let there = disk.exists(std::path::Path::new(DIR)).expect("a disk");
        assert!(there || !created, "operation {operation}: gone");
        if there {
            LogFiles::open(&place(&disk, 1)).expect("a whole directory");
        } else {
            LogFiles::create(&place(&disk, 1)).expect("a new directory");
        }
        if created {
            return;
        }
    }
}
