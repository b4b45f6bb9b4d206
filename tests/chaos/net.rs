//! What nodes and clients say to each other, passed on by proxies that can be told not to.
//!
//! ```text
//!   node 11 ─► a port in the place of node 12's ─► PeerHello: it is 11 who calls ─► 11→12, 12→11 ─► node 12
//!   a client ─► another one ──────────────────────────────────────────────────────► clients→12, 12→clients
//! ```
//!
//! Each direction between two ends is a link of its own, so that one may hear the other and not be heard. While a node is down, its
//! ports are closed, too: a connection is refused, as it is by the system of a machine whose process was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard::cli::local_cluster::plan::{Detour, NodePlan};
use callboard::cli::local_cluster::ports::Ports;
use callboard::protocol::frame::{Frame, LENGTH_BYTES, MAX_REQUEST_VALUES};
use callboard::protocol::messages::peer::PeerHello;
use callboard::types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Bytes that are passed on at once. A slow link takes its time for each.
const CHUNK_BYTES: usize = 64 << 10;
/// No hello is longer.
const HELLO_BYTES: usize = 64 << 10;
/// The pause before a port that could not be had is asked for again.
const RETRY: Duration = Duration::from_millis(20);

/// Who stands at one end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// All clients.
    Clients,
    /// A node.
    Node(NodeId),
}

/// What becomes of what is said in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It arrives.
    Open,
    /// It arrives later by this, and so does all that comes after it.
    Slow(Duration),
    /// Nothing arrives until the link is open again; then all of it does.
    Silent,
    /// Connections are closed.
    Broken,
}

#[derive(Clone, Debug, Default)]
struct State {
    links: BTreeMap<(End, End), Link>,
    down: BTreeSet<NodeId>,
}

impl State {
    fn link(&self, from: End, to: End) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(Link::Open)
    }

    fn is_broken(&self, one: End, other: End) -> bool {
        self.link(one, other) == Link::Broken || self.link(other, one) == Link::Broken
    }
}

/// All links of a cluster.
#[derive(Clone, Debug)]
pub struct Net {
    state: Arc<watch::Sender<State>>,
}

impl Net {
    /// A net in which everything arrives.
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Puts proxies before the ports of a node. They end with the runtime.
    pub fn put_before(&self, node: &NodePlan) -> io::Result<Detour> {
        let places = Ports::Free.of(0, Some(0))?;
        tokio::spawn(serve(places.peer, (node.id, node.ports.peer), Side::Nodes, self.state.subscribe()));
        if let (Some(place), Some(native)) = (places.native, node.ports.native) {
            tokio::spawn(serve(place, (node.id, native), Side::Clients, self.state.subscribe()));
        }
        Ok(Detour { native: node.ports.native.and(places.native), peer: Some(places.peer) })
    }

    /// Changes what becomes of what `from` says to `to`.
    pub fn set(&self, from: End, to: End, link: Link) {
        self.state.send_modify(|state| {
            state.links.insert((from, to), link);
        });
    }

    /// All links are open again.
    pub fn open_all(&self) {
        self.state.send_modify(|state| state.links.clear());
    }

    /// Whether the ports of a node are open.
    pub fn is_down(&self, node: NodeId, is_down: bool) {
        self.state.send_modify(|state| {
            if is_down {
                state.down.insert(node);
            } else {
                state.down.remove(&node);
            }
        });
    }
}

/// Who connects to a port.
#[derive(Clone, Copy, Debug)]
enum Side {
    Nodes,
    Clients,
}

/// Passes on what comes to `port`, while the node is not down.
async fn serve(port: u16, (node, behind): (NodeId, u16), side: Side, mut state: watch::Receiver<State>) {
    while state.wait_for(|state| !state.down.contains(&node)).await.is_ok() {
        let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await else {
            sleep(RETRY).await;
            continue;
        };
        let accepting = async {
            let state = state.clone();
            loop {
                if let Ok((socket, _)) = listener.accept().await {
                    // How a connection ends is its two ends' business.
                    let state = state.clone();
                    tokio::spawn(async move { drop(pass_on(socket, (node, behind), side, state).await) });
                }
            }
        };
        let mut went_down = state.clone();
        tokio::select! {
            () = accepting => {}
            _ = went_down.wait_for(|state| state.down.contains(&node)) => {}
        }
    }
}

async fn pass_on(
    mut socket: TcpStream,
    (node, behind): (NodeId, u16),
    side: Side,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let (caller, first) = match side {
        Side::Clients => (End::Clients, Vec::new()),
        Side::Nodes => hello(&mut socket).await?,
    };
    let called = End::Node(node);
    let mut other = TcpStream::connect(("127.0.0.1", behind)).await?;
    socket.set_nodelay(true)?;
    other.set_nodelay(true)?;
    arrive(&mut state, caller, called).await;
    other.write_all(&first).await?;
    let ((from_caller, to_caller), (from_called, to_called)) = (socket.into_split(), other.into_split());
    let there = pump(from_caller, to_called, (caller, called), state.clone());
    let back = pump(from_called, to_caller, (called, caller), state.clone());
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(drop),
        _ = state.wait_for(|state| state.is_broken(caller, called)) => Ok(()),
    }
}

/// The node that calls, and what it said so far.
async fn hello(socket: &mut TcpStream) -> io::Result<(End, Vec<u8>)> {
    let not_a_hello = || io::Error::from(io::ErrorKind::InvalidData);
    let mut said = vec![0; LENGTH_BYTES];
    socket.read_exact(&mut said).await?;
    let length = said.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > HELLO_BYTES {
        return Err(not_a_hello());
    }
    said.resize(LENGTH_BYTES + length, 0);
    socket.read_exact(&mut said[LENGTH_BYTES..]).await?;
    let payload = Bytes::copy_from_slice(&said[LENGTH_BYTES..]);
    let frame = Frame::decode(&payload, MAX_REQUEST_VALUES).map_err(|_| not_a_hello())?;
    let hello: PeerHello = frame.decode_body().map_err(|_| not_a_hello())?;
    Ok((End::Node(hello.node), said))
}

/// Passes on what `from` says to `to`, as the link between them lets it.
async fn pump(
    mut source: OwnedReadHalf,
    mut sink: OwnedWriteHalf,
    (from, to): (End, End),
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source.read(&mut chunk).await?;
        arrive(&mut state, from, to).await;
        if count == 0 {
            return sink.shutdown().await;
        }
        sink.write_all(&chunk[..count]).await?;
    }
}

/// Returns when what was said may arrive.
async fn arrive(state: &mut watch::Receiver<State>, from: End, to: End) {
    let link = state.wait_for(|state| state.link(from, to) != Link::Silent).await.map(|state| state.link(from, to));
    if let Ok(Link::Slow(by)) = link {
        sleep(by).await;
    }
}

#[cfg(test)]
mod tests {
    use callboard::cli::local_cluster::plan::{Shape, plan};
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const A_MOMENT: Duration = Duration::from_millis(50);

    /// A node that says back what a client says to it, behind its proxy.
    async fn echo() -> (Net, NodeId, u16) {
        let mut node = plan(Shape::Combined(1), Ports::Free, "".as_ref()).expect("a plan").remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        node.ports.native = Some(listener.local_addr().expect("bound").port());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut source, mut sink) = socket.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut source, &mut sink).await });
            }
        });
        let net = Net::new();
        let detour = net.put_before(&node).expect("free ports");
        (net, node.id, detour.native.expect("clients connect to it"))
    }

    async fn connect(port: u16) -> TcpStream {
        let connected = async {
            loop {
                match TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(socket) => return socket,
                    Err(_) => sleep(RETRY).await,
                }
            }
        };
        timeout(SOON, connected).await.expect("the port is open")
    }

    async fn hears(socket: &mut TcpStream, patience: Duration) -> Option<usize> {
        timeout(patience, socket.read(&mut [0; 8])).await.ok().map(|heard| heard.unwrap_or(0))
    }

    #[tokio::test]
    async fn what_a_silent_link_was_given_arrives_when_it_is_open_again() {
        let (net, node, port) = echo().await;
        let mut socket = connect(port).await;
        socket.write_all(b"one").await.expect("connected");
        assert_eq!(hears(&mut socket, SOON).await, Some(3));
        // The answer does not come back.
        net.set(End::Node(node), End::Clients, Link::Silent);
        socket.write_all(b"two").await.expect("connected");
        assert_eq!(hears(&mut socket, A_MOMENT).await, None);
        net.open_all();
        assert_eq!(hears(&mut socket, SOON).await, Some(3));
        net.set(End::Clients, End::Node(node), Link::Slow(A_MOMENT));
        socket.write_all(b"six").await.expect("connected");
        assert_eq!(hears(&mut socket, A_MOMENT / 2).await, None);
        assert_eq!(hears(&mut socket, SOON).await, Some(3));
    }

    #[tokio::test]
    async fn a_broken_link_closes_connections_and_a_node_that_is_down_refuses_them() {
        let (net, node, port) = echo().await;
        let mut socket = connect(port).await;
        socket.write_all(b"one").await.expect("connected");
        assert_eq!(hears(&mut socket, SOON).await, Some(3));
        net.set(End::Clients, End::Node(node), Link::Broken);
        assert_eq!(hears(&mut socket, SOON).await, Some(0));
        net.open_all();
        net.is_down(node, true);
        let refused = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                sleep(RETRY).await;
            }
        };
        timeout(SOON, refused).await.expect("the port is closed");
        net.is_down(node, false);
        let mut socket = connect(port).await;
        socket.write_all(b"two").await.expect("connected");
        assert_eq!(hears(&mut socket, SOON).await, Some(3));
    }
}
