//! What the broker of a node presents to the controllers.

use std::net::SocketAddr;

use crate::config::NodeConfig;
use crate::engine::metadata::{BrokerRegistration, DirectoryHistory, LastStop};
use crate::storage::data_dir::DataDir;
use crate::types::IncarnationId;

/// This process of the broker, as its data directory was found: `stop` is how the last one ended. The epoch is that which the
/// directory holds; the controllers give it a higher one.
pub(super) fn registration(
    config: &NodeConfig,
    (directory, stop): (&DataDir, LastStop),
    local: SocketAddr,
) -> BrokerRegistration {
    let (host, port) = advertised(config, local);
    let meta = directory.meta();
    let held = meta.broker_epoch.unwrap_or_default();
    BrokerRegistration {
        node: config.node.id,
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
    }
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
