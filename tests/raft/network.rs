//! A network in memory: members that are cut off, messages that are dropped or take their time, and a trace of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::raft::{Addressee, MetadataRaft, RaftId, RaftTransport, TransportError};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AsyncRuntime, Instant, Raft};

/// What happens to messages.
#[derive(Debug)]
struct Weather {
    cut: BTreeSet<(RaftId, RaftId)>,
    /// One in so many is lost; 0 for none.
    drop_one_in: u64,
    /// A message takes up to so many milliseconds.
    max_delay_ms: u64,
    rng: fastrand::Rng,
}

/// The network that all members are plugged into.
pub struct Switch<C: MetadataRaft> {
    members: Mutex<BTreeMap<RaftId, Raft<C>>>,
    weather: Mutex<Weather>,
    began: <C::AsyncRuntime as AsyncRuntime>::Instant,
    trace: Mutex<Vec<String>>,
}

impl<C: MetadataRaft> Switch<C> {
    pub fn new(seed: u64) -> Arc<Self> {
        let rng = fastrand::Rng::with_seed(seed);
        Arc::new(Self {
            members: Mutex::default(),
            weather: Mutex::new(Weather { cut: BTreeSet::new(), drop_one_in: 0, max_delay_ms: 1, rng }),
            began: Instant::now(),
            trace: Mutex::default(),
        })
    }

    pub fn plug_in(&self, id: RaftId, raft: Raft<C>) {
        self.members.lock().unwrap().insert(id, raft);
    }

    pub fn unplug(&self, id: RaftId) {
        self.members.lock().unwrap().remove(&id);
    }

    /// Nothing passes between this member and the others.
    pub fn isolate(&self, id: RaftId, others: impl IntoIterator<Item = RaftId>) {
        let cut = &mut self.weather.lock().unwrap().cut;
        for other in others {
            cut.extend([(id, other), (other, id)]);
        }
    }

    pub fn set_weather(&self, drop_one_in: u64, max_delay_ms: u64) {
        let mut weather = self.weather.lock().unwrap();
        (weather.drop_one_in, weather.max_delay_ms) = (drop_one_in, max_delay_ms);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.weather.lock().unwrap().cut.clear();
    }

    /// A random number of the network's own.
    pub fn random(&self, below: u64) -> u64 {
        self.weather.lock().unwrap().rng.u64(0..below)
    }

    pub fn note(&self, what: String) {
        let at: Duration = <C::AsyncRuntime as AsyncRuntime>::Instant::now() - self.began;
        self.trace.lock().unwrap().push(format!("{:>9} {what}", at.as_micros()));
    }

    /// What happened, with the time in microseconds.
    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    /// One way of a message. `None` when it is lost without a word.
    async fn pass(&self, from: RaftId, to: RaftId, what: &str) -> Option<()> {
        let (lost, delay_ms) = {
            let mut weather = self.weather.lock().unwrap();
            let (drop_one_in, max_delay_ms) = (weather.drop_one_in, weather.max_delay_ms);
            (drop_one_in > 0 && weather.rng.u64(0..drop_one_in) == 0, weather.rng.u64(0..=max_delay_ms))
        };
        self.note(format!("{from} -> {to} {what}{}", if lost { " (lost)" } else { "" }));
        <C::AsyncRuntime as AsyncRuntime>::sleep(Duration::from_millis(delay_ms)).await;
        (!lost).then_some(())
    }

    fn reach(&self, from: RaftId, to: RaftId) -> Option<Raft<C>> {
        let cut = self.weather.lock().unwrap().cut.contains(&(from, to));
        self.members.lock().unwrap().get(&to).filter(|_| !cut).cloned()
    }

    /// A message and its answer.
    async fn exchange<
        R: Send,
        E: std::error::Error + Send,
        F: Future<Output = Result<R, RaftError<RaftId, E>>> + Send,
    >(
        &self,
        (from, to): (RaftId, RaftId),
        timeout: Duration,
        what: String,
        handle: impl FnOnce(Raft<C>) -> F + Send,
    ) -> Result<R, TransportError<E>> {
        let unreachable = || TransportError::Unreachable { to, reason: "cut off".to_owned() };
        let exchange = async {
            let lost = TransportError::Timeout { to };
            if self.pass(from, to, &what).await.is_none() {
                return Err(lost);
            }
            let member = self.reach(from, to).ok_or_else(unreachable)?;
            let answer = handle(member).await?;
            if self.pass(to, from, "answer").await.is_none() {
                return Err(lost);
            }
            self.reach(to, from).ok_or_else(unreachable)?;
            Ok(answer)
        };
        let ended = <C::AsyncRuntime as AsyncRuntime>::timeout(timeout, exchange).await;
        ended.unwrap_or(Err(TransportError::Timeout { to }))
    }
}

/// A member's plug.
pub struct Link<C: MetadataRaft> {
    pub from: RaftId,
    pub switch: Arc<Switch<C>>,
}

impl<C: MetadataRaft> RaftTransport<C> for Link<C> {
    async fn append_entries(
        &self,
        to: &Addressee,
        request: AppendEntriesRequest<C>,
        timeout: Duration,
    ) -> Result<AppendEntriesResponse<RaftId>, TransportError> {
        let what = format!("append {:?} after {:?}", request.entries.len(), request.prev_log_id.map(|id| id.index));
        let handle = |raft: Raft<C>| async move { raft.append_entries(request).await };
        self.switch.exchange((self.from, to.id), timeout, what, handle).await
    }

    async fn vote(
        &self,
        to: &Addressee,
        request: VoteRequest<RaftId>,
        timeout: Duration,
    ) -> Result<VoteResponse<RaftId>, TransportError> {
        let what = format!("vote {}", request.vote);
        let handle = |raft: Raft<C>| async move { raft.vote(request).await };
        self.switch.exchange((self.from, to.id), timeout, what, handle).await
    }

    async fn install_snapshot(
        &self,
        to: &Addressee,
        chunk: InstallSnapshotRequest<C>,
        timeout: Duration,
    ) -> Result<InstallSnapshotResponse<RaftId>, TransportError<InstallSnapshotError>> {
        let what = format!("snapshot {}+{}", chunk.offset, chunk.data.len());
        let handle = |raft: Raft<C>| async move { raft.install_snapshot(chunk).await };
        self.switch.exchange((self.from, to.id), timeout, what, handle).await
    }
}
