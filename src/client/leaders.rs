//! Questions that only the leaders of partitions can answer: one request a leader, answers back in the order asked.

use std::collections::HashMap;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::cluster::{Client, Lane, Retry};
use super::{ClientError, admin::Each};
use crate::protocol::messages::{Outcome, Request};
use crate::protocol::{ApiError, ErrorCode};
use crate::types::{NodeId, PartitionIndex, TopicId};

/// A partition by topic name and number, and what is asked about it.
pub(super) type Place<T> = (String, u32, T);

/// A question about a partition as it goes to its leader.
pub(super) type Asked<T> = (TopicId, PartitionIndex, T);

/// Questions by the node that leads, each with the index of its place.
type ByLeader<T> = HashMap<Option<NodeId>, Vec<(usize, Asked<T>)>>;

impl Client {
    /// Asks the leader of each place. Failures that may pass are retried, with fresh metadata, until the delivery timeout.
    pub(super) async fn ask_leaders<T: Copy, R: Request + Sync, A>(
        &self,
        places: &[Place<T>],
        question: impl Fn(Vec<Asked<T>>) -> R,
        answers: impl Fn(R::Reply) -> Vec<Outcome<A>>,
    ) -> Result<Each<A>, ClientError> {
        let deadline = Instant::now() + self.config().delivery_timeout;
        let mut backoff = Backoff::default();
        let mut found: Vec<Option<Result<A, ApiError>>> = places.iter().map(|_| None).collect();
        loop {
            let by_leader = self.group_by_leader(places, &missing(&found)).await?;
            let before = by_index(&by_leader);
            let rounds = by_leader.into_iter().map(|(node, asked)| {
                let request = question(asked.iter().map(|(_, asked)| *asked).collect());
                async move { (asked, self.ask_node(node, request).await) }
            });
            let mut last = None;
            for (asked, reply) in join_all(rounds).await {
                match reply.map(&answers) {
                    Err(error) if error.is_retryable() => last = Some(error),
                    Err(error) => return Err(error),
                    Ok(outcomes) => {
                        for ((index, _), outcome) in asked.into_iter().zip(outcomes) {
                            found[index] = Some(outcome.into_result());
                        }
                    }
                }
            }
            let delay = backoff.next_delay();
            let in_time = Instant::now() + delay < deadline;
            if in_time {
                found.iter_mut().for_each(|slot| drop(slot.take_if(|answer| answer.as_ref().is_err_and(may_pass))));
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            if !in_time {
                let nothing =
                    || ClientError::Protocol { address: "a leader".into(), reason: "answers are missing".into() };
                return Err(last.unwrap_or_else(nothing));
            }
            self.relearn(places, &found).await?;
            let now = by_index(&self.group_by_leader(places, &missing(&found)).await?);
            // Where another leads, that one is asked at once.
            if now.iter().all(|(index, node)| before.get(index) == Some(node)) {
                sleep(delay).await;
            }
        }
    }

    async fn ask_node<R: Request + Sync>(&self, node: Option<NodeId>, request: R) -> Result<R::Reply, ClientError> {
        let Some(node) = node else {
            let cause = "a partition has no leader now".to_owned();
            return Err(ClientError::Disconnected { address: "the leader".to_owned(), cause });
        };
        // The rounds have their own backoff, in which another may become the leader.
        self.connect_to(node, Lane::Main, Retry::Fail).await?.request(&request, self.config().request_timeout).await
    }

    async fn group_by_leader<T: Copy>(&self, places: &[Place<T>], open: &[usize]) -> Result<ByLeader<T>, ClientError> {
        let mut by_leader = ByLeader::new();
        for &index in open {
            let (name, number, what) = &places[index];
            let topic = self.topic(name).await?;
            let partition = topic.partition(*number)?;
            by_leader.entry(partition.leader).or_default().push((index, (topic.id, partition.partition, *what)));
        }
        Ok(by_leader)
    }

    async fn relearn<T, A>(&self, places: &[Place<T>], found: &[Option<A>]) -> Result<(), ClientError> {
        let mut names: Vec<&String> =
            places.iter().zip(found).filter(|(_, f)| f.is_none()).map(|(p, _)| &p.0).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.learn_topic(name).await?;
        }
        Ok(())
    }
}

fn by_index<T>(by_leader: &ByLeader<T>) -> HashMap<usize, Option<NodeId>> {
    by_leader.iter().flat_map(|(node, asked)| asked.iter().map(|(index, _)| (*index, *node))).collect()
}

fn missing<A>(found: &[Option<A>]) -> Vec<usize> {
    (0..found.len()).filter(|index| found[*index].is_none()).collect()
}

fn may_pass(error: &ApiError) -> bool {
    error.code.is_retryable() && error.code != ErrorCode::StorageFailed
}
