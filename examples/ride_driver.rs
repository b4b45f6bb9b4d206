//! A driver sends positions, a rider follows them: the smallest complete program on the client library.
//!
//! With a node running (`cargo run --release -- node`), in two terminals:
//!
//! ```text
//! cargo run --example ride_driver -- drive alice
//! cargo run --example ride_driver -- ride alice
//! ```

use std::error::Error;
use std::time::Duration;

use callboard::client::{Client, ClientConfig, ClientError, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::protocol::ErrorCode;

const TOPIC: &str = "rides";
const USAGE: &str = "usage: ride_driver drive|ride NAME [HOST:PORT]";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (role, name) = match arguments.as_slice() {
        [role, name, ..] => (role.as_str(), name.as_str()),
        _ => return Err(USAGE.into()),
    };
    let address = arguments.get(2).map_or("127.0.0.1:9644", String::as_str);
    let client = Client::connect(ClientConfig::new(address).client_id("ride_driver")).await?;
    match role {
        "drive" => drive(&client, name).await?,
        "ride" => ride(&client, name).await?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// Sends where `name` is, every 200 ms until Ctrl-C. The key keeps one driver's positions in one partition, in order.
async fn drive(client: &Client, name: &str) -> Result<(), ClientError> {
    create_topic(client).await?;
    let producer = client.producer(ProducerConfig::default()).await?;
    let mut interval = tokio::time::interval(Duration::from_millis(200));
    let (mut latitude, mut longitude) = (52.52, 13.405);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        latitude += (fastrand::f64() - 0.5) / 1_000.0;
        longitude += (fastrand::f64() - 0.5) / 1_000.0;
        let position = format!("{latitude:.5},{longitude:.5}");
        let delivery = producer.send(OutgoingRecord::to(TOPIC).key(name.to_owned()).value(position.clone())).await?;
        // Waiting for each is simple and safe. Who sends thousands a second collects the deliveries instead.
        let sent = delivery.await?;
        println!("{name} is at {position} (partition {}, offset {:?})", sent.partition, sent.offset);
    }
    producer.close().await
}

/// Follows `name` from now on, until Ctrl-C.
async fn ride(client: &Client, name: &str) -> Result<(), ClientError> {
    create_topic(client).await?;
    let mut consumer = client.consumer(ConsumerConfig::default()).await?;
    consumer.assign(TOPIC, None, StartAt::Latest).await?;
    println!("waiting for {name}");
    loop {
        let record = tokio::select! {
            record = consumer.recv() => record?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        if record.key.as_deref() == Some(name.as_bytes()) {
            let position = record.value.unwrap_or_default();
            println!("{name} is at {}", String::from_utf8_lossy(&position));
        }
    }
}

/// Creates the topic unless it is there already.
async fn create_topic(client: &Client) -> Result<(), ClientError> {
    match client.admin().create_topic(TOPIC, 3).await {
        Err(ClientError::Refused { error, .. }) if error.code == ErrorCode::TopicExists => Ok(()),
        other => other.map(drop),
    }
}
