//! Who asks: the context that every client request carries, and the one place that allows or refuses it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::TopicName;

/// The identity behind a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody has authenticated. The only identity until security is configured.
    Anonymous,
}

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// The native MessagePack protocol.
    Native,
}

/// Carried by every client request from the socket to the engine. Cheap to clone: one per connection, shared.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The authenticated identity.
    pub principal: Principal,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Which listener accepted it.
    pub listener: ListenerKind,
}

/// What can be done to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicAction {
    /// Append to it.
    Write,
    /// Read its records or offsets.
    Read,
    /// See its partitions and settings.
    Describe,
    /// Create it.
    Create,
    /// Change its settings.
    Alter,
    /// Delete it.
    Delete,
    /// Delete its first records.
    DeleteRecords,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Something with a topic.
    Topic(TopicAction, &'a TopicName),
    /// See brokers and controllers.
    DescribeCluster,
    /// Change who the controllers are.
    AlterCluster,
    /// Obtain a producer id.
    IdempotentWrite,
}

/// A request was refused for want of a right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{principal:?} may not {operation}: ask an administrator of this cluster for that right")]
pub struct Denied {
    /// Who asked.
    pub principal: Principal,
    /// What was asked, in words.
    pub operation: String,
}

/// Allows or refuses `operation`. The one gate in front of every client request.
///
/// # Errors
/// [`Denied`] once rules exist. Until security is configured everything is allowed.
pub fn authorize(_context: &RequestContext, _operation: Operation<'_>) -> Result<(), Denied> {
    Ok(())
}
