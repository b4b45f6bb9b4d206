//! A link over pipes, in paused time; the network and the other node are the test's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Encoder, FramedRead};

use super::*;
use crate::actors::test_support::Ear;
use crate::net::{NetLimits, NodeBudget};
use crate::protocol::frame::{Frame, FrameCodec, FrameHead, OutFrame, encode_outcome};
use crate::protocol::messages::peer::{
    PeerConnection, PeerHello, PeerHelloReply, PeerRequest, Ping, Pong, RaftVote, RaftVoteReply, WireVote,
};
use crate::protocol::{ApiError, ErrorCode, PeerApi};
use crate::types::{BufferPool, ClusterId, CorrelationId, DirectoryId, NodeId};

/// In paused time nothing takes long: this only notices a hang.
const PATIENCE: Duration = Duration::from_secs(3_600);
const CLUSTER: ClusterId = ClusterId(uuid::Uuid::from_u128(9));

fn directory(n: u128) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(n))
}

fn vote(term: u64) -> RaftVote {
    RaftVote { vote: WireVote { term, candidate: 1, granted: false }, last: None }
}

fn address(port: u16) -> PeerAddress {
    PeerAddress { host: "there".to_owned(), port }
}

/// A connection that the link wants to open.
struct Attempt {
    address: PeerAddress,
    answer: oneshot::Sender<io::Result<DuplexStream>>,
}

impl Attempt {
    fn refuse(self) {
        let _ = self.answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
    }

    fn accept(self) -> Other {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.answer.send(Ok(theirs)).expect("the link dials");
        let (requests, replies) = tokio::io::split(ours);
        Other { requests: FramedRead::new(requests, FrameCodec::new(64 << 20)), replies }
    }
}

/// A network of the test's.
struct Wires(mpsc::Sender<Attempt>);

impl Dial for Wires {
    fn dial(&self, address: &PeerAddress) -> Dialing {
        let (answer, answered) = oneshot::channel();
        let attempt = Attempt { address: address.clone(), answer };
        let sent = self.0.try_send(attempt).is_ok();
        Box::pin(async move {
            assert!(sent, "more attempts than a test looks at");
            let stream = answered.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            let (read, write) = tokio::io::split(stream);
            Ok((Box::new(read) as ReadHalf, Box::new(write) as WriteHalf))
        })
    }
}

/// The other node.
struct Other {
    requests: FramedRead<tokio::io::ReadHalf<DuplexStream>, FrameCodec>,
    replies: tokio::io::WriteHalf<DuplexStream>,
}

impl Other {
    async fn request(&mut self) -> Option<Frame> {
        loop {
            let next = timeout(PATIENCE, self.requests.next()).await.expect("a request in time");
            let frame = next.map(|frame| frame.expect("a frame"))?;
            // Whether it is there is asked whenever a test lets time pass.
            if frame.head.api != PeerApi::Ping.number() {
                return Some(frame);
            }
            self.say(encode_outcome(frame.head, Ok(Pong {}), Vec::new())).await;
        }
    }

    /// The term of the next vote that is asked for, and the head to answer it under.
    async fn vote(&mut self) -> (u64, FrameHead) {
        let frame = self.request().await.expect("a request");
        (frame.decode_body::<RaftVote>().expect("a vote").vote.term, frame.head)
    }

    async fn say(&mut self, frame: OutFrame) {
        let mut bytes = BytesMut::new();
        FrameCodec::new(64 << 20).encode(frame, &mut bytes).expect("encodable");
        // The link may have hung up.
        let _ = self.replies.write_all(&bytes).await;
    }

    async fn grant(&mut self, term: u64, head: FrameHead) {
        let vote = WireVote { term, candidate: 1, granted: false };
        self.say(encode_outcome(head, Ok(RaftVoteReply { vote, granted: true, last: None }), Vec::new())).await;
    }

    async fn greet_as(&mut self, reply: PeerHelloReply) -> PeerHello {
        let frame = self.request().await.expect("a hello");
        self.say(encode_outcome(frame.head, Ok(reply), Vec::new())).await;
        frame.decode_body().expect("a hello")
    }

    async fn greet(&mut self) -> PeerHello {
        self.greet_as(node_2()).await
    }
}

/// What node 2 answers to a hello.
fn node_2() -> PeerHelloReply {
    PeerHelloReply {
        protocol: 1,
        cluster: Some(CLUSTER),
        node: NodeId(2),
        directory: directory(22),
        software: "x 1".to_owned(),
        max_frame_bytes: 1_000,
    }
}

struct Stage {
    link: PeerHandle,
    attempts: mpsc::Receiver<Attempt>,
    events: Ear<PeerEvent>,
}

impl Stage {
    /// A link from node 1 to node 2, with time standing still.
    fn new() -> Self {
        tokio::time::pause();
        Self::another()
    }

    /// One more in the same test.
    fn another() -> Self {
        let (sender, attempts) = mpsc::channel(16);
        let limits = NetLimits::between_nodes();
        let settings = PeerSettings {
            myself: Myself { node: NodeId(1), directory: directory(11), cluster: CLUSTER.into() },
            connection: PeerConnection::Control,
            dial: Arc::new(Wires(sender)),
            limits,
            node_budget: NodeBudget::new(limits.node_bytes_in_flight),
            buffers: BufferPool::new(0),
            times: PeerTimes::of(PeerConnection::Control),
        };
        let target = PeerTarget { node: Some(NodeId(2)), directory: Some(directory(22)), address: address(2) };
        let events = Ear::new();
        let link = PeerHandle::start(&Arbiter::current(), target, settings, vec![events.recipient()]);
        Self { link, attempts, events }
    }

    async fn attempt(&mut self) -> Attempt {
        timeout(PATIENCE, self.attempts.recv()).await.expect("an attempt in time").expect("the link lives")
    }

    async fn connected() -> (Self, Other) {
        let mut stage = Self::new();
        let mut other = stage.attempt().await.accept();
        other.greet().await;
        assert!(matches!(stage.events.next().await.change, PeerChange::Connected { node: NodeId(2), .. }));
        (stage, other)
    }

    /// Asks for a vote, beside the test.
    fn ask(&self, term: u64, patience: Duration) -> tokio::task::JoinHandle<Result<u64, PeerError>> {
        let link = self.link.clone();
        let asking = async move { link.ask(&vote(term), Vec::new(), patience).await };
        actix_rt::spawn(async move { asking.await.map(|answer| answer.reply.vote.term) })
    }
}

async fn end<T>(asked: tokio::task::JoinHandle<T>) -> T {
    timeout(PATIENCE, asked).await.expect("an answer in time").expect("no panic")
}

#[actix::test]
async fn a_link_says_who_it_is_and_whom_it_looks_for() {
    let mut stage = Stage::new();
    let attempt = stage.attempt().await;
    assert_eq!(attempt.address, address(2));
    let hello = attempt.accept().greet().await;
    assert_eq!((hello.cluster, hello.node, hello.directory), (Some(CLUSTER), NodeId(1), directory(11)));
    assert_eq!((hello.expected_node, hello.expected_directory), (Some(NodeId(2)), Some(directory(22))));
    assert_eq!((hello.protocol_min, hello.protocol_max, hello.connection), (1, 1, PeerConnection::Control));
}

#[actix::test]
async fn replies_find_whoever_asked_in_whatever_order_they_come() {
    let (stage, mut other) = Stage::connected().await;
    let [first, second] = [1, 2].map(|term| stage.ask(term, PATIENCE));
    let heads = [other.vote().await, other.vote().await];
    for (term, head) in heads.into_iter().rev() {
        other.grant(term * 10, head).await;
    }
    assert_eq!((end(first).await, end(second).await), (Ok(10), Ok(20)));
}

#[actix::test]
async fn a_request_that_is_answered_late_fails_alone_and_its_reply_is_dropped() {
    let (mut stage, mut other) = Stage::connected().await;
    let began = Instant::now();
    let (late, prompt) = (stage.ask(1, Duration::from_millis(500)), stage.ask(2, PATIENCE));
    let (_, late_head) = other.vote().await;
    let (_, prompt_head) = other.vote().await;
    let error = end(late).await.expect_err("no answer");
    assert!(matches!(&error, PeerError::TimedOut { after, .. } if *after == Duration::from_millis(500)), "{error}");
    assert!(error.is_retryable() && began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    other.grant(1, late_head).await;
    other.grant(2, prompt_head).await;
    assert_eq!(end(prompt).await, Ok(2));
    let after = stage.ask(3, PATIENCE);
    let (term, head) = other.vote().await;
    other.grant(term, head).await;
    assert_eq!(end(after).await, Ok(3));
    assert!(stage.attempts.try_recv().is_err() && stage.events.pending().is_empty(), "the connection stays");
}

#[actix::test]
async fn what_is_under_way_fails_with_the_connection_and_the_next_one_is_opened_after_a_pause() {
    let (mut stage, mut other) = Stage::connected().await;
    let asked: Vec<_> = (1..=3).map(|term| stage.ask(term, PATIENCE)).collect();
    for _ in 1..=3 {
        other.vote().await;
    }
    drop(other);
    for asked in asked {
        let error = end(asked).await.expect_err("lost");
        assert!(matches!(error, PeerError::Lost { .. }) && error.is_retryable(), "{error}");
    }
    assert!(matches!(stage.events.next().await.change, PeerChange::Lost { .. }));
    let error = end(stage.ask(4, PATIENCE)).await.expect_err("there is no connection");
    assert!(error.to_string().contains("node 2 at there:2 cannot be reached: the peer closed"), "{error}");
    let mut other = stage.attempt().await.accept();
    other.greet().await;
    assert!(matches!(stage.events.next().await.change, PeerChange::Connected { .. }));
    let asked = stage.ask(5, PATIENCE);
    let (term, head) = other.vote().await;
    other.grant(term, head).await;
    assert_eq!(end(asked).await, Ok(5));
}

#[actix::test]
async fn attempts_come_at_pauses_that_grow_to_a_second_and_go_on_for_ever() {
    let mut stage = Stage::new();
    stage.attempt().await.refuse();
    for failures in 0..12_u32 {
        let since = Instant::now();
        let attempt = stage.attempt().await;
        let full = Duration::from_millis((20 << failures.min(10)).min(1_000));
        let pause = since.elapsed();
        // Timers are as coarse as a millisecond.
        assert!(pause >= full / 2 && pause <= full + Duration::from_millis(2), "after {failures}: {pause:?}");
        attempt.refuse();
    }
    assert!(stage.events.pending().is_empty(), "there was no connection to lose");
}

#[actix::test]
async fn a_node_that_hangs_up_at_once_is_not_dialled_in_a_loop() {
    let mut stage = Stage::new();
    let began = Instant::now();
    for _ in 0..10 {
        let mut other = stage.attempt().await.accept();
        other.greet().await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "ten connections in {:?}", began.elapsed());
}

#[actix::test]
async fn requests_wait_for_a_connection_that_is_being_opened_and_fail_with_it() {
    let mut stage = Stage::new();
    let attempt = stage.attempt().await;
    let (impatient, waiting) = (stage.ask(1, Duration::from_millis(100)), stage.ask(2, PATIENCE));
    assert!(matches!(end(impatient).await, Err(PeerError::TimedOut { .. })));
    let mut other = attempt.accept();
    other.greet().await;
    let (term, head) = other.vote().await;
    assert_eq!(term, 2, "nobody waits for the first any more");
    other.grant(term, head).await;
    assert_eq!(end(waiting).await, Ok(2));

    let mut stage = Stage::another();
    let attempt = stage.attempt().await;
    let waiting = stage.ask(1, PATIENCE);
    attempt.refuse();
    assert!(matches!(end(waiting).await, Err(PeerError::Unreachable { .. })));
}

#[actix::test]
async fn a_machine_that_answers_nothing_is_given_up_in_time() {
    let mut stage = Stage::new();
    let began = Instant::now();
    let _silent = stage.attempt().await;
    let error = end(stage.ask(1, PATIENCE)).await.expect_err("nobody is there");
    assert!(error.to_string().contains("no connection within 3000 ms"), "{error}");
    let _accepts_and_says_nothing = stage.attempt().await.accept();
    let error = end(stage.ask(1, PATIENCE)).await.expect_err("nobody is there");
    assert!(error.to_string().contains("no answer to the hello within 3000 ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(7));
}

/// What is answered in the place of node 2, and what those who ask are told.
async fn refusal(answer: impl AsyncFnOnce(&mut Other)) -> PeerError {
    let mut stage = Stage::another();
    let attempt = stage.attempt().await;
    let asked = stage.ask(1, PATIENCE);
    let mut other = attempt.accept();
    answer(&mut other).await;
    let error = end(asked).await.expect_err("refused");
    assert_eq!(other.request().await, None, "nothing is sent to somebody else, and the connection ends");
    assert!(stage.events.pending().is_empty(), "that was no connection");
    error
}

#[actix::test]
async fn nothing_is_sent_to_anybody_else_than_the_one_that_was_looked_for() {
    tokio::time::pause();
    let in_its_place = [
        (PeerHelloReply { directory: directory(23), ..node_2() }, "the directory was replaced"),
        (PeerHelloReply { node: NodeId(3), ..node_2() }, "node 2 was expected"),
        (PeerHelloReply { cluster: Some(ClusterId(uuid::Uuid::from_u128(8))), ..node_2() }, "this node of cluster"),
        (PeerHelloReply { protocol: 2, ..node_2() }, "upgrade the older of the two"),
    ];
    for (reply, expected) in in_its_place {
        let error = refusal(async |other: &mut Other| drop(other.greet_as(reply).await)).await;
        assert!(matches!(error, PeerError::Refused { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for (code, is_refusal) in
        [(ErrorCode::WrongNode, true), (ErrorCode::UnknownApi, true), (ErrorCode::LimitExceeded, false)]
    {
        let error = refusal(async |other: &mut Other| {
            let frame = other.request().await.expect("a hello");
            other.say(OutFrame::error(frame.head, ApiError::new(code, "go away!"))).await;
        });
        let error = error.await;
        assert_eq!(matches!(error, PeerError::Refused { .. }), is_refusal, "{error}");
        assert!(error.to_string().contains("go away!"), "{error}");
    }
    let error = refusal(async |other: &mut Other| {
        other.request().await.expect("a hello");
        other.replies.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("the pipe is open");
    });
    let error = error.await;
    assert!(matches!(error, PeerError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("not the protocol between nodes"), "{error}");
}

#[actix::test]
async fn a_node_without_a_cluster_is_as_good_as_any() {
    let mut stage = Stage::new();
    let mut other = stage.attempt().await.accept();
    other.greet_as(PeerHelloReply { cluster: None, ..node_2() }).await;
    assert!(matches!(stage.events.next().await.change, PeerChange::Connected { .. }));
}

#[actix::test]
async fn only_so_much_is_under_way_and_the_rest_is_turned_away_at_once() {
    let (stage, mut other) = Stage::connected().await;
    let asked: Vec<_> = (0..MAX_IN_FLIGHT as u64).map(|term| stage.ask(term, PATIENCE)).collect();
    let (term, head) = other.vote().await;
    for _ in 1..MAX_IN_FLIGHT {
        other.vote().await;
    }
    let error = end(stage.ask(100, PATIENCE)).await.expect_err("too many");
    assert!(matches!(error, PeerError::Busy { .. }) && error.is_retryable(), "{error}");
    other.grant(term, head).await;
    assert_eq!(end(asked.into_iter().next().expect("one")).await, Ok(term));
    let asked = stage.ask(101, PATIENCE);
    assert_eq!(other.vote().await.0, 101, "there is room again");
    drop(other);
    assert!(end(asked).await.is_err());
}

#[actix::test]
async fn a_request_above_the_limit_of_the_other_node_is_not_sent_and_harms_no_other() {
    let (stage, mut other) = Stage::connected().await;
    let large = vec![Bytes::from(vec![0; 1_000]).into()];
    let error = stage.link.ask(&vote(1), large, PATIENCE).await.expect_err("too large");
    assert!(matches!(error, PeerError::TooLarge { limit: 1_000, .. }), "{error}");
    let asked = stage.ask(2, PATIENCE);
    let (term, head) = other.vote().await;
    other.grant(term, head).await;
    assert_eq!(end(asked).await, Ok(2));
}

#[actix::test]
async fn a_silent_node_is_asked_whether_it_is_there_and_then_given_up() {
    let (mut stage, mut other) = Stage::connected().await;
    let began = Instant::now();
    let asked = stage.ask(1, PATIENCE);
    let mut pings = 0;
    let lost = loop {
        tokio::select! {
            // The end of the connection may be seen there before the news of it here.
            Some(frame) = other.requests.next() => {
                let frame = frame.expect("a frame");
                pings += u32::from(frame.head.api == Ping::API.number());
            }
            event = stage.events.next() => break event,
        }
    };
    assert!(matches!(&lost.change, PeerChange::Lost { reason } if reason.contains("nothing was heard")), "{lost:?}");
    assert!((2..=4).contains(&pings), "{pings} pings");
    let silent = began.elapsed();
    assert!((Duration::from_secs(4)..=Duration::from_secs(5)).contains(&silent), "{silent:?}");
    assert!(matches!(end(asked).await, Err(PeerError::Lost { .. })));
}

#[actix::test]
async fn a_node_that_answers_pings_is_kept_however_long_nothing_else_is_said() {
    let (mut stage, mut other) = Stage::connected().await;
    let asked = stage.ask(1, PATIENCE);
    let (term, head) = other.vote().await;
    // Answers pings meanwhile.
    let quiet = timeout(Duration::from_secs(600), other.request()).await;
    assert!(quiet.is_err(), "nothing else is said");
    other.grant(term, head).await;
    assert_eq!(end(asked).await, Ok(term));
    assert!(stage.events.pending().is_empty());
}

#[actix::test]
async fn an_error_of_the_connection_as_a_whole_ends_it_with_its_reason() {
    let (mut stage, mut other) = Stage::connected().await;
    other.say(OutFrame::connection_error(ApiError::new(ErrorCode::ShuttingDown, "good night"))).await;
    let lost = stage.events.next().await.change;
    assert!(matches!(&lost, PeerChange::Lost { reason } if reason.contains("good night")), "{lost:?}");
}

#[actix::test]
async fn dialling_back_tells_a_process_that_is_gone_from_anything_else() {
    let (mut stage, _other) = Stage::connected().await;
    let found = async |stage: &mut Stage, answer: fn(Attempt)| {
        let link = stage.link.clone();
        let dialling = actix_rt::spawn(async move { link.dial_back(Duration::from_secs(1)).await });
        answer(stage.attempt().await);
        end(dialling).await
    };
    assert_eq!(found(&mut stage, Attempt::refuse).await, Reach::Refused);
    assert_eq!(found(&mut stage, |attempt| drop(attempt.accept())).await, Reach::Accepted);
    let failed = |attempt: Attempt| drop(attempt.answer.send(Err(io::ErrorKind::HostUnreachable.into())));
    assert!(matches!(found(&mut stage, failed).await, Reach::Unknown { .. }));
    let link = stage.link.clone();
    let dialling = actix_rt::spawn(async move { link.dial_back(Duration::from_secs(1)).await });
    let _nobody_answers = stage.attempt().await;
    assert_eq!(end(dialling).await, Reach::Unknown { reason: "no answer within 1000 ms".to_owned() });
    assert!(stage.events.pending().is_empty(), "the link itself is not touched");
}

#[actix::test]
async fn a_node_that_moves_is_followed() {
    let (mut stage, mut other) = Stage::connected().await;
    let asked = stage.ask(1, PATIENCE);
    other.vote().await;
    stage.link.move_to(address(3));
    assert!(matches!(end(asked).await, Err(PeerError::Lost { .. })));
    assert!(matches!(stage.events.next().await.change, PeerChange::Lost { .. }));
    assert_eq!(other.request().await, None);
    let attempt = stage.attempt().await;
    assert_eq!(attempt.address, address(3));
    // Once more before it has answered: who waits goes on waiting.
    let asked = stage.ask(2, PATIENCE);
    stage.link.move_to(address(4));
    let attempt = stage.attempt().await;
    assert_eq!(attempt.address, address(4));
    let mut other = attempt.accept();
    other.greet().await;
    let (term, head) = other.vote().await;
    other.grant(term, head).await;
    assert_eq!(end(asked).await, Ok(2));
}

#[actix::test]
async fn a_link_that_is_closed_answers_everybody_and_hangs_up() {
    let (stage, mut other) = Stage::connected().await;
    let asked = stage.ask(1, PATIENCE);
    other.vote().await;
    stage.link.close();
    assert!(matches!(end(asked).await, Err(PeerError::Lost { .. })));
    assert_eq!(other.request().await, None);
    assert!(matches!(end(stage.ask(2, PATIENCE)).await, Err(PeerError::Unreachable { .. })));
    assert!(matches!(stage.link.dial_back(PATIENCE).await, Reach::Unknown { .. }));
}

#[actix::test]
async fn links_are_made_once_for_each_node_directory_and_connection_and_closed_when_nobody_needs_them() {
    tokio::time::pause();
    let (sender, mut attempts) = mpsc::channel(16);
    let myself = Myself { node: NodeId(1), directory: directory(11), cluster: CLUSTER.into() };
    let settings = LinkSettings { dial: Arc::new(Wires(sender)), ..LinkSettings::new(myself, BufferPool::new(0)) };
    let links = PeerLinks::new(settings, Arbiter::current(), Arbiter::current());
    let target = |node, dir, port| PeerTarget {
        node: Some(NodeId(node)),
        directory: Some(directory(dir)),
        address: address(port),
    };
    let wanted = [
        (target(2, 22, 2), PeerConnection::Control),
        (target(2, 22, 2), PeerConnection::Data),
        (target(2, 23, 2), PeerConnection::Control),
        (target(3, 33, 3), PeerConnection::Control),
        // The same again.
        (target(2, 22, 2), PeerConnection::Control),
        (target(3, 33, 3), PeerConnection::Control),
    ];
    let handles: Vec<_> = wanted.iter().map(|(target, connection)| links.link(target, *connection)).collect();
    let mut dialled = Vec::new();
    for _ in 0..4 {
        let attempt = timeout(PATIENCE, attempts.recv()).await.expect("in time").expect("open");
        dialled.push(attempt.address.port);
        // Nobody answers; the attempt is kept.
        std::mem::forget(attempt);
    }
    dialled.sort_unstable();
    assert_eq!(dialled, [2, 2, 2, 3]);
    // One that is looked for elsewhere is led there.
    let moved = links.link(&target(3, 33, 4), PeerConnection::Control);
    let attempt = timeout(PATIENCE, attempts.recv()).await.expect("in time").expect("open");
    assert_eq!(attempt.address, address(4));
    drop(attempt);
    links.retain(|node, _| node != Some(NodeId(3)));
    let error = moved.ask(&vote(1), Vec::new(), PATIENCE).await.expect_err("closed");
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    links.close();
    let too_late = links.link(&target(2, 22, 2), PeerConnection::Control);
    assert!(too_late.ask(&vote(1), Vec::new(), PATIENCE).await.is_err(), "nothing is opened after the end");
    assert!(handles[0].ask(&vote(1), Vec::new(), PATIENCE).await.is_err());
}

#[actix::test]
async fn a_reply_of_another_kind_than_the_request_is_no_answer() {
    let (stage, mut other) = Stage::connected().await;
    let asked = stage.ask(1, PATIENCE);
    let (_, head) = other.vote().await;
    let head = FrameHead { api: PeerApi::Ping.number(), ..head };
    other.say(encode_outcome(head, Ok(Pong {}), Vec::new())).await;
    let error = end(asked).await.expect_err("no answer");
    assert!(error.is_refusal(), "{error}");
    assert_ne!(head.correlation_id, CorrelationId(0));
}
