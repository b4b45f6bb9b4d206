//! The controller of this process, by what it can be asked.

use actix::{Actor, Addr, Context, Handler, Recipient};

use crate::actors::controller::{
    AddPartitions, AlterTopics, AskController, ChangeControllers, CreateTopics, DeleteTopics, DescribeControllers,
    ElectLeaders, FindController, FollowMetadata, InitProducer, Reassign,
};

/// Where a controller in this process takes its messages. By message, so that something else can stand in its place.
#[derive(Clone)]
pub struct LocalController {
    /// What brokers ask.
    pub ask: Recipient<AskController>,
    /// Who follows the metadata.
    pub follow: Recipient<FollowMetadata>,
    /// Who looks for the one that decides.
    pub find: Recipient<FindController>,
    /// New topics.
    pub create_topics: Recipient<CreateTopics>,
    /// Topics to be deleted.
    pub delete_topics: Recipient<DeleteTopics>,
    /// Other settings of topics.
    pub alter_topics: Recipient<AlterTopics>,
    /// Producer ids.
    pub init_producer: Recipient<InitProducer>,
    /// More partitions.
    pub add_partitions: Recipient<AddPartitions>,
    /// Other replicas.
    pub reassign: Recipient<Reassign>,
    /// Other leaders.
    pub elect_leaders: Recipient<ElectLeaders>,
    /// Other controllers.
    pub change_controllers: Recipient<ChangeControllers>,
    /// Who asks how the controllers are.
    pub describe_controllers: Recipient<DescribeControllers>,
}

impl<A> From<Addr<A>> for LocalController
where
    A: Actor<Context = Context<A>>
        + Handler<AskController>
        + Handler<FollowMetadata>
        + Handler<FindController>
        + Handler<CreateTopics>
        + Handler<DeleteTopics>
        + Handler<AlterTopics>
        + Handler<InitProducer>
        + Handler<AddPartitions>
        + Handler<Reassign>
        + Handler<ElectLeaders>
        + Handler<ChangeControllers>
        + Handler<DescribeControllers>,
{
    fn from(address: Addr<A>) -> Self {
        Self {
            ask: address.clone().recipient(),
            follow: address.clone().recipient(),
            find: address.clone().recipient(),
            create_topics: address.clone().recipient(),
            delete_topics: address.clone().recipient(),
            alter_topics: address.clone().recipient(),
            init_producer: address.clone().recipient(),
            add_partitions: address.clone().recipient(),
            reassign: address.clone().recipient(),
            elect_leaders: address.clone().recipient(),
            change_controllers: address.clone().recipient(),
            describe_controllers: address.recipient(),
        }
    }
}
