//! Storage errors as clients see them.

use crate::protocol::{ApiError, ErrorCode};
use crate::storage::LogError;

/// What to tell a client about a storage error.
#[must_use]
pub fn storage_error(error: &LogError) -> ApiError {
    let code = match error {
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::Damaged { .. } => ErrorCode::DamagedLog,
        LogError::DiskFull { .. } => ErrorCode::DiskFull,
        _ => ErrorCode::StorageFailed,
    };
    ApiError::new(code, error.to_string())
}
