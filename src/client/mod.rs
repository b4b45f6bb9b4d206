//! The native client: send records, read them, administer topics. Runs on any tokio runtime.
//!
//! ```text
//!   Producer ─ accumulator ─ sender ─┐
//!   Consumer ─ buffer ─── fetcher ───┼─► Client: metadata cache ─► one Connection a broker (two: reads apart)
//!   Admin ───────────────────────────┘                                 writer task ─ socket ─ reader task
//! ```
//!
//! A [`Client`] is the shared part: connections, and who leads what. It hands out producers, consumers and an [`Admin`],
//! is cheap to clone, and closes its connections when the last of them all is dropped.
//!
//! Send records, and learn where each went:
//!
//! ```
//! # use callboard::client::{Client, ClientConfig, OutgoingRecord, ProducerConfig};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = callboard::testing::Node::start()?;
//! let client = Client::connect(ClientConfig::new(node.address())).await?;
//! client.admin().create_topic("rides", 3).await?;
//!
//! let producer = client.producer(ProducerConfig::default()).await?;
//! let delivery = producer.send(OutgoingRecord::to("rides").key("alice").value("52.52,13.40")).await?;
//! let metadata = delivery.await?; // the record is safe now
//! println!("partition {}, offset {:?}", metadata.partition, metadata.offset);
//! producer.close().await?;
//! # Ok(()) }
//! ```
//!
//! Read them:
//!
//! ```
//! # use callboard::client::{Client, ClientConfig, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = callboard::testing::Node::start()?;
//! let client = Client::connect(ClientConfig::new(node.address())).await?;
//! # client.admin().create_topic("rides", 3).await?;
//! # let producer = client.producer(ProducerConfig::default()).await?;
//! # producer.send(OutgoingRecord::to("rides").key("alice").value("52.52,13.40")).await?.await?;
//! let mut consumer = client.consumer(ConsumerConfig::default()).await?;
//! consumer.assign("rides", None, StartAt::Earliest).await?;
//! let record = consumer.recv().await?;
//! println!("{:?} is at {:?}", record.key, record.value);
//! # Ok(()) }
//! ```
//!
//! Many records a second are sent with a [`TopicProducer`] and read with [`Consumer::next_batch`]: both work on borrowed
//! bytes, and allocate nothing for a record.
//!
//! Reading order: [`config`], [`record`], `connection`, `known`, `first_answer`, `cluster`,
//! `metadata`, [`producer`], [`consumer`], [`admin`], [`error`].

pub mod admin;
pub mod config;
pub mod consumer;
pub mod error;
pub mod producer;
pub mod record;

mod backoff;
mod cluster;
mod connection;
mod first_answer;
mod known;
mod leaders;
mod metadata;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::protocol::messages::Acks;
pub use crate::types::record_batch::{Compression, Header, RecordView};
pub use admin::Admin;
pub use cluster::Client;
pub use config::{ClientConfig, ConsumerConfig, Damaged, OutOfRange, ProducerConfig, ReadFrom, StartAt};
pub use consumer::{Consumer, FetchedBatch};
pub use error::ClientError;
pub use producer::{Deliveries, Delivery, Producer, ProducerStats, TopicProducer};
pub use record::{ConsumedRecord, OutgoingRecord, RecordMetadata, RecordRef};
