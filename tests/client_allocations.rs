//! In steady state the client allocates nothing for a record, neither to send it nor to read it: counted on the thread that runs
//! the whole client, while the node runs on threads of its own. What is left is a handful of allocations a batch, a request
//! and a reply.
#![allow(missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use callboard::client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, RecordRef, StartAt, TopicProducer};
use callboard::testing::Node;

/// The system's allocator, which counts for each thread what it is asked for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // Not there any more while a thread ends.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature; this one passes everything on to the system's")]
// SAFETY: every call goes to `System` with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_one();
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Records of a round, in about ten batches.
const RECORDS: usize = 10_000;
const VALUE_BYTES: usize = 100;
/// Allocations for a batch and all that goes with it: request, reply, futures, completion; with room for another way to
/// divide the records. One a record would be a thousand a batch.
const ALLOCATIONS_A_BATCH: u64 = 60;

async fn send_one_by_one(bench: &TopicProducer) {
    let mut value = [b'x'; VALUE_BYTES];
    for number in 0..RECORDS {
        value[..8].copy_from_slice(&number.to_be_bytes());
        drop(bench.send(RecordRef::new(&value).key("key")).await.expect("room"));
    }
    bench.producer().flush().await.expect("acknowledged");
}

async fn send_together(bench: &TopicProducer, values: &[u8]) {
    let deliveries = bench.send_batch(values.chunks(VALUE_BYTES).map(RecordRef::new)).await;
    deliveries.all().await.expect("acknowledged");
}

fn assert_few(what: &str, allocations: u64, batches: u64) {
    println!("{what}: {allocations} allocations for {RECORDS} records in {batches} batches");
    assert!(batches <= RECORDS as u64 / 100, "{what}: {batches} batches are too many to tell");
    assert!(
        allocations <= batches * ALLOCATIONS_A_BATCH,
        "{what}: {allocations} allocations for {RECORDS} records in {batches} batches"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_that_is_borrowed_costs_no_allocation() {
    let node = Node::start().expect("a node");
    let client = Client::connect(ClientConfig::new(node.address())).await.expect("reachable");
    client.admin().create_topic("bench", 1).await.expect("created");
    let config = ProducerConfig { batch_bytes: RECORDS / 10 * (VALUE_BYTES + 20), ..ProducerConfig::default() };
    let producer = client.producer(config).await.expect("a producer");
    let bench = producer.topic("bench").await.expect("known");
    let values = vec![b'x'; VALUE_BYTES * RECORDS];
    let mut rounds = 0;
    // The first round of each makes what the later ones use again.
    for round in 0..3 {
        for together in [false, true] {
            let (before, stats) = (allocations(), producer.stats());
            if together {
                send_together(&bench, &values).await
            } else {
                send_one_by_one(&bench).await
            }
            let counted = allocations() - before;
            let batches = producer.stats().delivered_batches - stats.delivered_batches;
            rounds += 1;
            if round > 0 {
                assert_few(if together { "sent together" } else { "sent one by one" }, counted, batches);
            }
        }
    }

    let mut consumer = client.consumer(ConsumerConfig::default()).await.expect("a consumer");
    consumer.assign("bench", None, StartAt::Earliest).await.expect("assigned");
    let (mut read, mut bytes, mut batches, mut before) = (0, 0, 0, 0);
    while read < RECORDS * rounds {
        let batch = consumer.next_batch().await.expect("records");
        if read < RECORDS {
            (before, batches) = (allocations(), 0);
        }
        batches += 1;
        for record in batch.iter() {
            bytes += record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            read += 1;
        }
    }
    assert!(bytes >= read * VALUE_BYTES);
    assert_few("read", allocations() - before, batches);
}
