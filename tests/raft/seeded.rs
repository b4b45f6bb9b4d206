//! How far one seed makes one story: openraft on tokio with one thread, virtual time, and random numbers of our own.

use std::cell::RefCell;
use std::future::Future;
use std::io::Cursor;
use std::time::Duration;

use callboard::raft::{ControllerNode, Decided, Decision, RaftId};
use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};

use crate::cluster::chaos;

/// Each runs twice.
const SEEDS: u64 = 40;

thread_local! {
    static RNG: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

/// Random numbers from the thread's seed.
#[derive(Debug)]
pub struct SeededRng;

impl rand_core::RngCore for SeededRng {
    fn next_u32(&mut self) -> u32 {
        RNG.with_borrow_mut(|rng| rng.u32(..))
    }

    fn next_u64(&mut self) -> u64 {
        RNG.with_borrow_mut(|rng| rng.u64(..))
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        RNG.with_borrow_mut(|rng| rng.fill(dest));
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

/// Tokio, with random numbers from a seed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SeededRuntime;

impl AsyncRuntime for SeededRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SeededRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> SeededRng {
        SeededRng
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

openraft::declare_raft_types!(
    /// Raft on the seeded runtime.
    pub SeededConfig:
        D = Decision,
        R = Decided,
        NodeId = RaftId,
        Node = ControllerNode,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = SeededRuntime,
);

/// The whole story of one seed.
fn story(seed: u64) -> Vec<String> {
    RNG.set(fastrand::Rng::with_seed(seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { chaos::<SeededConfig>(seed, 40).await.switch.trace() })
}

fn tells_one_story(seed: u64) {
    let (first, second) = (story(seed), story(seed));
    let differing = first.iter().zip(&second).position(|(first, second)| first != second);
    let at = differing.map(|at| (&first[at], &second[at]));
    assert!(
        first == second,
        "seed {seed} told two stories, of {} and {} lines, at {differing:?}: {at:#?} \
         (replay: CALLBOARD_SEED={seed} cargo test --test raft one_seed)",
        first.len(),
        second.len()
    );
}

#[test]
fn one_seed_tells_one_story_and_another_seed_another() {
    match std::env::var("CALLBOARD_SEED") {
        Ok(seed) => tells_one_story(seed.parse().expect("CALLBOARD_SEED is a number")),
        Err(_) => (0..SEEDS).for_each(tells_one_story),
    }
    assert_ne!(story(1), story(2));
}
