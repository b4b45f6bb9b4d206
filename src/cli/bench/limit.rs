//! `callboard bench limit`: what sockets and files of this machine allow. Blocking code of the standard library, nothing of
//! Callboard: a sender and a receiver for each connection, and with `sync` one thread a file that syncs it.
//!
//! ```text
//!   sender ─ chunks, at most 8 MiB ahead of their acknowledgement ─► receiver ─ one write a chunk ─► file, growing
//!      ▲                                                                │ not synced: acknowledged at once
//!      └──────── how many chunks so far ◄──────── syncer ◄──────────────┘ synced: all that came during the last sync
//! ```
//!
//! Sender and receiver are threads of one process, which is at worst kinder to the limit than two processes are.

#![allow(
    clippy::disallowed_methods,
    reason = "plain code of the standard library is the point: it reads the clock itself"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::moved::Moved;
use super::temporary_file::TemporaryFile;

/// A sender waits when so many bytes are not acknowledged: more than a producer has in flight with five batches of 1 MiB.
const WINDOW_BYTES: usize = 8 << 20;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Connections.
    pub connections: usize,
    /// Files that they append to, dealt out in turn; 0 for none: the receiver drops what it gets.
    pub files: usize,
    /// Bytes of all connections together, rounded up to whole chunks of each.
    pub bytes: usize,
    /// Bytes of a write.
    pub chunk_bytes: usize,
    /// Whether a file is synced before its bytes are acknowledged.
    pub sync: bool,
    /// Where the files go.
    pub directory: PathBuf,
}

/// Where several connections append, and how far each has come.
struct Target {
    file: Option<TemporaryFile>,
    end: AtomicU64,
    arrived: Mutex<Vec<Arrived>>,
    changed: Condvar,
}

/// One connection, for the syncer: chunks written, chunks acknowledged.
struct Arrived {
    socket: TcpStream,
    written: u64,
    acknowledged: u64,
    is_open: bool,
}

impl Target {
    fn lock(&self) -> MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    /// Measures. Ends early when `stopped` is set.
    ///
    /// # Errors
    /// Those of sockets and files.
    pub fn run(&self, stopped: &AtomicBool) -> io::Result<Moved> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let chunks = self.bytes.div_ceil(self.chunk_bytes * self.connections).max(1) as u64;
        let targets = (0..self.files.max(1)).map(|n| self.target(n)).collect::<io::Result<Vec<_>>>()?;
        let mut sockets = Vec::new();
        for connection in 0..self.connections {
            let sender = TcpStream::connect(listener.local_addr()?)?;
            let (receiver, _) = listener.accept()?;
            sender.set_nodelay(true)?;
            receiver.set_nodelay(true)?;
            let target = &targets[connection % targets.len()];
            let (socket, is_open) = (receiver.try_clone()?, true);
            target.lock().push(Arrived { socket, written: 0, acknowledged: 0, is_open });
            sockets.push((sender, receiver, target, target.lock().len() - 1));
        }
        let started = Instant::now();
        thread::scope(|scope| {
            let mut others = Vec::new();
            let mut senders = Vec::new();
            for (sender, receiver, target, place) in sockets {
                others.push(scope.spawn(move || self.receive(receiver, target, place)));
                senders.push(scope.spawn(move || self.send(sender, chunks, stopped)));
            }
            if self.sync {
                others.extend(targets.iter().map(|target| scope.spawn(|| keep_synced(target))));
            }
            let sent: Vec<_> = senders.into_iter().map(join).collect();
            let elapsed = started.elapsed();
            // Why a receiver gave up says more than that its sender lost the connection.
            others.into_iter().try_for_each(join)?;
            let chunks: u64 = sent.into_iter().sum::<io::Result<u64>>()?;
            Ok(Moved { bytes: chunks * self.chunk_bytes as u64, elapsed })
        })
    }

    fn target(&self, number: usize) -> io::Result<Target> {
        let create = |()| TemporaryFile::create(&self.directory, &format!("limit-{number}"));
        let file = (self.files > 0).then_some(()).map(create).transpose()?;
        Ok(Target { file, end: AtomicU64::new(0), arrived: Mutex::default(), changed: Condvar::new() })
    }

    fn send(&self, mut socket: TcpStream, chunks: u64, stopped: &AtomicBool) -> io::Result<u64> {
        let data = vec![7; self.chunk_bytes];
        let window = (WINDOW_BYTES / self.chunk_bytes).max(2) as u64;
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < chunks {
            while sent < chunks && sent < acknowledged + window && !stopped.load(Ordering::Relaxed) {
                socket.write_all(&data)?;
                sent += 1;
            }
            if acknowledged == sent {
                break;
            }
            let mut so_far = [0; 8];
            socket.read_exact(&mut so_far)?;
            acknowledged = u64::from_le_bytes(so_far);
        }
        Ok(acknowledged)
    }

    fn receive(&self, socket: TcpStream, target: &Target, place: usize) -> io::Result<()> {
        let received = self.append(&socket, target, place);
        // A sender that waits for an acknowledgement of what could not be written must not wait for ever.
        let _ = if received.is_err() { socket.shutdown(Shutdown::Both) } else { Ok(()) };
        target.lock()[place].is_open = false;
        target.changed.notify_one();
        received
    }

    fn append(&self, mut socket: &TcpStream, target: &Target, place: usize) -> io::Result<()> {
        let mut buffer = vec![0; self.chunk_bytes];
        let mut written = 0_u64;
        while socket.read_exact(&mut buffer).is_ok() {
            if let Some(TemporaryFile { file, .. }) = &target.file {
                file.write_all_at(&buffer, target.end.fetch_add(buffer.len() as u64, Ordering::Relaxed))?;
            }
            written += 1;
            if self.sync {
                target.lock()[place].written = written;
                target.changed.notify_one();
            } else {
                socket.write_all(&written.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Syncs the file whenever something was written to it, and acknowledges what the sync covers.
fn keep_synced(target: &Target) -> io::Result<()> {
    let has_news = |arrived: &Vec<Arrived>| arrived.iter().any(|one| one.written > one.acknowledged);
    loop {
        let mut arrived = target.lock();
        while !has_news(&arrived) {
            if arrived.iter().all(|one| !one.is_open) {
                return Ok(());
            }
            arrived = target.changed.wait(arrived).unwrap_or_else(PoisonError::into_inner);
        }
        let covered: Vec<u64> = arrived.iter().map(|one| one.written).collect();
        drop(arrived);
        if let Some(TemporaryFile { file, .. }) = &target.file {
            let synced = file.sync_data();
            if synced.is_err() {
                target.lock().iter().for_each(|one| drop(one.socket.shutdown(Shutdown::Both)));
            }
            synced?;
        }
        for (one, covered) in target.lock().iter_mut().zip(covered).filter(|(one, to)| *to > one.acknowledged) {
            one.acknowledged = covered;
            // A sender that was stopped no longer reads.
            let _ = one.socket.write_all(&covered.to_le_bytes());
        }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}
