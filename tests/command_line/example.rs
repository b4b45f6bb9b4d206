//! examples/ride_driver.rs: the driver and the rider as two programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::*;

/// Where cargo puts the example: beside the programs. `cargo test` builds it; `cargo test --test command_line` does not.
fn ride_driver() -> Option<PathBuf> {
    let path = Path::new(CALLBOARD).with_file_name("examples").join("ride_driver");
    path.exists().then_some(path)
}

#[test]
fn a_rider_follows_one_driver_and_not_the_other() {
    let Some(program) = ride_driver() else {
        println!("SKIPPED: the example is not built; cargo build --example ride_driver");
        return;
    };
    let program = program.to_str().expect("text");
    let node = Node::start();
    let start = |role: &str, name: &str| node.spawn(program, &[role, name, &node.address], Stdio::null());
    let rider = start("ride", "alice");
    wait_for("the rider waits", || (rider.stdout() == "waiting for alice\n").then_some(()));
    let drivers = [start("drive", "alice"), start("drive", "bob")];
    wait_for("three positions", || (lines(&rider.stdout()).len() > 3).then_some(()));
    wait_for("the other one drives, too", || (!drivers[1].stdout().is_empty()).then_some(()));
    for driver in &drivers {
        driver.signal(Signal::INT);
    }
    let [alice, bob] = drivers.map(|driver| driver.wait().quietly());
    assert!(bob.starts_with("bob is at 52.5"), "{bob}");
    let sent: Vec<&str> = alice.lines().map(|line| line.split(" (").next().expect("at least once")).collect();
    wait_for("the rider has all", || (lines(&rider.stdout()).len() > sent.len()).then_some(()));
    rider.signal(Signal::INT);
    let followed = rider.wait().quietly();
    assert_eq!(lines(&followed)[1..], sent);
}

#[test]
fn a_slip_in_the_arguments_shows_the_usage() {
    let Some(program) = ride_driver() else { return println!("SKIPPED: the example is not built") };
    let outcome = run_with(command(program.to_str().expect("text")), &["fly", "alice"], b"");
    assert_eq!(outcome.refusal(), (1, "error: usage: ride_driver drive|ride NAME [HOST:PORT]"));
}
