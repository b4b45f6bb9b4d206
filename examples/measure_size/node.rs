//! A node as a child process: started, looked at, stopped or killed.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::wire::Wire;
use crate::{Result, Setup};

/// Longer than any start here, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Node {
    child: Child,
    pub address: String,
    data_dir: PathBuf,
    /// From exec to the answer to the first `Hello`, and to the ready line.
    pub answered: Duration,
    pub ready: Duration,
}

impl Node {
    /// Starts a node on the directory `name`, and returns when it is ready.
    pub async fn start(setup: &Setup, name: &str, settings: &[&str]) -> Result<Self> {
        // A free port, so that the moment of the first answer is known without the node telling its address.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let data_dir = setup.directory.join(name);
        let mut command = Command::new(&setup.binary);
        command.arg("node").arg("--set").arg(format!("node.data_dir={}", data_dir.display()));
        command.arg("--set").arg(format!("listener.native.bind={address}")).args(["--set", "log.level=warn"]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let stdout = child.stdout.take().ok_or("no output of the node")?;
        let ready_line = std::thread::spawn(move || {
            let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
            while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && !line.contains("ready:") {
                line.clear();
            }
            let ready = line.contains("ready:").then(|| began.elapsed());
            // Nobody closes the node's output while it runs.
            std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
            ready
        });
        let answered = tokio::time::timeout(PATIENCE, first_answer(&address, began)).await??;
        let ready = ready_line.join().map_err(|_| "the node's output was lost")?.ok_or("the node did not start")?;
        Ok(Self { child, address, data_dir, answered, ready })
    }

    /// What the process holds in memory: the whole, and the part that is no file's (its heap and stacks).
    pub fn memory_bytes(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        match (kib("VmRSS:"), kib("RssAnon:")) {
            (Some(all), Some(anonymous)) => Ok((all << 10, anonymous << 10)),
            _ => Err("the node has ended".into()),
        }
    }

    /// Ends it in order, and returns how long that took.
    pub fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(began.elapsed()) } else { Err(format!("the node ended with {status}").into()) }
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Removes what it stored.
    pub fn remove_data(setup: &Setup, name: &str) {
        // A measurement before may have removed it already.
        let _ = std::fs::remove_dir_all(setup.directory.join(name));
    }

    pub fn data_dir(&self) -> &PathBuf {
        &self.data_dir
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Only a measurement that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until somebody answers a `Hello`.
async fn first_answer(address: &str, began: Instant) -> Result<Duration> {
    loop {
        match Wire::open(address).await {
            Ok(_) => return Ok(began.elapsed()),
            Err(_) => tokio::time::sleep(Duration::from_micros(500)).await,
        }
    }
}

pub fn megabytes((all, anonymous): (u64, u64)) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.1} MiB ({:.1} of it heap and stacks)", mib(all), mib(anonymous))
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
