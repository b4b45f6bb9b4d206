//! Power loss at every step: what was acknowledged is there after the restart, unchanged and in order.
//!
//! The node's real storage code runs on a disk in memory. Short scripts are cut at *every* operation that changes the
//! disk, long random ones at random places; recovery itself is cut too. After each restart everything is read and compared
//! with what was promised. The last test takes each sync out of the code in turn and wants to see a promise broken.
//!
//! A failure prints the command that replays it.

#![allow(missing_docs)]

mod expected;
mod machine;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};

use callboard::storage::disk::virtual_disk::FaultyOperation;
use callboard::storage::disk::{Disk, SyncPoint};
use machine::{Machine, Outage, Stop};
use workload::{SCRIPTS, Step, random_step};

/// Random stories in a run of the test. `CALLBOARD_SEED=n` runs the one with that seed.
const RANDOM_STORIES: u64 = 400;

const SYNC_POINTS: [SyncPoint; 11] = [
    SyncPoint::LogData,
    SyncPoint::RecoveredTail,
    SyncPoint::Truncation,
    SyncPoint::SegmentCreated,
    SyncPoint::AtomicFileContent,
    SyncPoint::AtomicFileRename,
    SyncPoint::Repair,
    SyncPoint::DataDirCreated,
    SyncPoint::PartitionCreated,
    SyncPoint::PartitionDeleted,
    SyncPoint::CleanMarkerRemoved,
];

/// A new sync point does not compile until it stands in the list above, and here.
const fn is_listed(point: SyncPoint) -> bool {
    match point {
        SyncPoint::LogData
        | SyncPoint::RecoveredTail
        | SyncPoint::Truncation
        | SyncPoint::SegmentCreated
        | SyncPoint::AtomicFileContent
        | SyncPoint::AtomicFileRename
        | SyncPoint::Repair
        | SyncPoint::DataDirCreated
        | SyncPoint::PartitionCreated
        | SyncPoint::PartitionDeleted
        | SyncPoint::CleanMarkerRemoved => true,
    }
}

/// Runs a story; a panic of the code under test breaks a promise too.
fn told(name: &str, story: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(story)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|wrong| format!("{name}: {wrong}"))
}

fn run_script(machine: &mut Machine, script: &[Step]) -> Result<(), Stop> {
    machine.start()?;
    script.iter().try_for_each(|step| machine.run(*step))
}

/// Brings the machine up again, whatever it takes, and then shows that its logs work.
fn recover(machine: &mut Machine, outage: Outage, rng: &mut fastrand::Rng) -> Result<(), String> {
    let killed = outage == Outage::Kill;
    let mut outage = outage;
    let mut cuts = rng.u8(0..3);
    let recovered = loop {
        machine.go_down(outage);
        if cuts > 0 {
            cuts -= 1;
            machine.crash_at(machine.disk.operations() + rng.u64(1..20));
        }
        match machine.start() {
            Err(Stop::Crashed) => outage = [Outage::Kill, Outage::PowerLoss, Outage::TotalLoss][rng.usize(0..3)],
            started => break started,
        }
    };
    let wrong = |stop| match stop {
        Stop::Wrong(wrong) => wrong,
        Stop::Crashed => "the machine stopped again".to_owned(),
    };
    recovered.map_err(wrong)?;
    // What was found counts as durable, and a second look finds the same.
    machine.never_crash();
    if killed || rng.bool() {
        machine.go_down(Outage::TotalLoss);
        machine.start().map_err(wrong).map_err(|text| format!("opened a second time: {text}"))?;
    }
    for partition in machine.open_partitions() {
        for step in [Step::Append { partition, batches: 1, value_bytes: 40 }, Step::Sync(partition)] {
            machine.run(step).map_err(wrong)?;
        }
    }
    machine.go_down(Outage::TotalLoss);
    machine.start().map_err(wrong).map_err(|text| format!("after appending: {text}"))
}

/// Runs a script once for each of its operations, stops the machine there, and looks at what the restart finds.
fn cut_everywhere(name: &str, script: &[Step], skipped: Option<SyncPoint>, losses: u64) -> Result<u64, String> {
    let mut whole = Machine::new(0, skipped);
    told(name, || run_script(&mut whole, script).map_err(|stop| format!("uncut: {stop:?}")))?;
    let operations = whole.disk.operations();
    for operation in 1..=operations + 1 {
        for variant in 0..losses + 2 {
            let outage = match variant {
                0 => Outage::Kill,
                1 => Outage::TotalLoss,
                _ => Outage::PowerLoss,
            };
            let case = format!("'{name}' cut at operation {operation} of {operations}, {outage:?} {variant}");
            told(&case, || {
                let seed = operation * 1_000 + variant;
                let mut machine = Machine::new(seed, skipped);
                machine.crash_at(operation);
                match run_script(&mut machine, script) {
                    Ok(()) | Err(Stop::Crashed) => {}
                    Err(Stop::Wrong(wrong)) => return Err(wrong),
                }
                recover(&mut machine, outage, &mut fastrand::Rng::with_seed(seed))
            })?;
        }
    }
    Ok(operations)
}

/// What a disk can do besides stopping.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nth(FaultyOperation),
    /// The disk is full after this many times 200 bytes.
    Full,
}

/// Runs a script while the disk fails at its `nth` operation of a kind, restarts, and looks at what is found. Returns
/// whether the disk did fail.
fn fail_once(name: &str, script: &[Step], fault: Fault, nth: u64, outage: Outage) -> Result<bool, String> {
    let mut failed = false;
    let case = format!("'{name}' with {fault:?} {nth}, {outage:?}");
    told(&case, || {
        let mut machine = Machine::new(nth, None);
        machine.disk_may_fail = true;
        match fault {
            Fault::Nth(operation) => machine.disk.fail_nth(operation, nth, ""),
            Fault::Full => machine.disk.set_capacity(Some(nth * 200)),
        }
        match run_script(&mut machine, script) {
            Ok(()) => return Ok(()),
            Err(Stop::Crashed) => failed = true,
            Err(Stop::Wrong(wrong)) => return Err(wrong),
        }
        machine.disk_may_fail = false;
        machine.disk.set_capacity(None);
        recover(&mut machine, outage, &mut fastrand::Rng::with_seed(nth))
    })?;
    Ok(failed)
}

/// A long life: random work, cut at random places, recovered and worked on again.
fn random_story(seed: u64, skipped: Option<SyncPoint>) -> Result<(), String> {
    let replay = format!("seed {seed} (replay: CALLBOARD_SEED={seed} cargo test --test power_loss random_stories)");
    told(&replay, || {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut machine = Machine::new(seed, skipped);
        let mut trace = Vec::new();
        for life in 0..4 {
            if life > 0 || rng.bool() {
                machine.crash_at(machine.disk.operations() + rng.u64(1..400));
            }
            let mut lived = if life == 0 { machine.start() } else { Ok(()) };
            for _ in 0..60 {
                if lived.is_err() {
                    break;
                }
                let step = if life == 0 && trace.len() < 3 { Step::Create(trace.len()) } else { random_step(&mut rng) };
                trace.push(step);
                lived = machine.run(step);
            }
            let lately = &trace[trace.len().saturating_sub(12)..];
            if let Err(Stop::Wrong(wrong)) = lived {
                return Err(format!("{wrong}; the last steps were {lately:?}"));
            }
            let outage = [Outage::Kill, Outage::PowerLoss, Outage::PowerLoss, Outage::TotalLoss][rng.usize(0..4)];
            recover(&mut machine, outage, &mut rng)
                .map_err(|wrong| format!("after {outage:?} of life {life}: {wrong}; the last steps were {lately:?}"))?;
        }
        Ok(())
    })
}

/// All stories, or the first that ends badly.
fn every_promise_is_kept(skipped: Option<SyncPoint>, losses: u64, random_stories: u64) -> Result<(), String> {
    for (name, script) in SCRIPTS {
        cut_everywhere(name, script, skipped, losses)?;
    }
    (0..random_stories).try_for_each(|seed| random_story(seed, skipped))
}

#[test]
fn short_scripts_survive_a_cut_at_every_operation() {
    for (name, script) in SCRIPTS {
        let operations = cut_everywhere(name, script, None, 6).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(operations > 20, "'{name}' has only {operations} operations to be cut at");
    }
}

#[test]
fn a_disk_that_fails_or_is_full_at_any_operation_costs_nothing_that_was_acknowledged() {
    let faults = [
        Fault::Nth(FaultyOperation::Sync),
        Fault::Nth(FaultyOperation::Write),
        Fault::Nth(FaultyOperation::Read),
        Fault::Full,
    ];
    let mut failures = 0;
    for (name, script) in SCRIPTS {
        for fault in faults {
            for outage in [Outage::Kill, Outage::TotalLoss, Outage::PowerLoss] {
                for nth in 1..60 {
                    let failed = fail_once(name, script, fault, nth, outage).unwrap_or_else(|wrong| panic!("{wrong}"));
                    failures += u32::from(failed);
                }
            }
        }
    }
    assert!(failures > 1_000, "the disk failed only {failures} times");
}

#[test]
fn random_stories_with_power_losses_and_kills_keep_every_promise() {
    match std::env::var("CALLBOARD_SEED") {
        Ok(seed) => random_story(seed.parse().expect("CALLBOARD_SEED is a number"), None),
        Err(_) => (0..RANDOM_STORIES).try_for_each(|seed| random_story(seed, None)),
    }
    .unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn what_recovery_cuts_off_is_in_the_log_or_beside_it_whenever_the_power_fails() {
    let mut machine = Machine::new(1, None);
    for step in [Step::Create(0), Step::Append { partition: 0, batches: 5, value_bytes: 100 }, Step::Sync(0)] {
        if let Step::Create(_) = step {
            machine.start().expect("a start");
        }
        machine.run(step).expect("a step");
    }
    machine.go_down(Outage::TotalLoss);
    let disk = &machine.disk;
    let dir = machine::partition_path(0);
    let log = dir.join("00000000000000000000.log");
    disk.flip_bit(&log, 700, 3).expect("a log file");
    let damaged = disk.snapshot();
    let whole = machine.content(&log).expect("a log file");
    for step in 1.. {
        disk.roll_back(&damaged);
        disk.crash_after_operations(step);
        let opened = machine.open_untested(&dir);
        disk.power_loss_keeping_nothing();
        let names = disk.read_dir(&dir).expect("a directory");
        let cut = names.iter().find(|entry| entry.name.contains(".cut-"));
        let kept = cut.map(|cut| machine.content(&dir.join(&cut.name)).expect("a file")).unwrap_or_default();
        let log = machine.content(&log).expect("a log file");
        assert!(log == whole || (!kept.is_empty() && whole.ends_with(&kept)), "operation {step}: bytes are lost");
        if let Ok(report) = opened {
            let cut = report.cut.as_ref().expect("a cut");
            assert!(step > 5 && report.doubtful, "{report:?}");
            assert_eq!(log.len() + usize::try_from(cut.bytes).expect("a few"), whole.len());
            return;
        }
    }
}

#[test]
fn indexes_that_were_rebuilt_are_there_after_a_power_loss() {
    let mut machine = Machine::new(1, None);
    machine.start().expect("a start");
    for step in [Step::Create(0), Step::Append { partition: 0, batches: 9, value_bytes: 700 }, Step::CleanRestart] {
        machine.run(step).expect("a step");
    }
    machine.go_down(Outage::TotalLoss);
    let dir = machine::partition_path(0);
    let is_index = |name: &str| name.ends_with("index");
    let indexes = || {
        let entries = machine.disk.read_dir(&dir).expect("a directory").into_iter();
        let names = entries.filter(|entry| is_index(&entry.name)).map(|entry| entry.name);
        names.map(|name| (machine.content(&dir.join(&name)).expect("a file"), name)).collect::<Vec<_>>()
    };
    for (_, name) in indexes() {
        machine.disk.remove_file(&dir.join(name)).expect("a file to remove");
    }
    machine.disk.sync_dir(&dir, SyncPoint::PartitionDeleted).expect("a sync");
    let report = machine.open_untested(&dir).expect("an open log");
    assert!(report.clean && report.rebuilt_indexes > 2, "{report:?}");
    let rebuilt = indexes();
    assert!(rebuilt.iter().filter(|(bytes, _)| !bytes.is_empty()).count() > 2, "{rebuilt:?}");
    machine.disk.power_loss_keeping_nothing();
    assert_eq!(indexes(), rebuilt);
}

#[test]
fn without_any_one_of_the_syncs_a_promise_is_broken() {
    every_promise_is_kept(None, 1, 20).unwrap_or_else(|wrong| panic!("with all syncs: {wrong}"));
    // The mutants may make the code panic on what they leave behind; that is a find, not news for the console.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    assert!(SYNC_POINTS.into_iter().all(is_listed));
    let unneeded: Vec<_> =
        SYNC_POINTS.into_iter().filter(|point| every_promise_is_kept(Some(*point), 3, 100).is_ok()).collect();
    std::panic::set_hook(hook);
    assert!(unneeded.is_empty(), "no story needs these syncs: {unneeded:?}");
}
