//! The whole path, once: the client library, a socket, the node, a file. Beside each figure, from the same run, a bare TCP
//! receiver that appends what it gets to a file, because machines differ and drift: quote the ratio.
//!
//! `cargo bench --bench whole_path` prints a table; `-- RUNS` sets how many interleaved runs (default 5).

#![allow(clippy::disallowed_methods, missing_docs, reason = "a benchmark reads the clock")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use callboard::client::{Client, ClientConfig, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::protocol::messages::NewTopic;
use callboard::testing::Node;

const VALUE_BYTES: usize = 1_024;
const TOTAL_BYTES: usize = 512 << 20;
const BATCH_BYTES: usize = 1 << 20;

fn main() {
    let runs = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(5);
    println!(
        "{:>4} {:>8} {:>14} {:>14} {:>14} {:>7}",
        "run", "flush", "limit MB/s", "produce MB/s", "consume MB/s", "ratio"
    );
    for run in 1..=runs {
        for flush in ["os", "always"] {
            let limit = limit(flush == "always");
            let (produce, consume) = callboard(flush);
            println!(
                "{run:>4} {flush:>8} {limit:>14.0} {produce:>14.0} {consume:>14.0} {:>6.0}%",
                100.0 * produce / limit
            );
        }
    }
}

fn megabytes_per_second(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

/// A bare receiver: reads from one connection, appends to a file, acknowledges each mebibyte with a byte.
fn limit(sync: bool) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let path = std::env::temp_dir().join(format!("callboard-limit-{}", std::process::id()));
    let file_path = path.clone();
    let receiver = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut file = std::fs::File::create(&file_path).expect("a file");
        let mut buffer = vec![0; BATCH_BYTES];
        while socket.read_exact(&mut buffer).is_ok() {
            file.write_all(&buffer).expect("space");
            if sync {
                file.sync_data().expect("a sync");
            }
            socket.write_all(&[1]).expect("a reader");
        }
    });
    let mut socket = TcpStream::connect(address).expect("listening");
    socket.set_nodelay(true).expect("tcp");
    let data = vec![7; BATCH_BYTES];
    let started = Instant::now();
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < TOTAL_BYTES / BATCH_BYTES {
        // Five in flight, as the producer has.
        while sent < TOTAL_BYTES / BATCH_BYTES && sent < acknowledged + 5 {
            socket.write_all(&data).expect("a receiver");
            sent += 1;
        }
        socket.read_exact(&mut [0]).expect("an acknowledgement");
        acknowledged += 1;
    }
    let rate = megabytes_per_second(TOTAL_BYTES, started);
    drop(socket);
    receiver.join().expect("no panic");
    std::fs::remove_file(path).expect("its own file");
    rate
}

fn callboard(flush: &str) -> (f64, f64) {
    let node = Node::start().expect("a node");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(node.address())).await.expect("reachable");
        let topic = NewTopic {
            name: "bench".into(),
            partitions: Some(1),
            replication_factor: None,
            config: [("flush".to_owned(), flush.to_owned())].into(),
        };
        client.admin().create_topics(&[topic], false).await.expect("created");
        let config = ProducerConfig { batch_bytes: BATCH_BYTES, ..ProducerConfig::default() };
        let producer = client.producer(config).await.expect("a producer");
        let records = TOTAL_BYTES / VALUE_BYTES;
        let mut value = vec![b'x'; VALUE_BYTES];
        let started = Instant::now();
        for number in 0..records {
            value[..8].copy_from_slice(&number.to_be_bytes());
            drop(
                producer
                    .send(OutgoingRecord::to("bench").value(bytes::Bytes::copy_from_slice(&value)))
                    .await
                    .expect("room"),
            );
        }
        producer.flush().await.expect("all acknowledged");
        let produced = megabytes_per_second(TOTAL_BYTES, started);
        assert_eq!(producer.stats().failed_records, 0, "every record was acknowledged");

        let mut consumer = client.consumer(ConsumerConfig::default()).await.expect("a consumer");
        consumer.assign("bench", None, StartAt::Earliest).await.expect("assigned");
        let started = Instant::now();
        let mut next = 0;
        while next < records {
            for record in consumer.recv_batch(10_000).await.expect("records") {
                let value = record.value.expect("a value");
                assert_eq!(value[..8], next.to_be_bytes(), "in order, none lost");
                next += 1;
            }
        }
        (produced, megabytes_per_second(TOTAL_BYTES, started))
    })
}
