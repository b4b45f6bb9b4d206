//! A server in a process of its own: told to start, watched, and never left behind.
//!
//! ```text
//!   stdin   held open: a child with --stop-with-parent stops when it closes, however this process ended
//!   stdout  a thread: the line "ready: …", then the end ─► waits for the process
//!   stderr  a thread: each line to whoever listens; the last ones are kept for an error
//! ```
//!
//! Signals go by a descriptor of the process (pidfd), so that none can reach another one that was given the number later.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// Lines of stderr that are kept for an error: a start that fails says why in its last one or two.
const KEPT_LINES: usize = 12;

/// Is told each line that a process writes, on a thread of that process.
pub type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

/// Where a process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not said that it is ready.
    Starting,
    /// It has, with this line.
    Ready(String),
    /// It is gone.
    Ended(ExitStatus),
}

/// Why a process is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It ended.
    Ended(ExitStatus),
    /// It still starts, after so long.
    Slow(Duration),
}

/// A process that was started. It is killed when this is dropped.
#[derive(Debug)]
pub struct ChildProcess {
    pid: u32,
    handle: OwnedFd,
    state: watch::Receiver<State>,
    last_lines: LastLines,
    /// Closed by the end of this process, however that comes.
    _stdin: Option<ChildStdin>,
    reaper: Option<JoinHandle<()>>,
}

impl ChildProcess {
    /// Starts `command`. Ctrl-C on the terminal does not reach it: whoever started it decides about its end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn spawn(mut command: Command, on_line: OnLine) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (told, state) = watch::channel(State::Starting);
        let last_lines = LastLines::default();
        let stdin = child.stdin.take();
        let pid = child.id();
        let handle = match open(pid) {
            Ok(handle) => handle,
            Err(error) => {
                // Nobody could end it later.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let lines = last_lines.clone();
        let reaper = std::thread::Builder::new()
            .name("child".to_owned())
            .spawn(move || watch_over(child, &told, &lines, &on_line))
            .inspect_err(|_| {
                // Nobody could wait for it.
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            })?;
        Ok(Self { pid, handle, state, last_lines, _stdin: stdin, reaper: Some(reaper) })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for the line that says that it is ready.
    ///
    /// # Errors
    /// [`NotReady`]: it ended, or takes longer than `patience`.
    pub async fn ready(&self, patience: Duration) -> Result<String, NotReady> {
        let mut state = self.state.clone();
        let told = timeout(patience, state.wait_for(|state| *state != State::Starting)).await;
        match told.map(|told| told.map(|state| state.clone())) {
            Ok(Ok(State::Ready(line))) => Ok(line),
            Ok(Ok(State::Ended(status))) => Err(NotReady::Ended(status)),
            _ => Err(NotReady::Slow(patience)),
        }
    }

    /// Waits until it is gone.
    pub async fn gone(&self) -> ExitStatus {
        let mut state = self.state.clone();
        loop {
            if let State::Ended(status) = *state.borrow_and_update() {
                return status;
            }
            if state.changed().await.is_err() {
                // Its thread could not wait for it, and said so: nobody will ever know.
                std::future::pending::<()>().await;
            }
        }
    }

    /// As [`ChildProcess::gone`]; none if it takes longer than `patience`.
    pub async fn ended(&self, patience: Duration) -> Option<ExitStatus> {
        timeout(patience, self.gone()).await.ok()
    }

    /// Sends a signal. One that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        // Whether it is gone is seen by waiting for its end, not here: it may go at any moment.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// The last lines that it wrote on stderr.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.last_lines.all()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Once the thread has ended the process has, too, and its files are at rest.
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    // It was not waited for yet, so the number is still its own.
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Reads what it says until it is gone.
fn watch_over(mut child: Child, told: &watch::Sender<State>, last_lines: &LastLines, on_line: &OnLine) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            each_line(stderr, |line| {
                last_lines.push(line);
                on_line(line);
            });
        });
        each_line(stdout, |line| {
            if line.starts_with("ready:") {
                told.send_replace(State::Ready(line.to_owned()));
            }
            on_line(line);
        });
    });
    // Both threads are done by now, so that whoever learns of the end finds the last lines complete.
    match child.wait() {
        Ok(status) => drop(told.send_replace(State::Ended(status))),
        Err(error) => tracing::error!(%error, "a process that was started cannot be waited for"),
    }
}

fn each_line(pipe: Option<impl Read>, mut take: impl FnMut(&str)) {
    let lines = pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n')).map_while(Result::ok);
    for line in lines {
        take(&String::from_utf8_lossy(&line));
    }
}

#[derive(Clone, Debug, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A shell that runs `script`, and the lines that it wrote.
    fn shell(script: &str) -> (ChildProcess, Arc<Mutex<Vec<String>>>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let on_line: OnLine = Arc::new(move |line| heard.lock().expect("no panic").push(line.to_owned()));
        (ChildProcess::spawn(command, on_line).expect("a shell"), lines)
    }

    #[tokio::test]
    async fn it_is_ready_when_it_says_so_and_ends_when_it_is_told() {
        let (child, lines) = shell("echo starting >&2; echo ready: here; read line; echo never");
        assert_eq!(child.ready(PATIENCE).await, Ok("ready: here".to_owned()));
        assert_eq!(child.ended(Duration::from_millis(1)).await, None);
        child.signal(Signal::TERM);
        let status = child.ended(PATIENCE).await.expect("it ended");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
        let mut lines = lines.lock().expect("no panic").clone();
        lines.sort();
        assert_eq!(lines, ["ready: here", "starting"]);
    }

    #[tokio::test]
    async fn one_that_ends_instead_leaves_its_last_lines() {
        let (child, _) = shell("seq 1 20 >&2; exit 3");
        let Err(NotReady::Ended(status)) = child.ready(PATIENCE).await else { panic!("it was never ready") };
        assert_eq!(status.code(), Some(3));
        let expected: Vec<String> = (9..=20).map(|number| number.to_string()).collect();
        assert_eq!(child.last_lines(), expected);
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_slow() {
        let (child, _) = shell("read line");
        let patience = Duration::from_millis(1);
        assert_eq!(child.ready(patience).await, Err(NotReady::Slow(patience)));
    }

    #[tokio::test]
    async fn none_outlives_its_handle_not_even_a_stopped_one() {
        let (child, _) = shell("echo ready:; read line");
        child.ready(PATIENCE).await.expect("ready");
        child.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", child.pid());
        // A signal that arrives before the stop has come about would be delivered first.
        let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        let stopped = async {
            while !is_stopped() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, stopped).await.expect("it is stopped");
        let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).expect("a number");
        assert!(rustix::process::test_kill_process(pid).is_ok());
        drop(child);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is still there");
    }

    #[tokio::test]
    async fn what_is_not_text_does_not_stop_the_reading() {
        let (child, lines) = shell("printf '\\377\\n' >&2; echo ready:");
        child.ended(PATIENCE).await.expect("it ended");
        assert!(lines.lock().expect("no panic").contains(&"\u{fffd}".to_owned()));
    }
}
