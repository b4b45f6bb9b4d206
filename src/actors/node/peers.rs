//! What a node has for other nodes: the links to them, the listener for them, and doors to what they ask for.
//!
//! ```text
//!   others ─► PeerServer ─► PeerSession ─► RaftDoor ─► Raft
//!                                 ├──────► Seat (FormController)        until the cluster is formed
//!                                 ├──────► Door ─► Controller
//!                                 └──────► ReplicaServer, one for each connection
//!   PeerLinks ─► others
//! ```
//!
//! All of it is there before the data directory is open: controllers of a new cluster find each other with it.

use std::sync::Arc;

use actix::{Actor, Addr, ArbiterHandle};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::serving::Shared;
use super::{NodeError, local_address};
use crate::actors::broker::BrokerView;
use crate::actors::controller::{Invitation, Seat};
use crate::actors::peer::{LinkSettings, Myself, PeerLinks};
use crate::actors::peer_session::{Door, PeerServer, PeerServices, PeerSessionSettings, RaftDoor};
use crate::actors::replica_server::{ReplicaServer, ReplicaServerSettings};
use crate::actors::threads::Threads;
use crate::config::NodeConfig;
use crate::config::keys::host_and_port;
use crate::engine::metadata::PeerEndpoint;
use crate::net::{ConnectionGate, Listener, NetLimits};
use crate::protocol::messages::peer::PeerConnection;

/// Listens for other nodes, if this one has any.
pub(super) async fn bind(config: &NodeConfig) -> Result<Option<Listener>, NodeError> {
    let Some(address) = &config.listener.peer.bind else { return Ok(None) };
    let gate = ConnectionGate::from_limits(&NetLimits::between_nodes());
    Ok(Some(Listener::bind(address, gate).await?))
}

/// See the module page.
pub(super) struct PeerSide {
    pub(super) myself: Myself,
    pub(super) links: Arc<PeerLinks>,
    /// Where others reach this node.
    pub(super) endpoint: PeerEndpoint,
    pub(super) raft: Addr<RaftDoor>,
    pub(super) controller: Addr<Door>,
    /// The thread of the links for data.
    pub(super) data: ArbiterHandle,
    pub(super) seat: Addr<Seat>,
    stop: CancellationToken,
}

impl PeerSide {
    /// Serves others from here on. Invitations to form a cluster come out of the receiver.
    pub(super) fn start(
        listener: Listener,
        myself: Myself,
        shared: &Shared,
        threads: &Threads,
        view: watch::Receiver<Arc<BrokerView>>,
    ) -> Result<(Self, mpsc::Receiver<Invitation>), NodeError> {
        let Shared { config, clock, buffers, .. } = shared;
        let endpoint = endpoint(config, &listener)?;
        let control = threads.control();
        let settings = LinkSettings::new(myself.clone(), buffers.clone());
        let data = threads.next_session();
        let links = Arc::new(PeerLinks::new(settings, control.clone(), data.clone()));
        let raft = RaftDoor::start_in_arbiter(&control, |_| RaftDoor::shut());
        let controller = Door::start_in_arbiter(&control, |_| Door::shut("controller"));
        let (seat, invited) = Seat::free(config.cluster.controllers.as_deref().unwrap_or_default());
        let seat = Seat::start_in_arbiter(&control, |_| seat);
        let decides = config.node.roles.contains(&crate::config::Role::Controller);
        let serves = config.node.roles.contains(&crate::config::Role::Broker);
        let services = PeerServices {
            raft: decides.then(|| raft.clone().recipient()),
            forming: decides.then(|| seat.clone().recipient()),
            controller: decides.then(|| controller.clone().recipient()),
            replicas: serves.then(|| ReplicaServer::start(ReplicaServerSettings { view, clock: Arc::clone(clock) })),
            gone: decides.then(|| controller.clone().recipient()),
        };
        let stop = CancellationToken::new();
        let sessions = PeerSessionSettings { myself: myself.clone(), services, max_frame_bytes: 0, stop: stop.clone() };
        let core = threads.core();
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let choose = move |kind| match kind {
            PeerConnection::Control => control.clone(),
            PeerConnection::Data => {
                let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                core[turn % core.len()].clone()
            }
        };
        actix_rt::spawn(PeerServer::new(sessions, buffers.clone(), Arc::new(choose)).serve(listener));
        Ok((Self { myself, links, endpoint, raft, controller, data, seat, stop }, invited))
    }

    /// No other node is served or asked any more.
    pub(super) fn close(&self) {
        self.stop.cancel();
        self.links.close();
    }
}

/// Where others are told to connect: what the list of controllers says, `advertise`, or the address that is listened on.
pub(super) fn endpoint(config: &NodeConfig, listener: &Listener) -> Result<PeerEndpoint, NodeError> {
    let listed = config.cluster.controllers.iter().flatten().find(|one| one.node == config.node.id);
    if let Some(listed) = listed {
        return Ok(PeerEndpoint { host: listed.host.clone(), port: listed.port });
    }
    if let Some((host, port)) = config.listener.peer.advertise.as_deref().and_then(host_and_port) {
        return Ok(PeerEndpoint { host: host.to_owned(), port });
    }
    let local = local_address(listener)?;
    Ok(PeerEndpoint { host: local.ip().to_string(), port: local.port() })
}
