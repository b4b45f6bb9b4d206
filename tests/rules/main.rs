//! The rules of replication, each told by plain tests: what happens step by step, and what would be lost without the rule.
//!
//! ```text
//!   stage          four brokers, a controller, and messages that only the test delivers
//!   commit         1 to 4       what is committed, and when it is acknowledged
//!   epochs         5            who leads
//!   truncation     6            what a follower cuts off
//!   reads          7 and 13     what consumers are given and told
//!   hand_over      8            how leaderships are passed on, and how a broker stops
//!   in_sync        9 and 10     who joins and leaves, and what a decision has to meet
//!   elections      11           who may be elected
//!   reassignment   12           other replicas
//!   restarts       14 and 15    what a disk tells when its broker comes back
//!   damage         16           what is damaged is not served, counted or copied
//!   producers      18           retries, and what may be deleted
//! ```
//!
//! Rules 17 and 19 are about files and topics, not about replicas: docs/replication.md names their tests, and says why these rules
//! suffice; tests/simulation/ looks for schedules that nobody thought of.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod commit;
mod damage;
mod elections;
mod epochs;
mod hand_over;
mod in_sync;
mod producers;
mod reads;
mod reassignment;
mod restarts;
mod stage;
mod table;
mod truncation;
