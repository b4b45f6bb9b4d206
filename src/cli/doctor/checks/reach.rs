//! Whether a node can be reached, and whether where it sends clients leads to it.

use std::net::IpAddr;

use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::types::{ClusterId, NodeId};

/// What came of trying an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A node answered.
    Answers {
        /// Which.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
        /// The address that the name led to.
        ip: IpAddr,
    },
    /// The name has no address; what the resolver says.
    NameUnresolved(String),
    /// Nothing listens.
    Refused,
    /// The connection was not opened within this many milliseconds.
    TimedOut(u128),
    /// The operating system says why not.
    Failed(String),
    /// An HTTP server answered.
    Http,
    /// Something else answered; what the client library made of it.
    Foreign(String),
    /// The connection was opened, and nothing was said within this many milliseconds.
    Silent(u128),
    /// A node answered with a refusal.
    Rejected(String),
}

impl Reach {
    /// What was seen, in words; `None` when a node answered.
    #[must_use]
    pub fn problem(&self) -> Option<(Code, String)> {
        let (code, seen) = match self {
            Self::Answers { .. } => return None,
            Self::NameUnresolved(why) => (Code::NameUnresolved, format!("the name has no address ({why})")),
            Self::Refused => (Code::ConnectionRefused, "nothing listens there (connection refused)".to_owned()),
            Self::TimedOut(ms) => (Code::ConnectionTimeout, format!("no connection within {ms} ms")),
            Self::Failed(why) => (Code::ConnectionTimeout, format!("no connection ({why})")),
            Self::Http => (Code::HttpPort, "an HTTP server answers there".to_owned()),
            Self::Foreign(why) => (Code::OtherProtocol, format!("something answers that is no node ({why})")),
            Self::Silent(ms) => {
                (Code::NoAnswer, format!("a connection is accepted, and nothing is said within {ms} ms"))
            }
            Self::Rejected(why) => (Code::HelloRefused, format!("the node refuses: {why}")),
        };
        Some((code, seen))
    }
}

/// Why the node at `address`, which the user named, cannot be asked.
#[must_use]
pub fn reachable(address: &str, reach: &Reach) -> Option<Finding> {
    reach.problem().map(|(code, seen)| Finding::new(code, address, seen))
}

/// Where a node sends clients, and what came of following.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The address that it was reached at; `None` when it was not reached otherwise.
    pub reached_at: Option<IpAddr>,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// What came of trying it.
    pub reach: Reach,
}

/// Whether the advertised address leads to the node.
#[must_use]
pub fn advertised(facts: &Advertised) -> Option<Finding> {
    let Advertised { node, cluster, reached_at, host, port, reach } = facts;
    let about = format!("node {node}");
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    if is_loopback(host)
        && let Some(ip) = reached_at.filter(|ip| !ip.to_canonical().is_loopback())
    {
        let seen =
            format!("it was reached at {ip}, and sends clients to {address}, which is each client's own machine");
        return Some(Finding::new(Code::AdvertisedLoopback, about, seen));
    }
    match reach {
        Reach::Answers { node: there, cluster: theirs, .. } if (there, theirs) != (node, cluster) => {
            let seen = format!("it sends clients to {address}, where node {there} of cluster {theirs} answers");
            Some(Finding::new(Code::AdvertisedElsewhere, about, seen))
        }
        reach => {
            let (_, problem) = reach.problem()?;
            let seen = format!("it sends clients to {address}: {problem}");
            Some(Finding::new(Code::AdvertisedUnreachable, about, seen))
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether others than this machine can connect to a node that listens on `bound` (`ip:port`, or `host:port`).
#[must_use]
pub fn bound_wide(about: &str, bound: &str) -> Option<Finding> {
    let host = bound.rsplit_once(':').map_or(bound, |(host, _)| host).trim_matches(['[', ']']);
    (!is_loopback(host)).then(|| Finding::new(Code::BindWide, about, format!("it listens on {bound}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(host: &str, reached_at: &str, reach: Reach) -> Advertised {
        let reached_at = Some(reached_at.parse().expect("an address"));
        let cluster = ClusterId(uuid::Uuid::nil());
        Advertised { node: NodeId(1), cluster, reached_at, host: host.to_owned(), port: 9_644, reach }
    }

    fn answers(node: u32) -> Reach {
        let ip = "127.0.0.1".parse().expect("an address");
        Reach::Answers { node: NodeId(node), cluster: ClusterId(uuid::Uuid::nil()), ip }
    }

    #[test]
    fn a_loopback_address_is_fine_for_who_came_over_loopback_and_for_nobody_else() {
        for host in ["127.0.0.1", "localhost", "::1", "127.3.4.5"] {
            assert_eq!(advertised(&facts(host, "::1", answers(1))), None, "{host}");
            let finding = advertised(&facts(host, "192.0.2.7", answers(1))).expect("a finding");
            assert_eq!(finding.code, Code::AdvertisedLoopback, "{host}");
            assert!(finding.seen.contains("192.0.2.7") && finding.fix.contains("listener.native.advertise"));
        }
        assert_eq!(advertised(&facts("192.0.2.7", "192.0.2.7", answers(1))), None);
    }

    #[test]
    fn an_advertised_address_that_leads_nowhere_or_elsewhere_is_found() {
        let nowhere = advertised(&facts("broker-1", "192.0.2.7", Reach::Refused)).expect("a finding");
        assert_eq!(nowhere.code, Code::AdvertisedUnreachable);
        assert!(nowhere.seen.contains("broker-1:9644") && nowhere.fix.contains("listener.native.advertise"));
        let elsewhere = advertised(&facts("broker-1", "192.0.2.7", answers(2))).expect("a finding");
        assert_eq!(elsewhere.code, Code::AdvertisedElsewhere);
        assert!(elsewhere.seen.contains("node 2"), "{elsewhere:?}");
    }

    #[test]
    fn each_way_not_to_be_reached_has_a_code_and_a_fix_that_names_what_to_change() {
        let ways = [
            (Reach::NameUnresolved("unknown".into()), "name-unresolved", "--server"),
            (Reach::Refused, "connection-refused", "listener.native.bind"),
            (Reach::TimedOut(3_000), "connection-timeout", "firewall"),
            (Reach::Failed("no route".into()), "connection-timeout", "firewall"),
            (Reach::Http, "http-port", "listener.native.bind"),
            (Reach::Foreign("garbage".into()), "other-protocol", "listener.native.bind"),
            (Reach::Silent(3_000), "no-answer", "log"),
            (Reach::Rejected("limits.max_connections".into()), "hello-refused", "limits.max_connections"),
        ];
        for (reach, code, fix) in ways {
            let finding = reachable("a:1", &reach).expect("a finding");
            assert_eq!((finding.code.name(), finding.about.as_str()), (code, "a:1"));
            assert!(finding.fix.contains(fix), "{finding:?}");
        }
        assert_eq!(reachable("a:1", &answers(1)), None);
    }

    #[test]
    fn a_node_that_listens_beyond_its_machine_is_noticed() {
        for bound in ["127.0.0.1:9644", "[::1]:9644", "localhost:9644"] {
            assert_eq!(bound_wide("node 1", bound), None);
        }
        for bound in ["0.0.0.0:9644", "[::]:9644", "192.0.2.7:9644", "broker-1:9644"] {
            let finding = bound_wide("node 1", bound).expect("a finding");
            assert_eq!(finding.code, Code::BindWide);
            assert!(finding.fix.contains("listener.native.bind"));
        }
    }
}
