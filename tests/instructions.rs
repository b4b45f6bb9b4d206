//! How scripts/instructions judges: a count that leaves its margin is noticed, whichever way it goes.
#![allow(missing_docs, reason = "tests")]

#[path = "../benches/instructions/recorded.rs"]
mod recorded;

use recorded::{MARGIN_PER_MILLE, Recorded, Verdict};

fn recorded() -> Recorded {
    Recorded { tools: "rustc 1.0.0, x86_64".to_owned(), counts: [("append".to_owned(), 100_000)].into() }
}

#[test]
fn counts_are_the_same_up_to_the_margin_and_no_further() {
    let margin = 100 * MARGIN_PER_MILLE;
    assert_eq!(recorded().judge("append", 100_000 + margin), Verdict::Same);
    assert_eq!(recorded().judge("append", 100_000 - margin), Verdict::Same);
    assert_eq!(recorded().judge("append", 100_001 + margin), Verdict::Worse);
    assert_eq!(recorded().judge("append", 99_999 - margin), Verdict::Better);
    assert_eq!(recorded().judge("fetch", 1), Verdict::New);
}

#[test]
fn what_is_recorded_is_read_back() {
    assert_eq!(Recorded::parse(&recorded().to_text()), Ok(recorded()));
    let wrong = Recorded::parse("append: many\n").expect_err("no number");
    assert!(wrong.contains("append: many"), "{wrong}");
}
