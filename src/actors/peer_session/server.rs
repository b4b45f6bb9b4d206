//! Accepting other nodes: each connection is read as far as its hello, then moves to the thread that its kind belongs on.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, ArbiterHandle};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::actor::{PeerSession, PeerSessionSettings};
use crate::actors::codec::{CodecSettings, serve};
use crate::engine::waiters::OwnerId;
use crate::metrics::Metrics;
use crate::net::{Connection, Listener, NetLimits, NodeBudget};
use crate::protocol::frame::FrameCodec;
use crate::protocol::messages::peer::{PeerConnection, PeerHello};
use crate::types::BufferPool;

/// Requests that a connection may have in work. A link has at most [`crate::actors::peer::MAX_IN_FLIGHT`] under way; those that it
/// gave up are still in work here, and must not keep it from being read.
const REQUESTS_IN_FLIGHT: usize = 4 * crate::actors::peer::MAX_IN_FLIGHT;

/// Chooses the thread for a connection of this kind.
pub type ChooseThread = Arc<dyn Fn(PeerConnection) -> ArbiterHandle + Send + Sync>;

/// Serves other nodes.
#[derive(Clone)]
pub struct PeerServer {
    sessions: PeerSessionSettings,
    codecs: CodecSettings,
    thread: ChooseThread,
}

impl PeerServer {
    /// A server with the limits of [`NetLimits::between_nodes`].
    #[must_use]
    pub fn new(sessions: PeerSessionSettings, buffers: BufferPool, thread: ChooseThread) -> Self {
        let limits = NetLimits::between_nodes();
        let max_frame_bytes = u32::try_from(limits.max_frame_bytes).unwrap_or(u32::MAX);
        let codecs = CodecSettings {
            limits,
            requests_in_flight: REQUESTS_IN_FLIGHT,
            node_budget: NodeBudget::new(limits.node_bytes_in_flight),
            // Nothing is counted there: the counters of requests are those of clients.
            metrics: Arc::new(Metrics::default()),
            buffers,
        };
        Self { sessions: PeerSessionSettings { max_frame_bytes, ..sessions }, codecs, thread }
    }

    /// Accepts connections until the sessions are to stop. To be run on an arbiter.
    pub async fn serve(self, mut listener: Listener) {
        let mut owners = 0;
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                () = self.sessions.stop.cancelled() => return,
            };
            owners += 1;
            // As many of these as the listener lets connections in.
            actix_rt::spawn(self.clone().receive(connection, OwnerId(owners)));
        }
    }

    async fn receive(self, connection: Connection<TcpStream>, owner: OwnerId) {
        let Connection { mut stream, peer_addr, permit } = connection;
        let limits = &self.codecs.limits;
        let reading = read_hello(&mut stream, limits.max_frame_bytes_before_hello);
        let (begun, kind) = match timeout(limits.partial_frame_timeout, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return tracing::debug!(peer = %peer_addr, %error, "a connection failed before its hello"),
            Err(_) => return tracing::debug!(peer = %peer_addr, "a connection did not say hello in time"),
        };
        // The socket moves to the reactor of the thread that will serve it.
        let Ok(socket) = stream.into_std() else { return };
        let Self { sessions, codecs, thread } = self;
        thread(kind).spawn_fn(move || {
            let Ok(socket) = TcpStream::from_std(socket) else { return };
            let (read_half, write_half) = socket.into_split();
            let read_half = Cursor::new(begun).chain(read_half);
            start_session(read_half, write_half, (owner, peer_addr), &codecs, permit, sessions);
        });
    }
}

/// Wires a connection of another node on the current arbiter.
pub(super) fn start_session<R, W>(
    read_half: R,
    write_half: W,
    (owner, address): (OwnerId, SocketAddr),
    codecs: &CodecSettings,
    place: impl Sized + 'static,
    sessions: PeerSessionSettings,
) where
    R: AsyncRead + Unpin + 'static,
    W: tokio::io::AsyncWrite + Unpin + 'static,
{
    serve(read_half, write_half, (owner, address), codecs, place, |codec| {
        PeerSession::new(sessions, codec, owner, address).start()
    });
}

/// Reads until there is a hello, or something that will never be one, which the codec has an answer for.
async fn read_hello(stream: &mut TcpStream, limit: usize) -> io::Result<(BytesMut, PeerConnection)> {
    let codec = FrameCodec::new(limit);
    let mut begun = BytesMut::with_capacity(512);
    loop {
        if stream.read_buf(&mut begun).await? == 0 {
            return Ok((begun, PeerConnection::Control));
        }
        match codec.peek_length(&begun) {
            Err(_) => return Ok((begun, PeerConnection::Control)),
            Ok(Some(length)) if begun.len() >= length + crate::protocol::frame::LENGTH_BYTES => {
                let frame = codec.take_frame(&mut begun.clone(), length).ok();
                let hello = frame.and_then(|frame| frame.decode_body::<PeerHello>().ok());
                let kind = hello.map_or(PeerConnection::Control, |hello| hello.connection);
                return Ok((begun, kind));
            }
            Ok(_) => {}
        }
    }
}
