//! Asking several who can all answer: one at first, another when that takes long or fails.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::ClientError;

/// How long one broker is waited for alone. A live one answers within a few milliseconds, wherever it stands; asking two now and
/// then costs less than waiting for a dead one.
pub(super) const PATIENCE_WITH_ONE: Duration = Duration::from_millis(250);

/// One way to an answer, and what it is called.
pub(super) type Attempt<'a, T> = (String, BoxFuture<'a, Result<T, ClientError>>);

/// Runs `attempts` in their order, each once the one before has failed or has not come to an end within [`PATIENCE_WITH_ONE`]. The
/// first answer is the answer, and ends the others.
///
/// # Errors
/// Every attempt failed; each with the name that it was given.
pub(super) async fn first_answer<T>(attempts: Vec<Attempt<'_, T>>) -> Result<T, Vec<(String, ClientError)>> {
    let (mut running, mut failed) = (FuturesUnordered::new(), Vec::new());
    for (name, attempt) in attempts {
        running.push(async move { (name, attempt.await) });
        match timeout(PATIENCE_WITH_ONE, running.next()).await {
            Ok(Some((_, Ok(answer)))) => return Ok(answer),
            Ok(Some((name, Err(error)))) => failed.push((name, error)),
            Ok(None) | Err(_) => {}
        }
    }
    while let Some((name, outcome)) = running.next().await {
        match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) => failed.push((name, error)),
        }
    }
    Err(failed)
}

/// What to say when none of them answered: what one said that was reached, or that none was.
pub(super) fn verdict(failed: Vec<(String, ClientError)>) -> ClientError {
    let mut tried = Vec::new();
    let mut said = None;
    for (name, error) in failed {
        match error {
            ClientError::Unreachable { tried: one } => tried.extend(one),
            error => {
                tried.push((name, cause_of(&error)));
                said = Some(error);
            }
        }
    }
    said.unwrap_or(ClientError::Unreachable { tried })
}

/// The part of an error that does not name the address once more.
pub(super) fn cause_of(error: &ClientError) -> String {
    match error {
        ClientError::Disconnected { cause, .. } => cause.clone(),
        ClientError::Refused { error, .. } => error.message.clone(),
        ClientError::Protocol { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{pending, ready};
    use tokio::time::{Instant, sleep};

    use super::*;

    type Answer = Attempt<'static, u32>;

    fn fails(name: &str) -> Answer {
        let error = ClientError::Unreachable { tried: vec![(name.to_owned(), "refused".to_owned())] };
        (name.to_owned(), ready(Err(error)).boxed())
    }

    fn answers(after: Duration, answer: u32) -> Answer {
        (
            "one".to_owned(),
            async move {
                sleep(after).await;
                Ok(answer)
            }
            .boxed(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_asked_when_one_fails_or_is_silent_and_the_first_to_answer_is_heard() {
        let started = Instant::now();
        let silent = ("silent".to_owned(), pending().boxed());
        let slow = answers(Duration::from_secs(1), 1);
        let attempts = vec![fails("dead"), silent, slow, answers(Duration::from_secs(5), 2)];
        assert_eq!(first_answer(attempts).await, Ok(1));
        assert_eq!(started.elapsed(), Duration::from_millis(1_250), "the silent one cost its time, the dead one none");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_answers_at_once_is_asked_beside_another() {
        let untouched = ("never".to_owned(), async { panic!("asked for nothing") }.boxed());
        assert_eq!(first_answer(vec![answers(Duration::from_millis(200), 1), untouched]).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn when_none_answers_what_one_said_counts_more_than_that_others_were_not_reached() {
        let failed = first_answer(vec![fails("a"), fails("b")]).await.expect_err("both dead");
        assert!(matches!(verdict(failed), ClientError::Unreachable { tried } if tried.len() == 2));
        let busy = ClientError::Busy { address: "c".into(), limit: 1 };
        let said = ("c".to_owned(), ready(Err(busy.clone())).boxed());
        assert_eq!(verdict(first_answer(vec![said, fails("b")]).await.expect_err("none")), busy);
    }
}
