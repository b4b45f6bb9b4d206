//! What a node is made to do: small scripts that are cut at every step, and long random ones.

/// One thing that a node does, or that happens to it. Partitions are numbered by the test.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A new partition.
    Create(usize),
    /// A partition and all in it goes.
    Delete(usize),
    /// Batches that nobody waits for.
    Append { partition: usize, batches: usize, value_bytes: usize },
    /// All that was written so far is acknowledged.
    Sync(usize),
    /// Batches arrive while a sync runs, which does not cover them.
    SyncWhileAppending { partition: usize, batches: usize, value_bytes: usize },
    /// The log is cut while a sync runs.
    SyncWhileTruncating { partition: usize, batches_back: usize },
    /// Another leader: the next batch carries a higher epoch.
    NewLeader(usize),
    /// The last batches are given up, acknowledged or not.
    Truncate { partition: usize, batches_back: usize },
    /// Batches are replaced by those of another replica, of which the last lies `batches_back` from the end.
    Repair { partition: usize, batches_back: usize, batches: usize },
    /// Everything is given up, because the leader's log starts past this one's end.
    StartAnew { partition: usize, offsets_ahead: u64 },
    /// The first batches are deleted; what remains is durable.
    Trim { partition: usize, batches_ahead: usize },
    /// The first batches are deleted on request, acknowledged or not: deleted means deleted for good.
    DeleteRecords { partition: usize, batches_ahead: usize },
    /// Retention by size.
    Retain(usize),
    /// How far the log is good is written down, and a producer snapshot.
    Checkpoint(usize),
    /// The node stops cleanly and starts again; the machine loses power in between.
    CleanRestart,
    /// The process is killed and starts again.
    Kill,
    /// The machine loses power and starts again.
    PowerLoss,
}

use Step::{
    Append, Checkpoint, CleanRestart, Create, Delete, DeleteRecords, Kill, NewLeader, PowerLoss, Repair, Retain,
    StartAnew, Sync, SyncWhileAppending, SyncWhileTruncating, Trim, Truncate,
};

const fn small(partition: usize, batches: usize) -> Step {
    Append { partition, batches, value_bytes: 40 }
}

const fn large(partition: usize, batches: usize) -> Step {
    Append { partition, batches, value_bytes: 900 }
}

/// Short scripts, each for one corner of the storage code, short enough to be cut at every single operation.
pub const SCRIPTS: [(&str, &[Step]); 17] = [
    ("the first records", &[Create(0), small(0, 2), Sync(0), small(0, 1), Sync(0)]),
    ("rolling over segments", &[Create(0), large(0, 3), Sync(0), large(0, 2), Sync(0), small(0, 1), Sync(0)]),
    (
        "truncating within a segment",
        &[
            Create(0),
            small(0, 4),
            Sync(0),
            Truncate { partition: 0, batches_back: 2 },
            NewLeader(0),
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "truncating over segments",
        &[
            Create(0),
            large(0, 5),
            Sync(0),
            Checkpoint(0),
            Truncate { partition: 0, batches_back: 4 },
            NewLeader(0),
            large(0, 2),
            Sync(0),
        ],
    ),
    (
        "a follower that is too far behind starts anew",
        &[
            Create(0),
            large(0, 5),
            Sync(0),
            Checkpoint(0),
            NewLeader(0),
            small(0, 2),
            StartAnew { partition: 0, offsets_ahead: 70 },
            NewLeader(0),
            large(0, 2),
            Sync(0),
        ],
    ),
    (
        "repairing records over two segments",
        &[
            Create(0),
            large(0, 5),
            Sync(0),
            Checkpoint(0),
            Repair { partition: 0, batches_back: 2, batches: 3 },
            large(0, 1),
            Sync(0),
        ],
    ),
    (
        "repairing the newest records, after a clean stop and before it",
        &[
            Create(0),
            small(0, 4),
            Sync(0),
            CleanRestart,
            Repair { partition: 0, batches_back: 1, batches: 2 },
            CleanRestart,
            small(0, 2),
            Repair { partition: 0, batches_back: 1, batches: 1 },
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "starting anew, after a clean stop, where the log ends",
        &[
            Create(0),
            large(0, 4),
            Sync(0),
            CleanRestart,
            StartAnew { partition: 0, offsets_ahead: 0 },
            small(0, 1),
            Sync(0),
            CleanRestart,
        ],
    ),
    (
        "deleting from the front",
        &[Create(0), large(0, 5), Sync(0), Trim { partition: 0, batches_ahead: 3 }, large(0, 1), Sync(0), Retain(0)],
    ),
    (
        "deleting from the front of a log that nobody wrote to since the start",
        &[Create(0), large(0, 5), Sync(0), CleanRestart, Trim { partition: 0, batches_ahead: 3 }, Checkpoint(0)],
    ),
    (
        "deleting records on request, up to what was never synced",
        &[
            Create(0),
            large(0, 2),
            Sync(0),
            large(0, 3),
            DeleteRecords { partition: 0, batches_ahead: 4 },
            small(0, 1),
            DeleteRecords { partition: 0, batches_ahead: 9 },
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "deleting all records of a log that was stopped cleanly",
        &[
            Create(0),
            small(0, 3),
            Sync(0),
            CleanRestart,
            DeleteRecords { partition: 0, batches_ahead: 9 },
            CleanRestart,
        ],
    ),
    (
        "checkpoints and leader changes",
        &[
            Create(0),
            small(0, 2),
            Sync(0),
            NewLeader(0),
            small(0, 1),
            Sync(0),
            Checkpoint(0),
            NewLeader(0),
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "stopping cleanly",
        &[Create(0), small(0, 2), Sync(0), CleanRestart, small(0, 1), Sync(0), CleanRestart, CleanRestart],
    ),
    (
        "two partitions, one of which is deleted",
        &[
            Create(0),
            Create(1),
            large(0, 2),
            small(1, 1),
            Sync(0),
            Sync(1),
            Delete(0),
            small(1, 1),
            Sync(1),
            Create(0),
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "syncs that overlap with appends and truncation",
        &[
            Create(0),
            small(0, 1),
            SyncWhileAppending { partition: 0, batches: 3, value_bytes: 700 },
            SyncWhileTruncating { partition: 0, batches_back: 2 },
            small(0, 1),
            Sync(0),
        ],
    ),
    (
        "a kill, and power loss soon after",
        &[Create(0), small(0, 2), Sync(0), large(0, 2), Kill, small(0, 1), PowerLoss, small(0, 1), Sync(0)],
    ),
];

/// A random step.
pub fn random_step(rng: &mut fastrand::Rng) -> Step {
    let partition = rng.usize(0..3);
    let value_bytes = [10, 60, 400, 1_500][rng.usize(0..4)];
    let batches = rng.usize(1..4);
    match rng.u8(0..100) {
        0..=29 => Append { partition, batches, value_bytes },
        30..=54 => Sync(partition),
        55..=62 => SyncWhileAppending { partition, batches, value_bytes },
        63..=64 => SyncWhileTruncating { partition, batches_back: batches },
        65..=70 => NewLeader(partition),
        71..=75 => Truncate { partition, batches_back: rng.usize(1..8) },
        76 => Repair { partition, batches_back: rng.usize(1..8), batches },
        77 => StartAnew { partition, offsets_ahead: rng.u64(0..3) },
        78 => DeleteRecords { partition, batches_ahead: rng.usize(1..6) },
        79..=80 => Trim { partition, batches_ahead: rng.usize(1..6) },
        81..=83 => Retain(partition),
        84..=88 => Checkpoint(partition),
        89..=91 => Create(partition),
        92 => Delete(partition),
        93..=94 => CleanRestart,
        95..=96 => Kill,
        _ => PowerLoss,
    }
}
