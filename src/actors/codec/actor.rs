//! The codec's handlers, and the wiring of one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::dialect::{Dialect, Native};
use super::messages::*;
use crate::actors::send::{post, post_to};
use crate::actors::spans;
use crate::engine::waiters::OwnerId;
use crate::metrics::Metrics;
use crate::net::{FrameLimit, NetLimits, NodeBudget, Reader, SendError, WriterHandle, writer};
use crate::protocol::frame::{Frame, FrameHead, OutFrame};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::BufferPool;

/// What the codecs of a node share.
#[derive(Clone, Debug)]
pub struct CodecSettings {
    /// The limits of connections.
    pub limits: NetLimits,
    /// Requests that a connection may have in work (`limits.requests_in_flight_per_connection`).
    pub requests_in_flight: usize,
    /// The room for frames of the whole node.
    pub node_budget: NodeBudget,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// Memory for large frames.
    pub buffers: BufferPool,
}

/// Room for the reply of a fetch. When the reply is queued for writing, or given up, the session gets it back.
pub struct ReplyRoom {
    bytes: usize,
    session: Arc<Recipient<RoomFreed>>,
}

/// Room for replies is free again. Goes to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct RoomFreed(pub usize);

impl ReplyRoom {
    /// Takes note of `bytes` of room that belong to `session`.
    #[must_use]
    pub fn new(bytes: usize, session: Arc<Recipient<RoomFreed>>) -> Self {
        Self { bytes, session }
    }
}

impl Drop for ReplyRoom {
    fn drop(&mut self) {
        post_to(&self.session, RoomFreed(self.bytes));
    }
}

impl std::fmt::Debug for ReplyRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplyRoom({})", self.bytes)
    }
}

/// See the module page. For clients if nothing else is said.
pub struct Codec<D: Dialect = Native> {
    owner: OwnerId,
    peer: SocketAddr,
    metrics: Arc<Metrics>,
    writer: WriterHandle,
    limit: FrameLimit,
    session: Recipient<Incoming<D::Request>>,
    disconnected: Recipient<Disconnected>,
    reader: JoinHandle<()>,
}

/// Wires one connection on the current arbiter: reader, writer, codec, and the session that `start_session` starts with
/// the codec's address; which dialect it speaks follows from that. `owner` is unique within the node. `place` is the connection's place among those allowed: kept until the writer has ended.
pub fn serve<D, S, R, W>(
    read_half: R,
    write_half: W,
    (owner, peer): (OwnerId, SocketAddr),
    settings: &CodecSettings,
    place: impl Sized + 'static,
    start_session: impl FnOnce(Addr<Codec<D>>) -> Addr<S>,
) where
    D: Dialect,
    S: Actor<Context = Context<S>> + Handler<Incoming<D::Request>> + Handler<Disconnected>,
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (handle, writing) = writer(write_half, &settings.limits);
    let limit = FrameLimit::new(&settings.limits);
    let reader =
        Reader::new(read_half, &settings.limits, limit.clone(), settings.node_budget.clone(), settings.buffers.clone());
    let in_flight = Arc::new(Semaphore::new(settings.requests_in_flight));
    let (metrics, span) = (Arc::clone(&settings.metrics), spans::connection(owner));
    Codec::<D>::create(|ctx| {
        let home = ctx.address();
        let session = start_session(home.clone());
        let reading = {
            let home = home.clone();
            let reading = async move {
                let deliver = |received| {
                    let (home, in_flight) = (home.clone(), Arc::clone(&in_flight));
                    async move {
                        // Beyond the requests in flight the socket is not read: TCP tells the client to wait.
                        let in_flight = in_flight.acquire_owned().await.ok();
                        post(&home, FrameArrived { received, in_flight });
                        true
                    }
                };
                let end = reader.run(deliver).await;
                post(&home, ReaderEnded(end));
            };
            actix_rt::spawn(reading.instrument(span.clone()))
        };
        let writing = async move {
            let end = writing.run().await;
            drop(place);
            post(&home, WriterEnded(end));
        };
        actix_rt::spawn(writing.instrument(span));
        Codec {
            owner,
            peer,
            metrics,
            writer: handle,
            limit,
            session: session.clone().recipient(),
            disconnected: session.recipient(),
            reader: reading,
        }
    });
}

impl<D: Dialect> Codec<D> {
    fn request(&self, frame: Frame, permit: RequestPermit) -> Result<(), (FrameHead, ApiError, RequestPermit)> {
        let head = frame.head;
        let Some(api) = D::api(head.api) else {
            return Err((head, ApiError::new(ErrorCode::UnknownApi, D::unknown(head.api)), permit));
        };
        let served = D::versions(api);
        if !served.contain(head.version) {
            let text = format!(
                "{api:?} is served in versions {} to {}, not in version {}",
                served.min_version, served.max_version, head.version
            );
            return Err((head, ApiError::new(ErrorCode::UnsupportedVersion, text), permit));
        }
        D::asked(&self.metrics, api);
        tracing::trace!(target: spans::TARGET, ?api, attachments = frame.attachments.len(), "asked");
        match D::decode(api, &frame) {
            Ok(body) => {
                post_to(&self.session, Incoming { head, body, attachments: frame.attachments, permit });
                Ok(())
            }
            Err(error) => Err((head, error, permit)),
        }
    }

    /// Takes note of an error that answers a whole request.
    fn refused(&self, head: FrameHead, error: &ApiError) {
        D::failed(&self.metrics, D::api(head.api), error.code);
        tracing::debug!(target: spans::TARGET, api = head.api, %error, "refused");
    }

    /// Queues a frame. A full queue is waited for beside the actor, with everything that the reply holds held meanwhile.
    fn send(&self, frame: OutFrame, held: Held) {
        match self.writer.try_send(frame) {
            Ok(()) => drop(held),
            Err(SendError::Full { frame, .. }) => {
                let writer = self.writer.clone();
                actix_rt::spawn(async move {
                    // A connection that ends instead needs no reply any more.
                    let _ = writer.send(*frame).await;
                    drop(held);
                });
            }
            Err(SendError::Closed { .. }) => drop(held),
        }
    }
}

impl<D: Dialect> Actor for Codec<D> {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.reader.abort();
        post_to(&self.disconnected, Disconnected);
    }
}

impl<D: Dialect> Handler<FrameArrived> for Codec<D> {
    type Result = ();
    fn handle(&mut self, FrameArrived { received, in_flight }: FrameArrived, ctx: &mut Self::Context) {
        let _span = spans::request(self.owner, received.frame.head.correlation_id).entered();
        let permit = RequestPermit { frame: received.permit, _in_flight: in_flight };
        if let Err((head, error, permit)) = self.request(received.frame, permit) {
            self.refused(head, &error);
            // The permit stays with the reply: whoever sends nonsense and reads nothing is not read on.
            let is_stranger = D::STRANGERS_ARE_CLOSED && error.code == ErrorCode::UnknownApi;
            self.send(OutFrame::error(head, error), Held { permit: Some(permit), room: None });
            if is_stranger {
                ctx.notify(CloseConnection);
            }
        }
    }
}

impl<D: Dialect> Handler<Reply<D::Reply>> for Codec<D> {
    type Result = ();
    fn handle(&mut self, reply: Reply<D::Reply>, _: &mut Self::Context) {
        let Reply { head, result, attachments, held } = reply;
        let _span = spans::request(self.owner, head.correlation_id).entered();
        match &result {
            Ok(body) => D::failed_inside(&self.metrics, D::api(head.api), body),
            Err(error) => self.refused(head, error),
        }
        if result.as_ref().is_ok_and(D::opens) {
            self.limit.raise();
        }
        let frame = match result {
            Ok(body) => D::encode(body, head, attachments),
            Err(error) => OutFrame::error(head, error),
        };
        self.send(frame, held);
    }
}

impl<D: Dialect> Handler<CloseConnection> for Codec<D> {
    type Result = ();
    fn handle(&mut self, _: CloseConnection, _: &mut Self::Context) {
        self.reader.abort();
        let writer = self.writer.clone();
        // The end of the writer ends this actor.
        actix_rt::spawn(async move { writer.close().await });
    }
}

impl<D: Dialect> Handler<ReaderEnded> for Codec<D> {
    type Result = ();
    fn handle(&mut self, ReaderEnded(end): ReaderEnded, ctx: &mut Self::Context) {
        tracing::debug!(connection = self.owner.0, peer = %self.peer, reason = end.describe(), "the connection ends");
        if let Some((correlation_id, error)) = end.to_api_error() {
            // Not even a request: it counts among those of no known kind.
            D::failed(&self.metrics, None, error.code);
            let head = FrameHead { api: 0, version: 1, correlation_id };
            self.send(OutFrame::error(head, error), Held::default());
        }
        post_to(&self.disconnected, Disconnected);
        // What was answered before the client closed its side is still written.
        ctx.notify(CloseConnection);
    }
}

impl<D: Dialect> Handler<WriterEnded> for Codec<D> {
    type Result = ();
    fn handle(&mut self, WriterEnded(end): WriterEnded, ctx: &mut Self::Context) {
        tracing::debug!(connection = self.owner.0, peer = %self.peer, reason = %end, "the connection has ended");
        ctx.stop();
    }
}
