//! A producer that sends one record after the other, and notes how long each acknowledgement took.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cli::error::CliError;
use crate::client::{Client, OutgoingRecord, ProducerConfig};

/// Between an acknowledgement and the next record. Short beside what is measured, and leaves the machine to the cluster.
const PACE: Duration = Duration::from_millis(1);
/// A record that took longer has failed, whatever the cluster does.
const DELIVERY: Duration = Duration::from_secs(60);

/// Sends until it is dropped.
pub struct Probe {
    noted: Arc<Mutex<Noted>>,
    task: JoinHandle<()>,
}

struct Noted {
    /// When the last acknowledgement came.
    last: Instant,
    /// The longest time between two of them, since this was last asked.
    longest: Duration,
    acknowledged: u64,
    failures: Vec<String>,
}

impl Probe {
    /// Sends to partition 0 of `topic`.
    ///
    /// # Errors
    /// That there cannot be a producer.
    pub async fn start(client: &Client, topic: &str) -> Result<Self, CliError> {
        let producer = client.producer(ProducerConfig::default().delivery_timeout(DELIVERY)).await?;
        let noted = Noted { last: Instant::now(), longest: Duration::ZERO, acknowledged: 0, failures: Vec::new() };
        let noted = Arc::new(Mutex::new(noted));
        let (notes, topic) = (Arc::clone(&noted), topic.to_owned());
        let task = tokio::spawn(async move {
            for number in 0_u64.. {
                let record = OutgoingRecord::to(topic.as_str()).partition(0).value(number.to_string());
                let outcome = match producer.send(record).await {
                    Ok(delivery) => delivery.await.map(drop),
                    Err(error) => Err(error),
                };
                lock(&notes).note(outcome.map_err(|error| error.to_string()));
                sleep(PACE).await;
            }
        });
        Ok(Self { noted, task })
    }

    /// Begins to measure anew.
    pub fn reset(&self) {
        lock(&self.noted).longest = Duration::ZERO;
    }

    /// The longest time without an acknowledgement since [`Probe::reset`], the current one included.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let noted = lock(&self.noted);
        noted.longest.max(noted.last.elapsed())
    }

    /// How many records were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        lock(&self.noted).acknowledged
    }

    /// Ends it, and tells how many records were acknowledged and what the others were told. The one that is under way is neither.
    pub async fn finish(mut self) -> (u64, Vec<String>) {
        self.task.abort();
        // Ended by that, or before.
        let _ = (&mut self.task).await;
        let noted = lock(&self.noted);
        (noted.acknowledged, noted.failures.clone())
    }
}

impl Noted {
    fn note(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.longest = self.longest.max(self.last.elapsed());
                self.last = Instant::now();
                self.acknowledged += 1;
            }
            Err(error) => self.failures.push(error),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    // Each change is a few assignments.
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}
