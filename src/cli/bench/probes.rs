//! The smaller yardsticks: a message to and fro over TCP, an append with its fdatasync, a file read from the disk. Blocking
//! code of the standard library, as in [`super::limit`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::Advice;

use super::clock::BenchClock;
use super::latency::Latencies;
use super::moved::Moved;
use super::temporary_file::TemporaryFile;

/// Writes of this size fill the files that are read or only warm the memory.
const FILL_BYTES: usize = 1 << 20;

/// Times `rounds` messages of `bytes` that a thread sends back.
///
/// # Errors
/// Those of sockets.
pub fn ping_pong(bytes: usize, rounds: u64, longest: Duration, stopped: &AtomicBool) -> io::Result<Latencies> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut message = vec![0; bytes];
        while far.read_exact(&mut message).is_ok() && far.write_all(&message).is_ok() {}
    });
    let mut message = vec![7; bytes];
    let times = rounds_of(rounds, longest, stopped, |_| {
        near.write_all(&message)?;
        near.read_exact(&mut message)
    });
    drop(near);
    // It has nothing to say: it ends when the socket closes.
    let _ = echo.join();
    times
}

/// Times `rounds` appends of `bytes`, each with its fdatasync, to a new file.
///
/// # Errors
/// Those of files.
pub fn sync_latency(
    directory: &Path,
    bytes: usize,
    rounds: u64,
    longest: Duration,
    stopped: &AtomicBool,
) -> io::Result<Latencies> {
    let mut target = TemporaryFile::create(directory, "sync")?;
    let data = vec![7; bytes];
    rounds_of(rounds, longest, stopped, |_| {
        target.file.write_all(&data)?;
        target.file.sync_data()
    })
}

fn rounds_of(
    rounds: u64,
    longest: Duration,
    stopped: &AtomicBool,
    mut round: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Latencies> {
    let clock = BenchClock::start();
    let until_ns = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    let mut times = Latencies::default();
    let mut before_ns = clock.now_ns();
    for number in 0..rounds {
        if stopped.load(Ordering::Relaxed) || before_ns >= until_ns {
            break;
        }
        round(number)?;
        let now_ns = clock.now_ns();
        times.record(now_ns - before_ns);
        before_ns = now_ns;
    }
    Ok(times)
}

/// Reads a new file of `bytes`, synced and dropped from the page cache, from its start to its end in reads of
/// `read_bytes`.
///
/// # Errors
/// Those of files.
pub fn sequential_read(directory: &Path, bytes: usize, read_bytes: usize, stopped: &AtomicBool) -> io::Result<Moved> {
    let mut target = TemporaryFile::create(directory, "read")?;
    fill(&mut target.file, bytes, stopped)?;
    drop_from_page_cache(&target.file)?;
    target.file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; read_bytes];
    let clock = BenchClock::start();
    let mut moved = 0;
    while !stopped.load(Ordering::Relaxed) {
        match target.file.read(&mut buffer)? {
            0 => break,
            count => moved += count as u64,
        }
    }
    Ok(Moved { bytes: moved, elapsed: Duration::from_nanos(clock.now_ns()) })
}

/// Touches memory that the next `bytes` of page cache will come from: memory that the guest has not used lately is backed
/// anew at a tenth of the speed, which would be measured instead of anything else.
///
/// # Errors
/// Those of files.
pub fn warm_memory(directory: &Path, bytes: usize, stopped: &AtomicBool) -> io::Result<()> {
    let mut target = TemporaryFile::create(directory, "warm")?;
    fill(&mut target.file, bytes, stopped)
}

fn fill(file: &mut File, bytes: usize, stopped: &AtomicBool) -> io::Result<()> {
    let data = vec![7; FILL_BYTES];
    let mut left = bytes;
    while left > 0 && !stopped.load(Ordering::Relaxed) {
        let now = left.min(data.len());
        file.write_all(&data[..now])?;
        left -= now;
    }
    Ok(())
}

/// Makes a file's next reader read from the disk.
///
/// # Errors
/// Those of files.
pub fn drop_from_page_cache(file: &File) -> io::Result<()> {
    // What is dirty cannot be dropped.
    file.sync_all()?;
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}
