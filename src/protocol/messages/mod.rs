//! The bodies of requests and replies, as MessagePack arrays in the order of the fields here.
//!
//! A reply's body is `[error, payload]`: `error` is nil or `[code, message]` for the whole request; errors of single
//! topics and partitions stand inside the payload.

pub mod admin;
pub mod cluster;
pub mod data;
pub mod delete_records;
pub mod node;
pub mod partitions;
pub mod peer;
pub mod session;

use serde::{Deserialize, Serialize};

use super::{Api, ApiError};

pub use admin::*;
pub use cluster::*;
pub use data::*;
pub use delete_records::*;
pub use node::*;
pub use partitions::*;
pub use session::*;

/// A request body: knows its api and what answers it.
pub trait Request: Serialize + for<'de> Deserialize<'de> + Send + 'static {
    /// Its number in the frame.
    const API: Api;
    /// The version that this code encodes.
    const VERSION: u16 = 1;
    /// What answers it.
    type Reply: Serialize + for<'de> Deserialize<'de> + Send + 'static;
}

/// What came of one item of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome<T> {
    /// What went wrong with this item.
    pub error: Option<ApiError>,
    /// The answer, when nothing did.
    pub value: Option<T>,
}

impl<T> From<Result<T, ApiError>> for Outcome<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(value) => Self { error: None, value: Some(value) },
            Err(error) => Self { error: Some(error), value: None },
        }
    }
}

impl<T> Outcome<T> {
    /// The answer or the error.
    ///
    /// # Errors
    /// The item's error; one with [`super::ErrorCode::InvalidRequest`] when the peer sent neither.
    pub fn into_result(self) -> Result<T, ApiError> {
        match (self.error, self.value) {
            (Some(error), _) => Err(error),
            (None, Some(value)) => Ok(value),
            (None, None) => {
                Err(ApiError::new(super::ErrorCode::InvalidRequest, "the reply holds neither an answer nor an error"))
            }
        }
    }
}
