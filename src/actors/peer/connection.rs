//! One attempt and what comes of it: dial, say hello, then carry frames until it ends. One task, so that whoever aborts it closes the
//! socket at once.

use std::future::ready;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use actix::Addr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::actor::{Peer, PeerSettings};
use super::error::Failure;
use super::identity::{PeerAddress, PeerTarget};
use super::messages::{Connected, Ended, FrameArrived};
use crate::actors::send::post;
use crate::net::{FrameLimit, ReadEnd, Reader, WriteEnd, WriterHandle, writer};
use crate::protocol::ApiError;
use crate::protocol::frame::{decode_outcome, encode_peer_request};
use crate::protocol::messages::Outcome;
use crate::protocol::messages::peer::PeerHelloReply;
use crate::types::CorrelationId;

/// The direction that frames come in.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The direction that frames go out.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;
/// A connection that is being opened.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<(ReadHalf, WriteHalf)>> + Send>>;

/// How connections are opened: TCP, or a test's.
pub trait Dial: Send + Sync + 'static {
    /// Opens a connection to `address`.
    fn dial(&self, address: &PeerAddress) -> Dialing;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, address: &PeerAddress) -> Dialing {
        let address = address.to_string();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // A heartbeat must not wait for the acknowledgement of the one before.
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read) as ReadHalf, Box::new(write) as WriteHalf))
        })
    }
}

/// Runs one connection, and tells `home` what becomes of it.
pub(super) async fn run(home: Addr<Peer>, number: u64, target: PeerTarget, settings: Arc<PeerSettings>) {
    let failure = live(&home, number, &target, &settings).await;
    post(&home, Ended { number, failure });
}

async fn live(home: &Addr<Peer>, number: u64, target: &PeerTarget, settings: &PeerSettings) -> Failure {
    let patience = settings.times.connect_timeout;
    let late = |_| Failure::unreachable(format!("no connection within {} ms", patience.as_millis()));
    let unopened = |error: io::Error| Failure::unreachable(error.to_string());
    let dialed = timeout(patience, settings.dial.dial(&target.address)).await;
    let (read, write) = match dialed.map_err(late).and_then(|dialed| dialed.map_err(unopened)) {
        Ok(halves) => halves,
        Err(failure) => return failure,
    };
    let limit = FrameLimit::new(&settings.limits);
    let mut reader =
        Reader::new(read, &settings.limits, limit.clone(), settings.node_budget.clone(), settings.buffers.clone());
    let (handle, writing) = writer(write, &settings.limits);
    let mut writing = pin!(writing.run());
    let greeted = tokio::select! {
        greeted = timeout(patience, greet(&mut reader, &handle, target, settings)) => greeted,
        end = &mut writing => Ok(Err(written_out(&end))),
    };
    let no_hello = |_| Failure::unreachable(format!("no answer to the hello within {} ms", patience.as_millis()));
    match greeted.map_err(no_hello).and_then(|greeted| greeted) {
        Ok(hello) => {
            limit.raise();
            post(home, Connected { number, writer: handle, hello });
        }
        Err(failure) => return failure,
    }
    let deliver = |received| {
        post(home, FrameArrived { number, received });
        ready(true)
    };
    tokio::select! {
        end = reader.run(deliver) => read_out(&end),
        end = &mut writing => written_out(&end),
    }
}

async fn greet(
    reader: &mut Reader<ReadHalf>,
    writer: &WriterHandle,
    target: &PeerTarget,
    settings: &PeerSettings,
) -> Result<PeerHelloReply, Failure> {
    let hello = target.hello(&settings.myself, settings.connection);
    let frame = encode_peer_request(&hello, CorrelationId(1), Vec::new());
    writer.try_send(frame).map_err(|error| Failure::unreachable(error.to_string()))?;
    let received = reader.next_frame().await.map_err(|end| read_out(&end))?;
    let reply: PeerHelloReply = decode_outcome(&received.frame).map_err(|error| Failure::answered(&error))?;
    target.check(&settings.myself, &reply).map_err(Failure::refusal)?;
    Ok(reply)
}

/// What an error of the connection as a whole says.
pub(super) fn connection_error(frame: &crate::protocol::frame::Frame) -> Failure {
    let said: Option<ApiError> = frame.decode_body::<Outcome<()>>().ok().and_then(|outcome| outcome.error);
    said.map_or_else(|| Failure::unreachable("it was closed without a reason"), |error| Failure::answered(&error))
}

fn read_out(end: &ReadEnd) -> Failure {
    match end {
        // Something else than a node of this kind speaks there.
        ReadEnd::Frame(error) if !matches!(error, crate::protocol::frame::FrameError::CutShort { .. }) => {
            Failure::refusal(format!("what it sends is not the protocol between nodes: {error}"))
        }
        end => Failure::unreachable(end.describe()),
    }
}

fn written_out(end: &WriteEnd) -> Failure {
    Failure::unreachable(end.to_string())
}
