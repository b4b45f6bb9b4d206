//! Who may connect: binding with clear errors, accepting within limits.
//!
//! ```text
//!   bind ─► accept ─► gate: connections in all, per address ─► Connection { stream, peer_addr, permit }
//!              │         └ refused: told why under correlation id 0, closed, counted
//!              └ out of descriptors: wait, say so once in a while, go on
//! ```

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::codec::Encoder;

mod gate;
pub use gate::{ConnectionCounts, ConnectionGate, ConnectionPermit, Refused};

use super::NetLimits;
use crate::protocol::frame::{FrameCodec, OutFrame};
use crate::protocol::{ApiError, ErrorCode};

/// Connections that the kernel may complete before they are accepted.
const BACKLOG: u32 = 1_024;
/// How long to wait before trying again when the process is out of descriptors: long enough not to spin, short enough to
/// go unnoticed once some are free.
const BACK_OFF: Duration = Duration::from_millis(100);
/// One warning for this many failed accepts in a row: once in a minute at the pace of [`BACK_OFF`].
const WARN_EVERY: u64 = 600;
/// Refused connections that are kept open for a moment so that they can read why. Above this they are just closed.
const MAX_FAREWELLS: usize = 64;
/// How long such a moment is.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not `host:port`, or the name is not known.
    #[error("{address} cannot be resolved ({cause}): write host:port with a name or address of this machine")]
    NotResolvable {
        /// What was asked for.
        address: String,
        /// What the resolver says.
        cause: io::Error,
    },
    /// Another process, or another listener of this one, has it.
    #[error("{address} is in use by another process: stop it (`ss -ltnp` shows which) or choose another port")]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The process may not use it.
    #[error("this process may not listen on {address}: ports below 1024 need a privilege, choose a higher one")]
    NotPermitted {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The machine does not have the address.
    #[error("{address} is no address of this machine: use one of its own, 127.0.0.1, or 0.0.0.0 for all of them")]
    NotHere {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("listening on {address} failed: {cause}")]
    Failed {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address },
            _ => Self::Failed { address, cause },
        }
    }
}

/// Where connections come from: a TCP socket, or a test.
pub trait Accept {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection.
    ///
    /// # Errors
    /// Those of `accept(2)`.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, SocketAddr)>>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = std::task::ready!(TcpListener::poll_accept(self, context));
        Poll::Ready(accepted.and_then(|(stream, address)| {
            // Small replies wait 40 ms for an acknowledgement without this.
            stream.set_nodelay(true)?;
            Ok((stream, address))
        }))
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Connection<S> {
    /// The socket.
    pub stream: S,
    /// Who it is.
    pub peer_addr: SocketAddr,
    /// Its place. Dropping it lets another one in.
    pub permit: ConnectionPermit,
}

type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts connections within the limits.
pub struct Listener<A = TcpListener> {
    source: A,
    gate: ConnectionGate,
    farewells: FuturesUnordered<Farewell>,
    failures_in_a_row: u64,
}

impl Listener<TcpListener> {
    /// Who is let in, and how many there are.
    #[must_use]
    pub fn gate(&self) -> &ConnectionGate {
        &self.gate
    }

    /// Listens on `address`, a `host:port`. Port 0 takes a free one: see [`Listener::local_addr`]. The gate may be shared
    /// by several listeners, whose connections then count together.
    ///
    /// # Errors
    /// [`BindError`] says what to change.
    pub async fn bind(address: &str, gate: ConnectionGate) -> Result<Self, BindError> {
        let (source, bound) = bind(address).await?;
        if !bound.ip().is_loopback() {
            tracing::warn!(address = %bound, "listening beyond this machine without authentication: whoever reaches this address may read, write and delete everything");
        }
        Ok(Self::with_source(source, gate))
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.source.local_addr()
    }
}

/// Listens on `address`, a `host:port`: on the first address of that name that can be listened on. Returns which it was.
///
/// # Errors
/// [`BindError`] says what to change.
pub async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address)
        .await
        .map_err(|cause| BindError::NotResolvable { address: address.to_owned(), cause })?
        .collect();
    let mut failed = None;
    for candidate in resolved {
        match listen(candidate) {
            Ok(source) => return Ok((source, candidate)),
            Err(cause) => failed = Some(BindError::new(candidate, cause)),
        }
    }
    Err(failed.unwrap_or_else(|| BindError::NotResolvable {
        address: address.to_owned(),
        cause: io::Error::other("the name has no address"),
    }))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the process before to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl<A: Accept> Listener<A> {
    /// Accepts from `source`.
    #[must_use]
    pub fn with_source(source: A, gate: ConnectionGate) -> Self {
        Self { source, gate, farewells: FuturesUnordered::new(), failures_in_a_row: 0 }
    }

    /// The next connection that is let in. Refuses others, and lives through everything that can go wrong with one
    /// connection or with descriptors. Safe to cancel.
    pub async fn accept(&mut self) -> Connection<A::Stream> {
        loop {
            let (stream, peer_addr) = match self.poll_source().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.survive(&error).await;
                    continue;
                }
            };
            self.failures_in_a_row = 0;
            match self.gate.admit(peer_addr.ip()) {
                Ok(permit) => return Connection { stream, peer_addr, permit },
                Err(refused) => self.refuse(stream, peer_addr, refused),
            }
        }
    }

    /// Waits for the source, and meanwhile moves along the farewells to those who were refused.
    async fn poll_source(&mut self) -> io::Result<(A::Stream, SocketAddr)> {
        let Self { source, farewells, .. } = self;
        poll_fn(|context| {
            while let Poll::Ready(Some(())) = farewells.poll_next_unpin(context) {}
            source.poll_accept(context)
        })
        .await
    }

    async fn survive(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput};
        // The peer had gone before it was accepted: nothing is wrong here.
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | InvalidInput)
        {
            return;
        }
        if self.failures_in_a_row.is_multiple_of(WARN_EVERY) {
            tracing::warn!(%error, "accepting a connection failed: when descriptors ran out, raise `ulimit -n` or lower limits.max_connections; trying on");
        }
        self.failures_in_a_row += 1;
        sleep(BACK_OFF).await;
    }

    fn refuse(&mut self, stream: A::Stream, peer: SocketAddr, refused: Refused) {
        // The first of each thousand: whoever floods a node must not flood its log.
        if self.gate.refused_count() % 1_000 == 1 {
            tracing::warn!(%peer, %refused, "refused a connection");
        }
        if self.farewells.len() < MAX_FAREWELLS {
            let error = ApiError::new(ErrorCode::LimitExceeded, refused.to_string());
            self.farewells.push(Box::pin(say_farewell(stream, error)));
        }
    }
}

/// Says why and waits for the peer to close. Closing at once, with its first request unread, would reset the connection
/// and could take the reason away before it is read.
async fn say_farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, error: ApiError) {
    let mut bytes = BytesMut::new();
    let encoded = FrameCodec::new(usize::MAX).encode(OutFrame::connection_error(error), &mut bytes);
    debug_assert!(encoded.is_ok(), "a short frame fits its length field");
    let farewell = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1_024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen is simply closed.
    let _ = timeout(FAREWELL, farewell).await;
}

impl ConnectionGate {
    /// A gate with the limits of the configuration.
    #[must_use]
    pub fn from_limits(limits: &NetLimits) -> Self {
        Self::new(limits.max_connections, limits.max_connections_per_address)
    }
}

#[cfg(test)]
mod tests;
