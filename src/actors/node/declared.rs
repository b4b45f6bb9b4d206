//! The topics of the topics file, which a node creates when it starts.

use std::path::Path;

use actix::Addr;

use super::NodeError;
use crate::actors::broker::{AwaitMetadata, Broker};
use crate::actors::controller::CreateTopics;
use crate::actors::controllers::Controllers;
use crate::config::NodeConfig;
use crate::config::topics_file;
use crate::protocol::ErrorCode;
use crate::protocol::messages::NewTopic;

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
