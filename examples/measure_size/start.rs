//! Starts of a node without records.

use std::time::Instant;

use callboard::client::{Client, ClientConfig};
use callboard::protocol::messages::NewTopic;

use crate::node::{Node, megabytes, milliseconds};
use crate::{Result, Setup, row, spread};

const STARTS: usize = 7;
/// `limits.max_partitions_per_topic`.
const PARTITIONS_A_TOPIC: u32 = 1_000;

/// How long a new start takes, and one on what is there.
pub async fn bare(setup: &Setup) -> Result<()> {
    let mut first = Vec::new();
    for _ in 0..STARTS {
        Node::remove_data(setup, "bare");
        let node = Node::start(setup, "bare", &[]).await?;
        first.push((milliseconds(node.answered), milliseconds(node.ready)));
        node.stop()?;
    }
    let (answered, ready) = first.into_iter().unzip();
    row("first start: exec to Hello answered", &spread(answered));
    row("first start: exec to ready line", &spread(ready));
    again(setup, "bare", "restart, no topics").await?;
    Node::remove_data(setup, "bare");
    Ok(())
}

/// Starts several times on the directory `name`, which was stopped in order.
pub async fn again(setup: &Setup, name: &str, what: &str) -> Result<()> {
    let (mut answered, mut ready, mut memory) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..STARTS {
        let node = Node::start(setup, name, &[]).await?;
        answered.push(milliseconds(node.answered));
        ready.push(milliseconds(node.ready));
        memory = node.memory_bytes()?;
        node.stop()?;
    }
    row(&format!("{what}: exec to Hello answered"), &spread(answered));
    row(&format!("{what}: exec to ready line"), &spread(ready));
    row(&format!("{what}: memory when ready"), &megabytes(memory));
    Ok(())
}

/// Creates so many partitions and starts on them, after a stop and after a kill.
pub async fn with_partitions(setup: &Setup, partitions: u32) -> Result<()> {
    Node::remove_data(setup, "partitions");
    let mut node = Node::start(setup, "partitions", &[]).await?;
    let began = Instant::now();
    let client = Client::connect(ClientConfig::new(&node.address)).await?;
    for (number, first) in (0..partitions).step_by(PARTITIONS_A_TOPIC as usize).enumerate() {
        let count = PARTITIONS_A_TOPIC.min(partitions - first);
        client.admin().create_topic(&format!("topic-{number}"), count).await?;
    }
    row(&format!("creating {partitions} partitions"), &format!("{:.2} s", began.elapsed().as_secs_f64()));
    row(&format!("{partitions} partitions, just created: memory"), &megabytes(node.memory_bytes()?));
    node.kill()?;
    let node = Node::start(setup, "partitions", &[]).await?;
    row(
        &format!("{partitions} partitions, after kill -9: exec to ready line"),
        &spread(vec![milliseconds(node.ready)]),
    );
    let stopped = node.stop()?;
    row(&format!("{partitions} partitions: stopping"), &spread(vec![milliseconds(stopped)]));
    again(setup, "partitions", &format!("{partitions} partitions")).await?;
    Node::remove_data(setup, "partitions");
    Ok(())
}

/// Creates a topic with settings.
pub async fn create(client: &Client, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<()> {
    let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let wanted = NewTopic { name: name.to_owned(), partitions: Some(partitions), replication_factor: None, config };
    for created in client.admin().create_topics(&[wanted], false).await? {
        created?;
    }
    Ok(())
}
