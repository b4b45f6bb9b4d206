//! Administration of topics, and questions about the cluster.

use super::{Client, ClientError};
use crate::protocol::ApiError;
use crate::protocol::messages::{
    AlterTopic, ConfigEntry, CreatedTopic, DescribeClusterReply, ListedOffset, LogDescription, MetadataReply, NewTopic,
    OffsetAt, TopicDescription,
};
use crate::types::TopicId;

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
        let _ = (topics, validate_only, &self.client);
        Err(ClientError::NothingAssigned)
    }

    /// Creates one topic with the cluster's default settings.
    ///
    /// # Errors
    /// [`ClientError::Refused`] says why it was not created.
    pub async fn create_topic(&self, name: &str, partitions: u32) -> Result<CreatedTopic, ClientError> {
        let _ = (name, partitions);
        Err(ClientError::NothingAssigned)
    }

    /// Deletes topics by name, their records too.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn delete_topics(&self, names: &[String]) -> Result<Each<TopicId>, ClientError> {
        let _ = names;
        Err(ClientError::NothingAssigned)
    }

    /// Changes topic settings; answers with all settings in force. All changes of a topic are made, or none.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed; what became of each topic is in the answer.
    pub async fn alter_topics(&self, topics: &[AlterTopic]) -> Result<Each<Vec<ConfigEntry>>, ClientError> {
        let _ = topics;
        Err(ClientError::NothingAssigned)
    }

    /// Topics with their settings and partitions; `None` for all, by name.
    ///
    /// # Errors
    /// [`ClientError`] when the request as a whole failed.
    pub async fn describe_topics(&self, names: Option<&[String]>) -> Result<Each<TopicDescription>, ClientError> {
        let _ = names;
        Err(ClientError::NothingAssigned)
    }

    /// The names of all topics, in order.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn list_topics(&self) -> Result<Vec<String>, ClientError> {
        Err(ClientError::NothingAssigned)
    }

    /// What the logs of these partitions (topic, number) hold, asked of their leaders.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or when a leader did not answer.
    pub async fn describe_logs(&self, partitions: &[(String, u32)]) -> Result<Each<LogDescription>, ClientError> {
        let _ = partitions;
        Err(ClientError::NothingAssigned)
    }

    /// Offsets by position or time, of partitions given as (topic, number, place), asked of their leaders.
    ///
    /// # Errors
    /// [`ClientError::UnknownTopic`], or when a leader did not answer.
    pub async fn list_offsets(&self, places: &[(String, u32, OffsetAt)]) -> Result<Each<ListedOffset>, ClientError> {
        let _ = places;
        Err(ClientError::NothingAssigned)
    }

    /// Who makes up the cluster.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterReply, ClientError> {
        Err(ClientError::NothingAssigned)
    }

    /// Brokers, topics and leaders; `None` for all topics.
    ///
    /// # Errors
    /// [`ClientError`] when no broker answered.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<MetadataReply, ClientError> {
        let _ = topics;
        Err(ClientError::NothingAssigned)
    }
}
