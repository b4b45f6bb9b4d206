//! Connections that ask nothing.

use std::time::{Duration, Instant};

use crate::node::{Node, megabytes};
use crate::wire::Wire;
use crate::{Result, Setup, row};

/// As many as `limits.max_connections_per_address` lets one address have.
const CONNECTIONS: usize = 10_000;
/// Opened at a time.
const AT_A_TIME: usize = 64;

pub async fn idle(setup: &Setup) -> Result<()> {
    Node::remove_data(setup, "idle");
    let node = Node::start(setup, "idle", &[]).await?;
    let before = node.memory_bytes()?;
    let began = Instant::now();
    let wires = open(&node.address, CONNECTIONS).await?;
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let with = node.memory_bytes()?;
    row(
        &format!("{} idle connections: accepted and greeted", wires.len()),
        &format!("{:.0} a second", wires.len() as f64 / seconds),
    );
    row(&format!("{} idle connections: memory", wires.len()), &megabytes(with));
    row("memory of one idle connection", &format!("{} B", (with.0 - before.0) / wires.len() as u64));
    drop(wires);
    tokio::time::sleep(Duration::from_secs(1)).await;
    row("memory after they have gone", &megabytes(node.memory_bytes()?));
    node.stop()?;
    Node::remove_data(setup, "idle");
    Ok(())
}

async fn open(address: &str, count: usize) -> Result<Vec<Wire>> {
    let mut wires = Vec::with_capacity(count);
    for _ in 0..count.div_ceil(AT_A_TIME) {
        let opening = (0..AT_A_TIME.min(count - wires.len())).map(|_| Wire::open(address));
        for wire in futures_util::future::join_all(opening).await {
            wires.push(wire?);
        }
    }
    Ok(wires)
}
