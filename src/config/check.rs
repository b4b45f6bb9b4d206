//! What a configuration must satisfy beyond its types, and what deserves a warning.

use std::net::{IpAddr, SocketAddr};

use super::NodeConfig;

impl NodeConfig {
    /// What is allowed but deserves attention, one line each, to be logged at the start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let bind = &self.listener.native.bind;
        if !is_loopback(bind) {
            warnings.push(format!(
                "listener.native.bind = {bind:?} is reachable from other machines and nothing authenticates them: \
                 anyone who can connect can read and delete everything; bind to 127.0.0.1 or close the port with a firewall"
            ));
        }
        warnings
    }
}

/// Whether `host:port` can only be reached from this machine. A name counts only when it is `localhost`.
fn is_loopback(bind: &str) -> bool {
    if let Ok(address) = bind.parse::<SocketAddr>() {
        return address.ip().to_canonical().is_loopback();
    }
    let host = bind.rsplit_once(':').map_or(bind, |(host, _)| host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
