//! The shared part of every client: connections, and who leads what.

use super::{Admin, ClientConfig, ClientError, Consumer, ConsumerConfig, Producer, ProducerConfig};
use crate::types::ClusterId;

/// Connections to a cluster and the knowledge of who leads what. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    cluster_id: ClusterId,
}

impl Client {
    /// Reaches the cluster through the first bootstrap address that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] names every address tried and why it failed.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate()?;
        Err(ClientError::Unreachable { tried: Vec::new() })
    }

    /// The cluster that was reached.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Administration of topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }

    /// A producer that shares this client's connections.
    ///
    /// # Errors
    /// [`ClientError::InvalidConfig`].
    pub async fn producer(&self, config: ProducerConfig) -> Result<Producer, ClientError> {
        Producer::start(self.clone(), config).await
    }

    /// A consumer that shares this client's connections. Nothing is assigned to it yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidConfig`].
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        Consumer::start(self.clone(), config).await
    }
}
