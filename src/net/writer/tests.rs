use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::codec::Decoder;

use super::*;
use crate::protocol::frame::{FrameCodec, FrameHead};
use crate::types::CorrelationId;

const KIB: usize = 1_024;

fn limits() -> NetLimits {
    NetLimits { write_queue_bytes: 64 * KIB, write_timeout: Duration::from_secs(5), ..NetLimits::default() }
}

/// A reply with an attachment of this many bytes.
fn reply(id: u32, attachment_bytes: usize) -> OutFrame {
    let head = FrameHead { api: 3, version: 1, correlation_id: CorrelationId(id) };
    OutFrame::new(head, vec![0xc0], vec![Bytes::from(vec![7; attachment_bytes]).into()])
}

fn start(pipe_bytes: usize) -> (WriterHandle, JoinHandle<WriteEnd>, DuplexStream) {
    let (client, server) = duplex(pipe_bytes);
    let (handle, writer) = writer(server, &limits());
    (handle, tokio::spawn(writer.run()), client)
}

/// The ids of all frames until the end of the stream.
async fn ids(mut client: DuplexStream) -> Vec<u32> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.expect("reads");
    let (mut codec, mut bytes) = (FrameCodec::for_replies(usize::MAX), BytesMut::from(&bytes[..]));
    let mut ids = Vec::new();
    while let Some(frame) = codec.decode_eof(&mut bytes).expect("whole frames") {
        assert!(frame.attachments[0].iter().all(|byte| *byte == 7));
        ids.push(frame.head.correlation_id.0);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn replies_go_out_whole_and_in_order_and_closing_writes_what_is_queued() {
    let (handle, _task, client) = start(KIB);
    for id in 0..30 {
        // Large and small ones in turn: shared slices between copied bytes.
        handle.try_send(reply(id, if id % 10 == 9 { 10 * KIB } else { 20 })).expect("there is room");
    }
    let reading = tokio::spawn(ids(client));
    assert!(matches!(handle.close().await, WriteEnd::Closed));
    assert_eq!(reading.await.expect("reads"), (0..30).collect::<Vec<_>>());
    assert!(matches!(handle.try_send(reply(31, 1)), Err(SendError::Closed { .. })));
    assert!(matches!(handle.send(reply(31, 1)).await, Err(SendError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_writes_what_is_queued_and_ends_the_writer() {
    let (handle, task, client) = start(64 * KIB);
    handle.clone().try_send(reply(1, 20)).expect("there is room");
    drop(handle);
    assert_eq!(ids(client).await, [1]);
    assert!(matches!(task.await.expect("ends"), WriteEnd::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_costs_bounded_memory_for_a_bounded_time() {
    let (handle, task, client) = start(KIB);
    let from = Instant::now();
    let mut accepted = 0;
    let refused = loop {
        match handle.try_send(reply(accepted, 10 * KIB)) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
        tokio::task::yield_now().await;
    };
    assert!((5..=7).contains(&accepted), "64 KiB hold six replies of 10 KiB, not {accepted}");
    let SendError::Full { ref frame, limit_bytes } = refused else { panic!("{refused}") };
    assert_eq!((frame.head().correlation_id, limit_bytes), (CorrelationId(accepted), 64 * KIB), "it comes back");
    assert!(refused.to_string().contains("65536 bytes") && refused.to_string().contains("limits.write_queue_bytes"));
    // Whoever waits for room learns of the end instead of waiting for ever.
    let waited = handle.send(reply(99, 10 * KIB)).await;
    assert!(matches!(waited, Err(SendError::Closed { .. })));
    let end = task.await.expect("ends");
    assert_eq!(from.elapsed().as_secs(), 5);
    let text = end.to_string();
    assert!(matches!(end, WriteEnd::Stalled { .. }) && text.contains("5000 ms"), "{text}");
    assert!(text.contains("limits.write_timeout_ms"));
    assert_eq!(handle.queued_bytes(), 0, "its memory is back");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_byte_now_and_then_is_one_that_never_reads() {
    let (handle, task, mut client) = start(KIB);
    handle.try_send(reply(1, 60 * KIB)).expect("there is room");
    let from = Instant::now();
    let trickle = tokio::spawn(async move {
        while client.read_u8().await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    assert!(matches!(task.await.expect("ends"), WriteEnd::Stalled { .. }));
    assert_eq!(from.elapsed().as_secs(), 5);
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_everything_and_senders_wait_for_it() {
    let (handle, _task, mut client) = start(KIB);
    let sending = tokio::spawn(async move {
        for id in 0..40 {
            handle.send(reply(id, 10 * KIB)).await.expect("the client reads");
        }
        handle.close().await
    });
    let mut total = 0;
    let mut piece = vec![0; KIB];
    loop {
        let read = client.read(&mut piece).await.expect("reads");
        if read == 0 {
            break;
        }
        total += read;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(sending.await.expect("sends"), WriteEnd::Closed));
    let expected: usize = (0..40).map(|id| reply(id, 10 * KIB).wire_bytes()).sum();
    assert_eq!(total, expected);
}

#[tokio::test(start_paused = true)]
async fn a_reply_larger_than_the_queue_passes_alone() {
    let (handle, _task, client) = start(KIB);
    let reading = tokio::spawn(ids(client));
    handle.send(reply(1, 500 * KIB)).await.expect("goes");
    handle.send(reply(2, 500 * KIB)).await.expect("goes");
    handle.close().await;
    assert_eq!(reading.await.expect("reads"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_the_writer_with_the_cause() {
    let (handle, _task, client) = start(KIB);
    drop(client);
    handle.try_send(reply(1, 20)).expect("there is room");
    assert!(matches!(handle.ended().await, WriteEnd::Io(_)));
    assert!(matches!(handle.try_send(reply(2, 20)), Err(SendError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_writer_leaves_nobody_waiting() {
    let (handle, task, _client) = start(KIB);
    handle.try_send(reply(1, 60 * KIB)).expect("there is room");
    task.abort();
    assert!(matches!(handle.send(reply(2, 60 * KIB)).await, Err(SendError::Closed { .. })));
    assert!(matches!(handle.close().await, WriteEnd::Dropped));
}

/// Counts its write calls and takes everything.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<(usize, usize)>>);

impl AsyncWrite for Counting {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        let mut counts = self.0.lock().expect("counts");
        *counts = (counts.0 + 1, counts.1 + bytes.len());
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> std::task::Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.poll_write(context, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn everything_that_waits_goes_out_in_one_write() {
    let counting = Counting::default();
    let (handle, writer) = writer(counting.clone(), &limits());
    let mut expected = 0;
    for id in 0..40 {
        let frame = reply(id, if id % 10 == 9 { 4 * KIB } else { 20 });
        expected += frame.wire_bytes();
        handle.try_send(frame).expect("there is room");
    }
    tokio::spawn(writer.run());
    handle.close().await;
    assert_eq!(*counting.0.lock().expect("counts"), (1, expected));
}
