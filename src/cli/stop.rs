//! Ctrl-C and SIGTERM: the first finishes what is in flight, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::error::CliError;
use super::progress::print_line;

/// The exit code after a second signal, as shells have it for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Tells when the user wants the command to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    stopped: watch::Receiver<bool>,
}

impl Stop {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// [`CliError::Failed`] when the operating system refuses.
    pub fn on_signals() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let (sender, stopped) = watch::channel(false);
        tokio::spawn(async move {
            either(&mut interrupt, &mut terminate).await;
            // Nobody may be listening any more; the second signal counts all the same.
            let _ = sender.send(true);
            either(&mut interrupt, &mut terminate).await;
            print_line("error: stopped at once; what was in flight may be lost or not");
            std::process::exit(INTERRUPTED);
        });
        Ok(Self { stopped })
    }

    /// One that the test decides about.
    #[cfg(test)]
    pub fn by_hand() -> (watch::Sender<bool>, Self) {
        let (sender, stopped) = watch::channel(false);
        (sender, Self { stopped })
    }

    /// Whether it is time to end. Costs an atomic load until then.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        // `has_changed` never consumes here: nobody calls `borrow_and_update` on this receiver before it is true.
        self.stopped.has_changed().unwrap_or(true)
    }

    /// Returns when it is time to end. May be dropped while it waits.
    pub async fn wait(&self) {
        // The sender lives in the task above as long as the process; were it gone, ending is right.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
