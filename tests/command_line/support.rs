//! The vocabulary: a node that is a process of its own, programs that run beside it, and what they said.

#![allow(clippy::disallowed_methods, reason = "other processes are waited for by the clock")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub const CALLBOARD: &str = env!("CARGO_BIN_EXE_callboard");
pub const PRODUCER: &str = env!("CARGO_BIN_EXE_callboard-producer");
pub const CONSUMER: &str = env!("CARGO_BIN_EXE_callboard-consumer");

/// Longer than anything takes here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A command without the settings of whoever runs the tests.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CALLBOARD") {
            command.env_remove(name);
        }
    }
    command
}

/// A process whose output goes to files, so that it can be looked at meanwhile and never fills a pipe.
pub struct Process {
    child: Child,
    said: TempDir,
}

/// What a process that ended has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// What it printed, when it ended well and had nothing to complain about.
    #[track_caller]
    pub fn quietly(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        self.stdout
    }

    /// What it printed as JSON, whatever else it said.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The exit code and the one line on stderr of something that failed with nothing on stdout.
    #[track_caller]
    pub fn refusal(&self) -> (i32, &str) {
        assert_eq!((self.stdout.as_str(), self.stderr.lines().count()), ("", 1), "{self:?}");
        (self.code, self.stderr.trim_end())
    }
}

impl Process {
    pub fn spawn(mut command: Command, input: Stdio) -> Self {
        let said = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| File::create(said.path().join(name)).expect("a new file");
        command.stdin(input).stdout(file("stdout")).stderr(file("stderr"));
        Self { child: command.spawn().expect("the program was built"), said }
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(std::fs::read(self.said.path().join(name)).expect("the file is there")).expect("text")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("small")).expect("not 0");
        kill_process(pid, signal).expect("it runs");
    }

    /// Two signals that arrive before the process can do anything between them.
    pub fn signal_twice(&self) {
        for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
            self.signal(signal);
        }
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    pub fn wait(mut self) -> Outcome {
        let status = wait_for("the program ends", || self.has_ended());
        let code = status.code().unwrap_or_else(|| panic!("killed: {status}"));
        Outcome { code, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that ended has none any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, with these bytes as its input.
pub fn run_with(mut command: Command, arguments: &[&str], input: &[u8]) -> Outcome {
    command.args(arguments);
    let mut process = Process::spawn(command, Stdio::piped());
    // A program that does not read its input closes the pipe first.
    let _ = process.stdin().write_all(input);
    process.wait()
}

/// A new directory to work in.
pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Writes a small file and gives its path as text.
pub fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("a small file");
    path.to_str().expect("text").to_owned()
}

/// `callboard node` on a free port with these settings.
pub fn node_command(data_dir: &Path, settings: &[&str]) -> Command {
    let mut command = command(CALLBOARD);
    let data_dir = format!("node.data_dir={}", data_dir.display());
    let always = ["listener.native.bind=127.0.0.1:0", "listener.http.bind=", "storage.min_free_bytes=0", &data_dir];
    command.arg("node");
    for setting in always.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

/// A node that runs, and the programs that talk to it.
pub struct Node {
    process: Process,
    pub address: String,
    pub data_dir: PathBuf,
    _home: Option<TempDir>,
}

impl Node {
    /// A node on a new data directory.
    pub fn start() -> Self {
        let home = directory();
        let mut node = Self::start_in(&home.path().join("data"), &[]);
        node._home = Some(home);
        node
    }

    /// A node on this data directory.
    pub fn start_in(data_dir: &Path, settings: &[&str]) -> Self {
        Self::start_with(node_command(data_dir, settings), data_dir)
    }

    /// The node of this command.
    pub fn start_with(command: Command, data_dir: &Path) -> Self {
        let mut process = Process::spawn(command, Stdio::null());
        let address = wait_for("the node says when it is ready", || {
            let ended = process.has_ended();
            assert_eq!(ended, None, "{}", process.stderr());
            let stdout = process.stdout();
            let line = stdout.lines().find(|line| line.starts_with("ready: "))?;
            Some(line.strip_prefix("ready: native protocol at ")?.split_once(',')?.0.to_owned())
        });
        Self { process, address, data_dir: data_dir.to_owned(), _home: None }
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Sends `signal` and waits for the end.
    pub fn stop(self, signal: Signal) -> Outcome {
        self.process.signal(signal);
        self.process.wait()
    }

    /// Stops it and keeps its files as long as what is returned.
    pub fn stop_and_keep(mut self, signal: Signal) -> Option<TempDir> {
        let home = self._home.take();
        assert_eq!(self.stop(signal).code, 0);
        home
    }

    /// Sends two signals at once and waits for the end.
    pub fn stop_at_once(self) -> Outcome {
        self.process.signal_twice();
        self.process.wait()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.env("CALLBOARD_SERVER", &self.address);
        command
    }

    /// `callboard …` against this node.
    pub fn callboard(&self, arguments: &[&str]) -> Outcome {
        run_with(self.command(CALLBOARD), arguments, b"")
    }

    /// Creates a topic.
    pub fn create(&self, topic: &str, partitions: u32) {
        self.callboard(&["topic", "create", topic, "--partitions", &partitions.to_string()]).quietly();
    }

    /// `callboard-producer …` with this input.
    pub fn produce(&self, input: &[u8], arguments: &[&str]) -> Outcome {
        run_with(self.command(PRODUCER), arguments, input)
    }

    /// `callboard-consumer …`
    pub fn consume(&self, arguments: &[&str]) -> Outcome {
        run_with(self.command(CONSUMER), arguments, b"")
    }

    /// A program that goes on beside the test.
    pub fn spawn(&self, program: &str, arguments: &[&str], input: Stdio) -> Process {
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(command, input)
    }

    /// The directories of a topic's partitions, in order.
    pub fn partitions(&self, topic: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.data_dir).expect("the data directory");
        let mut found: Vec<PathBuf> = entries
            .map(|entry| entry.expect("readable").path())
            .filter(|path| {
                let name = path.file_name().expect("named").to_string_lossy().into_owned();
                name.strip_prefix(topic).is_some_and(|rest| rest.starts_with('-'))
            })
            .collect();
        found.sort();
        found
    }
}

/// The lines of a text.
pub fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// The keys of a JSON object, sorted.
pub fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
