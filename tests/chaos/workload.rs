//! Who writes and who reads while things go wrong, and what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::cli::evaluate::clients::{DELIVERY, Journal, Running, start_consumer, start_producer};
use callboard::cli::evaluate::history::Place;
use callboard::client::{ClientError, ReadFrom};
use callboard::protocol::ErrorCode;
use callboard::protocol::messages::NewTopic;
use callboard::types::TopicId;
use tokio::time::sleep;

use crate::schedule::PLACES;
use crate::stage::{ASKED_AGAIN, Stage};

/// Replicas of every partition, of four brokers.
pub const REPLICATION_FACTOR: usize = 3;
/// How the topics of a round are flushed: two partitions each. A kill loses no page cache, so none of them may lose anything.
const FLUSHED: [&str; 3] = ["always", "interval", "os"];
/// Partitions of a topic.
const PARTITIONS: usize = PLACES / FLUSHED.len();

/// Clients of some topics, with one journal.
pub struct Workload {
    /// What they were told.
    pub journal: Arc<Journal>,
    /// The partitions that they write and read.
    pub places: Vec<Place>,
    /// The topic that they began with, where it is one that is deleted and created again.
    pub topic: Option<TopicId>,
    bootstrap: String,
    producers: Vec<Running>,
    consumers: Vec<Running>,
    producers_started: u32,
    consumers_started: u32,
}

impl Workload {
    /// Nobody yet, on these topics.
    fn on(stage: &Stage, topics: &[NewTopic]) -> Self {
        let partitions = |topic: &NewTopic| 0..topic.partitions.unwrap_or(1);
        let places = topics.iter().flat_map(|topic| partitions(topic).map(|number| Place::new(&topic.name, number)));
        Self {
            journal: Arc::default(),
            places: places.collect(),
            topic: None,
            bootstrap: stage.cluster.bootstrap(),
            producers: Vec::new(),
            consumers: Vec::new(),
            producers_started: 0,
            consumers_started: 0,
        }
    }

    /// The topics of a round, three producers, a consumer of leaders and two of any replicas.
    pub async fn of_round(stage: &Stage, number: u64) -> Result<Self, String> {
        let topics: Vec<_> = FLUSHED
            .iter()
            .map(|flush| topic(&format!("round-{number}-{flush}"), PARTITIONS, &[("flush", flush)]))
            .collect();
        create(stage, &topics).await?;
        let mut workload = Self::on(stage, &topics);
        for _ in 0..3 {
            workload.start_producer();
        }
        for read_from in [ReadFrom::Leader, ReadFrom::Any, ReadFrom::Any] {
            workload.start_consumer(read_from);
        }
        Ok(workload)
    }

    /// One topic that is to be deleted, a producer and a consumer of any replica.
    pub async fn short_lived(stage: &Stage, name: &str) -> Result<Self, String> {
        let topics = [topic(name, 1, &[])];
        create(stage, &topics).await?;
        let mut workload = Self::on(stage, &topics);
        let mut id = None;
        let described = stage.until("a new topic is described", async || {
            id = Some(stage.topic(name).await?.id);
            Ok(())
        });
        described.await?;
        workload.topic = id;
        workload.start_producer();
        workload.start_consumer(ReadFrom::Any);
        Ok(workload)
    }

    fn start_producer(&mut self) {
        self.producers_started += 1;
        let (number, name) = (self.producers_started, format!("producer-{}", self.producers_started));
        self.producers.push(start_producer(&name, number, &self.bootstrap, &self.places, &self.journal));
    }

    fn start_consumer(&mut self, read_from: ReadFrom) {
        self.consumers_started += 1;
        let of = if read_from == ReadFrom::Leader { "leaders" } else { "any replica" };
        let name = format!("consumer-{} of {of}", self.consumers_started);
        self.consumers.push(start_consumer(&name, read_from, &self.bootstrap, &self.places, &self.journal));
    }

    /// How many consumers there were.
    pub fn consumers_started(&self) -> u32 {
        self.consumers_started
    }

    /// A producer and a consumer end in the middle of what they do; others come.
    pub async fn replace_clients(&mut self) {
        self.producers.remove(0).kill().await;
        self.kill_consumer().await;
        self.start_producer();
        self.start_consumer(ReadFrom::Any);
    }

    async fn kill_consumer(&mut self) {
        let consumer = self.consumers.remove(0);
        self.journal.read().history.reader_ended(&consumer.name);
        consumer.kill().await;
    }

    /// All clients end in the middle of what they do.
    pub async fn kill(&mut self) {
        for producer in self.producers.drain(..) {
            producer.kill().await;
        }
        while !self.consumers.is_empty() {
            self.kill_consumer().await;
        }
    }

    /// Returns once `count` more records are acknowledged in each partition.
    pub async fn flows(&self, count: u64) {
        let acknowledged = || self.journal.read().history.acknowledged_counts();
        let before = acknowledged();
        let has_more = |now: &BTreeMap<Place, u64>| {
            let counted = |counts: &BTreeMap<Place, u64>, place| counts.get(place).copied().unwrap_or(0);
            self.places.iter().all(|place| counted(now, place) >= counted(&before, place) + count)
        };
        while !has_more(&acknowledged()) {
            sleep(ASKED_AGAIN).await;
        }
    }

    /// Lets the producers learn what became of their records. Says who did not.
    pub async fn finish_producers(&mut self) -> Result<(), String> {
        for producer in self.producers.drain(..) {
            let name = producer.name.clone();
            if !producer.finish(2 * DELIVERY).await {
                return Err(format!("{name} does not learn what became of its records"));
            }
        }
        Ok(())
    }

    /// Starts readers from the beginning, and returns once all that read have seen everything. Those of any replica begin with different
    /// ones: what is damaged in one is met by somebody, most likely.
    pub async fn read_all(&mut self, patience: Duration) -> Result<(), String> {
        for read_from in [ReadFrom::Leader, ReadFrom::Any, ReadFrom::Any, ReadFrom::Any] {
            self.start_consumer(read_from);
        }
        let seen = async {
            while !self.journal.read().history.behind().is_empty() {
                sleep(ASKED_AGAIN).await;
            }
        };
        if tokio::time::timeout(patience, seen).await.is_err() {
            let written = self.journal.read();
            let interruption = written.newest_interruption.as_deref().unwrap_or("none");
            let behind = written.history.behind().join(", ");
            return Err(format!(
                "not all is seen within {patience:?}: {behind}; the last interruption: {interruption}"
            ));
        }
        Ok(())
    }

    /// What is wrong with what they were told. Nobody reads any more.
    pub async fn judge(&mut self) -> Vec<String> {
        for consumer in self.consumers.drain(..) {
            consumer.kill().await;
        }
        self.journal.read().history.check().iter().map(ToString::to_string).collect()
    }

    /// Deletes the topics; what is not deleted now is only more to keep.
    pub async fn delete_topics(&self, stage: &Stage) {
        let mut names: Vec<String> = self.places.iter().map(|place| place.topic.to_string()).collect();
        names.dedup();
        let _ = stage.client.admin().delete_topics(&names).await;
    }
}

fn topic(name: &str, partitions: usize, settings: &[(&str, &str)]) -> NewTopic {
    let settings = settings.iter().chain(&[("min_insync_replicas", "2")]);
    NewTopic {
        name: name.to_owned(),
        partitions: u32::try_from(partitions).ok(),
        replication_factor: u32::try_from(REPLICATION_FACTOR).ok(),
        config: settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

/// Creates topics, as often as it takes. One that is there already was created by an attempt whose answer was lost.
async fn create(stage: &Stage, topics: &[NewTopic]) -> Result<(), String> {
    stage
        .until("topics are created", async || {
            let created = stage.client.admin().create_topics(topics, false).await.map_err(|error| error.to_string())?;
            let refused = created.into_iter().filter_map(Result::err).find(|e| e.code != ErrorCode::TopicExists);
            refused.map_or(Ok(()), |error| Err(error.to_string()))
        })
        .await
}

/// Deletes a topic, as often as it takes. One that is gone was deleted by an attempt whose answer was lost.
pub async fn delete(stage: &Stage, name: &str) -> Result<(), String> {
    stage
        .until("a topic is deleted", async || {
            let deleted = stage.client.admin().delete_topics(&[name.to_owned()]).await;
            let refused = match deleted {
                Ok(each) => {
                    each.into_iter().find_map(Result::err).filter(|e| e.code != ErrorCode::UnknownTopicOrPartition)
                }
                Err(ClientError::UnknownTopic { .. }) => None,
                Err(error) => return Err(error.to_string()),
            };
            refused.map_or(Ok(()), |error| Err(error.to_string()))
        })
        .await
}
