//! The rules of replication, each told by plain tests: what happens step by step, and what would be lost without the rule.
//!
//! ```text
//!   stage      three brokers, a controller, and messages that only the test delivers
//!   commit     1 to 4     what is committed, and when it is acknowledged
//!   epochs     5 and 7    who leads, and what a new leader may say
//! ```
//!
//! docs/replication.md says why these rules suffice; tests/simulation/ looks for schedules that nobody thought of.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod commit;
mod epochs;
#[allow(dead_code, reason = "words of the vocabulary that a later rule needs")]
mod stage;
