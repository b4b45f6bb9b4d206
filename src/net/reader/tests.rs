use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::codec::Encoder;

use super::*;
use crate::protocol::frame::{FrameHead, OutFrame};
use crate::types::CorrelationId;

const KIB: usize = 1_024;

/// A reader in a task, its client and the frames that come out.
struct Story {
    client: DuplexStream,
    frames: mpsc::Receiver<ReceivedFrame>,
    reader: JoinHandle<ReadEnd>,
    limit: FrameLimit,
    node: ByteBudget,
}

fn limits() -> NetLimits {
    NetLimits {
        max_frame_bytes: 64 * KIB,
        max_frame_bytes_before_hello: KIB,
        connection_bytes_in_flight: 64 * KIB,
        node_bytes_in_flight: 96 * KIB,
        idle_timeout: Duration::from_secs(60),
        partial_frame_timeout: Duration::from_secs(5),
        ..NetLimits::default()
    }
}

fn story(limits: NetLimits) -> Story {
    let node = ByteBudget::new(limits.node_bytes_in_flight);
    let (client, server) = duplex(16 * KIB);
    let limit = FrameLimit::new(&limits);
    let (sender, frames) = mpsc::channel(1_000);
    let reader =
        tokio::spawn(Reader::new(server, &limits, limit.clone(), node.clone(), BufferPool::new(0)).run_into(sender));
    Story { client, frames, reader, limit, node }
}

/// A frame with an attachment of this many bytes.
fn frame(id: u32, attachment_bytes: usize) -> BytesMut {
    let head = FrameHead { api: 2, version: 1, correlation_id: CorrelationId(id) };
    let attachment = Bytes::from(vec![7; attachment_bytes]);
    let mut out = BytesMut::new();
    let frame = OutFrame::new(head, vec![0xc0], vec![attachment.into()]);
    FrameCodec::new(usize::MAX).encode(frame, &mut out).expect("encodes");
    out
}

impl Story {
    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.expect("the reader reads");
    }

    async fn received(&mut self) -> ReceivedFrame {
        self.frames.recv().await.expect("a frame")
    }

    async fn received_id(&mut self) -> u32 {
        self.received().await.frame.head.correlation_id.0
    }

    async fn end(self) -> ReadEnd {
        self.reader.await.expect("the reader does not panic")
    }
}

/// Lets everything that can happen now happen. In paused time a sleep ends only when all tasks wait.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn frames_come_out_in_order_however_they_are_cut_and_the_end_is_told() {
    let mut story = story(limits());
    story.limit.raise();
    let all: Vec<u8> = (0..20).flat_map(|id| frame(id, (id as usize) * 3 * KIB / 2)).collect();
    let mut client = std::mem::replace(&mut story.client, duplex(1).0);
    tokio::spawn(async move {
        for piece in all.chunks(777) {
            client.write_all(piece).await.expect("the reader reads");
        }
    });
    for id in 0..20 {
        let received = story.received().await;
        assert_eq!(received.frame.head.correlation_id.0, id);
        assert_eq!(received.frame.attachments[0], vec![7; (id as usize) * 3 * KIB / 2]);
    }
    assert!(matches!(story.end().await, ReadEnd::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_byte_at_a_time_is_slow_and_works() {
    let mut story = story(limits());
    for byte in frame(9, 10) {
        story.send(&[byte]).await;
        settle().await;
    }
    assert_eq!(story.received_id().await, 9);
}

#[tokio::test(start_paused = true)]
async fn before_hello_only_small_frames_are_read_and_the_refusal_names_the_key() {
    let mut early = story(limits());
    early.send(&frame(1, 2 * KIB)).await;
    let end = early.end().await;
    assert_eq!(
        end.describe(),
        "a frame of 2057 bytes is above the limit of 1024 bytes: send smaller frames or raise \
         limits.max_frame_bytes_before_hello"
    );
    let mut later = story(limits());
    later.send(&frame(1, 10)).await;
    assert_eq!(later.received_id().await, 1);
    later.limit.raise();
    later.send(&frame(2, 2 * KIB)).await;
    assert_eq!(later.received_id().await, 2);
    later.send(&(65 * KIB as u32).to_be_bytes()).await;
    let end = later.end().await.describe();
    assert!(end.contains("66560 bytes is above the limit of 65536 bytes") && end.contains("limits.max_frame_bytes"));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_costs_a_bounded_time() {
    for begun in [1, 3, 4, 20] {
        let mut story = story(limits());
        story.send(&frame(1, 100)[..begun]).await;
        let from = Instant::now();
        let node = story.node.clone();
        // Neither a byte now and then nor silence prolongs it.
        let end = story.end().await;
        assert!(matches!(end, ReadEnd::PartialTimeout(_)), "{end:?} after {begun} bytes");
        assert!(end.describe().contains("5000 ms") && end.describe().contains("limits.partial_frame_timeout_ms"));
        assert_eq!(from.elapsed().as_secs(), 5);
        assert_eq!(node.available_bytes(), 96 * KIB, "its permits are back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_prolong_the_deadline_of_a_frame() {
    let mut story = story(limits());
    story.limit.raise();
    let from = Instant::now();
    story.send(&frame(1, 10 * KIB)[..5]).await;
    while story.client.write_all(&[7]).await.is_ok() {
        sleep(Duration::from_millis(500)).await;
    }
    assert!(from.elapsed() < Duration::from_secs(7));
    assert!(matches!(story.end().await, ReadEnd::PartialTimeout(_)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_inside_a_frame_says_so() {
    let mut story = story(limits());
    story.send(&frame(1, 100)[..30]).await;
    story.client.shutdown().await.expect("closes");
    let end = story.end().await;
    assert!(matches!(end, ReadEnd::Frame(FrameError::CutShort { have: 30 })), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_one_that_waits_for_a_reply_is_not() {
    let mut story = story(limits());
    let from = Instant::now();
    story.send(&frame(1, 10)).await;
    let mut parked = story.received().await.permit;
    parked.release_bytes();
    assert_eq!(story.node.available_bytes(), 96 * KIB, "a parked request holds no bytes");
    sleep(Duration::from_secs(600)).await;
    assert!(!story.reader.is_finished(), "a parked fetch is not idle");
    drop(parked);
    let end = story.end().await;
    assert!(matches!(end, ReadEnd::Idle(_)), "{end:?}");
    assert!(end.describe().contains("60000 ms") && end.describe().contains("limits.idle_timeout_ms"));
    let closed_after = from.elapsed().as_secs();
    assert!((660..=720).contains(&closed_after), "a whole idle time after the reply, not {closed_after} s");
}

#[tokio::test(start_paused = true)]
async fn frames_in_work_hold_the_socket_back_and_their_end_lets_it_go_on() {
    let mut story = story(limits());
    story.limit.raise();
    // 30 KiB each: two fit the connection's 64 KiB, the third does not.
    let mut client = std::mem::replace(&mut story.client, duplex(1).0);
    let sending = tokio::spawn(async move {
        for id in 0..4 {
            client.write_all(&frame(id, 30 * KIB)).await.expect("the reader reads");
        }
        client
    });
    let (first, second) = (story.received().await, story.received().await);
    settle().await;
    assert!(story.frames.try_recv().is_err(), "no third frame without a permit");
    assert!(!sending.is_finished(), "TCP pushes back on the client");
    // Waiting for the node is not the client's fault: no partial-frame deadline runs.
    sleep(Duration::from_secs(100)).await;
    assert!(!story.reader.is_finished());
    drop(first);
    assert_eq!(story.received_id().await, 2);
    drop(second);
    assert_eq!(story.received_id().await, 3);
    drop(sending.await.expect("sends"));
    let node = story.node.clone();
    assert!(matches!(story.end().await, ReadEnd::Closed));
    assert_eq!(node.available_bytes(), 96 * KIB, "every permit is back");
}

#[tokio::test(start_paused = true)]
async fn the_nodes_budget_is_shared_by_all_connections() {
    let limits = limits();
    let node = ByteBudget::new(limits.node_bytes_in_flight);
    let connect = || {
        let (client, server) = duplex(128 * KIB);
        let limit = FrameLimit::new(&limits);
        limit.raise();
        (client, Reader::new(server, &limits, limit, node.clone(), BufferPool::new(0)))
    };
    let ((mut a, mut reader_a), (mut b, mut reader_b)) = (connect(), connect());
    a.write_all(&frame(1, 60 * KIB)).await.expect("sends");
    b.write_all(&frame(2, 60 * KIB)).await.expect("sends");
    let from_a = reader_a.next_frame().await.expect("fits the node");
    let mut from_b = Box::pin(reader_b.next_frame());
    assert!(timeout(Duration::from_secs(1), &mut from_b).await.is_err(), "the node has 96 KiB, not 120");
    drop(from_a);
    assert_eq!(from_b.await.expect("fits now").frame.head.correlation_id.0, 2);
    assert_eq!(node.available_bytes(), 96 * KIB);
}

#[tokio::test(start_paused = true)]
async fn a_frame_larger_than_a_budget_passes_alone_and_nothing_deadlocks() {
    let limits = NetLimits { connection_bytes_in_flight: 2 * KIB, node_bytes_in_flight: 4 * KIB, ..limits() };
    let mut story = story(limits);
    story.limit.raise();
    let mut client = std::mem::replace(&mut story.client, duplex(1).0);
    tokio::spawn(async move {
        for id in 0..3 {
            client.write_all(&frame(id, 50 * KIB)).await.expect("the reader reads");
        }
    });
    for id in 0..3 {
        assert_eq!(story.received_id().await, id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_frame_ends_the_reader_and_gives_its_permit_back() {
    let mut story = story(limits());
    story.send(&[0, 0, 0, 6, 0x95, 2, 1, 9, 0xc1, 0x90]).await;
    let node = story.node.clone();
    let ReadEnd::Frame(error) = story.end().await else { panic!("not a frame") };
    assert_eq!(error.to_api_error().0, CorrelationId(9), "the peer can be told which request it was");
    assert_eq!(node.available_bytes(), 96 * KIB);
}

#[tokio::test(start_paused = true)]
async fn a_reader_ends_when_nobody_takes_its_frames() {
    let mut story = story(limits());
    story.frames.close();
    story.send(&frame(1, 10)).await;
    assert!(matches!(story.end().await, ReadEnd::ReceiverGone));
}

#[tokio::test(start_paused = true)]
async fn large_frames_keep_one_buffer_each_and_an_idle_connection_keeps_none() {
    let limits = limits();
    let (mut client, server) = duplex(200 * KIB);
    let (limit, node, pool) = (FrameLimit::new(&limits), ByteBudget::new(1 << 20), BufferPool::new(1 << 20));
    limit.raise();
    let mut reader = Reader::new(server, &limits, limit, node, pool.clone());
    let mut addresses = Vec::new();
    for id in 0..6 {
        client.write_all(&frame(id, 40 * KIB)).await.expect("the reader reads");
        let received = reader.next_frame().await.expect("a frame");
        assert_eq!(received.frame.attachments[0], vec![7; 40 * KIB]);
        addresses.push(received.frame.attachments[0].as_ptr());
    }
    assert!(addresses.iter().all(|address| *address == addresses[0]), "the buffer of one is used for the next");
    let whole = pool.free_bytes();
    let waiting = tokio::time::timeout(Duration::from_secs(1), reader.next_frame()).await;
    assert!(waiting.is_err() && pool.free_bytes() == whole, "while nothing comes, the buffer is others'");
}

#[tokio::test(start_paused = true)]
async fn short_frames_after_large_ones_keep_nothing_large_alive() {
    let mut story = story(limits());
    story.limit.raise();
    let sizes = [20 * KIB, 100, 17 * KIB, 16 * KIB - 20, 16 * KIB, 3, 40 * KIB, 39 * KIB, 60 * KIB, 0, 0, 20 * KIB];
    let all: Vec<u8> = sizes.iter().enumerate().flat_map(|(id, size)| frame(id as u32, *size)).collect();
    let mut client = std::mem::replace(&mut story.client, duplex(1).0);
    tokio::spawn(async move { client.write_all(&all).await.expect("the reader reads") });
    for (id, size) in sizes.iter().enumerate() {
        let received = story.received().await;
        assert_eq!(received.frame.head.correlation_id.0, id as u32);
        assert_eq!(received.frame.attachments[0], vec![7; *size]);
    }
    assert!(matches!(story.end().await, ReadEnd::Closed));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_holds_no_large_buffer() {
    let limits = limits();
    let (mut client, server) = duplex(200 * KIB);
    let (limit, node, pool) = (FrameLimit::new(&limits), ByteBudget::new(50 * KIB), BufferPool::new(1 << 20));
    limit.raise();
    let mut reader = Reader::new(server, &limits, limit, node.clone(), pool.clone());
    client.write_all(&frame(1, 40 * KIB)).await.expect("the reader reads");
    drop(reader.next_frame().await.expect("a frame"));
    let free = pool.free_bytes();
    let taken = node.acquire(45 * KIB).await;
    client.write_all(&frame(2, 40 * KIB)).await.expect("the reader reads");
    let next = tokio::spawn(async move { reader.next_frame().await.map(|received| received.frame) });
    settle().await;
    assert_eq!(pool.free_bytes(), free);
    drop(taken);
    let frame = next.await.expect("no panic").expect("a frame");
    assert_eq!(frame.attachments[0], vec![7; 40 * KIB]);
}
