//! A file goes in through the producer and comes out of the consumer byte for byte.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::*;

const LARGE_BYTES: usize = 24 << 20;
const SMALL_BYTES: usize = 2 << 20;

/// Text that people wrote, as much as asked for: documentation and sources of this machine, over and over.
fn text_of_this_machine(bytes: usize) -> Vec<u8> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let registry = cargo_home.or(home).map(|cargo| cargo.join("registry/src"));
    let places = ["/usr/share/doc", "/usr/share/perl"].map(PathBuf::from).into_iter().chain(registry);
    let mut text = Vec::with_capacity(bytes + (1 << 20));
    for place in places.chain([PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")]) {
        collect(&place, bytes, &mut text);
    }
    assert!(!text.is_empty(), "there is at least the source of this crate");
    while text.len() < bytes {
        text.extend_from_within(..text.len().min(bytes - text.len()));
    }
    text.truncate(bytes);
    text
}

fn collect(place: &Path, bytes: usize, text: &mut Vec<u8>) {
    // Links are left alone: they lead out of the tree, or round in circles.
    let Ok(entries) = std::fs::read_dir(place) else { return };
    let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if text.len() >= bytes {
            return;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect(&entry.path(), bytes, text);
        } else if kind.is_file()
            && let Ok(content) = std::fs::read(entry.path())
            // A line of a compressed file may be longer than a batch, and is no text anyway.
            && std::str::from_utf8(&content).is_ok()
        {
            text.extend_from_slice(&content);
        }
    }
}

/// Runs the producer with a file as its standard input.
fn produce_file(node: &Node, path: &Path, arguments: &[&str]) {
    let file = File::open(path).expect("written before");
    node.spawn(PRODUCER, arguments, Stdio::from(file)).wait().quietly();
}

fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((difference, found.len()), (None, expected.len()), "{what}");
}

#[test]
fn tens_of_mebibytes_come_back_byte_for_byte_through_a_file_and_through_a_pipe() {
    let node = Node::start();
    let home = directory();
    let mut text = text_of_this_machine(LARGE_BYTES);
    *text.last_mut().expect("not empty") = b'\n';
    let (path, output) = (home.path().join("in.txt"), home.path().join("out.txt"));
    std::fs::write(&path, &text).expect("written");
    node.create("text", 1);
    produce_file(&node, &path, &["--topic", "text"]);

    let output_path = output.to_str().expect("text");
    let written = node.consume(&["--topic", "text", "--exit-at-end", "--output", output_path]);
    assert_eq!(written.quietly(), "");
    assert_same(&std::fs::read(&output).expect("written"), &text, "--output");

    let printed = node.consume(&["--topic", "text", "--from", "earliest", "--exit-at-end"]).quietly();
    assert_same(printed.as_bytes(), &text, "standard output");

    let checked = node.callboard(&["log", "verify", node.partitions("text")[0].to_str().expect("text"), "--json"]);
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!((checked.code, &checked.json()["records"]), (0, &lines.into()));
}

#[test]
fn a_file_comes_back_in_every_compression_and_is_stored_compressed() {
    let node = Node::start();
    let home = directory();
    let mut text = text_of_this_machine(SMALL_BYTES);
    *text.last_mut().expect("not empty") = b'\n';
    let path = home.path().join("in.txt");
    std::fs::write(&path, &text).expect("written");
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        node.create(compression, 1);
        produce_file(&node, &path, &["--topic", compression, "--compression", compression]);
        let printed = node.consume(&["--topic", compression, "--exit-at-end"]).quietly();
        assert_same(printed.as_bytes(), &text, compression);
        let directory = node.partitions(compression)[0].display().to_string();
        let dumped = node.callboard(&["log", "dump", &directory]).quietly();
        let column = format!(" bytes  {compression}  epoch ");
        assert!(dumped.lines().all(|line| line.contains(&column)), "{compression}: {dumped}");
        let size = node.callboard(&["topic", "describe", compression, "--json"]).json();
        let size = size[0]["partitions"][0]["log"]["size_bytes"].as_u64().expect("a number") as usize;
        assert_eq!(compression != "none", size < text.len(), "{compression}: {size}");
    }
}

#[test]
fn a_file_without_a_last_line_end_comes_back_without_one() {
    let node = Node::start();
    for (topic, text) in [("open", &b"a\r\n\n\nb\xff\0c\nlast"[..]), ("closed", b"a\n\n"), ("nothing", b"")] {
        node.create(topic, 1);
        let sent = node.produce(text, &["--topic", topic, "--json"]);
        let open = text.last().is_some_and(|&byte| byte != b'\n');
        assert_eq!((sent.code, &sent.json()["last_record_unterminated"]), (0, &open.into()), "{topic}");
        let home = directory();
        let output = home.path().join("out");
        let mut arguments = vec!["--topic", topic, "--exit-at-end", "--output", output.to_str().expect("text")];
        if open {
            arguments.push("--no-final-newline");
        }
        node.consume(&arguments).quietly();
        assert_same(&std::fs::read(&output).expect("written"), text, topic);
    }
}

#[test]
fn lines_of_a_file_spread_over_partitions_are_all_there_in_order_within_each() {
    let node = Node::start();
    node.create("t", 3);
    let lines: Vec<String> = (0..20_000).map(|n| format!("{n:05}")).collect();
    let mut producer = node.spawn(PRODUCER, &["--topic", "t", "--batch-bytes", "1000"], Stdio::piped());
    producer.stdin().write_all((lines.join("\n") + "\n").as_bytes()).expect("taken");
    producer.wait().quietly();
    let of = |partition: &[&str]| {
        let arguments: Vec<&str> = ["--topic", "t", "--exit-at-end"].iter().chain(partition).copied().collect();
        node.consume(&arguments).quietly().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let parts = ["0", "1", "2"].map(|partition| of(&["--partition", partition]));
    for part in &parts {
        assert!(!part.is_empty() && part.is_sorted(), "{} lines", part.len());
    }
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, lines);
    let mut at_once = of(&["--partition", "0", "--partition", "2"]);
    at_once.sort_unstable();
    let mut expected = [parts[0].clone(), parts[2].clone()].concat();
    expected.sort_unstable();
    assert_eq!(at_once, expected);
}
