//! The smallest HTTP client, and a reader of Prometheus' text format that takes nothing on trust.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A response: status, headers as they came, body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Asks once, over a connection of its own.
pub fn ask(address: &str, method: &str, path: &str, body: &str) -> Response {
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("a response, and then the end");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let chunked = method != "HEAD" && head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Response { status, head: head.to_owned(), body: if chunked { unchunked(body) } else { body.to_owned() } }
}

/// `GET`
pub fn get(address: &str, path: &str) -> Response {
    ask(address, "GET", path, "")
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (length, chunk) = rest.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).expect("hexadecimal");
        if length == 0 {
            return body;
        }
        body.push_str(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
}

/// One metric as it was served.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// By name and labels, as written.
    pub samples: BTreeMap<String, f64>,
}

/// Everything that was served, by name.
#[derive(Debug, Default)]
pub struct Metrics(pub BTreeMap<String, Family>);

impl Metrics {
    /// Scrapes a node.
    pub fn of(address: &str) -> Self {
        let response = get(address, "/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        assert!(response.head.contains("text/plain; version=0.0.4; charset=utf-8"), "{}", response.head);
        Self::parse(&response.body)
    }

    /// Reads the text, and fails where it breaks a rule of the format.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let mut at_hand = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                let family = Family { help: help.to_owned(), ..Family::default() };
                assert!(metrics.0.insert(name.to_owned(), family).is_none(), "{name} comes twice");
                name.clone_into(&mut at_hand);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert_eq!(name, at_hand, "after its help");
                kind.clone_into(&mut metrics.0.get_mut(name).expect("just put").kind);
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
                let family = metrics.0.get_mut(&at_hand).expect("a head comes first");
                let name = sample.split('{').next().unwrap_or_default();
                let base = if family.kind == "histogram" {
                    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
                } else {
                    name
                };
                assert_eq!(base, at_hand, "{line}");
                let value = value.parse().expect("a number");
                assert!(family.samples.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
            }
        }
        metrics
    }

    /// The value of a sample, by its name and labels as they are written.
    pub fn value(&self, sample: &str) -> f64 {
        let found = self.0.values().find_map(|family| family.samples.get(sample));
        *found.unwrap_or_else(|| panic!("there is no {sample}"))
    }
}
