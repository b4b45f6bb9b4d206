//! A driver sends positions, a rider follows them: the smallest complete program on the client library.
//!
//! With a node running (`cargo run --release -- node`), in two terminals:
//!
//! ```text
//! cargo run --example ride_driver -- drive alice
//! cargo run --example ride_driver -- ride alice
//! ```

use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use callboard::client::{Client, ClientConfig, ClientError, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
use callboard::protocol::ErrorCode;

const TOPIC: &str = "rides";
const USAGE: &str = "usage: ride_driver drive|ride NAME [HOST:PORT]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (role, name) = match arguments.as_slice() {
        [role, name, ..] if role == "drive" || role == "ride" => (role.as_str(), name.as_str()),
        _ => return Err(USAGE.into()),
    };
    let address = arguments.get(2).map_or("127.0.0.1:9644", String::as_str);
    let client = Client::connect(ClientConfig::new(address).client_id("ride_driver")).await?;
    if role == "drive" {
        drive(&client, name).await?;
    } else {
        ride(&client, name).await?;
    }
    Ok(())
}

/// Sends where `name` is, every 200 ms until Ctrl-C. The key keeps one driver's positions in one partition, in order.
async fn drive(client: &Client, name: &str) -> Result<(), ClientError> {
    create_topic(client).await?;
    let producer = client.producer(ProducerConfig::default()).await?;
    let mut interval = tokio::time::interval(Duration::from_millis(200));
    let (mut latitude, mut longitude) = (52.52, 13.405);
    // One listener for the whole loop: a new one each time round would miss the Ctrl-C that comes while a record is sent.
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            biased;
            _ = &mut ctrl_c => break,
            _ = interval.tick() => {}
        }
        latitude += (fastrand::f64() - 0.5) / 1_000.0;
        longitude += (fastrand::f64() - 0.5) / 1_000.0;
        let position = format!("{latitude:.5},{longitude:.5}");
        let delivery = producer.send(OutgoingRecord::to(TOPIC).key(name.to_owned()).value(position.clone())).await?;
        // Waiting for each is simple and safe. Who sends thousands a second collects the deliveries instead.
        let sent = delivery.await?;
        let offset = sent.offset.map(|offset| offset.to_string()).unwrap_or_default();
        println!("{name} is at {position} (partition {}, offset {offset})", sent.partition);
    }
    producer.close().await
}

/// Follows `name` from now on, until Ctrl-C.
async fn ride(client: &Client, name: &str) -> Result<(), ClientError> {
    create_topic(client).await?;
    let mut consumer = client.consumer(ConsumerConfig::default()).await?;
    consumer.assign(TOPIC, None, StartAt::Latest).await?;
    println!("waiting for {name}");
    let mut ctrl_c = pin!(tokio::signal::ctrl_c());
    loop {
        let record = tokio::select! {
            biased;
            _ = &mut ctrl_c => return Ok(()),
            record = consumer.recv() => record?,
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
