//! The topics of the topics file, which a node creates when it starts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use super::NodeError;
use crate::actors::broker::{AwaitMetadata, Broker};
use crate::actors::controller::CreateTopics;
use crate::actors::controllers::Controllers;
use crate::config::NodeConfig;
use crate::config::topics_file;
use crate::protocol::messages::NewTopic;
use crate::protocol::{ApiError, ErrorCode};

/// Topics that could not be created for want of brokers are tried again after this.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Creates the topics of the topics file that are missing. Existing ones are left as they are.
pub(super) async fn declare_topics(
    config: &NodeConfig,
    controllers: &Controllers,
    broker: &Addr<Broker>,
) -> Result<Vec<String>, NodeError> {
    let Some(file) = &config.topics.file else { return Ok(Vec::new()) };
    let declared = topics_file::read(Path::new(file))?;
    let wanted = |topic: &topics_file::DeclaredTopic| NewTopic {
        name: topic.name.as_str().to_owned(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.clone(),
    };
    let request = CreateTopics { topics: declared.iter().map(wanted).collect(), validate_only: false };
    let refused = |name: &str, cause| NodeError::DeclaredTopic { name: name.to_owned(), file: file.clone(), cause };
    let first = declared.first().map_or("", |topic| topic.name.as_str());
    let created = controllers.create_topics(request).await.map_err(|cause| refused(first, cause))?;
    broker.send(AwaitMetadata { index: created.index }).await.map_err(|_| NodeError::Ended)?;
    let mut said = Vec::new();
    for (topic, outcome) in declared.iter().zip(created.answer) {
        match outcome {
            Ok(_) => said.push(format!("created topic '{}'", topic.name)),
            Err(error) if error.code == ErrorCode::TopicExists => {}
            Err(cause) => return Err(refused(topic.name.as_str(), cause)),
        }
    }
    Ok(said)
}

/// As [`declare_topics`] on a node of a cluster: the brokers that a topic needs may still be on their way. They are waited for beside
/// the node, which serves meanwhile.
pub(super) async fn declare_in_cluster(
    config: Arc<NodeConfig>,
    controllers: Controllers,
    broker: Addr<Broker>,
) -> Result<Vec<String>, NodeError> {
    match declare_topics(&config, &controllers, &broker).await {
        Err(NodeError::DeclaredTopic { name, cause, .. }) if is_early(&cause) => {
            tracing::info!(topic = name, %cause, "a declared topic is created when enough brokers are there");
            actix_rt::spawn(async move {
                loop {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    match declare_topics(&config, &controllers, &broker).await {
                        Ok(said) => return said.iter().for_each(|said| tracing::info!("{said}")),
                        Err(NodeError::DeclaredTopic { cause, .. }) if is_early(&cause) => {}
                        Err(error) => return tracing::error!(%error, "declared topics are not created"),
                    }
                }
            });
            Ok(Vec::new())
        }
        declared => declared,
    }
}

/// Whether it may be otherwise once other nodes are there.
fn is_early(cause: &ApiError) -> bool {
    cause.is_retryable() || cause.code == ErrorCode::InvalidReplicationFactor
}
