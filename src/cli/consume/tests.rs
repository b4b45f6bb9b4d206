//! What a consumer command writes, and when it ends.

use std::sync::Mutex;

use clap::Parser;

use super::*;
use crate::cli::args::ConsumerProgram;
use crate::cli::produce::load;
use crate::client::tests::broker::FakeBroker;
use crate::client::{Client, ClientConfig, OutgoingRecord, ProducerConfig};

/// An output that the test can look at.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("text")
    }
}

/// A reader that is gone.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A broker whose topic `t` has `partitions`.
async fn broker(partitions: u32) -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.create("t", partitions);
    broker
}

async fn put(broker: &FakeBroker, partition: u32, values: &[&str]) {
    let client = Client::connect(ClientConfig::new(broker.address())).await.expect("connects");
    let producer = client.producer(ProducerConfig::default()).await.expect("legal settings");
    for value in values {
        let record = OutgoingRecord::to("t").partition(partition).value((*value).to_owned());
        producer.send(record).await.expect("taken").await.expect("delivered");
    }
}

fn arguments(arguments: &[&str]) -> ConsumeArgs {
    let arguments = ["callboard-consumer", "--topic", "t"].iter().chain(arguments);
    ConsumerProgram::try_parse_from(arguments).expect("legal arguments").consume
}

fn connect(broker: &FakeBroker) -> ConnectArgs {
    ConnectArgs { server: broker.address().to_owned(), json: false }
}

/// Reads with `given` until it ends by itself; gives what was written.
async fn consumed(broker: &FakeBroker, given: &[&str]) -> Result<String, CliError> {
    let args = arguments(given);
    let (seen, counters, (_sender, stop)) = (Seen::default(), Counters::default(), Stop::by_hand());
    let sink = Sink::new(Box::new(seen.clone()), "memory".to_owned(), formatter(&args));
    let connect = connect(broker);
    let reading = read(&connect, &args, "test", sink, &stop, &counters);
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it ends")?;
    Ok(seen.text())
}

#[test]
fn the_end_is_reached_when_every_partition_is_read_and_not_before() {
    let ends = Ends(HashMap::from([(0, Offset(5)), (1, Offset(0))]));
    let at = |zero: Option<u64>, one: Option<u64>| {
        move |partition| if partition == 0 { zero.map(Offset) } else { one.map(Offset) }
    };
    assert!(!ends.reached(at(Some(4), Some(0))));
    assert!(!ends.reached(at(Some(5), None)));
    assert!(ends.reached(at(Some(5), Some(0))));
    assert!(ends.reached(at(Some(9), Some(1))));
}

#[tokio::test]
async fn everything_up_to_the_end_is_read_and_then_it_ends() {
    let broker = broker(2).await;
    put(&broker, 0, &["a", "b", ""]).await;
    assert_eq!(consumed(&broker, &["--exit-at-end"]).await.expect("reads"), "a\nb\n\n");
    assert_eq!(consumed(&broker, &["--exit-at-end", "--no-final-newline"]).await.expect("reads"), "a\nb\n");
    assert_eq!(consumed(&broker, &["--exit-at-end", "--partition", "1"]).await.expect("reads"), "");
    assert_eq!(consumed(&broker, &["--exit-at-end", "--from", "latest"]).await.expect("reads"), "");
    assert_eq!(consumed(&broker, &["--exit-at-end", "--from", "1", "--partition", "0"]).await.expect("reads"), "b\n\n");
    assert_eq!(consumed(&broker, &["--from", "earliest", "--count", "1"]).await.expect("reads"), "a\n");
    assert_eq!(consumed(&broker, &["--count", "0"]).await.expect("reads"), "");
}

#[tokio::test]
async fn records_are_shown_as_they_come_and_ctrl_c_ends_it() {
    let broker = broker(1).await;
    let args = arguments(&["--from", "earliest"]);
    let (seen, counters, (sender, stop)) = (Seen::default(), Counters::default(), Stop::by_hand());
    let sink = Sink::new(Box::new(seen.clone()), "memory".to_owned(), formatter(&args));
    let connect = connect(&broker);
    let reading = read(&connect, &args, "test", sink, &stop, &counters);
    let story = async {
        for (value, expected) in [("one", "one\n"), ("two", "one\ntwo\n")] {
            put(&broker, 0, &[value]).await;
            while seen.text() != expected {
                tokio::task::yield_now().await;
            }
        }
        sender.send(true).expect("somebody listens");
    };
    let both = async { tokio::join!(reading, story) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it ends");
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(counters.records.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn several_consumers_each_write_everything_to_a_file_of_their_own() {
    let broker = broker(2).await;
    let sent = [load::value(1, load::wall_us()), load::value(2, load::wall_us())];
    let sent = sent.each_ref().map(|value| std::str::from_utf8(value).expect("text"));
    put(&broker, 0, &sent[..1]).await;
    put(&broker, 1, &sent[1..]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = directory.path().join("not/there/yet");
    let args = arguments(&["--exit-at-end", "--consumers", "3", "--output", files.to_str().expect("text")]);
    let (counters, (_sender, stop)) = (Arc::<Counters>::default(), Stop::by_hand());
    let connect = connect(&broker);
    let reading = read_in_files(&connect, &args, 3, &files, &stop, &counters);
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it ends").expect("reads");
    for number in 1..=3 {
        let text = std::fs::read_to_string(files.join(format!("consumer-{number}.txt"))).expect("a file each");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, sent);
    }
    assert_eq!(counters.latencies.summary().map(|summary| summary.records), Some(6));
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_the_command_quietly() {
    let broker = broker(1).await;
    put(&broker, 0, &["a"]).await;
    let args = arguments(&["--from", "earliest"]);
    let sink = Sink::new(Box::new(Closed), "standard output".to_owned(), formatter(&args));
    let (counters, (_sender, stop)) = (Counters::default(), Stop::by_hand());
    let connect = connect(&broker);
    let reading = read(&connect, &args, "test", sink, &stop, &counters);
    let result = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it ends");
    assert!(matches!(result, Err(CliError::OutputClosed)), "{result:?}");
}

#[tokio::test]
async fn a_topic_or_partition_that_does_not_exist_is_an_error() {
    let broker = broker(1).await;
    let error = consumed(&broker, &["--partition", "7", "--from", "earliest"]).await.expect_err("one partition only");
    assert_eq!(error.to_string(), "topic 't' has no partition 7: it has 1, numbered from 0");
    assert_eq!(error.exit_code(), 1);
}
