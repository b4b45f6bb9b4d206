//! Spans that say whose request is worked on: every line that is logged meanwhile carries the connection and the
//! correlation id, on whichever thread it is logged.
//!
//! They are spans of level `debug` under a target of their own. Where that is off, which is the default, one costs a look at a
//! static and a branch, and nothing is allocated; `callboard::request=debug` turns them on beside any other level.
//! What serves many requests at once, a group of appends or a sync, belongs to none.

use tracing::Span;

use super::partition_leader::RequestTag;
use crate::engine::waiters::OwnerId;
use crate::types::CorrelationId;

/// The target of these spans, and of lines about requests as such.
pub const TARGET: &str = "callboard::request";

/// Work for a connection, but for none of its requests.
#[must_use]
pub fn connection(owner: OwnerId) -> Span {
    tracing::debug_span!(target: TARGET, "connection", connection = owner.0)
}

/// Work for one request.
#[must_use]
pub fn request(owner: OwnerId, correlation: CorrelationId) -> Span {
    tracing::debug_span!(target: TARGET, "request", connection = owner.0, correlation = correlation.0)
}

/// Work for the request that an answer is owed to.
#[must_use]
pub fn of(tag: RequestTag) -> Span {
    request(tag.connection, tag.correlation)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::*;

    #[test]
    fn a_span_is_nothing_until_its_target_is_turned_on() {
        let made_under = |directives: &str| {
            let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(directives)).finish();
            tracing::subscriber::with_default(log, || !request(OwnerId(1), CorrelationId(2)).is_disabled())
        };
        assert_eq!(
            ["info", "info,callboard::actors=debug", "info,callboard::request=debug", "debug"].map(made_under),
            [false, false, true, true]
        );
    }
}
