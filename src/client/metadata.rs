//! Learning who leads what.
//!
//! ```text
//!   topic("rides") ─► known ─ too old, or unknown ─► Metadata, asked of any broker, one question at a time
//! ```

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::connection::lock;
use super::known::Topic;
use super::{Client, ClientError};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{Metadata, MetadataReply};

impl Client {
    /// The topic as it is known, or as it is learned now if that is too old.
    pub(super) async fn topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        match self.known_topic(name) {
            Some(topic) if topic.learned.elapsed() < self.shared.config.metadata_max_age => Ok(topic),
            _ => self.learn_topic(name).await,
        }
    }

    /// The topic as it is known, however old that is.
    fn known_topic(&self, name: &str) -> Option<Arc<Topic>> {
        lock(&self.shared.known).topic(name).cloned()
    }

    /// The topic as the cluster describes it now. Keeps asking for a while when nobody knows it.
    pub(super) async fn learn_topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let error = match self.ask_for_topic(name).await {
                Ok(topic) => return Ok(topic),
                Err(error) => error,
            };
            let patience = match &error {
                ClientError::UnknownTopic { .. } => self.shared.config.unknown_topic_wait,
                error if error.is_retryable() => self.shared.config.delivery_timeout,
                _ => return Err(error),
            };
            let delay = backoff.next_delay();
            if started.elapsed() + delay >= patience {
                return Err(error);
            }
            sleep(delay).await;
        }
    }

    async fn ask_for_topic(&self, name: &str) -> Result<Arc<Topic>, ClientError> {
        let wanted = Instant::now();
        let _one_at_a_time = self.shared.refreshing.lock().await;
        if let Some(topic) = self.known_topic(name).filter(|topic| topic.learned > wanted) {
            return Ok(topic);
        }
        let reply = self.fetch_metadata(Some(vec![name.to_owned()])).await?;
        match reply.topics.into_iter().next().map(|entry| entry.topic.into_result()) {
            Some(Ok(_)) => self.known_topic(name).ok_or_else(|| ClientError::UnknownTopic { topic: name.to_owned() }),
            Some(Err(error)) if error.code != ErrorCode::UnknownTopicOrPartition => {
                Err(ClientError::Refused { what: format!("topic '{name}' cannot be used"), error })
            }
            _ => Err(ClientError::UnknownTopic { topic: name.to_owned() }),
        }
    }

    /// Asks any broker for metadata, and keeps what it says.
    pub(super) async fn fetch_metadata(&self, topics: Option<Vec<String>>) -> Result<MetadataReply, ClientError> {
        let is_about_topics = topics.as_ref().is_none_or(|topics| !topics.is_empty());
        let reply = self.ask_any(self.sources(), &Metadata { topics }).await?;
        let is_news = lock(&self.shared.known).take(&reply, Instant::now());
        if is_about_topics && !is_news {
            // It was asked because something is amiss, or after a long while: another one may know more, or as much.
            self.pass_the_turn();
        }
        Ok(reply)
    }
}
