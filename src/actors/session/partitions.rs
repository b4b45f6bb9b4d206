//! More partitions, partitions elsewhere, and other leaders: decided by the controller, and answered once they are known here.

use super::actor::Session;
use super::admin::{Sifted, applied, merge};
use crate::actors::codec::{ReplyBody, RequestPermit};
use crate::actors::controller;
use crate::protocol::frame::FrameHead;
use crate::protocol::messages::{self, AddPartitionsReply, ElectLeadersReply, ReassignPartitionsReply};
use crate::types::TopicAction;

impl Session {
    pub(super) fn add_partitions(&mut self, head: FrameHead, request: messages::AddPartitions, permit: RequestPermit) {
        let Sifted { passed, places } =
            Sifted::new(request.topics, |topic| self.allow_topic(&topic.name, TopicAction::Alter));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        self.reply_later(head, permit, async move {
            let answers = applied(&broker, controllers.add_partitions(controller::AddPartitions(passed)).await).await?;
            Ok(ReplyBody::AddPartitions(AddPartitionsReply { topics: merge(places, &answers) }))
        });
    }

    pub(super) fn reassign(&mut self, head: FrameHead, request: messages::ReassignPartitions, permit: RequestPermit) {
        let Sifted { passed, places } =
            Sifted::new(request.partitions, |wanted| self.allow_topic(&wanted.topic, TopicAction::Alter));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        self.reply_later(head, permit, async move {
            let answers = applied(&broker, controllers.reassign(controller::Reassign(passed)).await).await?;
            Ok(ReplyBody::ReassignPartitions(ReassignPartitionsReply { partitions: merge(places, &answers) }))
        });
    }

    pub(super) fn elect_leaders(&mut self, head: FrameHead, request: messages::ElectLeaders, permit: RequestPermit) {
        let Sifted { passed, places } =
            Sifted::new(request.partitions, |wanted| self.allow_topic(&wanted.topic, TopicAction::Alter));
        let (controllers, broker) = (self.settings.controllers.clone(), self.settings.broker.clone());
        self.reply_later(head, permit, async move {
            let answers = applied(&broker, controllers.elect_leaders(controller::ElectLeaders(passed)).await).await?;
            Ok(ReplyBody::ElectLeaders(ElectLeadersReply { partitions: merge(places, &answers) }))
        });
    }
}
