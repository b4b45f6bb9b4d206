//! A session of another node behind its real codec, over a pipe; who serves its requests is the test.

use std::time::Duration;

use actix::Recipient;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::sync::CancellationToken;

use super::server::start_session;
use super::*;
use crate::actors::codec::CodecSettings;
use crate::actors::peer::{Myself, OwnCluster};
use crate::actors::test_support::Ear;
use crate::engine::waiters::OwnerId;
use crate::net::{NetLimits, NodeBudget};
use crate::protocol::frame::{Frame, FrameCodec, OutFrame, decode_outcome, encode_peer_request, encode_request};
use crate::protocol::messages::Hello;
use crate::protocol::messages::peer::{
    PeerConnection, PeerHello, PeerHelloReply, PeerRequest, Ping, Pong, RaftVote, RaftVoteReply, WireVote,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{BufferPool, ClusterId, CorrelationId, DirectoryId, NodeId};

/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(10);
const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));
const VOTE: WireVote = WireVote { term: 7, candidate: 1, granted: false };

fn directory(n: u128) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(n))
}

/// What node 1 says when it looks for node 2.
fn hello() -> PeerHello {
    PeerHello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: Some(CLUSTER),
        node: NodeId(1),
        directory: directory(11),
        connection: PeerConnection::Control,
        expected_node: Some(NodeId(2)),
        expected_directory: Some(directory(22)),
        software: "x 1".to_owned(),
    }
}

/// The other end of a connection to node 2.
struct Other {
    requests: WriteHalf<DuplexStream>,
    replies: FramedRead<ReadHalf<DuplexStream>, FrameCodec>,
    next_id: u32,
    stop: CancellationToken,
}

impl Other {
    fn connect_to(cluster: OwnCluster, raft: Option<Recipient<PeerCall>>) -> Self {
        let limits = NetLimits::between_nodes();
        let codecs = CodecSettings {
            limits,
            requests_in_flight: 8,
            node_budget: NodeBudget::new(limits.node_bytes_in_flight),
            metrics: Default::default(),
            buffers: BufferPool::new(0),
        };
        let stop = CancellationToken::new();
        let settings = PeerSessionSettings {
            myself: Myself { node: NodeId(2), directory: directory(22), cluster },
            services: PeerServices { raft, ..PeerServices::default() },
            max_frame_bytes: 1_000_000,
            stop: stop.clone(),
        };
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (read_half, write_half) = tokio::io::split(theirs);
        let address = "127.0.0.1:1".parse().expect("an address");
        start_session(read_half, write_half, (OwnerId(1), address), &codecs, (), settings);
        let (replies, requests) = tokio::io::split(ours);
        Self { requests, replies: FramedRead::new(replies, FrameCodec::for_replies(1 << 20)), next_id: 1, stop }
    }

    fn connect(raft: Option<Recipient<PeerCall>>) -> Self {
        Self::connect_to(CLUSTER.into(), raft)
    }

    async fn send_frame(&mut self, frame: OutFrame) {
        let mut bytes = BytesMut::new();
        FrameCodec::for_replies(1 << 20).encode(frame, &mut bytes).expect("encodable");
        self.requests.write_all(&bytes).await.expect("the pipe is open");
    }

    async fn send<R: PeerRequest>(&mut self, request: &R, attachments: &[&'static [u8]]) -> CorrelationId {
        let id = CorrelationId(self.next_id);
        self.next_id += 1;
        let attached = attachments.iter().map(|bytes| Bytes::from_static(bytes).into()).collect();
        self.send_frame(encode_peer_request(request, id, attached)).await;
        id
    }

    async fn frame(&mut self) -> Option<Frame> {
        let next = timeout(PATIENCE, self.replies.next()).await.expect("an answer in time");
        next.map(|frame| frame.expect("a frame"))
    }

    async fn ask<R: PeerRequest>(&mut self, request: &R) -> Result<R::Reply, ApiError> {
        let id = self.send(request, &[]).await;
        let frame = self.frame().await.expect("an answer");
        assert_eq!(frame.head.correlation_id, id);
        decode_outcome(&frame)
    }

    /// The error that a frame is answered with, after which the connection has ended.
    async fn turned_away(&mut self, frame: OutFrame) -> ApiError {
        self.send_frame(frame).await;
        let answer = self.frame().await.expect("an answer");
        assert_eq!(self.frame().await, None, "then the connection ends");
        decode_outcome::<()>(&answer).expect_err("an error")
    }
}

#[actix::test]
async fn the_hello_is_answered_with_who_is_here_and_pings_after_it() {
    let mut other = Other::connect(None);
    let reply = other.ask(&hello()).await.expect("welcome");
    let expected = PeerHelloReply {
        protocol: 1,
        cluster: Some(CLUSTER),
        node: NodeId(2),
        directory: directory(22),
        software: crate::actors::peer::SOFTWARE.to_owned(),
        max_frame_bytes: 1_000_000,
    };
    assert_eq!(reply, expected);
    assert_eq!(other.ask(&Ping {}).await, Ok(Pong {}));
    let whoever = PeerHello { cluster: None, expected_node: None, expected_directory: None, ..hello() };
    assert!(Other::connect(None).ask(&whoever).await.is_ok());
    assert!(Other::connect_to(OwnCluster::default(), None).ask(&hello()).await.is_ok());
}

#[actix::test]
async fn whoever_does_not_belong_here_is_told_why_and_the_connection_ends() {
    let wrong = [
        (
            PeerHello { cluster: Some(ClusterId(uuid::Uuid::from_u128(8))), ..hello() },
            ErrorCode::WrongNode,
            "this node is of cluster",
        ),
        (PeerHello { expected_node: Some(NodeId(3)), ..hello() }, ErrorCode::WrongNode, "node 3 was expected"),
        (
            PeerHello { expected_directory: Some(directory(23)), ..hello() },
            ErrorCode::WrongNode,
            "the directory was replaced",
        ),
        (PeerHello { node: NodeId(2), directory: directory(11), ..hello() }, ErrorCode::WrongNode, "another node.id"),
        (PeerHello { protocol_min: 2, protocol_max: 3, ..hello() }, ErrorCode::UnsupportedVersion, "upgrade the older"),
    ];
    for (hello, code, text) in wrong {
        let error = Other::connect(None).turned_away(encode_peer_request(&hello, CorrelationId(1), Vec::new())).await;
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    let too_early = encode_peer_request(&Ping {}, CorrelationId(1), Vec::new());
    assert_eq!(Other::connect(None).turned_away(too_early).await.code, ErrorCode::HelloRequired);
    let mut twice = Other::connect(None);
    twice.ask(&hello()).await.expect("welcome");
    let again = encode_peer_request(&hello(), CorrelationId(2), Vec::new());
    assert_eq!(twice.turned_away(again).await.code, ErrorCode::InvalidRequest);
}

#[actix::test]
async fn a_client_is_sent_to_the_listener_of_clients() {
    let hello = Hello { protocol_min: 1, protocol_max: 1, client_id: "c".to_owned(), software: "x".to_owned() };
    let error = Other::connect(None).turned_away(encode_request(&hello, CorrelationId(1), Vec::new())).await;
    assert_eq!(error.code, ErrorCode::UnknownApi);
    assert!(error.message.contains("listener.native"), "{error}");
}

#[actix::test]
async fn bytes_that_are_no_frame_get_an_error_and_a_large_one_before_the_hello_too() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "above the limit of 4096 bytes"),
        (&[0, 0, 0, 6, 1, 2, 3, 4, 5, 6], "malformed"),
    ] {
        let mut other = Other::connect(None);
        other.requests.write_all(bytes).await.expect("the pipe is open");
        let answer = other.frame().await.expect("an answer");
        let error = decode_outcome::<()>(&answer).expect_err("an error");
        assert!(error.message.contains(expected), "{error}");
        assert_eq!((answer.head.correlation_id, other.frame().await), (CorrelationId(0), None));
    }
}

#[actix::test]
async fn requests_of_raft_go_to_whoever_serves_them_and_are_answered_in_any_order() {
    let mut raft = Ear::<PeerCall>::new();
    let mut other = Other::connect(Some(raft.recipient()));
    other.ask(&hello()).await.expect("welcome");
    let ask = RaftVote { vote: VOTE, last: None };
    let first = other.send(&ask, &[]).await;
    let second = other.send(&ask, &[b"attached"]).await;
    let (held, prompt) = (raft.next().await, raft.next().await);
    assert_eq!(
        (held.from.node, held.from.directory, held.body),
        (NodeId(1), directory(11), PeerRequestBody::RaftVote(ask))
    );
    assert_eq!(prompt.attachments, ["attached"]);
    assert_eq!(other.ask(&Ping {}).await, Ok(Pong {}), "what is parked holds nothing up");
    let voted = RaftVoteReply { vote: VOTE, granted: true, last: None };
    prompt.answer.send(Ok(PeerReplyBody::RaftVote(voted)));
    let frame = other.frame().await.expect("an answer");
    assert_eq!((frame.head.correlation_id, decode_outcome(&frame)), (second, Ok(voted)));
    // Whoever served it has ended without an answer.
    drop(held.answer);
    let frame = other.frame().await.expect("an answer");
    assert_eq!(frame.head.correlation_id, first);
    assert_eq!(decode_outcome::<RaftVoteReply>(&frame).expect_err("an error").code, ErrorCode::ShuttingDown);
}

#[actix::test]
async fn a_node_that_is_no_controller_says_so_and_stays_connected() {
    let mut other = Other::connect(None);
    other.ask(&hello()).await.expect("welcome");
    let error = other.ask(&RaftVote { vote: VOTE, last: None }).await.expect_err("nobody serves it");
    assert_eq!(error.code, ErrorCode::NotController);
    assert_eq!(other.ask(&Ping {}).await, Ok(Pong {}));
}

#[actix::test]
async fn raft_hears_nobody_who_may_be_of_another_cluster() {
    let ask = || encode_peer_request(&RaftVote { vote: VOTE, last: None }, CorrelationId(2), Vec::new());
    let mut raft = Ear::<PeerCall>::new();
    let mut without = Other::connect(Some(raft.recipient()));
    without.ask(&PeerHello { cluster: None, ..hello() }).await.expect("welcome");
    assert_eq!(without.turned_away(ask()).await.code, ErrorCode::WrongNode);
    // It was welcome while this node had no cluster; now this node is of another one.
    let own = OwnCluster::default();
    let mut other = Other::connect_to(own.clone(), Some(raft.recipient()));
    other.ask(&hello()).await.expect("welcome");
    own.learn(ClusterId(uuid::Uuid::from_u128(8)));
    assert_eq!(other.turned_away(ask()).await.code, ErrorCode::WrongNode);
    assert!(raft.pending().is_empty());
}

#[actix::test]
async fn a_door_that_is_shut_sends_members_away_for_a_while() {
    use actix::Actor;
    let mut other = Other::connect(Some(RaftDoor::shut().start().recipient()));
    other.ask(&hello()).await.expect("welcome");
    let error = other.ask(&RaftVote { vote: VOTE, last: None }).await.expect_err("not yet");
    assert!(error.code == ErrorCode::Overloaded && error.is_retryable(), "{error}");
}

#[actix::test]
async fn sessions_end_when_the_node_stops() {
    let mut other = Other::connect(None);
    other.ask(&hello()).await.expect("welcome");
    other.stop.cancel();
    assert_eq!(other.frame().await, None);
}
