//! Administration of topics, and questions about the cluster.

use std::collections::BTreeMap;

use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::cluster::Lane;
use super::{Client, ClientError};
use crate::protocol::messages::{
    AddPartitions, AlterTopic, AlterTopics, ChangeControllers, ConfigEntry, ControllerDescription, CreateTopics,
    CreatedTopic, DeleteBefore, DeleteRecords, DeleteRecordsPartition, DeleteTopics, DescribeCluster,
    DescribeClusterReply, DescribeLogs, DescribeNode, DescribeNodeReply, DescribeTopics, ElectLeaders, ListOffsets,
    ListOffsetsPartition, ListedOffset, LogDescription, Metadata, MetadataReply, NewTopic, OffsetAt, Outcome,
    PartitionAddition, PartitionElection, PartitionMove, ReassignPartitions, Request, TopicDescription,
};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, Offset, TopicId};

/// One answer for each item of a request, in the order of the request.
pub type Each<T> = Vec<Result<T, ApiError>>;

/// Administration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(super) client: Client,
}

impl Admin {
    /// Creates topics, each on its own: one may fail and the others succeed. With `validate_only` nothing is created.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Each<CreatedTopic>, ClientError> {
        let question = |topics| CreateTopics { topics, validate_only };
        self.decide(topics, validate_only, question, |reply| reply.topics).await
    }

    /// Creates one topic with the cluster's default settings.
    ///
    /// # Errors
    /// [`ClientError::Refused`] says why it was not created.
    pub async fn create_topic(&self, name: &str, partitions: u32) -> Result<CreatedTopic, ClientError> {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            replication_factor: None,
            config: BTreeMap::new(),
        };
        let created = self.create_topics(&[topic], false).await?;
        let missing =
            || ClientError::Protocol { address: "the controller".into(), reason: "the answer is empty".into() };
        created
            .into_iter()
            .next()
            .ok_or_else(missing)?
            .map_err(|error| ClientError::Refused { what: format!("topic '{name}' was not created"), error })
    }

    /// Deletes topics by name, their records too.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn delete_topics(&self, names: &[String]) -> Result<Each<TopicId>, ClientError> {
        self.decide(names, false, |names| DeleteTopics { names }, |reply| reply.topics).await
    }

    /// Changes topic settings; answers with all settings in force. All changes of a topic are made, or none.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn alter_topics(&self, topics: &[AlterTopic]) -> Result<Each<Vec<ConfigEntry>>, ClientError> {
        self.decide(topics, true, |topics| AlterTopics { topics }, |reply| reply.topics).await
    }

    /// Gives topics more partitions, each on its own; answers with their ids. Records with a key go to other partitions from then on.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn add_partitions(&self, topics: &[PartitionAddition]) -> Result<Each<TopicId>, ClientError> {
        self.decide(topics, false, |topics| AddPartitions { topics }, |reply| reply.topics).await
    }

    /// Begins to move partitions to other replicas, or ends such a move, each on its own; answers with the replicas that each has
    /// meanwhile.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each partition is in the answer.
    pub async fn reassign_partitions(&self, moves: &[PartitionMove]) -> Result<Each<Vec<NodeId>>, ClientError> {
        self.decide(moves, true, |partitions| ReassignPartitions { partitions }, |reply| reply.partitions).await
    }

    /// Has the preferred replicas lead, each on its own; answers with who is to lead. That is so when the metadata says it.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each partition is in the answer.
    pub async fn elect_leaders(&self, partitions: &[PartitionElection]) -> Result<Each<NodeId>, ClientError> {
        self.decide(partitions, true, |partitions| ElectLeaders { partitions }, |reply| reply.partitions).await
    }

    /// Adds, removes or resets a controller; answers with the controllers from then on. What came of it when the answer is lost
    /// [`Admin::describe_cluster`] says.
    ///
    /// # Errors
    /// [`ClientError`], with what is in the way.
    pub async fn change_controllers(
        &self,
        change: &ChangeControllers,
    ) -> Result<Vec<ControllerDescription>, ClientError> {
        Ok(self.client.ask(change, false).await?.controllers)
    }

    /// Has the controller decide on `items`, each on its own. What it could not decide now (it is being replaced, or no broker is
    /// up yet) is asked again until the delivery timeout: nothing has come of it.
    async fn decide<I: Clone, R: Request + Sync, T>(
        &self,
        items: &[I],
        harmless: bool,
        question: impl Fn(Vec<I>) -> R,
        answers: impl Fn(R::Reply) -> Vec<Outcome<T>>,
    ) -> Result<Each<T>, ClientError> {
        let deadline = Instant::now() + self.client.config().delivery_timeout;
        let mut backoff = Backoff::default();
        let mut decided: BTreeMap<usize, Result<T, ApiError>> = BTreeMap::new();
        loop {
            let open: Vec<usize> = (0..items.len()).filter(|index| !decided.contains_key(index)).collect();
            let request = question(open.iter().map(|index| items[*index].clone()).collect());
            let reply = answers(self.client.ask(&request, harmless).await?);
            let delay = backoff.next_delay();
            let is_late = Instant::now() + delay >= deadline;
            for (index, outcome) in open.into_iter().zip(reply.into_iter().map(Outcome::into_result)) {
                if is_late || !outcome.as_ref().is_err_and(is_undecided) {
                    decided.insert(index, outcome);
                }
            }
            if is_late || decided.len() == items.len() {
                return Ok(decided.into_values().collect());
            }
            sleep(delay).await;
        }
    }

    /// Topics with their settings and partitions; `None` for all, by name.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed.
    pub async fn describe_topics(&self, names: Option<&[String]>) -> Result<Each<TopicDescription>, ClientError> {
        let request = DescribeTopics { names: names.map(<[String]>::to_vec) };
        Ok(each(self.client.ask(&request, true).await?.topics))
    }

    /// The names of all topics, in order.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn list_topics(&self) -> Result<Vec<String>, ClientError> {
        let mut names: Vec<String> = self.metadata(None).await?.topics.into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// What the logs of these partitions (topic, number) hold, asked of their leaders.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`], or when a leader did not answer.
    pub async fn describe_logs(&self, partitions: &[(String, u32)]) -> Result<Each<LogDescription>, ClientError> {
        let places: Vec<_> = partitions.iter().map(|(topic, number)| (topic.clone(), *number, ())).collect();
        let question = |asked: Vec<(_, _, ())>| DescribeLogs {
            partitions: asked.into_iter().map(|(topic, partition, ())| (topic, partition)).collect(),
        };
        self.client.ask_leaders(&places, question, |reply| reply.partitions).await
    }

    /// Offsets by position or time, of partitions given as (topic, number, place), asked of their leaders.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`], or when a leader did not answer.
    pub async fn list_offsets(&self, places: &[(String, u32, OffsetAt)]) -> Result<Each<ListedOffset>, ClientError> {
        let question = |asked: Vec<(_, _, OffsetAt)>| ListOffsets {
            partitions: asked
                .into_iter()
                .map(|(topic, partition, at)| ListOffsetsPartition { topic, partition, at })
                .collect(),
        };
        self.client.ask_leaders(places, question, |reply| reply.partitions).await
    }

    /// Deletes the first records of partitions given as (topic, number, place), asked of their leaders; answers with the log
    /// start offset of each. What is deleted is gone for good, and asking again changes nothing more.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], [`ClientError::UnknownPartition`], or when a leader did not answer.
    pub async fn delete_records(&self, places: &[(String, u32, DeleteBefore)]) -> Result<Each<Offset>, ClientError> {
        let timeout_ms = u32::try_from(self.client.config().request_timeout.as_millis() / 2).unwrap_or(u32::MAX);
        let question = |asked: Vec<(_, _, DeleteBefore)>| DeleteRecords {
            timeout_ms,
            partitions: asked
                .into_iter()
                .map(|(topic, partition, before)| DeleteRecordsPartition { topic, partition, before })
                .collect(),
        };
        self.client.ask_leaders(places, question, |reply| reply.partitions).await
    }

    /// Who makes up the cluster.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterReply, ClientError> {
        self.client.ask(&DescribeCluster {}, true).await
    }

    /// What one node says of itself: process, disk, replicas, budgets. Asks the controller if it is known, else any broker.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn describe_node(&self) -> Result<DescribeNodeReply, ClientError> {
        Ok(*self.client.ask(&DescribeNode {}, true).await?)
    }

    /// As [`Admin::describe_node`], asked of this broker, once.
    ///
    /// # Errors
    /// [`ClientError`] when it was not reached or did not answer.
    pub async fn describe_broker(&self, node: NodeId) -> Result<DescribeNodeReply, ClientError> {
        let connection = self.client.connection(node, Lane::Main).await?;
        Ok(*connection.request(&DescribeNode {}, self.client.config().request_timeout).await?)
    }

    /// Brokers, topics and leaders; `None` for all topics.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<MetadataReply, ClientError> {
        self.client.ask(&Metadata { topics: topics.map(<[String]>::to_vec) }, true).await
    }
}

/// Whether nobody has decided, and somebody may soon.
fn is_undecided(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::NotController | ErrorCode::NoLiveBroker)
}

fn each<T>(outcomes: Vec<Outcome<T>>) -> Each<T> {
    outcomes.into_iter().map(Outcome::into_result).collect()
}
