//! Producers and consumers, and the journal into which they write what happens to them.
//!
//! Each is a task with connections of its own: ended by `abort`, in the middle of whatever it does, its connections close and
//! nothing more is said, which is all that a cluster can notice of a killed process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::history::{History, Place, RecordId};
use crate::client::{
    Client, ClientConfig, ClientError, ConsumerConfig, OutOfRange, OutgoingRecord, Producer, ProducerConfig, ReadFrom,
    RecordMetadata, StartAt,
};

/// The time between two records of a producer: slow enough to be followed, quick enough that each kill meets some under way.
pub const PACE: Duration = Duration::from_millis(20);
/// How long a record may take: longer than a lease and an election, short enough to wait for when nothing is committed.
pub const DELIVERY: Duration = Duration::from_secs(15);
/// How long one request may take. A killed broker's connections close; this is for answers that do not come.
const REQUEST: Duration = Duration::from_secs(5);
/// The pause before a client that failed tries again.
const RETRY: Duration = Duration::from_millis(200);
/// Records that a consumer takes at once.
const TAKEN_AT_ONCE: usize = 1_000;

/// What happened: the history, and what clients were told.
#[derive(Debug, Default)]
pub struct Journal {
    written: Mutex<Written>,
}

/// What stands in a journal.
#[derive(Debug, Default)]
pub struct Written {
    /// What was sent, acknowledged and seen.
    pub history: History,
    /// How many records failed, and what the newest of them was told.
    pub failed: u64,
    /// See [`Written::failed`].
    pub newest_failure: Option<ClientError>,
    /// What made a consumer connect anew, last.
    pub newest_interruption: Option<String>,
}

impl Journal {
    /// What stands in it now. Not to be held over an await.
    pub fn read(&self) -> MutexGuard<'_, Written> {
        // A client that panicked has left whole entries: each is one call.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, record: RecordId, outcome: Result<RecordMetadata, ClientError>) {
        let mut written = self.read();
        match outcome {
            Ok(RecordMetadata { offset: Some(offset), .. }) => written.history.acknowledged(record, offset),
            // With acks = all an offset is always told.
            Ok(_) => {}
            Err(error) => {
                written.failed += 1;
                written.newest_failure = Some(error);
            }
        }
    }
}

/// How every client of the story reaches the cluster.
#[must_use]
pub fn config(bootstrap: &str, client_id: &str) -> ClientConfig {
    ClientConfig::new(bootstrap).client_id(client_id).request_timeout(REQUEST)
}

/// Something that runs beside the story. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// What people call it.
    pub name: String,
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    fn start<F: Future<Output = ()> + Send + 'static>(
        name: &str,
        run: impl FnOnce(watch::Receiver<bool>) -> F,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { name: name.to_owned(), task: tokio::spawn(run(stopped)), stop }
    }

    /// Ends it at once, and waits until nothing of it is left.
    pub async fn kill(mut self) {
        self.task.abort();
        // It ends with the error that says so.
        let _ = (&mut self.task).await;
    }

    /// Lets it finish what is under way. False if it did not within `patience`, and was killed.
    pub async fn finish(mut self, patience: Duration) -> bool {
        // One that has ended hears nothing.
        let _ = self.stop.send(true);
        tokio::time::timeout(patience, &mut self.task).await.is_ok_and(|ended| ended.is_ok())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A producer that sends to all `places` in turn, until it is ended. No other one may have this `number`.
#[must_use]
pub fn start_producer(name: &str, number: u32, bootstrap: &str, places: &[Place], journal: &Arc<Journal>) -> Running {
    let (config, places, journal) = (config(bootstrap, name), places.to_vec(), Arc::clone(journal));
    Running::start(name, move |stopped| async move {
        let producer = until_it_works(|| async {
            let config = config.clone();
            Client::connect(config).await?.producer(ProducerConfig::default().delivery_timeout(DELIVERY)).await
        });
        produce(producer.await, number, &places, &journal, stopped).await;
    })
}

async fn produce(
    producer: Producer,
    producer_number: u32,
    places: &[Place],
    journal: &Journal,
    mut stopped: watch::Receiver<bool>,
) {
    let mut ticks = interval(PACE);
    // What could not be sent in time is not made up for: the pace is what the story counts on.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = FuturesUnordered::new();
    let mut in_turn = (0..).zip(places.iter().cycle());
    loop {
        tokio::select! {
            Some((record, outcome)) = under_way.next(), if !under_way.is_empty() => journal.outcome(record, outcome),
            () = until_stopped(&mut stopped) => break,
            _ = ticks.tick() => {
                let Some((number, place)) = in_turn.next() else { break };
                let record = RecordId { producer: producer_number, number };
                journal.read().history.sent(record, place);
                let outgoing = OutgoingRecord::to(Arc::clone(&place.topic));
                let outgoing = outgoing.partition(place.partition).value(record.to_string());
                match producer.send(outgoing).await {
                    Ok(delivery) => under_way.push(delivery.map(move |outcome| (record, outcome))),
                    Err(error) => journal.outcome(record, Err(error)),
                }
            }
        }
    }
    while let Some((record, outcome)) = under_way.next().await {
        journal.outcome(record, outcome);
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // Were the sender gone, ending is right.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A consumer that reads all `places` from the beginning, until it is ended. No other one may have this `name`.
#[must_use]
pub fn start_consumer(
    name: &str,
    read_from: ReadFrom,
    bootstrap: &str,
    places: &[Place],
    journal: &Arc<Journal>,
) -> Running {
    let (config, places, journal) = (config(bootstrap, name), places.to_vec(), Arc::clone(journal));
    journal.read().history.reader_begins(name);
    let name_of_task = name.to_owned();
    // An offset that was there and is gone must not be passed over.
    let reading = ConsumerConfig::default().out_of_range(OutOfRange::Error).read_from(read_from);
    Running::start(name, move |_| async move {
        let mut next: BTreeMap<Place, StartAt> = places.into_iter().map(|place| (place, StartAt::Earliest)).collect();
        loop {
            let Err(error) = consume(&name_of_task, (config.clone(), reading.clone()), &mut next, &journal).await;
            journal.read().newest_interruption = Some(format!("{name_of_task}: {error}"));
            sleep(RETRY).await;
        }
    })
}

/// Reads on from `next` until something fails.
async fn consume(
    name: &str,
    (config, reading): (ClientConfig, ConsumerConfig),
    next: &mut BTreeMap<Place, StartAt>,
    journal: &Journal,
) -> Result<Infallible, ClientError> {
    let mut consumer = Client::connect(config).await?.consumer(reading).await?;
    for (place, from) in next.iter() {
        consumer.assign(&place.topic, Some(vec![place.partition]), *from).await?;
    }
    loop {
        let records = consumer.recv_batch(TAKEN_AT_ONCE).await?;
        let mut written = journal.read();
        for record in records {
            let place = Place { topic: record.topic, partition: record.partition };
            written.history.saw(name, &place, record.offset, record.value.as_deref().unwrap_or_default());
            next.insert(place, StartAt::Offset(record.offset.next()));
        }
    }
}

/// Tries until it works: whoever calls this has a deadline of its own, or is ended.
pub async fn until_it_works<T, F: Future<Output = Result<T, ClientError>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(_) => sleep(RETRY).await,
        }
    }
}
