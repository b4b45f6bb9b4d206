use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;
use tokio_util::codec::Decoder;

use super::*;
use crate::protocol::frame::{Frame, decode_reply};
use crate::protocol::messages::Hello;
use crate::types::CorrelationId;

type Accepted = io::Result<(DuplexStream, SocketAddr)>;

/// Hands out what a test put in, then waits for ever.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Accepted>>>);

impl Script {
    fn connects(&self, address: &str) -> DuplexStream {
        let (client, server) = duplex(4_096);
        let address = SocketAddr::new(address.parse().expect("an address"), 40_000);
        self.0.lock().expect("no panic").push_back(Ok((server, address)));
        client
    }

    fn fails(&self, errno: i32) {
        self.0.lock().expect("no panic").push_back(Err(io::Error::from_raw_os_error(errno)));
    }
}

impl Accept for Script {
    type Stream = DuplexStream;

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, SocketAddr)>> {
        self.0.lock().expect("no panic").pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Lets the listener refuse whoever waits, and admits nobody.
async fn admits_nobody(listener: &mut Listener<Script>) {
    assert!(timeout(Duration::from_secs(5), listener.accept()).await.is_err(), "somebody got in");
}

async fn only_frame(mut client: DuplexStream) -> Frame {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.expect("reads");
    let mut codec = FrameCodec::for_replies(4_096);
    codec.decode_eof(&mut BytesMut::from(&bytes[..])).expect("a frame").expect("whole")
}

#[tokio::test(start_paused = true)]
async fn an_address_gets_no_more_connections_than_allowed_and_is_told_the_limit() {
    let script = Script::default();
    let gate = ConnectionGate::new(10, 2);
    let mut listener = Listener::with_source(script.clone(), gate.clone());
    let _clients = [script.connects("10.0.0.1"), script.connects("::ffff:10.0.0.1")];
    let first = listener.accept().await;
    let _second = listener.accept().await;
    let third = script.connects("10.0.0.1");
    admits_nobody(&mut listener).await;
    let frame = only_frame(third).await;
    assert_eq!((frame.head.api, frame.head.correlation_id), (0, CorrelationId(0)));
    let error = decode_reply::<Hello>(&frame).expect_err("an error");
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    assert_eq!(
        error.message,
        "10.0.0.1 has 2 connections, the limit set by limits.max_connections_per_address: close some or raise it"
    );
    assert_eq!((gate.open_count(), gate.refused_count()), (2, 1));
    // Another address is let in, and the same one when a connection of its own has ended.
    let _other = script.connects("10.0.0.2");
    listener.accept().await;
    drop(first);
    let _again = script.connects("10.0.0.1");
    listener.accept().await;
}

#[tokio::test(start_paused = true)]
async fn the_node_gets_no_more_connections_than_allowed() {
    let script = Script::default();
    let gate = ConnectionGate::new(2, 2);
    let mut listener = Listener::with_source(script.clone(), gate.clone());
    let _clients = [script.connects("10.0.0.1"), script.connects("10.0.0.2")];
    let admitted = [listener.accept().await, listener.accept().await];
    let third = script.connects("10.0.0.3");
    admits_nobody(&mut listener).await;
    let error = decode_reply::<Hello>(&only_frame(third).await).expect_err("an error");
    assert_eq!(
        error.message,
        "the node has 2 connections, the limit set by limits.max_connections: close some or raise it"
    );
    drop(admitted);
    assert_eq!(gate.open_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_connections_is_closed_without_ceremony() {
    let script = Script::default();
    let gate = ConnectionGate::new(0, 0);
    let mut listener = Listener::with_source(script.clone(), gate.clone());
    let clients: Vec<DuplexStream> = (0..500).map(|_| script.connects("10.0.0.1")).collect();
    let from = Instant::now();
    admits_nobody(&mut listener).await;
    assert_eq!(gate.refused_count(), 500);
    assert_eq!(listener.farewells.len(), 0, "those that never close were dropped after a second");
    assert_eq!(from.elapsed().as_secs(), 5);
    drop(clients);
}

#[tokio::test(start_paused = true)]
async fn running_out_of_descriptors_is_survived_without_spinning() {
    const EMFILE: i32 = 24;
    let script = Script::default();
    let mut listener = Listener::with_source(script.clone(), ConnectionGate::new(10, 10));
    (0..20).for_each(|_| script.fails(EMFILE));
    let _client = script.connects("10.0.0.1");
    let from = Instant::now();
    listener.accept().await;
    assert_eq!(from.elapsed(), BACK_OFF * 20, "each failure is followed by a pause");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_left_before_it_was_accepted_costs_no_pause() {
    const ECONNABORTED: i32 = 103;
    let script = Script::default();
    let mut listener = Listener::with_source(script.clone(), ConnectionGate::new(10, 10));
    script.fails(ECONNABORTED);
    let _client = script.connects("10.0.0.1");
    let from = Instant::now();
    listener.accept().await;
    assert_eq!(from.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_real_socket_is_accepted_with_nodelay_and_a_refused_one_reads_why() {
    let gate = ConnectionGate::from_limits(&NetLimits { max_connections: 1, ..NetLimits::default() });
    let mut listener = Listener::bind("127.0.0.1:0", gate).await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let _client = TcpStream::connect(address).await.expect("connects");
    let accepted = listener.accept().await;
    assert!(accepted.stream.nodelay().expect("an option"));
    let mut second = TcpStream::connect(address).await.expect("connects");
    // It has asked something already: closing with that unread must not take the answer away.
    second.write_all(&[0; 2_000]).await.expect("writes");
    let mut bytes = Vec::new();
    tokio::select! {
        _ = listener.accept() => panic!("one connection is the limit"),
        read = timeout(Duration::from_secs(10), second.read_to_end(&mut bytes)) => read.expect("in time").expect("reads"),
    };
    assert!(String::from_utf8_lossy(&bytes).contains("limits.max_connections"));
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_says_why_and_what_to_do() {
    let gate = ConnectionGate::new(1, 1);
    let first = Listener::bind("127.0.0.1:0", gate.clone()).await.expect("binds");
    let taken = first.local_addr().expect("bound").to_string();
    let text = async |address: &str| {
        Listener::bind(address, gate.clone()).await.err().expect("cannot be listened on").to_string()
    };
    assert_eq!(
        text(&taken).await,
        format!("{taken} is in use by another process: stop it (`ss -ltnp` shows which) or choose another port")
    );
    assert!(text("192.0.2.1:9000").await.contains("no address of this machine"));
    for nonsense in ["127.0.0.1", "127.0.0.1:70000", "no such host:1"] {
        assert!(text(nonsense).await.contains("cannot be resolved"), "{nonsense}");
    }
}
