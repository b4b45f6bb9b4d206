//! Three members that speak to each other over sockets, through the links and sessions of nodes. Time is real here.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream as StdStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Context, Handler};
use bytes::{Buf, BytesMut};
use callboard::actors::peer::{
    Dial, Dialing, LinkSettings, Myself, PeerAddress, PeerLinks, RaftOverPeers, ReadHalf, WriteHalf,
};
use callboard::actors::peer_session::{
    OpenRaftDoor, PeerCall, PeerRequestBody, PeerServer, PeerServices, PeerSessionSettings, RaftDoor,
};
use callboard::actors::send::post;
use callboard::engine::metadata::ClusterImage;
use callboard::net::{ConnectionGate, Listener};
use callboard::protocol::frame::{Frame, FrameCodec, OutFrame, decode_outcome, encode_peer_request, encode_request};
use callboard::protocol::messages::Hello;
use callboard::protocol::messages::peer::{PeerConnection, PeerHello};
use callboard::protocol::{ApiError, ErrorCode};
use callboard::raft::{
    Addressee, AppliedImage, ControllerNode, Decision, Network, Raft, RaftId, RaftStorage, RaftTransport, RaftWork,
    TransportError, Vote,
};
use callboard::storage::disk::VirtualDisk;
use callboard::types::{BufferPool, ClusterId, CorrelationId, NodeId};
use openraft::ServerState;
use openraft::raft::VoteRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::codec::Encoder;
use tokio_util::sync::CancellationToken;

use crate::cluster::create_topic;
use crate::support::{cluster, directory, place, raft_config};

const DEADLINE: Duration = Duration::from_secs(60);
const MEMBERS: [RaftId; 3] = [RaftId(1), RaftId(2), RaftId(3)];

/// TCP whose connections a test can cut.
#[derive(Default)]
struct Cable {
    sockets: Arc<Mutex<Vec<StdStream>>>,
}

impl Cable {
    /// Cuts all connections there are. Returns how many.
    fn cut(&self) -> usize {
        let sockets: Vec<_> = self.sockets.lock().unwrap().drain(..).collect();
        // One that has ended by itself cannot be cut any more.
        sockets.iter().filter(|socket| socket.shutdown(Shutdown::Both).is_ok()).count()
    }
}

impl Dial for Cable {
    fn dial(&self, address: &PeerAddress) -> Dialing {
        let (address, sockets) = (address.to_string(), Arc::clone(&self.sockets));
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?.into_std()?;
            sockets.lock().unwrap().push(socket.try_clone()?);
            let (read, write) = TcpStream::from_std(socket)?.into_split();
            Ok((Box::new(read) as ReadHalf, Box::new(write) as WriteHalf))
        })
    }
}

/// Stands before a door and counts the chunks of snapshots that go in.
struct Doorman {
    door: Addr<RaftDoor>,
    chunks: Arc<AtomicUsize>,
}

impl Actor for Doorman {
    type Context = Context<Self>;
}

impl Handler<PeerCall> for Doorman {
    type Result = ();
    fn handle(&mut self, call: PeerCall, _: &mut Context<Self>) {
        if matches!(call.body, PeerRequestBody::RaftSnapshot(_)) {
            self.chunks.fetch_add(1, Ordering::Relaxed);
        }
        post(&self.door, call);
    }
}

struct Member {
    raft: Raft,
    images: watch::Receiver<AppliedImage>,
    links: Arc<PeerLinks>,
    cable: Arc<Cable>,
    chunks: Arc<AtomicUsize>,
    stop: CancellationToken,
}

fn myself(id: u64) -> Myself {
    let node = NodeId(u32::try_from(id).unwrap());
    Myself { node, directory: directory(id), cluster: cluster().into() }
}

async fn listener() -> (Listener, u16) {
    let listener = Listener::bind("127.0.0.1:0", ConnectionGate::new(100, 100)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Serves node `id` there.
fn serve(id: u64, listener: Listener, services: PeerServices) -> CancellationToken {
    let stop = CancellationToken::new();
    let sessions = PeerSessionSettings { myself: myself(id), services, max_frame_bytes: 0, stop: stop.clone() };
    let here = Arbiter::current();
    let server = PeerServer::new(sessions, BufferPool::new(0), Arc::new(move |_| here.clone()));
    actix_rt::spawn(server.serve(listener));
    stop
}

fn links(id: u64, dial: Arc<dyn Dial>) -> Arc<PeerLinks> {
    let settings = LinkSettings { dial, ..LinkSettings::new(myself(id), BufferPool::new(0)) };
    Arc::new(PeerLinks::new(settings, Arbiter::current(), Arbiter::current()))
}

/// Members at ports of this machine.
struct Cluster {
    ports: BTreeMap<RaftId, u16>,
    members: BTreeMap<RaftId, Member>,
}

impl Cluster {
    async fn start(first: &[RaftId]) -> Self {
        let mut cluster = Self { ports: BTreeMap::new(), members: BTreeMap::new() };
        for id in first {
            cluster.start_member(*id).await;
        }
        let members: BTreeMap<_, _> = first.iter().map(|id| (*id, cluster.node(*id))).collect();
        cluster.raft(first[0]).initialize(members).await.unwrap();
        cluster
    }

    fn node(&self, id: RaftId) -> ControllerNode {
        let Myself { node, directory, .. } = myself(id.0);
        ControllerNode { node, directory, host: "127.0.0.1".to_owned(), port: self.ports[&id] }
    }

    async fn start_member(&mut self, id: RaftId) {
        let (listener, port) = listener().await;
        let (cable, chunks) = (Arc::new(Cable::default()), Arc::new(AtomicUsize::new(0)));
        let door = RaftDoor::shut().start();
        let doorman = Doorman { door: door.clone(), chunks: Arc::clone(&chunks) }.start();
        let stop = serve(id.0, listener, PeerServices { raft: Some(doorman.recipient()), ..PeerServices::default() });
        let links = links(id.0, Arc::clone(&cable) as Arc<dyn Dial>);
        let disk = Arc::new(VirtualDisk::new(id.0));
        let RaftStorage { log, machine, images, .. } =
            RaftStorage::create(&place(&disk, id.0), &RaftWork::here()).unwrap();
        let network = Network::new(id, Arc::new(RaftOverPeers::new(Arc::clone(&links))));
        let raft = Raft::new(id, raft_config(100, 500..1_000, 2_000), network, log, machine).await.unwrap();
        door.send(OpenRaftDoor(raft.clone())).await.unwrap();
        self.ports.insert(id, port);
        self.members.insert(id, Member { raft, images, links, cable, chunks, stop });
    }

    async fn stop(self) {
        for member in self.members.into_values() {
            member.stop.cancel();
            member.links.close();
            member.raft.shutdown().await.unwrap();
        }
    }

    fn raft(&self, id: RaftId) -> &Raft {
        &self.members[&id].raft
    }

    fn image(&self, id: RaftId) -> Arc<ClusterImage> {
        Arc::clone(&self.members[&id].images.borrow().image)
    }

    async fn leader(&self) -> RaftId {
        let known = |id: &RaftId| self.raft(*id).metrics().borrow().current_leader;
        let leads = |id: &RaftId| self.raft(*id).metrics().borrow().state == ServerState::Leader;
        until("a leader that all know", || {
            let leader = self.members.keys().find(|id| leads(id)).copied();
            leader.filter(|leader| self.members.keys().all(|id| known(id) == Some(*leader)))
        })
        .await
    }

    /// Has `decision` decided by whoever leads, however often that changes meanwhile.
    async fn decide(&self, decision: Decision) -> u64 {
        let deciding = async {
            loop {
                let leader = self.leader().await;
                if let Ok(written) = self.raft(leader).client_write(decision.clone()).await {
                    assert_eq!(written.data.outcome, Ok(()));
                    return written.data.index;
                }
            }
        };
        timeout(DEADLINE, deciding).await.expect("decided in time")
    }

    async fn settle(&self, index: u64) {
        until("all caught up", || self.members.keys().all(|id| self.image(*id).index >= index).then_some(())).await;
    }
}

/// Waits until there is something.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, looking).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

#[actix::test]
async fn members_over_sockets_elect_decide_lose_their_connections_and_go_on() {
    let cluster = Cluster::start(&MEMBERS).await;
    let index = cluster.decide(create_topic(1)).await;
    cluster.settle(index).await;
    for (round, number) in (2..5).enumerate() {
        let cut: usize = cluster.members.values().map(|member| member.cable.cut()).sum();
        assert!(cut >= 2, "round {round}: the leader was connected to {cut} others");
        let index = cluster.decide(create_topic(number)).await;
        cluster.settle(index).await;
    }
    let image = cluster.image(MEMBERS[0]);
    assert_eq!(image.topics.len(), 4);
    assert!(MEMBERS.iter().all(|id| cluster.image(*id).topics == image.topics));
    cluster.stop().await;
}

#[actix::test]
async fn a_snapshot_reaches_a_new_member_over_sockets_in_several_chunks() {
    let mut cluster = Cluster::start(&MEMBERS[..2]).await;
    let mut index = 0;
    for number in 0..60 {
        index = cluster.decide(create_topic(number)).await;
    }
    cluster.settle(index).await;
    let leader = cluster.leader().await;
    let purged = || cluster.raft(leader).metrics().borrow().purged.filter(|purged| purged.index > 10);
    until("the leader's log is cut off at the front", purged).await;
    let new = MEMBERS[2];
    cluster.start_member(new).await;
    cluster.raft(leader).add_learner(new, cluster.node(new), true).await.unwrap();
    until("the new member has all", || (cluster.image(new).index >= index).then_some(())).await;
    assert_eq!(cluster.image(new).topics, cluster.image(leader).topics);
    let chunks = cluster.members[&new].chunks.load(Ordering::Relaxed);
    assert!(chunks > 5, "only {chunks} chunks");
    cluster.stop().await;
}

async fn ask_vote(links: Arc<PeerLinks>, node: ControllerNode) -> Result<(), TransportError> {
    let transport = RaftOverPeers::new(links);
    let request = VoteRequest { vote: Vote::new(1, RaftId(1)), last_log_id: None };
    let to = Addressee { id: RaftId(2), node };
    transport.vote(&to, request, Duration::from_secs(20)).await.map(drop)
}

#[actix::test]
async fn whoever_stands_at_a_members_address_is_told_apart() {
    let (listener, port) = listener().await;
    let stop = serve(2, listener, PeerServices::default());
    let at = |id: u64, directory_of: u64| ControllerNode {
        node: myself(id).node,
        directory: directory(directory_of),
        host: "127.0.0.1".to_owned(),
        port,
    };
    let ours = links(1, Arc::new(Cable::default()));
    for (node, expected) in [(at(2, 3), "was replaced"), (at(3, 3), "node 3 was expected")] {
        let error = ask_vote(Arc::clone(&ours), node).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = ask_vote(Arc::clone(&ours), at(2, 2)).await.unwrap_err();
    assert!(error.to_string().contains("no controller"), "{error}");
    stop.cancel();
    // Nobody listens there: the port was given back.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = ControllerNode { port: free.local_addr().unwrap().port(), ..at(2, 2) };
    drop(free);
    let error = ask_vote(Arc::clone(&ours), nobody.clone()).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }) && error.is_retryable(), "{error}");
    // A machine that accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = ControllerNode { port: silent.local_addr().unwrap().port(), ..at(3, 3) };
    let transport = RaftOverPeers::new(Arc::clone(&ours));
    let request = VoteRequest { vote: Vote::new(1, RaftId(1)), last_log_id: None };
    let to = Addressee { id: RaftId(3), node };
    let error = transport.vote(&to, request, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    ours.close();
}

async fn read_frame(socket: &mut TcpStream) -> Option<Frame> {
    let reading = async {
        let codec = FrameCodec::for_replies(1 << 20);
        let mut bytes = BytesMut::new();
        loop {
            if let Some(length) = codec.peek_length(&bytes).unwrap()
                && bytes.remaining() >= length + 4
            {
                return Some(codec.take_frame(&mut bytes, length).unwrap());
            }
            match socket.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("an answer in time")
}

/// What these bytes are answered, after which the connection ends.
async fn answer_to(port: u16, bytes: &[u8]) -> ApiError {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let answer = read_frame(&mut socket).await.expect("an answer");
    assert!(read_frame(&mut socket).await.is_none(), "then the connection ends");
    decode_outcome::<()>(&answer).unwrap_err()
}

fn encode(frame: OutFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::new(1 << 20).encode(frame, &mut bytes).unwrap();
    bytes
}

#[actix::test]
async fn strangers_at_the_listener_of_nodes_are_told_so_and_harm_nobody() {
    let cluster_of_three = Cluster::start(&MEMBERS).await;
    cluster_of_three.leader().await;
    let port = cluster_of_three.ports[&MEMBERS[0]];
    let hello = PeerHello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: Some(cluster()),
        node: NodeId(9),
        directory: directory(9),
        connection: PeerConnection::Data,
        expected_node: None,
        expected_directory: None,
        software: "x 1".to_owned(),
    };
    let client = Hello { protocol_min: 1, protocol_max: 1, client_id: "c".to_owned(), software: "x 1".to_owned() };
    let as_peer = |hello: &PeerHello| encode(encode_peer_request(hello, CorrelationId(1), Vec::new()));
    let newer = as_peer(&PeerHello { protocol_min: 2, protocol_max: 2, ..hello.clone() });
    let foreign = as_peer(&PeerHello { cluster: Some(ClusterId(uuid::Uuid::nil())), ..hello });
    let strangers = [
        (BytesMut::from(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..]), ErrorCode::FrameTooLarge, "above the limit"),
        (BytesMut::from(&[0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8][..]), ErrorCode::InvalidRequest, "malformed"),
        (encode(encode_request(&client, CorrelationId(1), Vec::new())), ErrorCode::UnknownApi, "listener.native"),
        (newer, ErrorCode::UnsupportedVersion, "upgrade the older"),
        (foreign, ErrorCode::WrongNode, "of cluster"),
    ];
    for (bytes, code, text) in strangers {
        let error = answer_to(port, &bytes).await;
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    let index = cluster_of_three.decide(create_topic(1)).await;
    cluster_of_three.settle(index).await;
    cluster_of_three.stop().await;
}
