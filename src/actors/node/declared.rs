//! The topics of the topics file, which a node creates when it starts.

use std::path::Path;

use actix::Addr;

use super::NodeError;
use crate::actors::broker::{AwaitMetadata, Broker};
use crate::actors::controller::{Controller, CreateTopics};
use crate::config::NodeConfig;
use crate::config::topics_file;
use crate::protocol::ErrorCode;
use crate::protocol::messages::NewTopic;

/// Creates the topics of the topics file that are missing. Existing ones are left as they are.
pub(super) async fn declare_topics(
    config: &NodeConfig,
    controller: &Addr<Controller>,
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
    let created = controller.send(request).await.map_err(|_| NodeError::Ended)?;
    broker.send(AwaitMetadata { index: created.index }).await.map_err(|_| NodeError::Ended)?;
    let mut said = Vec::new();
    for (topic, outcome) in declared.iter().zip(created.answer) {
        match outcome {
            Ok(_) => said.push(format!("created topic '{}'", topic.name)),
            Err(error) if error.code == ErrorCode::TopicExists => {}
            Err(cause) => {
                let name = topic.name.as_str().to_owned();
                return Err(NodeError::DeclaredTopic { name, file: file.clone(), cause });
            }
        }
    }
    Ok(said)
}
