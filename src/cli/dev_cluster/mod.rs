//! `callboard dev-cluster`: a whole cluster on this machine, and one view of what its nodes say.
//!
//! ```text
//!   LocalCluster: controller-1 … broker-4 ─ lines ─► View ─► stdout
//!        │ ends by itself: told, the rest goes on
//!   Ctrl-C ─► brokers stop, then controllers;  Ctrl-C again ─► all are killed
//! ```

pub mod args;
pub mod view;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;
use super::local_cluster::plan::NodePlan;
use super::local_cluster::ports::Ports;
use super::local_cluster::{LocalCluster, Stopped};
use super::output::counted;
use crate::types::NodeId;
use args::DevClusterArgs;
use view::View;

/// How long a node may take to stop before it is killed: it hands over what it leads, and syncs.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The letters of the longest name: `controller-1`.
const NAME_WIDTH: usize = 12;

/// Runs a cluster until Ctrl-C.
///
/// # Errors
/// [`CliError::Failed`] when a node did not start, or one did not stop cleanly.
pub async fn run(args: &DevClusterArgs) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let view = View::new(NAME_WIDTH);
    let lines = view.clone();
    let builder = LocalCluster::builder(&args.dir)
        .apart(args.controllers, args.brokers)
        .ports(Ports::From(args.base_port))
        .set(&args.set)
        .on_line(move |name, line| lines.line(name, line));
    let mut cluster = tokio::select! {
        started = builder.start() => started?,
        () = signals.next() => return Err(CliError::Failed("stopped during the start: all nodes were killed".to_owned())),
    };
    tell_how_to_connect(&cluster, args, &view);
    watch(&mut cluster, args, &view, &mut signals).await?;
    view.say("stopping: brokers first, then controllers; Ctrl-C once more kills them");
    tokio::select! {
        stopped = stop_in_order(&mut cluster, &view) => stopped,
        () = signals.next() => {
            cluster.kill_all();
            Err(CliError::Failed("all nodes were killed: the next start recovers from their logs".to_owned()))
        }
    }
}

fn tell_how_to_connect(cluster: &LocalCluster, args: &DevClusterArgs, view: &View) {
    let controllers = counted(args.controllers.into(), "controller");
    let brokers = counted(args.brokers.into(), "broker");
    view.say(&format!("ready: {controllers} and {brokers}, data in {}", cluster.directory().display()));
    view.say(&format!("to connect: export CALLBOARD_SERVER={}", cluster.bootstrap()));
    view.say("and then, for instance: callboard cluster describe");
    for node in cluster.nodes() {
        let pid = cluster.pid(node.id).unwrap_or_default();
        view.say(&format!("{} is node {}, process {pid}", node.name, node.id));
    }
}

/// Tells of nodes that end by themselves, until a signal.
async fn watch(
    cluster: &mut LocalCluster,
    args: &DevClusterArgs,
    view: &View,
    signals: &mut Signals,
) -> Result<(), CliError> {
    loop {
        let (id, status) = tokio::select! {
            ended = cluster.next_end() => ended,
            () = signals.next() => return Ok(()),
        };
        let left = cluster.nodes().filter(|node| cluster.is_running(node.id)).count();
        if left == 0 {
            return Err(CliError::Failed("no node is left: see their logs above".to_owned()));
        }
        let left = counted(left.try_into().unwrap_or(u64::MAX), "node");
        let name = cluster.name(id);
        view.say(&format!("{name} ended by itself ({status}); {left} left"));
        let settings: String = args.set.iter().map(|setting| format!(" --set {setting}")).collect();
        let file = cluster.directory().join(format!("{name}.toml"));
        view.say(&format!("to start it again: callboard node --config {}{settings}", file.display()));
    }
}

/// Brokers before controllers, which they hand over with; the last one that was started first.
async fn stop_in_order(cluster: &mut LocalCluster, view: &View) -> Result<(), CliError> {
    let mut order: Vec<NodeId> = cluster.nodes().rev().filter(|node| node.is_broker()).map(|node| node.id).collect();
    order.extend(cluster.nodes().rev().filter(|node| !node.is_broker()).map(|node: &NodePlan| node.id));
    let mut unclean = Vec::new();
    for id in order {
        let name = cluster.name(id);
        let how = match cluster.stop(id, STOP_PATIENCE).await? {
            Stopped::WasNotRunning => "did not run any more".to_owned(),
            Stopped::Ended(status) if status.success() => "stopped cleanly".to_owned(),
            Stopped::Ended(status) => {
                unclean.push(name.clone());
                format!("stopped with {status}")
            }
            Stopped::Killed => {
                unclean.push(name.clone());
                format!("did not stop within {} s and was killed", STOP_PATIENCE.as_secs())
            }
        };
        view.say(&format!("{name} {how}"));
    }
    if unclean.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "not stopped cleanly: {}; the next start recovers from their logs",
        unclean.join(", ")
    )))
}

/// Ctrl-C and SIGTERM, as often as they come.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
