//! Runs with one rule of replication broken, until the simulation notices: `scripts/mutants` starts these.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use callboard::types::Mutant;

use crate::run::run;

fn number_in(variable: &str) -> u64 {
    let text = std::env::var(variable).unwrap_or_else(|_| panic!("{variable}=NUMBER"));
    text.parse().unwrap_or_else(|_| panic!("{variable}=NUMBER"))
}

/// What was noticed in a seed: something violated, or an assertion of the code itself.
fn noticed(seed: u64) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
        Ok(outcome) => outcome.violation,
        Err(panic) => Some(format!("an assertion: {}", said_by(&*panic))),
    }
}

fn said_by(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default()
}

/// Tells all mutants: rule, name and what is changed, with tabs between.
#[test]
#[ignore = "run by scripts/mutants"]
fn list() {
    for (mutant, rule, change) in Mutant::ALL {
        println!("mutant\t{rule}\t{mutant:?}\t{change}");
    }
}

/// Runs the mutant `CALLBOARD_MUTANT` on the seeds from 0 on, until it was caught `CALLBOARD_ROUNDS` times, or on the first
/// `CALLBOARD_SEEDS`. Tells its name, the seeds until it was caught first, the seeds run, how often it was caught, and what was
/// noticed first, with tabs between.
#[test]
#[ignore = "run by scripts/mutants"]
fn hunt() {
    let wanted = std::env::var("CALLBOARD_MUTANT").expect("CALLBOARD_MUTANT=NAME");
    let (seeds, rounds) = (number_in("CALLBOARD_SEEDS"), number_in("CALLBOARD_ROUNDS"));
    assert!(Mutant::ALL.iter().any(|(mutant, ..)| mutant.is_on()), "{wanted} is on");
    // What the code asserts is counted on here, and told in one line.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut ran, mut caught, mut first) = (0, 0, None);
    while ran < seeds && caught < rounds {
        if let Some(violation) = noticed(ran) {
            caught += 1;
            first.get_or_insert((ran + 1, violation));
        }
        ran += 1;
    }
    let (needed, violation) = first.unwrap_or((0, "nothing".to_owned()));
    println!("caught\t{wanted}\t{needed}\t{ran}\t{caught}\t{}", violation.replace(['\n', '\t'], " "));
}
