//! docs/protocol.md says what the code does: the tables of errors and requests, and the example's bytes.
#![allow(missing_docs, reason = "tests")]

use bytes::BytesMut;
use callboard::protocol::frame::{FrameCodec, decode_reply};
use callboard::protocol::messages::Produce;
use callboard::protocol::{Api, ErrorCode, PeerApi};
use callboard::types::CorrelationId;
use tokio_util::codec::Decoder;

fn page() -> &'static str {
    include_str!("../docs/protocol.md")
}

/// The first `columns` cells of each row of the table under this head.
fn table(head: &str, columns: usize) -> Vec<Vec<&'static str>> {
    let rows =
        page().lines().skip_while(|line| !line.starts_with(head)).skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').skip(1).take(columns).map(str::trim).collect()).collect()
}

#[test]
fn every_error_code_stands_on_the_page_with_its_name_and_whether_to_retry() {
    let expected: Vec<[String; 3]> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retry = if code.is_retryable() { "yes" } else { "no" };
            [code.number().to_string(), code.name().to_owned(), retry.to_owned()]
        })
        .collect();
    assert_eq!(table("| code | name |", 3), expected);
}

#[test]
fn every_request_stands_on_the_page_with_its_number_and_a_section() {
    let expected: Vec<[String; 2]> =
        Api::ALL.iter().map(|api| [api.number().to_string(), format!("{api:?}")]).collect();
    assert_eq!(table("| number | request |", 2), expected);
    for api in Api::ALL {
        let heading = format!("### {api:?} ({})", api.number());
        assert!(page().contains(&heading), "no section {heading:?}");
    }
}

#[test]
fn every_request_between_nodes_stands_on_the_page_with_its_number_and_a_section() {
    let expected: Vec<[String; 2]> =
        PeerApi::ALL.iter().map(|api| [api.number().to_string(), format!("{api:?}")]).collect();
    assert_eq!(table("| number | between nodes |", 2), expected);
    for api in PeerApi::ALL {
        let heading = format!("### {api:?} ({})", api.number());
        assert!(page().contains(&heading), "no section {heading:?}");
    }
}

/// The bytes of the code block after this text: pairs of hexadecimal digits at the start of each line.
fn example_after(text: &str) -> BytesMut {
    let block = page().split(text).nth(1).and_then(|rest| rest.split("```").nth(1)).expect("a code block");
    let bytes_of = |line: &'static str| {
        line.trim_start()
            .split("  ")
            .next()
            .unwrap_or("")
            .split(' ')
            .map_while(|pair| u8::from_str_radix(pair, 16).ok())
    };
    block.lines().filter(|line| !line.contains("topic,")).flat_map(bytes_of).collect::<Vec<u8>>().as_slice().into()
}

#[test]
fn the_bytes_of_the_worked_example_are_frames() {
    let mut codec = FrameCodec::new(1 << 10);
    let mut bytes = example_after("in place of record batches");
    let frame = codec.decode(&mut bytes).expect("a frame").expect("whole");
    assert!(bytes.is_empty());
    let request: Produce = frame.decode_body().expect("a Produce request");
    assert_eq!((request.timeout_ms, request.partitions.len()), (30_000, 2));
    assert_eq!(frame.attachments, ["abc", "def"]);
    let mut bytes = example_after("An error for the whole request");
    let reply = codec.decode(&mut bytes).expect("a frame").expect("whole");
    assert_eq!((reply.head.correlation_id, bytes.len()), (CorrelationId(1), 0));
    let error = decode_reply::<Produce>(&reply).expect_err("an error");
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotLeader, "go away!"));
}
