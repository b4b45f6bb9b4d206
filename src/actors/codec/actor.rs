//! The codec's handlers, and the wiring of one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::messages::*;
use crate::actors::send::{post, post_to};
use crate::net::{ByteBudget, FrameLimit, NetLimits, ReadEnd, Reader, SendError, WriterHandle, writer};
use crate::protocol::frame::{Frame, FrameHead, OutFrame};
use crate::protocol::{Api, ApiError, ErrorCode};
use crate::types::BufferPool;

/// What the codecs of a node share.
#[derive(Clone, Debug)]
pub struct CodecSettings {
    /// The limits of connections.
    pub limits: NetLimits,
    /// Requests that a connection may have in work (`limits.requests_in_flight_per_connection`).
    pub requests_in_flight: usize,
    /// The room for frames of the whole node.
    pub node_budget: ByteBudget,
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

/// See the module page.
pub struct Codec {
    peer: SocketAddr,
    writer: WriterHandle,
    limit: FrameLimit,
    session: Recipient<ClientRequest>,
    disconnected: Recipient<Disconnected>,
    reader: JoinHandle<()>,
}

/// Wires one connection on the current arbiter: reader, writer, codec, and the session that `start_session` starts with
/// the codec's address. `place` is the connection's place among those allowed: kept until the writer has ended.
pub fn serve<S, R, W>(
    read_half: R,
    write_half: W,
    peer: SocketAddr,
    settings: &CodecSettings,
    place: impl Sized + 'static,
    start_session: impl FnOnce(Addr<Codec>) -> Addr<S>,
) where
    S: Actor<Context = Context<S>> + actix::Handler<ClientRequest> + actix::Handler<Disconnected>,
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (handle, writing) = writer(write_half, &settings.limits);
    let limit = FrameLimit::new(&settings.limits);
    let reader =
        Reader::new(read_half, &settings.limits, limit.clone(), settings.node_budget.clone(), settings.buffers.clone());
    let in_flight = Arc::new(Semaphore::new(settings.requests_in_flight));
    Codec::create(|ctx| {
        let home = ctx.address();
        let session = start_session(home.clone());
        let reading = actix_rt::spawn({
            let home = home.clone();
            async move {
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
            }
        });
        actix_rt::spawn(async move {
            let end = writing.run().await;
            drop(place);
            post(&home, WriterEnded(end));
        });
        Codec {
            peer,
            writer: handle,
            limit,
            session: session.clone().recipient(),
            disconnected: session.recipient(),
            reader: reading,
        }
    });
}

impl Codec {
    fn request(&self, frame: Frame, permit: RequestPermit) -> Result<(), (FrameHead, ApiError, RequestPermit)> {
        let head = frame.head;
        let Some(api) = Api::from_number(head.api) else {
            let text = format!("there is no request {}: the answer to Hello lists those there are", head.api);
            return Err((head, ApiError::new(ErrorCode::UnknownApi, text), permit));
        };
        if !api.serves(head.version) {
            let served = api.versions();
            let text = format!(
                "{api:?} is served in versions {} to {}, not in version {}",
                served.min_version, served.max_version, head.version
            );
            return Err((head, ApiError::new(ErrorCode::UnsupportedVersion, text), permit));
        }
        match RequestBody::decode(api, &frame) {
            Ok(body) => {
                post_to(&self.session, ClientRequest { head, body, attachments: frame.attachments, permit });
                Ok(())
            }
            Err(error) => Err((head, error, permit)),
        }
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

impl Actor for Codec {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.reader.abort();
        post_to(&self.disconnected, Disconnected);
    }
}

impl Handler<FrameArrived> for Codec {
    type Result = ();
    fn handle(&mut self, FrameArrived { received, in_flight }: FrameArrived, _: &mut Self::Context) {
        let permit = RequestPermit { frame: received.permit, _in_flight: in_flight };
        if let Err((head, error, permit)) = self.request(received.frame, permit) {
            // The permit stays with the reply: whoever sends nonsense and reads nothing is not read on.
            self.send(OutFrame::error(head, error), Held { permit: Some(permit), room: None });
        }
    }
}

impl Handler<Reply> for Codec {
    type Result = ();
    fn handle(&mut self, reply: Reply, _: &mut Self::Context) {
        let Reply { head, result, attachments, held } = reply;
        if matches!(result, Ok(ReplyBody::Hello(_))) {
            self.limit.raise();
        }
        let frame = match result {
            Ok(body) => body.encode(head, attachments),
            Err(error) => OutFrame::error(head, error),
        };
        self.send(frame, held);
    }
}

impl Handler<CloseConnection> for Codec {
    type Result = ();
    fn handle(&mut self, _: CloseConnection, _: &mut Self::Context) {
        self.reader.abort();
        let writer = self.writer.clone();
        // The end of the writer ends this actor.
        actix_rt::spawn(async move { writer.close().await });
    }
}

impl Handler<ReaderEnded> for Codec {
    type Result = ();
    fn handle(&mut self, ReaderEnded(end): ReaderEnded, ctx: &mut Self::Context) {
        tracing::debug!(peer = %self.peer, reason = end.describe(), "the connection ends");
        if let ReadEnd::Frame(error) = &end {
            let (correlation_id, error) = error.to_api_error();
            let head = FrameHead { api: 0, version: 1, correlation_id };
            self.send(OutFrame::error(head, error), Held::default());
        }
        post_to(&self.disconnected, Disconnected);
        // What was answered before the client closed its side is still written.
        ctx.notify(CloseConnection);
    }
}

impl Handler<WriterEnded> for Codec {
    type Result = ();
    fn handle(&mut self, WriterEnded(end): WriterEnded, ctx: &mut Self::Context) {
        tracing::debug!(peer = %self.peer, reason = %end, "the connection has ended");
        ctx.stop();
    }
}
