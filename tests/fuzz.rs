//! The fuzz bodies of `callboard::fuzz`, run through proptest: first over the kept corpus, then over mutations of it and
//! over random bytes, for `CALLBOARD_FUZZ_SECONDS` (2 by default) each.
//!
//! To keep a finding, write its bytes to a file under tests/corpus/<target>/: it is replayed first from then on.
#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use callboard::types::{Clock, SystemClock};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

/// One change to an input of the corpus.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Bytes that mean something: ends of ranges, markers of the largest lengths.
    let byte = prop_oneof![any::<u8>(), select(vec![0, 1, 0x7f, 0x80, 0xc1, 0xc6, 0xdb, 0xdd, 0xdf, 0xfe, 0xff])];
    prop_oneof![
        6 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => any::<Index>().prop_map(Mutation::Cut),
        2 => (any::<Index>(), vec(byte, 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (any::<Index>(), 1usize..9).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => any::<Index>().prop_map(Mutation::Repeat),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        match mutation {
            Mutation::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
            Mutation::Set(..) => {}
            Mutation::Cut(at) => bytes.truncate(place(at)),
            Mutation::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Mutation::Remove(at, count) => drop(bytes.drain(place(at)..(place(at) + count).min(length))),
            Mutation::Repeat(at) if length < 1 << 16 => bytes.extend_from_within(place(at)..),
            Mutation::Repeat(_) => {}
        }
    }
    bytes
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the corpus is there").map(|f| f.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// Runs `body` over the corpus, then over what comes of it until the time is up.
fn fuzz(name: &str, body: fn(&[u8])) {
    let seconds = std::env::var("CALLBOARD_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let kept = corpus(name);
    for input in &kept {
        body(input);
    }
    let seed: u64 = std::env::var("CALLBOARD_FUZZ_SEED")
        .map_or_else(|_| SystemClock::start().wall().0.cast_unsigned(), |text| text.parse().expect("a number"));
    let mutated = (select(kept), vec(mutation(), 1..12)).prop_map(|(input, changes)| mutate(input, &changes));
    let input = prop_oneof![9 => mutated, 1 => vec(any::<u8>(), 0..300)];
    let clock = SystemClock::start();
    let mut rounds = 0;
    while clock.now().0 < Duration::from_secs(seconds) {
        let round_seed = seed.wrapping_add(rounds);
        let config =
            Config { cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(round_seed), ..Config::default() };
        let outcome = TestRunner::new(config).run(&input, |bytes| {
            let survived = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
            survived.map_err(|_| TestCaseError::fail("it panicked"))
        });
        if let Err(TestError::Fail(_, bytes)) = &outcome {
            panic!(
                "{name} fails on {bytes:02x?}\nreplay: CALLBOARD_FUZZ_SEED={round_seed} cargo test --test fuzz {name}\n\
                 keep: write these bytes to tests/corpus/{name}/"
            );
        }
        outcome.expect("the runner runs");
        rounds += 1;
    }
    println!("{name}: {rounds} rounds of 256 from seed {seed}");
}

#[test]
fn frame() {
    fuzz("frame", callboard::fuzz::fuzz_frame_codec);
}

#[test]
fn batch_header() {
    fuzz("batch_header", callboard::fuzz::fuzz_batch_header);
}

#[test]
fn segment_scan() {
    fuzz("segment_scan", callboard::fuzz::fuzz_segment_scan);
}
