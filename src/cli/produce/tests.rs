//! How a line becomes a record, and what becomes of the records.

use std::collections::BTreeMap;

use clap::Parser;

use super::*;
use crate::cli::args::ProducerProgram;
use crate::client::ClientConfig;
use crate::client::tests::broker::{FakeBroker, Fault};
use crate::protocol::ErrorCode;
use crate::types::record_batch::decode_records;

fn template(arguments: &[&str]) -> Template {
    let arguments = ["callboard-producer", "--topic", "t"].iter().chain(arguments);
    Template::new(&ProducerProgram::try_parse_from(arguments).expect("legal arguments").produce)
}

#[test]
fn a_line_is_the_value_and_everything_else_is_the_same_for_all() {
    let template = template(&["--key", "k", "--header", "a=1", "--header", "a=2=3", "--partition", "4"]);
    let expected = OutgoingRecord::to("t").key("k").value("x=y").header("a", "1").header("a", "2=3").partition(4);
    assert_eq!(template.record("x=y".into()), expected);
}

#[test]
fn a_line_is_split_at_the_first_separator_and_without_one_it_has_no_key() {
    let template = template(&["--key-separator", "::"]);
    assert_eq!(template.record("k::v::w".into()), OutgoingRecord::to("t").key("k").value("v::w"));
    assert_eq!(template.record("::v".into()), OutgoingRecord::to("t").key("").value("v"));
    assert_eq!(template.record("k::".into()), OutgoingRecord::to("t").key("k").value(""));
    assert_eq!(template.record("k:v".into()), OutgoingRecord::to("t").value("k:v"));
}

#[test]
fn the_first_failure_is_what_is_reported_with_the_count() {
    let counters = Counters { failed: AtomicU64::new(1_200), ..Counters::default() };
    let mut ending = Ending::default();
    ending.merge(Ending { first_failure: Some(ClientError::NothingAssigned), ..Ending::default() });
    ending.merge(Ending { first_failure: Some(ClientError::Closed { what: "producer" }), ..Ending::default() });
    let error = ending.into_result(&counters).expect_err("records failed");
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        (
            "1,200 records were not delivered; the first one: no partition is assigned to this consumer: call assign first",
            1
        )
    );
}

/// A broker with topic `t`, and a producer as `arguments` want it.
async fn start(arguments: &[&str]) -> (FakeBroker, ProduceArgs, Producer) {
    let broker = FakeBroker::start().await;
    broker.create("t", 1);
    let arguments = ["callboard-producer", "--topic", "t"].iter().chain(arguments);
    let args = ProducerProgram::try_parse_from(arguments).expect("legal arguments").produce;
    let client = Client::connect(ClientConfig::new(broker.address())).await.expect("connects");
    let producer = client.producer(config(&args)).await.expect("legal settings");
    (broker, args, producer)
}

fn written(broker: &FakeBroker) -> Vec<Bytes> {
    broker.state().topics["t"].1[0].values()
}

fn counted(counters: &Counters) -> (u64, u64) {
    (counters.delivered.load(Ordering::Relaxed), counters.failed.load(Ordering::Relaxed))
}

/// Gives `first`, then nothing for ever, as a terminal does.
struct Terminal(std::io::Cursor<&'static [u8]>);

impl Read for Terminal {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(into)? {
            0 => loop {
                std::thread::park();
            },
            length => Ok(length),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_sent_in_order_and_each_is_counted() {
    let (broker, args, producer) = start(&["--batch-bytes", "1000"]).await;
    let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}\r")).collect();
    let (counters, (_sender, stop)) = (Arc::default(), Stop::by_hand());
    let input = std::io::Cursor::new(lines.join("\n"));
    let ending = send_lines(producer, input, &args, &stop, &counters).await;
    assert!(ending.last_is_open);
    assert!(ending.into_result(&counters).is_ok());
    assert_eq!(counted(&counters), (10_000, 0));
    assert_eq!(
        counters.delivered_bytes.load(Ordering::Relaxed),
        lines.iter().map(|line| line.len() as u64).sum::<u64>()
    );
    assert!(written(&broker) == lines, "what arrived differs from what was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_typed_before_ctrl_c_is_delivered() {
    let (broker, args, producer) = start(&[]).await;
    let (counters, (sender, stop)) = (Arc::<Counters>::default(), Stop::by_hand());
    let typed = Terminal(std::io::Cursor::new(b"one\ntwo\nunfinished"));
    let sending = send_lines(producer, typed, &args, &stop, &counters);
    let interrupt = async {
        while counted(&counters).0 < 2 {
            tokio::task::yield_now().await;
        }
        sender.send(true).expect("somebody listens");
    };
    let both = async { tokio::join!(sending, interrupt) };
    let (ending, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it ends");
    assert!(ending.into_result(&counters).is_ok());
    assert_eq!(written(&broker), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_ends_the_input_early() {
    let (broker, args, producer) = start(&["--count", "2"]).await;
    let (counters, (_sender, stop)) = (Arc::default(), Stop::by_hand());
    let typed = Terminal(std::io::Cursor::new(b"one\ntwo\nthree\nfour\n"));
    assert!(send_lines(producer, typed, &args, &stop, &counters).await.into_result(&counters).is_ok());
    assert_eq!(written(&broker), ["one", "two"]);
}

/// Gives its first part, and the second once a record has failed.
struct AfterFailure {
    parts: [&'static [u8]; 2],
    given: usize,
    counters: Arc<Counters>,
}

impl Read for AfterFailure {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.given == 1 && counted(&self.counters).1 == 0 {
            std::thread::yield_now();
        }
        let part = self.parts.get(self.given).copied().unwrap_or_default();
        into[..part.len()].copy_from_slice(part);
        self.given += 1;
        Ok(part.len())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_fail_are_counted_and_later_ones_arrive() {
    let (broker, args, producer) = start(&["--acks", "1"]).await;
    broker.on_produce([Fault::Refuse(ErrorCode::BatchTooLarge)]);
    let (counters, (_sender, stop)) = (Arc::<Counters>::default(), Stop::by_hand());
    let input = AfterFailure { parts: [b"one\n", b"two\nthree\n"], given: 0, counters: Arc::clone(&counters) };
    let ending = send_lines(producer, input, &args, &stop, &counters).await;
    let error = ending.into_result(&counters).expect_err("one failed");
    assert!(error.to_string().starts_with("1 record was not delivered: "), "{error}");
    assert_eq!((counted(&counters), error.exit_code()), ((2, 1), 1));
    assert_eq!(written(&broker), ["two", "three"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_is_counted_and_the_others_arrive() {
    let (broker, args, producer) = start(&[]).await;
    let input = [b"one\n".to_vec(), vec![b'x'; 9 << 20], b"\ntwo\n".to_vec()].concat();
    let (counters, (_sender, stop)) = (Arc::default(), Stop::by_hand());
    let ending = send_lines(producer, std::io::Cursor::new(input), &args, &stop, &counters).await;
    let error = ending.into_result(&counters).expect_err("one is above the broker's frame limit of 8 MiB");
    assert!(error.to_string().starts_with("1 record was not delivered: the record has "), "{error}");
    assert_eq!(written(&broker), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_does_not_exist_ends_the_command_at_once() {
    let (_broker, mut args, producer) = start(&[]).await;
    args.topic = "nowhere".to_owned();
    let (counters, (_sender, stop)) = (Arc::default(), Stop::by_hand());
    let typed = Terminal(std::io::Cursor::new(b"one\ntwo\n"));
    let error =
        send_lines(producer, typed, &args, &stop, &counters).await.into_result(&counters).expect_err("no topic");
    assert!(error.to_string().starts_with("topic 'nowhere' does not exist: create it first"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_sends_rising_numbers_from_each_producer() {
    let (broker, args, producer) =
        start(&["--producers", "3", "--interval", "1ms", "--keys", "user", "--count", "20"]).await;
    drop(producer);
    let connect = ConnectArgs { server: broker.address().to_owned(), json: false };
    let (counters, (_sender, stop)) = (Arc::default(), Stop::by_hand());
    assert!(send_load(&connect, &args, &stop, &counters).await.into_result(&counters).is_ok());
    assert_eq!(counted(&counters), (60, 0));

    let mut numbers: BTreeMap<Bytes, Vec<u64>> = BTreeMap::new();
    for batch in &broker.state().topics["t"].1[0].batches {
        for record in decode_records(batch, 1 << 20).expect("a good batch") {
            let value = record.value.expect("a value");
            assert!(load::sent_us(&value).is_some_and(|sent| sent <= load::wall_us()), "{value:?}");
            let value: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
            numbers.entry(record.key.expect("a key")).or_default().push(value["n"].as_u64().expect("a number"));
        }
    }
    let rising: Vec<u64> = (1..=20).collect();
    assert_eq!(numbers, ["user1", "user2", "user3"].map(|key| (Bytes::from(key), rising.clone())).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ctrl_c_what_was_read_is_sent_and_nothing_more_is_read() {
    let (broker, args, producer) = start(&[]).await;
    let (counters, (sender, stop)) = (Arc::default(), Stop::by_hand());
    sender.send(true).expect("listened to");
    let (reader, portions) = mpsc::channel(4);
    for lines in [["a", "b"], ["c", "d"]] {
        reader.send(Portion::Records(lines.map(Bytes::from).into())).await.expect("there is room");
    }
    let ending = send_portions(producer, portions, &args, &stop, &counters).await;
    assert!(ending.first_failure.is_none() && ending.fatal.is_none());
    assert_eq!((written(&broker), counted(&counters)), (["a", "b", "c", "d"].map(Bytes::from).to_vec(), (4, 0)));
    assert!(reader.is_closed());
}
