//! What the client library costs, against a server in another process that keeps nothing (`support/sink.rs`).
//!
//! * `cargo bench --bench client` prints records a second and bytes a second, and the time of one record in flight beside
//!   that of a bare TCP ping-pong of the same run; `-- RUNS` sets how many interleaved runs (default 5).
//! * `-- count WORKLOAD RECORDS` does one workload and nothing else: what callgrind counts. Run it with two numbers of
//!   records; the difference, divided, is what a record costs.

#![allow(clippy::disallowed_methods, missing_docs, reason = "a benchmark reads the clock")]

#[path = "support/sink.rs"]
mod sink;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use callboard::client::{
    Client, ClientConfig, Consumer, ConsumerConfig, OutgoingRecord, ProducerConfig, RecordRef, StartAt,
};

/// A way to use the client, with the size of a value and the records of a batch.
const WORKLOADS: &[(&str, usize, usize)] = &[
    ("send", 100, 1_000),
    ("topic_send", 100, 1_000),
    ("send_batch", 100, 1_000),
    ("send_batch", 100, 10_000),
    ("send", 1_024, 1_000),
    ("send_batch", 1_024, 1_000),
    ("recv_batch", 100, 1_000),
    ("next_batch", 100, 1_000),
    ("recv_batch", 1_024, 1_000),
    ("next_batch", 1_024, 1_000),
];

/// Bytes that one run of a workload moves.
const RUN_BYTES: usize = 512 << 20;

/// Round trips of a latency run.
const TRIPS: usize = 5_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["sink", value_bytes, batch_records] => serve(number(value_bytes), number(batch_records)),
        ["echo", bytes] => echo(number(bytes)),
        ["count", workload, value_bytes, batch_records, records] => {
            let (value_bytes, batch_records) = (number(value_bytes), number(batch_records));
            run(workload, value_bytes, batch_records, number(records));
        }
        ["one", workload, value_bytes, batch_records, records] => {
            let (value_bytes, batch_records, records) = (number(value_bytes), number(batch_records), number(records));
            let seconds = run(workload, value_bytes, batch_records, records);
            println!("{:.2} M/s {} ns CPU", records as f64 / seconds / 1e6, cpu_ns() / records as u64);
        }
        ["latency", trips] => drop(latency(number(trips))),
        [] => table(5),
        [runs] => table(number(runs)),
        _ => panic!("usage: [RUNS] | count WORKLOAD VALUE_BYTES BATCH_RECORDS RECORDS | latency TRIPS"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn table(runs: usize) {
    println!(
        "{:>12} {:>7} {:>7} {:>12} {:>8} {:>12} {:>14}",
        "workload", "value", "batch", "M records/s", "MB/s", "spread", "CPU ns/record"
    );
    for (workload, value_bytes, batch_records) in WORKLOADS {
        let records = RUN_BYTES / value_bytes;
        let cpu_before = cpu_ns();
        let mut rates: Vec<f64> =
            (0..runs).map(|_| records as f64 / run(workload, *value_bytes, *batch_records, records)).collect();
        let cpu = (cpu_ns() - cpu_before) / (runs * records) as u64;
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[0] / 1e6, rates[runs / 2] / 1e6, rates[runs - 1] / 1e6);
        let megabytes = median * *value_bytes as f64;
        println!(
            "{workload:>12} {value_bytes:>7} {batch_records:>7} {median:>12.2} {megabytes:>8.0} {low:>6.2}-{high:<5.2} {cpu:>14}"
        );
    }
    println!("{:>12} {:>12} {:>12} {:>12} {:>12}", "one in flight", "tcp p50", "tcp p99", "send p50", "send p99");
    for _ in 0..runs {
        let tcp = ping_pong(TRIPS);
        let send = latency(TRIPS);
        println!("{:>12} {:>12?} {:>12?} {:>12?} {:>12?}", "", tcp.0, tcp.1, send.0, send.1);
    }
}

/// What this thread, which runs the whole client, has used of a CPU: a figure that other load on the machine hardly moves.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("nanoseconds come first")
}

/// A process of this program, gone when this is dropped. The first line that it prints is its address.
struct Other {
    child: Child,
    address: String,
}

impl Other {
    fn start(args: &[&str]) -> Self {
        let this = std::env::current_exe().expect("a path");
        let mut child = Command::new(this).args(args).stdout(Stdio::piped()).spawn().expect("starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut address).expect("its address");
        Self { child, address: address.trim().to_owned() }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("bound"));
    listener
}

fn serve(value_bytes: usize, batch_records: usize) {
    sink::serve(&listen(), &sink::Template::new(batch_records, value_bytes));
}

fn echo(bytes: usize) {
    sink::echo(&listen(), bytes);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Does a workload, and returns how many seconds it took.
fn run(workload: &str, value_bytes: usize, batch_records: usize, records: usize) -> f64 {
    let sink = Other::start(&["sink", &value_bytes.to_string(), &batch_records.to_string()]);
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(&sink.address)).await.expect("reachable");
        let batch_bytes = batch_records * (value_bytes + 11);
        match workload {
            "send" => send(&client, batch_bytes, value_bytes, records).await,
            "topic_send" => topic_send(&client, batch_bytes, value_bytes, records).await,
            "send_batch" => send_batch(&client, batch_bytes, value_bytes, records).await,
            "next_batch" => next_batch(&client, records).await,
            "recv_batch" => recv_batch(&client, records).await,
            other => panic!("there is no workload {other}"),
        }
    })
}

fn producer_config(batch_bytes: usize) -> ProducerConfig {
    ProducerConfig { batch_bytes, ..ProducerConfig::default() }.linger(Duration::from_millis(5))
}

/// Records that own their value, one call each.
async fn send(client: &Client, batch_bytes: usize, value_bytes: usize, records: usize) -> f64 {
    let producer = client.producer(producer_config(batch_bytes)).await.expect("a producer");
    let mut value = vec![b'x'; value_bytes];
    let started = Instant::now();
    for number in 0..records {
        value[..8].copy_from_slice(&number.to_be_bytes());
        let record = OutgoingRecord::to("bench").value(Bytes::copy_from_slice(&value));
        drop(producer.send(record).await.expect("room"));
    }
    producer.flush().await.expect("all acknowledged");
    started.elapsed().as_secs_f64()
}

/// Borrowed records, one call each.
async fn topic_send(client: &Client, batch_bytes: usize, value_bytes: usize, records: usize) -> f64 {
    let producer = client.producer(producer_config(batch_bytes)).await.expect("a producer");
    let bench = producer.topic("bench").await.expect("known");
    let mut value = vec![b'x'; value_bytes];
    let started = Instant::now();
    for number in 0..records {
        value[..8].copy_from_slice(&number.to_be_bytes());
        drop(bench.send(RecordRef::new(&value)).await.expect("room"));
    }
    producer.flush().await.expect("all acknowledged");
    started.elapsed().as_secs_f64()
}

/// Borrowed records, a thousand a call.
async fn send_batch(client: &Client, batch_bytes: usize, value_bytes: usize, records: usize) -> f64 {
    let producer = client.producer(producer_config(batch_bytes)).await.expect("a producer");
    let bench = producer.topic("bench").await.expect("known");
    let mut values = vec![b'x'; value_bytes * 1_000];
    let started = Instant::now();
    for thousand in 0..records / 1_000 {
        for (index, value) in values.chunks_mut(value_bytes).enumerate() {
            value[..8].copy_from_slice(&(thousand * 1_000 + index).to_be_bytes());
        }
        drop(bench.send_batch(values.chunks(value_bytes).map(RecordRef::new)).await);
    }
    producer.flush().await.expect("all acknowledged");
    assert_eq!(producer.stats().delivered_records as usize, records / 1_000 * 1_000);
    started.elapsed().as_secs_f64()
}

async fn consumer(client: &Client) -> Consumer {
    let mut consumer = client.consumer(ConsumerConfig::default()).await.expect("a consumer");
    consumer.assign("bench", None, StartAt::Offset(callboard::types::Offset::ZERO)).await.expect("assigned");
    consumer
}

/// Records that own their value, a thousand a call.
async fn recv_batch(client: &Client, records: usize) -> f64 {
    let mut consumer = consumer(client).await;
    let (started, mut read) = (Instant::now(), 0);
    while read < records {
        for record in consumer.recv_batch(1_000).await.expect("records") {
            assert_eq!(record.offset.0, read as u64, "in order, none lost");
            std::hint::black_box(record.value);
            read += 1;
        }
    }
    started.elapsed().as_secs_f64()
}

/// Borrowed records, a batch a call.
async fn next_batch(client: &Client, records: usize) -> f64 {
    let mut consumer = consumer(client).await;
    let (started, mut read) = (Instant::now(), 0);
    while read < records {
        for record in consumer.next_batch().await.expect("records").iter() {
            assert_eq!(record.offset.0, read as u64, "in order, none lost");
            std::hint::black_box(record.value);
            read += 1;
        }
    }
    started.elapsed().as_secs_f64()
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// One record of 1 KiB in flight: median and 99th percentile.
fn latency(trips: usize) -> (Duration, Duration) {
    let sink = Other::start(&["sink", "1024", "1"]);
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(&sink.address)).await.expect("reachable");
        let producer = client.producer(ProducerConfig::default()).await.expect("a producer");
        let value = Bytes::from(vec![b'x'; 1_024]);
        let mut times = Vec::with_capacity(trips);
        for _ in 0..trips {
            let started = Instant::now();
            let delivery = producer.send(OutgoingRecord::to("bench").value(value.clone())).await.expect("room");
            delivery.await.expect("acknowledged");
            times.push(started.elapsed());
        }
        percentiles(times)
    })
}

/// The same bytes there and about as many as an acknowledgement back, over blocking sockets.
fn ping_pong(trips: usize) -> (Duration, Duration) {
    let bytes = 1_024 + 128;
    let other = Other::start(&["echo", &bytes.to_string()]);
    let mut socket = TcpStream::connect(&other.address).expect("listening");
    socket.set_nodelay(true).expect("tcp");
    let (request, mut reply) = (vec![7; bytes], [0; 32]);
    let mut times = Vec::with_capacity(trips);
    for _ in 0..trips {
        let started = Instant::now();
        socket.write_all(&request).expect("a receiver");
        socket.read_exact(&mut reply).expect("an answer");
        times.push(started.elapsed());
    }
    percentiles(times)
}
