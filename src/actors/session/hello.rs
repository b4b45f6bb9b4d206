//! The first request, and what the node knows by itself: topics, leaders, brokers.

use super::actor::Session;
use crate::actors::codec::{Held, ReplyBody, RequestPermit};
use crate::engine::metadata::{ClusterImage, TopicImage};
use crate::protocol::api::PROTOCOL_VERSION;
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{
    self, BrokerAddress, DescribeTopicsReply, HelloReply, MetadataReply, Outcome, PartitionMetadata, TopicDescription,
    TopicEntry, TopicMetadata,
};
use crate::protocol::{Api, ApiError, ErrorCode};
use crate::types::{Operation, PartitionIndex, TopicAction, TopicName};

use super::admin::config_entries;

/// The longest client id, in bytes: it appears in logs and metrics.
const MAX_CLIENT_ID_BYTES: usize = 255;

impl Session {
    pub(super) fn hello(&mut self, head: FrameHead, hello: &messages::Hello, permit: RequestPermit) {
        let result = self.greet(hello);
        let refused = result.is_err();
        let held = Held { permit: Some(permit), room: None };
        self.send(head, result.map(ReplyBody::Hello), Vec::new(), held);
        if refused {
            self.close();
        }
    }

    fn greet(&mut self, hello: &messages::Hello) -> Result<HelloReply, ApiError> {
        if !(hello.protocol_min..=hello.protocol_max).contains(&PROTOCOL_VERSION) {
            let text = format!(
                "the client speaks protocol {} to {}, this node speaks {PROTOCOL_VERSION}: upgrade the older of the two",
                hello.protocol_min, hello.protocol_max
            );
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, text));
        }
        if hello.client_id.len() > MAX_CLIENT_ID_BYTES {
            let text =
                format!("a client id has at most {MAX_CLIENT_ID_BYTES} bytes, this one has {}", hello.client_id.len());
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        }
        if self.context.is_some() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "Hello comes once, at the start of a connection"));
        }
        self.set_context(&hello.client_id);
        let (node_id, max_frame_bytes) = (self.settings.node, self.settings.limits.max_frame_bytes);
        Ok(HelloReply {
            protocol: PROTOCOL_VERSION,
            cluster_id: self.view().image.cluster_id,
            node_id,
            software: format!("callboard {}", env!("CARGO_PKG_VERSION")),
            max_frame_bytes,
            apis: Api::ALL.iter().map(|api| api.versions()).collect(),
        })
    }

    pub(super) fn metadata(&mut self, request: &messages::Metadata) -> Result<MetadataReply, ApiError> {
        self.allow(Operation::DescribeCluster)?;
        let view = self.view().clone();
        let image = &view.image;
        let entry = |name: String| {
            let topic = self.find_topic(image, &name).map(|topic| TopicMetadata {
                id: topic.id,
                name: topic.name.clone(),
                partitions: partitions(topic),
            });
            TopicEntry { name, topic: Outcome::from(topic) }
        };
        let topics = topic_names(image, request.topics.as_deref()).into_iter().map(entry).collect();
        Ok(MetadataReply {
            cluster_id: image.cluster_id,
            controller: self.settings.controllers.decides(),
            brokers: brokers(image),
            topics,
        })
    }

    pub(super) fn describe_topics(
        &mut self,
        request: &messages::DescribeTopics,
    ) -> Result<DescribeTopicsReply, ApiError> {
        let view = self.view().clone();
        let describe = |name: String| {
            self.find_topic(&view.image, &name).map(|topic| TopicDescription {
                id: topic.id,
                name: topic.name.clone(),
                config: config_entries(&topic.config, &self.settings.topic_defaults),
                partitions: partitions(topic),
                eligible: topic.partitions.iter().map(|partition| partition.eligible.clone()).collect(),
            })
        };
        let names = topic_names(&view.image, request.names.as_deref());
        Ok(DescribeTopicsReply { topics: names.into_iter().map(describe).map(Outcome::from).collect() })
    }

    fn find_topic<'a>(&self, image: &'a ClusterImage, name: &str) -> Result<&'a TopicImage, ApiError> {
        let name = TopicName::new(name).map_err(|e| ApiError::new(ErrorCode::InvalidTopicName, e.to_string()))?;
        self.allow(Operation::Topic(TopicAction::Describe, &name))?;
        let unknown = || {
            ApiError::new(ErrorCode::UnknownTopicOrPartition, format!("there is no topic '{name}': create it first"))
        };
        image.topic_by_name(&name).map(AsRef::as_ref).ok_or_else(unknown)
    }
}

fn topic_names(image: &ClusterImage, wanted: Option<&[String]>) -> Vec<String> {
    match wanted {
        Some(names) => names.to_vec(),
        None => image.topic_ids.keys().map(|name| name.as_str().to_owned()).collect(),
    }
}

fn partitions(topic: &TopicImage) -> Vec<PartitionMetadata> {
    let describe = |(number, partition): (u32, &crate::engine::metadata::PartitionImage)| PartitionMetadata {
        partition: PartitionIndex(number),
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        in_sync: partition.in_sync.clone(),
    };
    (0..).zip(&topic.partitions).map(describe).collect()
}

fn brokers(image: &ClusterImage) -> Vec<BrokerAddress> {
    let live = image.brokers.iter().filter(|(_, broker)| !broker.fenced);
    live.map(|(node, broker)| BrokerAddress {
        node_id: *node,
        host: broker.registration.host.clone(),
        port: broker.registration.port,
        rack: broker.registration.rack.clone(),
    })
    .collect()
}
