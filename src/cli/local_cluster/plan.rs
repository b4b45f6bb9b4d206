//! Which nodes a cluster has, and the configuration file of each.

use std::io;
use std::path::{Path, PathBuf};

use super::ports::{NodePorts, Ports};
use crate::types::NodeId;

/// The number before the first broker's, where controllers and brokers are apart: controllers have one digit.
const BEFORE_BROKERS: u16 = 10;

/// How many nodes there are, and what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Controllers 1, 2, … and brokers 11, 12, …
    Apart {
        /// How many controllers, at most [`Shape::MOST_CONTROLLERS`].
        controllers: u16,
        /// How many brokers, at most [`Shape::MOST_BROKERS`].
        brokers: u16,
    },
    /// Nodes 1, 2, … that are controller and broker each, at most [`Shape::MOST_CONTROLLERS`]. A single one needs no other node.
    Combined(u16),
}

impl Shape {
    /// More voters make every decision slower, and no cluster safer.
    pub const MOST_CONTROLLERS: u16 = 9;
    /// So many fit between the ports; a machine is full long before.
    pub const MOST_BROKERS: u16 = 50;

    fn check(self) -> io::Result<()> {
        let (controllers, brokers) = match self {
            Self::Apart { controllers, brokers } => (controllers, brokers),
            Self::Combined(nodes) => (nodes, nodes),
        };
        if (1..=Self::MOST_CONTROLLERS).contains(&controllers) && (1..=Self::MOST_BROKERS).contains(&brokers) {
            return Ok(());
        }
        let (most_controllers, most_brokers) = (Self::MOST_CONTROLLERS, Self::MOST_BROKERS);
        let reason = format!("give 1 to {most_controllers} controllers and 1 to {most_brokers} brokers");
        Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
    }

    /// The nodes in the order of their start: number, name, roles.
    fn nodes(self) -> Vec<(u16, String, &'static [&'static str])> {
        match self {
            Self::Combined(nodes) => {
                (1..=nodes).map(|id| (id, format!("node-{id}"), ["controller", "broker"].as_slice())).collect()
            }
            Self::Apart { controllers, brokers } => {
                let controllers =
                    (1..=controllers).map(|id| (id, format!("controller-{id}"), ["controller"].as_slice()));
                let brokers = (1..=brokers)
                    .map(|number| (BEFORE_BROKERS + number, format!("broker-{number}"), ["broker"].as_slice()));
                controllers.chain(brokers).collect()
            }
        }
    }
}

/// What others connect to in the place of a node's own ports: a proxy of a test, which passes on what they say, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detour {
    /// In the place of [`NodePorts::native`].
    pub native: Option<u16>,
    /// In the place of [`NodePorts::peer`].
    pub peer: Option<u16>,
}

/// One node of a cluster: who it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its number.
    pub id: NodeId,
    /// What people call it: `controller-1`, `broker-1`, or `node-1` for one that is both.
    pub name: String,
    /// Its roles, as in `node.roles`.
    pub roles: &'static [&'static str],
    /// Brokers take turns in racks a and b.
    pub rack: &'static str,
    /// Where it listens.
    pub ports: NodePorts,
    /// Where others are told to connect, if that is not where it listens.
    pub detour: Detour,
    /// Its data.
    pub data_dir: PathBuf,
}

impl NodePlan {
    /// Whether clients can connect to it.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.roles.contains(&"broker")
    }

    /// Whether it has a vote on the metadata.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        self.roles.contains(&"controller")
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        self.ports.native.map(|own| at(self.detour.native.unwrap_or(own)))
    }

    /// Where other nodes connect.
    #[must_use]
    pub fn peer_address(&self) -> String {
        at(self.detour.peer.unwrap_or(self.ports.peer))
    }
}

/// All nodes of a cluster in `directory`.
///
/// # Errors
/// Too many or too few nodes, or no free ports.
pub fn plan(shape: Shape, ports: Ports, directory: &Path) -> io::Result<Vec<NodePlan>> {
    shape.check()?;
    let mut broker_count = 0;
    let nodes = shape.nodes().into_iter().map(|(id, name, roles)| {
        let index = roles.contains(&"broker").then_some(broker_count);
        broker_count += u16::from(index.is_some());
        let rack = if index.unwrap_or(id - 1) % 2 == 0 { "a" } else { "b" };
        let data_dir = directory.join(&name);
        let (ports, detour) = (ports.of(id, index)?, Detour::default());
        Ok(NodePlan { id: NodeId(id.into()), name, roles, rack, ports, detour, data_dir })
    });
    nodes.collect()
}

/// The configuration file of `node` in a cluster of `nodes`.
#[must_use]
pub fn configuration(node: &NodePlan, nodes: &[NodePlan]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let list = |texts: &mut dyn Iterator<Item = String>| texts.map(|text| quoted(&text)).collect::<Vec<_>>().join(", ");
    let roles = list(&mut node.roles.iter().map(ToString::to_string));
    let data_dir = quoted(&node.data_dir.to_string_lossy());
    let mut text = format!(
        "# {}: written anew at each start of the cluster.\n\n[node]\nid = {}\nroles = [{roles}]\ndata_dir = {data_dir}\nrack = \"{}\"\n",
        node.name, node.id, node.rack
    );
    let advertised =
        |detour: Option<u16>| detour.map_or_else(String::new, |port| format!("advertise = \"{}\"\n", at(port)));
    if let Some(native) = node.ports.native {
        let advertised = advertised(node.detour.native);
        text.push_str(&format!("\n[listener.native]\nbind = \"{}\"\n{advertised}", at(native)));
    }
    text.push_str(&format!("\n[listener.http]\nbind = \"{}\"\n", at(node.ports.http)));
    // A node that is the whole cluster has nobody to find.
    if nodes.len() > 1 {
        let voters = nodes.iter().filter(|node| node.is_controller());
        let controllers = list(&mut voters.map(|node| format!("{}@{}", node.id, node.peer_address())));
        let advertised = advertised(node.detour.peer);
        text.push_str(&format!("\n[listener.peer]\nbind = \"{}\"\n{advertised}", at(node.ports.peer)));
        text.push_str(&format!("\n[cluster]\ncontrollers = [{controllers}]\n"));
    }
    text
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(shape: Shape) -> Vec<NodePlan> {
        plan(shape, Ports::From(9_644), Path::new("dir")).expect("a good plan")
    }

    #[test]
    fn the_ports_of_the_default_base_are_those_of_the_example_files() {
        let nodes = planned(Shape::Apart { controllers: 3, brokers: 4 });
        for node in &nodes {
            let path = format!("{}/configs/{}.toml", env!("CARGO_MANIFEST_DIR"), node.name);
            let example = std::fs::read_to_string(&path).expect("an example for each node");
            let made = configuration(node, &nodes);
            let told = |text: &str| {
                let lines = text.lines().filter(|line| {
                    ["id =", "roles =", "rack =", "bind =", "controllers ="].iter().any(|key| line.starts_with(key))
                });
                let mut lines: Vec<String> = lines.map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(told(&made), told(&example), "{path}");
        }
    }

    #[test]
    fn a_single_node_knows_of_no_cluster() {
        let nodes = planned(Shape::Combined(1));
        let text = configuration(&nodes[0], &nodes);
        assert_eq!(
            text,
            "# node-1: written anew at each start of the cluster.\n\n[node]\nid = 1\nroles = [\"controller\", \"broker\"]\n\
             data_dir = \"dir/node-1\"\nrack = \"a\"\n\n[listener.native]\nbind = \"127.0.0.1:9644\"\n\n\
             [listener.http]\nbind = \"127.0.0.1:9801\"\n"
        );
    }

    #[test]
    fn combined_nodes_are_voters_and_brokers() {
        let nodes = planned(Shape::Combined(3));
        let text = configuration(&nodes[2], &nodes);
        assert!(
            text.contains("controllers = [\"1@127.0.0.1:9701\", \"2@127.0.0.1:9702\", \"3@127.0.0.1:9703\"]"),
            "{text}"
        );
        let addresses: Vec<_> = nodes.iter().filter_map(NodePlan::address).collect();
        assert_eq!(addresses, ["127.0.0.1:9644", "127.0.0.1:9645", "127.0.0.1:9646"]);
    }

    #[test]
    fn a_node_behind_a_detour_listens_on_its_own_ports_and_names_the_others() {
        let mut nodes = planned(Shape::Combined(2));
        nodes[1].detour = Detour { native: Some(1_001), peer: Some(1_002) };
        let text = configuration(&nodes[1], &nodes);
        for line in [
            "[listener.native]\nbind = \"127.0.0.1:9645\"\nadvertise = \"127.0.0.1:1001\"\n",
            "[listener.peer]\nbind = \"127.0.0.1:9702\"\nadvertise = \"127.0.0.1:1002\"\n",
            "controllers = [\"1@127.0.0.1:9701\", \"2@127.0.0.1:1002\"]\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(nodes[1].address().as_deref(), Some("127.0.0.1:1001"));
    }

    #[test]
    fn a_cluster_has_a_size() {
        let wrong = [
            Shape::Combined(0),
            Shape::Combined(10),
            Shape::Apart { controllers: 10, brokers: 1 },
            Shape::Apart { controllers: 1, brokers: 0 },
            Shape::Apart { controllers: 1, brokers: 51 },
        ];
        for shape in wrong {
            let error = plan(shape, Ports::Free, Path::new("dir")).expect_err("no such cluster");
            assert_eq!(error.to_string(), "give 1 to 9 controllers and 1 to 50 brokers", "{shape:?}");
        }
    }

    #[test]
    fn no_port_is_given_twice() {
        let nodes = [Ports::Free, Ports::From(9_644), Ports::From(Ports::HIGHEST_BASE)].map(|ports| {
            plan(Shape::Apart { controllers: 9, brokers: 50 }, ports, Path::new("dir")).expect("a good plan")
        });
        for nodes in nodes {
            let each = nodes.iter().flat_map(|node| [node.ports.native, Some(node.ports.peer), Some(node.ports.http)]);
            let mut ports: Vec<u16> = each.flatten().collect();
            let count = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!((ports.len(), count), (9 * 2 + 50 * 3, 9 * 2 + 50 * 3));
        }
    }

    #[test]
    fn a_path_with_quotes_stays_a_path() {
        let nodes = plan(Shape::Combined(1), Ports::From(1_000), Path::new("a \"b\" \\c")).expect("a good plan");
        let text = configuration(&nodes[0], &nodes);
        assert!(text.contains(r#"data_dir = "a \"b\" \\c/node-1""#), "{text}");
    }
}
