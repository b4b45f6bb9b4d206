//! How the broker of a node registers, and what it presents.

use std::net::SocketAddr;

use actix::Addr;

use super::NodeError;
use crate::actors::controller::{Committed, Controller, RegisterBroker, UnfenceBroker};
use crate::config::NodeConfig;
use crate::engine::metadata::{BrokerRegistration, DirectoryHistory, LastStop};
use crate::storage::data_dir::DataDir;
use crate::types::{BrokerEpoch, IncarnationId};

/// Registers the broker, keeps the epoch that it is given, and has it unfenced: in this order, so that a directory that does not
/// hold the epoch of a broker that was counted on is known not to be the one that it was.
pub(super) async fn register(
    config: &NodeConfig,
    (directory, stop): (&DataDir, LastStop),
    local: SocketAddr,
    controller: &Addr<Controller>,
) -> Result<Committed<BrokerEpoch>, NodeError> {
    let stopped = |_| NodeError::Ended;
    let (host, port) = advertised(config, local);
    let meta = directory.meta();
    let held = meta.broker_epoch.unwrap_or_default();
    let node = config.node.id;
    let registration = BrokerRegistration {
        node,
        epoch: held,
        incarnation: IncarnationId::random(),
        directory: meta.directory,
        host,
        port,
        peer: None,
        rack: config.node.rack.clone(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        before: DirectoryHistory { epoch: held, stop },
        decided_at: None,
    };
    let registered = controller.send(RegisterBroker(registration)).await.map_err(stopped)?;
    let epoch = registered.map_err(NodeError::Register)?.answer;
    directory.store_broker_epoch(epoch)?;
    let unfenced = controller.send(UnfenceBroker { node, epoch }).await.map_err(stopped)?;
    let Committed { index, .. } = unfenced.map_err(NodeError::Register)?;
    Ok(Committed { index, answer: epoch })
}

/// Where clients are told to connect: `advertise` as it is, else the address that is listened on.
fn advertised(config: &NodeConfig, local: SocketAddr) -> (String, u16) {
    let native = &config.listener.native;
    let given = native.advertise.as_deref().and_then(|given| given.rsplit_once(':'));
    if let Some((host, port)) = given
        && let Ok(port) = port.parse()
    {
        return (host.trim_matches(['[', ']']).to_owned(), port);
    }
    if local.ip().is_unspecified() {
        // Listening everywhere says nothing about how this machine is reached: the host name is the best guess.
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        tracing::warn!(advertised = %name, "clients are sent to this host name: set listener.native.advertise if they cannot resolve it");
        return (name, local.port());
    }
    (local.ip().to_string(), local.port())
}
