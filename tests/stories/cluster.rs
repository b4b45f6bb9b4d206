//! Clusters of nodes in this process: they form, replicate, survive each other's end, and come back. Real sockets and files.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use callboard::actors::node::NodeError;
use callboard::client::{Client, ClientConfig, ConsumerConfig, StartAt};
use callboard::config::{ControllerAddress, Role};
use callboard::protocol::messages::{NewTopic, PartitionElection, PartitionMetadata, PartitionMove};
use callboard::testing::Node;
use callboard::types::NodeId;

use crate::support::*;

/// What a node of a cluster is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Controller,
    Broker,
    Both,
}

impl Kind {
    fn roles(self) -> Vec<Role> {
        match self {
            Self::Controller => vec![Role::Controller],
            Self::Broker => vec![Role::Broker],
            Self::Both => vec![Role::Controller, Role::Broker],
        }
    }
}

struct Member {
    kind: Kind,
    directory: Directory,
    peer_port: u16,
    native_port: u16,
    node: Option<Node>,
}

/// Nodes 1, 2, … of one cluster.
struct Cluster {
    members: Vec<Member>,
}

/// Ports that are free, below those that the system hands out by itself: a node that starts again must find its own free.
pub fn free_ports(count: usize) -> Vec<u16> {
    let random = || u16::try_from(10_000 + uuid::Uuid::new_v4().as_u128() % 22_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: std::collections::BTreeSet<u16> =
        std::iter::repeat_with(random).filter(is_free).take(2 * count).collect();
    ports.into_iter().take(count).collect()
}

impl Cluster {
    fn new(kinds: &[Kind]) -> Self {
        let ports = free_ports(2 * kinds.len());
        let member = |(at, kind): (usize, &Kind)| Member {
            kind: *kind,
            directory: Directory::new(),
            peer_port: ports[2 * at],
            native_port: ports[2 * at + 1],
            node: None,
        };
        Self { members: kinds.iter().enumerate().map(member).collect() }
    }

    /// Starts these nodes, all at once, and returns when all are ready.
    fn start(&mut self, nodes: &[u32]) {
        let started: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = nodes.iter().map(|node| scope.spawn(|| self.launch(*node).unwrap())).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (node, started) in nodes.iter().zip(started) {
            self.members[*node as usize - 1].node = Some(started);
        }
    }

    fn launch(&self, node: u32) -> Result<Node, NodeError> {
        let member = &self.members[node as usize - 1];
        let controllers = (1..).zip(&self.members).filter(|(_, member)| member.kind != Kind::Broker);
        let controllers = controllers.map(|(id, member)| ControllerAddress {
            node: NodeId(id),
            host: "127.0.0.1".to_owned(),
            port: member.peer_port,
        });
        let controllers = controllers.collect();
        Node::start_in(&member.directory, |config| {
            config.node.id = NodeId(node);
            config.node.roles = member.kind.roles();
            config.listener.native.bind = format!("127.0.0.1:{}", member.native_port);
            config.listener.peer.bind = Some(format!("127.0.0.1:{}", member.peer_port));
            config.cluster.controllers = Some(controllers);
        })
    }

    fn stop(&mut self, node: u32) {
        let node = self.members[node as usize - 1].node.take().expect("it runs");
        stop_soon(node).unwrap();
    }

    fn addresses(&self) -> String {
        let running = self.members.iter().filter(|member| member.node.is_some() && member.kind != Kind::Controller);
        running.map(|member| format!("127.0.0.1:{}", member.native_port)).collect::<Vec<_>>().join(",")
    }

    async fn connect(&self) -> Client {
        Client::connect(ClientConfig::new(self.addresses())).await.expect("a node answers")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Controllers last: those who lead hand over with their help.
            let nodes = self.members.iter_mut().rev().filter_map(|member| member.node.take());
            // Whether it is clean is for those who stop a node themselves.
            nodes.for_each(|node| drop(stop_soon(node)));
        }
    }
}

/// Stops a node, which takes no longer than [`PATIENCE`].
fn stop_soon(node: Node) -> Result<(), NodeError> {
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || done.send(node.stop()));
    stopped.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("not within {PATIENCE:?}: the node stops"))
}

pub fn replicated(name: &str, partitions: u32, factor: u32) -> NewTopic {
    NewTopic { replication_factor: Some(factor), ..new_topic(name, partitions, &[("min_insync_replicas", "2")]) }
}

pub async fn partitions(client: &Client, topic: &str) -> Vec<PartitionMetadata> {
    let reply = client.admin().metadata(Some(&[topic.to_owned()])).await.expect("a node answers");
    reply.topics[0].topic.clone().into_result().expect("the topic is there").partitions
}

/// Waits until all partitions have a leader and so many replicas in sync.
pub async fn until_in_sync(client: &Client, topic: &str, replicas: usize) {
    wait_until_async(&format!("{replicas} replicas of {topic} are in sync"), || async {
        let partitions = partitions(client, topic).await;
        partitions.iter().all(|partition| partition.leader.is_some() && partition.in_sync.len() == replicas)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_and_each_may_stop_and_come_back() {
    let mut cluster = Cluster::new(&[Kind::Both; 3]);
    cluster.start(&[1, 2, 3]);
    let client = cluster.connect().await;
    let created = client.admin().create_topics(&[replicated("rides", 1, 3)], false).await.unwrap().remove(0);
    assert_eq!(created.expect("created").replication_factor, 3);
    send_each(&client, "rides", values(0..20)).await;
    until_in_sync(&client, "rides", 3).await;
    let mut sent = 20;
    for node in 1..=3 {
        cluster.stop(node);
        let client = cluster.connect().await;
        send_each(&client, "rides", values(sent..sent + 20)).await;
        sent += 20;
        assert_eq!(read_all(&client, "rides").await, numbered(0..sent), "node {node} is away");
        cluster.start(&[node]);
        until_in_sync(&client, "rides", 3).await;
    }
    let client = cluster.connect().await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..sent));
    // All at once, and back: no file has to be deleted for that.
    for node in 1..=3 {
        cluster.stop(node);
    }
    cluster.start(&[1, 2, 3]);
    let client = cluster.connect().await;
    until_in_sync(&client, "rides", 3).await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..sent));
    send_each(&client, "rides", values(sent..sent + 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_apart_from_controllers_lead_and_follow_and_one_more_may_come_later() {
    let mut cluster =
        Cluster::new(&[Kind::Controller, Kind::Controller, Kind::Controller, Kind::Broker, Kind::Broker, Kind::Broker]);
    cluster.start(&[1, 2, 3, 4, 5]);
    let client = cluster.connect().await;
    let refused = client.admin().create_topics(&[replicated("rides", 2, 3)], false).await.unwrap().remove(0);
    let refused = refused.expect_err("there are two brokers");
    assert!(refused.to_string().contains('3') && refused.to_string().contains('2'), "{refused}");
    client.admin().create_topics(&[replicated("rides", 4, 2)], false).await.unwrap().remove(0).expect("created");
    let leaders: std::collections::BTreeSet<_> =
        partitions(&client, "rides").await.iter().filter_map(|partition| partition.leader).collect();
    assert_eq!(leaders, [NodeId(4), NodeId(5)].into(), "leaders are spread");
    send_each(&client, "rides", values(0..10)).await;
    cluster.start(&[6]);
    client.admin().create_topics(&[replicated("fares", 1, 3)], false).await.unwrap().remove(0).expect("created");
    send_each(&client, "fares", values(0..10)).await;
    // One of three controllers may go and come: nobody who produces or reads notices.
    for (controller, sent) in [(1, 10), (2, 15)] {
        cluster.stop(controller);
        send_each(&client, "fares", values(sent..sent + 5)).await;
        cluster.start(&[controller]);
    }
    let mut reader = consumer(&client, "fares", ConsumerConfig::default(), StartAt::Earliest).await;
    assert_eq!(take(&mut reader, 20).await, numbered(0..20));
    delete(&client, "rides").await;
    wait_until("no broker has files of the deleted topic", || {
        cluster.members[3..].iter().all(|member| {
            let mut entries = std::fs::read_dir(&*member.directory).unwrap();
            !entries.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("rides"))
        })
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leadership_moves_when_an_administrator_wants_it_and_no_client_sees_an_error() {
    let mut cluster = Cluster::new(&[Kind::Both; 3]);
    cluster.start(&[1, 2, 3]);
    let client = cluster.connect().await;
    client.admin().create_topics(&[replicated("rides", 2, 3)], false).await.unwrap().remove(0).expect("created");
    until_in_sync(&client, "rides", 3).await;
    let (admin, mut sent) = (client.admin(), 0);
    for round in 0..4 {
        let before = partitions(&client, "rides").await;
        // The same replicas in another order: another one is preferred.
        let moves = before.iter().map(|state| {
            let mut replicas = state.replicas.clone();
            replicas.rotate_left(1);
            PartitionMove { topic: "rides".to_owned(), partition: state.partition, replicas: Some(replicas) }
        });
        let moves: Vec<_> = moves.collect();
        let moved = admin.reassign_partitions(&moves).await.unwrap();
        assert!(moved.iter().all(Result::is_ok), "{moved:?}");
        let wanted: Vec<_> = moves
            .iter()
            .map(|moved| PartitionElection { topic: moved.topic.clone(), partition: moved.partition })
            .collect();
        let preferred: Vec<_> = moves.iter().map(|moved| Ok(moved.replicas.as_ref().unwrap()[0])).collect();
        let (elected, ()) =
            tokio::join!(admin.elect_leaders(&wanted), send_each(&client, "rides", values(sent..sent + 50)),);
        assert_eq!(elected.unwrap(), preferred);
        sent += 50;
        wait_until_async(&format!("the preferred replicas lead in round {round}"), || async {
            let leaders = partitions(&client, "rides").await.into_iter().map(|state| state.leader);
            leaders.eq(preferred.iter().map(|leader| leader.clone().ok()))
        })
        .await;
    }
    assert_eq!(read_all(&client, "rides").await, numbered(0..sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_decommissioned_holds_nothing_and_may_go() {
    let mut cluster = Cluster::new(&[Kind::Both, Kind::Broker, Kind::Broker, Kind::Broker]);
    cluster.start(&[1, 2, 3, 4]);
    let client = cluster.connect().await;
    client.admin().create_topics(&[replicated("rides", 4, 3)], false).await.unwrap().remove(0).expect("created");
    send_each(&client, "rides", values(0..20)).await;
    let decommission = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.args(["cluster", "decommission", "--server", &cluster.addresses()]).args(arguments);
        let output = command.output().expect("it runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, stderr) = decommission(&["9"]);
    assert!(code == Some(1) && stderr.contains("there is no broker 9"), "{stderr}");
    let before = partitions(&client, "rides").await;
    let held = before.iter().filter(|partition| partition.replicas.contains(&NodeId(4))).count();
    let (code, plan, stderr) = decommission(&["4", "--dry-run"]);
    assert_eq!((code, plan.lines().count()), (Some(0), 1 + held), "{plan}{stderr}");
    assert_eq!(partitions(&client, "rides").await, before, "it was only shown");
    let (code, told, stderr) = decommission(&["4"]);
    assert!(code == Some(0) && told.contains("broker 4 holds nothing any more"), "{told}{stderr}");
    cluster.stop(4);
    until_in_sync(&client, "rides", 3).await;
    let after = partitions(&client, "rides").await;
    assert!(after.iter().all(|partition| !partition.replicas.contains(&NodeId(4))), "{after:?}");
    send_each(&client, "rides", values(20..30)).await;
    assert_eq!(read_all(&client, "rides").await, numbered(0..30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_keeps_to_its_throttle_tells_how_far_it_is_and_leaves_the_setting_as_it_was() {
    let mut cluster = Cluster::new(&[Kind::Both, Kind::Broker, Kind::Broker]);
    cluster.start(&[1, 2, 3]);
    let client = cluster.connect().await;
    let rides = NewTopic { replication_factor: Some(1), ..new_topic("rides", 1, &[]) };
    client.admin().create_topics(&[rides], false).await.unwrap().remove(0).expect("created");
    // About 3 MB, in 48 batches.
    let value = |n: u64| format!("{n:064000}");
    send_each(&client, "rides", (0..48).map(value)).await;
    let holder = partitions(&client, "rides").await[0].leader.expect("one leads");
    let to = (1..=3).map(NodeId).find(|node| *node != holder).expect("another one").to_string();
    let server = cluster.addresses();
    let callboard = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.args(arguments).args(["--server", &server]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it runs")
    };
    let limit = || async {
        let topic = client.admin().describe_topics(Some(&["rides".to_owned()])).await.unwrap().remove(0).unwrap();
        let entry = topic.config.into_iter().find(|entry| entry.key == "catch_up_bytes_per_second").expect("a setting");
        (entry.value, entry.overridden)
    };
    let began = Instant::now();
    let moving = ["topic", "reassign", "rides", "--replicas", &to, "--wait", "--throttle", "1048576"];
    let moving = callboard(&moving);
    wait_until("the cluster shows how far the new replica is behind", || {
        let described = callboard(&["cluster", "describe", "--json"]).wait_with_output().expect("it ends");
        let described: serde_json::Value = serde_json::from_slice(&described.stdout).expect("JSON");
        let behind = &described["trouble"]["partitions"][0]["missing"][0]["behind"];
        behind.as_u64().is_some_and(|records| (1..=48).contains(&records))
    });
    assert_eq!(limit().await, ("1048576".to_owned(), true));
    let ended = moving.wait_with_output().expect("it ends");
    let (told, progress) = (text(&ended.stdout), text(&ended.stderr));
    assert!(
        ended.status.success() && told.contains(&format!("moved: 1 partition of topic rides now on {to}")),
        "{told}"
    );
    assert!(progress.contains("0 of 1 partition moved; new replicas lack"), "{progress}");
    assert!(began.elapsed() >= Duration::from_secs(2), "3 MB at 1 MiB a second, in {:?}", began.elapsed());
    let after = partitions(&client, "rides").await;
    assert_eq!(after[0].replicas.iter().map(ToString::to_string).collect::<Vec<_>>(), [to]);
    assert_eq!(limit().await, ("-1".to_owned(), false));
    assert_eq!(read_all(&client, "rides").await, (0..48).map(|n| (n, value(n))).collect::<Vec<_>>());

    // Whoever does not wait is told how to end it.
    let back = ["topic", "reassign", "rides", "--replicas", &holder.to_string(), "--throttle", "65536"];
    let begun = callboard(&back).wait_with_output().expect("it ends");
    let hint = text(&begun.stderr);
    assert!(hint.contains("callboard topic alter rides --reset catch_up_bytes_per_second"), "{hint}");
    assert_eq!(limit().await, ("65536".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_lost_its_majority_while_it_decides_stops_all_the_same() {
    let mut cluster = Cluster::new(&[Kind::Both; 2]);
    cluster.start(&[1, 2]);
    let client = cluster.connect().await;
    let NodeId(decides) = client.admin().describe_cluster().await.unwrap().controller.expect("one decides");
    cluster.stop(3 - decides);
    let impatient = ClientConfig::new(cluster.addresses()).request_timeout(Duration::from_millis(500));
    let client = Client::connect(impatient).await.expect("it still serves");
    client.admin().create_topics(&[new_topic("never", 1, &[])], false).await.expect_err("nobody agrees to it");
    cluster.stop(decides);
}
