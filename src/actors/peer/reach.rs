//! Dialling a node once, to see whether its process is still there.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::Dial;
use super::identity::PeerAddress;
use super::messages::Reach;

/// Opens a connection to `address`, within `patience`, and closes it again: says whether the process there is gone for certain.
pub async fn reach(dial: &dyn Dial, address: &PeerAddress, patience: Duration) -> Reach {
    match timeout(patience, dial.dial(address)).await {
        Ok(Ok(_)) => Reach::Accepted,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Reach::Refused,
        Ok(Err(error)) => Reach::Unknown { reason: error.to_string() },
        Err(_) => Reach::Unknown { reason: format!("no answer within {} ms", patience.as_millis()) },
    }
}
