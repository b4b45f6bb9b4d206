//! What can be typed, and what cannot.

use clap::CommandFactory;

use super::*;
use crate::client::StartAt;
use crate::types::Offset;

fn producer(arguments: &[&str]) -> Result<ProduceArgs, String> {
    let arguments = ["callboard-producer", "--topic", "t"].iter().chain(arguments);
    ProducerProgram::try_parse_from(arguments).map(|program| program.produce).map_err(|error| error.to_string())
}

fn consumer(arguments: &[&str]) -> Result<ConsumeArgs, String> {
    let arguments = ["callboard-consumer", "--topic", "t"].iter().chain(arguments);
    ConsumerProgram::try_parse_from(arguments).map(|program| program.consume).map_err(|error| error.to_string())
}

fn callboard(arguments: &[&str]) -> Result<Callboard, String> {
    Callboard::try_parse_from(["callboard"].iter().chain(arguments)).map_err(|error| error.to_string())
}

#[test]
fn the_three_programs_are_put_together_without_contradiction() {
    Callboard::command().debug_assert();
    ProducerProgram::command().debug_assert();
    ConsumerProgram::command().debug_assert();
}

#[test]
fn a_producer_is_safe_by_default_and_takes_every_option() {
    let args = producer(&[]).expect("a topic is enough");
    assert_eq!((args.acks, args.compression, args.linger), (Acks::All, Compression::None, Duration::ZERO));
    for (text, acks) in [("0", Acks::None), ("1", Acks::Leader), ("all", Acks::All)] {
        assert_eq!(producer(&["--acks", text]).map(|args| args.acks), Ok(acks));
    }
    for (text, expected) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().zip(Compression::ALL) {
        assert_eq!(producer(&["--compression", text]).map(|args| args.compression), Ok(expected));
    }
    let load =
        producer(&["--producers", "5", "--interval", "10ms", "--keys", "user", "--count", "100"]).expect("a load");
    assert_eq!((load.producers, load.interval, load.count), (Some(5), Duration::from_millis(10), Some(100)));
    assert_eq!(load.keys.as_deref(), Some("user"));
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    for wrong in [
        &["--key", "a", "--key-separator", "="][..],
        &["--interval", "5ms"],
        &["--keys", "user"],
        &["--producers", "0"],
        &["--producers", "2", "--key", "a", "--keys", "user"],
        &["--acks", "2"],
        &["--compression", "brotli"],
        &["--header", "novalue"],
        &["--linger", "5"],
        &["--delimiter", ""],
    ] {
        assert!(producer(wrong).is_err(), "{wrong:?}");
    }
    assert!(consumer(&["--consumers", "2"]).is_err(), "several consumers need a directory");
    assert!(consumer(&["--format", "xml"]).is_err());
    assert!(consumer(&["--from", "yesterday"]).is_err());
}

#[test]
fn a_consumer_takes_every_option() {
    let args = consumer(&[
        "--from",
        "17",
        "--count",
        "3",
        "--exit-at-end",
        "--format",
        "key=value",
        "--output",
        "d",
        "--consumers",
        "4",
        "--partition",
        "0",
        "--partition",
        "2",
        "--no-final-newline",
    ])
    .expect("legal");
    assert_eq!(args.from, Some(From(StartAt::Offset(Offset(17)))));
    assert_eq!((args.count, args.consumers, args.partition), (Some(3), Some(4), vec![0, 2]));
    assert_eq!((args.format, args.exit_at_end, args.no_final_newline), (Format::KeyValue, true, true));
}

#[test]
fn times_need_a_unit() {
    let cases = [
        ("0ms", Duration::ZERO),
        ("10ms", Duration::from_millis(10)),
        ("250us", Duration::from_micros(250)),
        ("2s", Duration::from_secs(2)),
        ("24h", Duration::from_secs(86_400)),
    ];
    for (text, expected) in cases {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for wrong in ["", "10", "ms", "1.5s", "-1s", "1 s", "25h", "99999999999999999999s"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn servers_are_checked_before_anything_is_connected() {
    assert_eq!(servers("a:1, b:2"), Ok("a:1,b:2".to_owned()));
    assert_eq!(servers("[::1]:9644"), Ok("[::1]:9644".to_owned()));
    for wrong in ["", ",", "localhost", "a:0", "a:b", "a:70000", "a b:1"] {
        assert!(servers(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_server_and_json_can_be_given_anywhere() {
    for arguments in [["--json", "--server", "h:1", "topic", "list"], ["topic", "list", "--server", "h:1", "--json"]] {
        let parsed = callboard(&arguments).expect("legal");
        assert_eq!((parsed.connect.server.as_str(), parsed.connect.json), ("h:1", true));
    }
}

#[test]
fn topics_are_altered_with_at_least_one_change() {
    assert!(callboard(&["topic", "alter", "t"]).is_err());
    assert!(callboard(&["topic", "alter", "t", "--set", "flush=os"]).is_ok());
    assert!(callboard(&["topic", "alter", "t", "--reset", "flush", "--set", "a=b"]).is_ok());
    assert!(callboard(&["topic", "delete"]).is_err());
}

#[test]
fn a_consumer_reads_from_leaders_unless_it_is_told_otherwise_and_a_rack_has_a_name() {
    let read_from = |arguments: &[&str]| {
        let args = consumer(arguments)?;
        args.read_from().map_err(|error| error.to_string())
    };
    assert_eq!(read_from(&[]), Ok(ReadFrom::Leader));
    assert_eq!(read_from(&["--read-from", "any"]), Ok(ReadFrom::Any));
    assert_eq!(read_from(&["--read-from", "rack", "--rack", "eu-1"]), Ok(ReadFrom::Rack("eu-1".to_owned())));
    assert!(read_from(&["--read-from", "rack"]).expect_err("which").contains("--rack"), "the error names the option");
    assert!(read_from(&["--rack", "eu-1"]).expect_err("what for").contains("--read-from rack"), "that one, too");
    assert!(read_from(&["--read-from", "nearby"]).is_err());
}
