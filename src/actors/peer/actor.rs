//! The link's handlers: what it does in each state.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, ResponseFuture, SpawnHandle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::announced::Announced;
use super::backoff::Backoff;
use super::connection::{self, Dial, connection_error};
use super::error::{Failure, PeerError};
use super::identity::{Myself, PeerTarget};
use super::messages::*;
use super::outstanding::{Outstanding, Waiting};
use crate::actors::send::post_to;
use crate::net::{NetLimits, NodeBudget, SendError, WriterHandle};
use crate::protocol::frame::{LENGTH_BYTES, OutFrame, encode_peer_request};
use crate::protocol::messages::peer::{PeerConnection, PeerHelloReply, Ping};
use crate::types::{BufferPool, CorrelationId};

/// What a link takes its time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTimes {
    /// How long a connection may take to open, and as long again for the hello.
    pub connect_timeout: Duration,
    /// After so much silence the other node is asked whether it is there, and again each time that so much passes.
    pub ping_after: Duration,
    /// After so much silence the connection is given up. TCP alone would wait for many minutes, and go on retrying at long
    /// intervals after a network that was cut is whole again.
    pub silence_limit: Duration,
}

impl PeerTimes {
    /// Those of a connection of this kind. One large reply may hold up a data connection for a while.
    #[must_use]
    pub fn of(connection: PeerConnection) -> Self {
        let silence_limit = match connection {
            PeerConnection::Control => Duration::from_secs(4),
            PeerConnection::Data => Duration::from_secs(15),
        };
        Self { connect_timeout: Duration::from_secs(3), ping_after: Duration::from_secs(1), silence_limit }
    }
}

/// What a link is made of.
pub struct PeerSettings {
    /// Who this node is.
    pub myself: Myself,
    /// What the connection is for.
    pub connection: PeerConnection,
    /// How connections are opened.
    pub dial: Arc<dyn Dial>,
    /// The limits of the connection.
    pub limits: NetLimits,
    /// The room for replies of all links.
    pub node_budget: NodeBudget,
    /// Memory for large replies.
    pub buffers: BufferPool,
    /// What it takes its time for.
    pub times: PeerTimes,
}

enum State {
    /// A connection is being opened. Requests wait for it, within their time.
    Dialing {
        attempt: JoinHandle<()>,
    },
    Connected(Open),
    /// No connection for now: requests fail at once.
    Pausing {
        failure: Failure,
    },
    Closed,
}

struct Open {
    carrying: JoinHandle<()>,
    writer: WriterHandle,
    max_frame_bytes: usize,
    since: Instant,
    last_heard: Instant,
}

/// See the module page.
pub struct Peer {
    settings: Arc<PeerSettings>,
    target: PeerTarget,
    name: Arc<str>,
    state: State,
    /// Of the newest attempt: what older ones say is stale.
    number: u64,
    outstanding: Outstanding,
    alarm: Option<(Instant, SpawnHandle)>,
    retry: Option<SpawnHandle>,
    backoff: Backoff,
    announced: Announced,
    subscribers: Vec<Recipient<PeerEvent>>,
}

impl Peer {
    /// A link to `target` that tells `subscribers` of every change. It dials when it is started.
    #[must_use]
    pub fn new(target: PeerTarget, settings: PeerSettings, subscribers: Vec<Recipient<PeerEvent>>) -> Self {
        Self {
            settings: Arc::new(settings),
            name: target.to_string().into(),
            target,
            state: State::Closed,
            number: 0,
            outstanding: Outstanding::default(),
            alarm: None,
            retry: None,
            backoff: Backoff::default(),
            announced: Announced::default(),
            subscribers,
        }
    }

    fn dial(&mut self, ctx: &mut Context<Self>) {
        self.retry = None;
        self.number += 1;
        let (home, target, settings) = (ctx.address(), self.target.clone(), Arc::clone(&self.settings));
        let attempt = actix_rt::spawn(connection::run(home, self.number, target, settings));
        self.state = State::Dialing { attempt };
    }

    /// Ends whatever there is of a connection. Returns since when it was open.
    fn disconnect(&mut self) -> Option<Instant> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Dialing { attempt } => {
                attempt.abort();
                None
            }
            State::Connected(Open { carrying, since, .. }) => {
                carrying.abort();
                Some(since)
            }
            State::Pausing { .. } | State::Closed => None,
        }
    }

    /// There is no connection any more, or still none: everybody who waits is told, and the next attempt is due after a pause.
    fn fail(&mut self, ctx: &mut Context<Self>, failure: Failure) {
        let (reason, connection) = (Arc::clone(&failure.reason), self.settings.connection);
        let mut error = failure.to_error(&self.name);
        if let Some(since) = self.disconnect() {
            // What waits was sent.
            error = PeerError::Lost { peer: Arc::clone(&self.name), reason: Arc::clone(&reason) };
            self.backoff.connection_lost(since, Instant::now());
            tracing::warn!(peer = %self.name, %connection, %reason, "the connection to another node is lost");
            self.announced.lost();
            self.tell(PeerChange::Lost { reason });
        } else if self.announced.unreachable(&reason) {
            tracing::warn!(peer = %self.name, %connection, %reason, "another node cannot be reached; trying on");
        }
        self.fail_all(&error);
        self.state = State::Pausing { failure };
        let pause = self.backoff.next_pause();
        self.retry = Some(ctx.run_later(pause, Self::dial));
    }

    fn fail_all(&mut self, error: &PeerError) {
        for waiting in self.outstanding.take_all() {
            waiting.answer(Err(error.clone()));
        }
    }

    fn tell(&self, change: PeerChange) {
        let PeerTarget { node, directory, .. } = self.target;
        let event = PeerEvent { node, directory, connection: self.settings.connection, change };
        for subscriber in &self.subscribers {
            post_to(subscriber, event.clone());
        }
    }

    fn opened(&mut self, attempt: JoinHandle<()>, writer: WriterHandle, hello: PeerHelloReply) {
        let PeerHelloReply { node, directory, cluster, software, max_frame_bytes, .. } = hello;
        let connection = self.settings.connection;
        tracing::info!(peer = %self.name, %node, %connection, %software, "connected to another node");
        self.announced.connected();
        let now = Instant::now();
        let max_frame_bytes = usize::try_from(max_frame_bytes).unwrap_or(usize::MAX);
        self.state = State::Connected(Open { carrying: attempt, writer, max_frame_bytes, since: now, last_heard: now });
        self.tell(PeerChange::Connected { node, directory, cluster, software });
        while let Some(frame) = self.outstanding.unpark() {
            self.send(frame);
        }
    }

    /// Hands a frame to the writer of an open connection. Whoever waits for its answer is told if that cannot be.
    fn send(&mut self, frame: OutFrame) {
        let State::Connected(open) = &self.state else { return };
        let (id, bytes) = (frame.head().correlation_id, frame.wire_bytes() - LENGTH_BYTES);
        let peer = Arc::clone(&self.name);
        let error = if bytes > open.max_frame_bytes {
            PeerError::TooLarge { peer, bytes, limit: open.max_frame_bytes }
        } else {
            match open.writer.try_send(frame) {
                Ok(()) => return,
                Err(SendError::Full { limit_bytes, .. }) => {
                    PeerError::Busy { peer, what: format!("taken the last {limit_bytes} bytes").into() }
                }
                // The end of the connection is on its way here, and says more.
                Err(SendError::Closed { .. }) => {
                    PeerError::Unreachable { peer, reason: "the connection is being closed".into() }
                }
            }
        };
        if let Some(waiting) = self.outstanding.take(id) {
            waiting.answer(Err(error));
        }
    }

    /// Has the alarm ring at the next deadline.
    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        let Some(deadline) = self.outstanding.next_deadline() else { return };
        if let Some((at, alarm)) = self.alarm {
            if at <= deadline {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        self.alarm = Some((deadline, ctx.run_later(wait, Self::ring)));
    }

    fn ring(&mut self, ctx: &mut Context<Self>) {
        self.alarm = None;
        for late in self.outstanding.expire(Instant::now()) {
            let error = PeerError::TimedOut { peer: Arc::clone(&self.name), after: late.patience };
            late.answer(Err(error));
        }
        self.set_alarm(ctx);
    }

    fn listen(&mut self, ctx: &mut Context<Self>) {
        let State::Connected(open) = &self.state else { return };
        let PeerTimes { ping_after, silence_limit, .. } = self.settings.times;
        let silence = open.last_heard.elapsed();
        if silence >= silence_limit {
            let reason = format!("nothing was heard of it for {} ms", silence.as_millis());
            self.fail(ctx, Failure::unreachable(reason));
        } else if silence >= ping_after {
            // Its answer finds nobody who waits, but it is heard.
            let id = self.outstanding.next_id();
            self.send(encode_peer_request(&Ping {}, id, Vec::new()));
        }
    }
}

impl Actor for Peer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.dial(ctx);
        ctx.run_interval(self.settings.times.ping_after, Self::listen);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        let (peer, reason) = (Arc::clone(&self.name), Arc::from("this node has closed the connection"));
        let was_open = self.disconnect().is_some();
        let closed = if was_open { PeerError::Lost { peer, reason } } else { PeerError::Unreachable { peer, reason } };
        self.fail_all(&closed);
    }
}

impl Handler<Ask> for Peer {
    type Result = ();
    fn handle(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        let Ask { frame, deadline, patience, answer, room } = ask;
        let waiting = Waiting::new(deadline, patience, answer, room);
        if let State::Pausing { failure } = &self.state {
            return waiting.answer(Err(failure.to_error(&self.name)));
        }
        let id = self.outstanding.next_id();
        self.outstanding.insert(id, waiting);
        self.set_alarm(ctx);
        let frame = frame.with_correlation_id(id);
        match self.state {
            State::Connected(_) => self.send(frame),
            _ => self.outstanding.park(frame),
        }
    }
}

impl Handler<Connected> for Peer {
    type Result = ();
    fn handle(&mut self, Connected { number, writer, hello }: Connected, _: &mut Context<Self>) {
        if number != self.number {
            return;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Dialing { attempt } => self.opened(attempt, writer, hello),
            other => self.state = other,
        }
    }
}

impl Handler<FrameArrived> for Peer {
    type Result = ();
    fn handle(&mut self, FrameArrived { number, received }: FrameArrived, ctx: &mut Context<Self>) {
        if number != self.number {
            return;
        }
        let State::Connected(open) = &mut self.state else { return };
        open.last_heard = Instant::now();
        let id = received.frame.head.correlation_id;
        if id == CorrelationId(0) {
            return self.fail(ctx, connection_error(&received.frame));
        }
        // A reply that nobody waits for any more is dropped.
        if let Some(waiting) = self.outstanding.take(id) {
            waiting.answer(Ok(received));
        }
    }
}

impl Handler<Ended> for Peer {
    type Result = ();
    fn handle(&mut self, Ended { number, failure }: Ended, ctx: &mut Context<Self>) {
        if number == self.number && !matches!(self.state, State::Pausing { .. }) {
            self.fail(ctx, failure);
        }
    }
}

impl Handler<MoveTo> for Peer {
    type Result = ();
    fn handle(&mut self, MoveTo(address): MoveTo, ctx: &mut Context<Self>) {
        if self.target.address == address {
            return;
        }
        if let State::Connected(_) = self.state {
            // Under its old name, for the log.
            self.fail(ctx, Failure::unreachable(format!("the node is to be found at {address} now")));
        }
        // Whoever waits for a connection goes on waiting.
        self.disconnect();
        self.target.address = address;
        self.name = self.target.to_string().into();
        self.backoff.reset();
        if let Some(retry) = self.retry.take() {
            ctx.cancel_future(retry);
        }
        self.dial(ctx);
    }
}

impl Handler<Subscribe> for Peer {
    type Result = ();
    fn handle(&mut self, Subscribe(subscriber): Subscribe, _: &mut Context<Self>) {
        self.subscribers.push(subscriber);
    }
}

impl Handler<DialBack> for Peer {
    type Result = ResponseFuture<Reach>;
    fn handle(&mut self, DialBack { patience }: DialBack, _: &mut Context<Self>) -> Self::Result {
        let dialing = self.settings.dial.dial(&self.target.address);
        Box::pin(async move {
            match timeout(patience, dialing).await {
                Ok(Ok(_)) => Reach::Accepted,
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Reach::Refused,
                Ok(Err(error)) => Reach::Unknown { reason: error.to_string() },
                Err(_) => Reach::Unknown { reason: format!("no answer within {} ms", patience.as_millis()) },
            }
        })
    }
}

impl Handler<Close> for Peer {
    type Result = ();
    fn handle(&mut self, _: Close, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
