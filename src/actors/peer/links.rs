//! The links of a node: one for each other node and kind of connection, made when it is first needed, shared by all who need it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{ArbiterHandle, Recipient};

use super::actor::{PeerSettings, PeerTimes};
use super::connection::{Dial, TcpDial};
use super::handle::PeerHandle;
use super::identity::{Myself, PeerAddress, PeerTarget};
use super::messages::PeerEvent;
use crate::net::{NetLimits, NodeBudget};
use crate::protocol::messages::peer::PeerConnection;
use crate::types::{BufferPool, DirectoryId, NodeId};

/// What the links of a node share.
#[derive(Clone)]
pub struct LinkSettings {
    /// Who this node is.
    pub myself: Myself,
    /// How connections are opened.
    pub dial: Arc<dyn Dial>,
    /// The limits of connections.
    pub limits: NetLimits,
    /// The room for replies of all links.
    pub node_budget: NodeBudget,
    /// Memory for large replies.
    pub buffers: BufferPool,
    /// Who is told of every change of every link.
    pub events: Vec<Recipient<PeerEvent>>,
}

impl LinkSettings {
    /// Links over TCP with the limits of [`NetLimits::between_nodes`], which tell nobody of their changes.
    #[must_use]
    pub fn new(myself: Myself, buffers: BufferPool) -> Self {
        let limits = NetLimits::between_nodes();
        let node_budget = NodeBudget::new(limits.node_bytes_in_flight);
        Self { myself, dial: Arc::new(TcpDial), limits, node_budget, buffers, events: Vec::new() }
    }
}

/// Which link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// A node without a name is known by its address.
    node: Result<NodeId, PeerAddress>,
    /// A directory that took another's place under the same node is somebody else, while both may be members.
    directory: Option<DirectoryId>,
    connection: PeerConnection,
}

impl Key {
    fn of(target: &PeerTarget, connection: PeerConnection) -> Self {
        let node = target.node.ok_or_else(|| target.address.clone());
        Self { node, directory: target.directory, connection }
    }
}

#[derive(Debug)]
struct Link {
    handle: PeerHandle,
    address: PeerAddress,
}

#[derive(Debug, Default)]
struct Links {
    by_key: HashMap<Key, Link>,
    /// The node stops: whoever still asks for a link gets one that is closed.
    is_closed: bool,
}

/// The links of a node. They live until they are closed here.
pub struct PeerLinks {
    settings: LinkSettings,
    control: ArbiterHandle,
    data: ArbiterHandle,
    links: Mutex<Links>,
}

impl PeerLinks {
    /// No links so far. Those for control run on one thread, those for data on another.
    #[must_use]
    pub fn new(settings: LinkSettings, control: ArbiterHandle, data: ArbiterHandle) -> Self {
        Self { settings, control, data, links: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        // Nothing panics while it is held.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to `target`, which is made if there is none. One that leads to another address is led to this one.
    #[must_use]
    pub fn link(&self, target: &PeerTarget, connection: PeerConnection) -> PeerHandle {
        let mut links = self.lock();
        if links.is_closed {
            let Link { handle, .. } = self.start(target, connection);
            handle.close();
            return handle;
        }
        let key = Key::of(target, connection);
        let link = links.by_key.entry(key).or_insert_with(|| self.start(target, connection));
        if link.address != target.address {
            link.address = target.address.clone();
            link.handle.move_to(target.address.clone());
        }
        link.handle.clone()
    }

    fn start(&self, target: &PeerTarget, connection: PeerConnection) -> Link {
        let LinkSettings { myself, dial, limits, node_budget, buffers, events } = self.settings.clone();
        let times = PeerTimes::of(connection);
        let settings = PeerSettings { myself, connection, dial, limits, node_budget, buffers, times };
        let arbiter = match connection {
            PeerConnection::Control => &self.control,
            PeerConnection::Data => &self.data,
        };
        let handle = PeerHandle::start(arbiter, target.clone(), settings, events);
        Link { handle, address: target.address.clone() }
    }

    /// Closes the links to all but those nodes for which `needed` says so: whoever left the cluster is dialled for ever otherwise.
    pub fn retain(&self, needed: impl Fn(Option<NodeId>, Option<DirectoryId>) -> bool) {
        self.retain_keys(|key| needed(key.node.as_ref().ok().copied(), key.directory));
    }

    /// Closes the links to controllers that are known by their directories, but for these.
    pub fn retain_members(&self, directories: &BTreeSet<DirectoryId>) {
        self.retain_keys(|key| match (key.connection, &key.directory) {
            (PeerConnection::Control, Some(directory)) => directories.contains(directory),
            _ => true,
        });
    }

    fn retain_keys(&self, needed: impl Fn(&Key) -> bool) {
        self.lock().by_key.retain(|key, link| {
            let stays = needed(key);
            if !stays {
                link.handle.close();
            }
            stays
        });
    }

    /// Closes all links, for good.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.retain(|_, _| false);
    }
}

impl std::fmt::Debug for PeerLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().by_key.keys()).finish()
    }
}
