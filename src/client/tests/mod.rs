//! The client against a scripted broker: a node's answers, and everything that can go wrong with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod broker;
mod connection;
mod consumer;
mod failover;
mod in_place;
mod producer;

use std::time::Duration;

use broker::FakeBroker;

use super::{Client, ClientConfig};

/// A broker with topic `rides` of `partitions`, and a client that knows it.
async fn start(partitions: u32) -> (FakeBroker, Client) {
    let broker = FakeBroker::start().await;
    broker.create("rides", partitions);
    let client = Client::connect(config(&broker)).await.expect("connects");
    (broker, client)
}

fn config(broker: &FakeBroker) -> ClientConfig {
    ClientConfig::new(broker.address())
        .request_timeout(Duration::from_secs(5))
        .unknown_topic_wait(Duration::from_millis(50))
}

/// Waits until `holds`; panics when it never does.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), waiting).await.is_ok(), "never happened: {what}");
}

/// Fails instead of hanging.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("done within ten seconds")
}
