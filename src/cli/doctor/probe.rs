//! Trying an address: what answers there, if anything does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::codec::Decoder;

use super::checks::reach::Reach;
use crate::client::{Client, ClientConfig, ClientError};
use crate::protocol::frame::FrameCodec;
use crate::protocol::messages::Outcome;
use crate::types::NodeId;

/// How long each step may take. A person waits for it, and a node answers within a millisecond.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What a server of another protocol is asked, so that an HTTP server shows itself.
const HTTP_QUESTION: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// What a node calls itself when it answers, and the way to ask it more.
pub struct Reached {
    /// The client that reached it.
    pub client: Client,
    /// Which node it is.
    pub node: NodeId,
    /// The address that the name led to.
    pub ip: IpAddr,
}

impl Reached {
    /// The same as what was found out.
    #[must_use]
    pub fn to_reach(&self) -> Reach {
        Reach::Answers { node: self.node, cluster: self.client.cluster_id(), ip: self.ip }
    }
}

/// Tries `address` (`host:port`), each step within `patience`.
///
/// # Errors
/// Why no node answers there.
pub async fn probe(address: &str, patience: Duration) -> Result<Reached, Reach> {
    let ip = connect(address, patience).await?.0;
    let config = ClientConfig::new(address).client_id("callboard-doctor").connect_timeout(patience);
    let config = config.request_timeout(patience * 3).delivery_timeout(patience * 3);
    let client = match Client::connect(config).await {
        Ok(client) => client,
        Err(error) => return Err(what_answers(address, patience, &error).await),
    };
    // Of this very node: any other one would tell of itself.
    match client.admin().describe_broker(client.entry()).await {
        Ok(node) => Ok(Reached { client, node: node.node_id, ip }),
        Err(ClientError::Refused { error, .. }) => Err(Reach::Rejected(error.to_string())),
        Err(error @ ClientError::RequestTimedOut { .. }) => {
            tracing::debug!(%error, "the node says hello and does not describe itself");
            Err(Reach::Silent((patience * 3).as_millis()))
        }
        Err(error) => Err(Reach::Foreign(error.to_string())),
    }
}

/// Opens a connection to the first address of the name that takes one.
async fn connect(address: &str, patience: Duration) -> Result<(IpAddr, TcpStream), Reach> {
    let resolved = match timeout(patience, lookup_host(address)).await {
        Ok(Ok(resolved)) => resolved.collect::<Vec<SocketAddr>>(),
        Ok(Err(error)) => return Err(Reach::NameUnresolved(error.to_string())),
        Err(_) => return Err(Reach::NameUnresolved(format!("no answer within {} ms", patience.as_millis()))),
    };
    let mut failed = Reach::NameUnresolved("the name has no address".to_owned());
    for candidate in resolved {
        failed = match timeout(patience, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => return Ok((candidate.ip().to_canonical(), stream)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Reach::Refused,
            Ok(Err(error)) => Reach::Failed(error.to_string()),
            Err(_) => Reach::TimedOut(patience.as_millis()),
        };
    }
    Err(failed)
}

/// Finds out what it is that takes connections at `address` and with which the client library got nowhere.
async fn what_answers(address: &str, patience: Duration, error: &ClientError) -> Reach {
    let (_, mut stream) = match connect(address, patience).await {
        Ok(connected) => connected,
        Err(reach) => return reach,
    };
    let mut heard = BytesMut::new();
    let hearing = async {
        stream.write_all(HTTP_QUESTION).await?;
        // An HTTP status line, or the frame of a node that refuses, is shorter than this.
        while heard.len() < 4_096 && stream.read_buf(&mut heard).await? > 0 {}
        io::Result::Ok(())
    };
    // What came until then, or until the other side hung up, says enough.
    let in_time = timeout(patience, hearing).await.is_ok();
    if heard.starts_with(b"HTTP/") {
        return Reach::Http;
    }
    if let Ok(Some(frame)) = FrameCodec::for_replies(64 << 10).decode(&mut heard.clone()) {
        let said = frame.decode_body::<Outcome<()>>().ok().and_then(|outcome| outcome.error);
        // A node answers the HTTP question with a complaint about its length; what it told the client is the reason.
        let reason = said.filter(|said| said.message.contains("limits.max_connections"));
        return Reach::Rejected(reason.map_or_else(|| error.to_string(), |said| said.message));
    }
    if heard.is_empty() && !in_time {
        return Reach::Silent(patience.as_millis());
    }
    Reach::Foreign(error.to_string())
}
