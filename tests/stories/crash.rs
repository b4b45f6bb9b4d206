//! Processes that are killed, and disks that are full.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::actors::node::RunningNode;
use callboard::client::{OutgoingRecord, ProducerConfig};
use callboard::config::NodeConfig;
use callboard::protocol::ErrorCode;
use callboard::storage::disk::VirtualDisk;
use callboard::storage::disk::virtual_disk::FaultyOperation;
use callboard::testing::Node;

use crate::support::*;

struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts a node with small segments and checkpoints that come often: a kill hits all of these.
    fn start(data_dir: &Path, settings: &[&str]) -> Self {
        let always = [
            "listener.native.bind=127.0.0.1:0",
            "listener.http.bind=",
            "storage.min_free_bytes=0",
            "storage.checkpoint_interval_ms=20",
            "topic_defaults.segment_bytes=65536",
            "log.level=off",
        ];
        let data_dir = format!("node.data_dir={}", data_dir.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.arg("node");
        for setting in always.iter().copied().chain([data_dir.as_str()]).chain(settings.iter().copied()) {
            command.args(["--set", setting]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| {
            let at = line.split_once("ready: native protocol at ")?.1;
            Some(at.split_once(',')?.0.to_owned())
        });
        // Nobody reads what it says from here on, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        let address = ready.expect("the node says when it is ready");
        Self { child, address }
    }

    /// Kills it without warning.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and returns whether it says that it did so cleanly.
    fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A story that failed leaves no process behind; one that ended has none any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_afterwards_once_in_order_unchanged() {
    let dir = Directory::new();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut next = 0_u64;
    for round in 0..5 {
        let process = Process::start(&dir, &[]);
        let client = connect(&process.address).await;
        if round == 0 {
            create(&client, "t", 1, &[]).await;
        }
        let found = read_all(&client, "t").await;
        verify(&found, &acknowledged.lock().unwrap());
        // Above everything that may have been appended without being acknowledged.
        next = next.max(found.last().map_or(0, |(_, value)| number_in(value) + 1));

        let producer = client.producer(ProducerConfig::default()).await.unwrap();
        let streaming = tokio::spawn({
            let acknowledged = Arc::clone(&acknowledged);
            async move {
                for n in next.. {
                    let value = format!("{n} {}", "x".repeat(n as usize % 300));
                    let record = OutgoingRecord::to("t").partition(0).value(value);
                    let Ok(delivery) = producer.send(record).await else { break };
                    let acknowledged = Arc::clone(&acknowledged);
                    tokio::spawn(async move {
                        if let Ok(sent) = delivery.await {
                            acknowledged.lock().unwrap().push((sent.offset.unwrap().0, n));
                        }
                    });
                }
            }
        });
        let had = acknowledged.lock().unwrap().len();
        wait_until_async("records are acknowledged", || async { acknowledged.lock().unwrap().len() > had + 2_000 })
            .await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await;
        process.kill();
        streaming.abort();
        next += 10_000_000;
    }
    let process = Process::start(&dir, &[]);
    let client = connect(&process.address).await;
    let found = read_all(&client, "t").await;
    verify(&found, &acknowledged.lock().unwrap());
    drop(client);
    assert!(process.terminate(), "SIGTERM ends it cleanly");
    assert!(dir.join("clean-stop").exists());
}

fn number_in(value: &str) -> u64 {
    value.split(' ').next().unwrap().parse().unwrap()
}

fn verify(found: &[(u64, String)], acknowledged: &[(u64, u64)]) {
    for (offset, (found_at, value)) in (0..).zip(found) {
        assert_eq!(offset, *found_at, "no gap");
        let n = number_in(value);
        assert_eq!(*value, format!("{n} {}", "x".repeat(n as usize % 300)), "unchanged");
    }
    let rising = found.windows(2).all(|pair| number_in(&pair[0].1) < number_in(&pair[1].1));
    assert!(rising, "each once, in the order in which they were sent");
    for (offset, n) in acknowledged {
        let there = found.get(*offset as usize).map(|(_, value)| number_in(value));
        assert_eq!(there, Some(*n), "acknowledged at offset {offset}");
    }
}

const SMALL_QUEUES: [&str; 4] = [
    "topic_defaults.max_batch_bytes=258048",
    "limits.write_queue_bytes=262144",
    "limits.fetch_max_bytes=262144",
    "limits.write_timeout_ms=5000",
];

#[tokio::test]
async fn clients_that_read_nothing_and_clients_that_flood_do_not_fill_the_nodes_memory() {
    let dir = Directory::new();
    let process = Process::start(&dir, &SMALL_QUEUES);
    let client = connect(&process.address).await;
    let topic = create(&client, "t", 1, &[("flush", "os"), ("segment_bytes", "16777216")]).await;
    let mut raw = RawClient::greeted(&process.address);
    let large = batch(&["x".repeat(250_000).as_str()]);
    for _ in 0..40 {
        raw.produce(topic, large.clone()).unwrap();
    }
    let before = process.resident_bytes();
    let mut deaf: Vec<_> = (0..20).map(|_| RawClient::greeted(&process.address)).collect();
    for client in &mut deaf {
        for n in 0..200 {
            client.send(&fetch(topic, 0, n % 40), Vec::new());
        }
    }
    for n in 0..20 {
        raw.produce(topic, batch(&["y"])).expect("others write");
        raw.fetch(topic, n).expect("others read");
    }
    // 20 clients asked for a gigabyte. Each may have its queue and the reply that is being made.
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    drop(deaf);
    serves_others_at(&process.address);
    assert!(process.terminate());
}

/// A file system of a few MiB, mounted for one story.
struct SmallDisk(Directory);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = Directory::new();
        std::fs::create_dir_all(&*dir).ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&*dir)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Left mounted it would only be in the way of the next look at the temporary directory.
        let _ = Command::new("umount").arg(&*self.0).status();
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_refuses_appends_while_reading_and_deleting_go_on() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: a small file system can be mounted by root only");
        return;
    };
    let data = disk.0.join("data");
    let node = Node::start_in(&data, |config| config.storage.min_free_bytes = 3 << 20).unwrap();
    let client = connect(&node.address()).await;
    let kept = create(&client, "kept", 1, &[]).await;
    let filler = create(&client, "filler", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    raw.produce(kept, batch(&["before"])).unwrap();
    let wide = batch(&["w".repeat(50_000).as_str()]);
    let mut appended = 0;
    let error = loop {
        match raw.produce(filler, wide.clone()) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 150, "more than the disk holds");
        // The free space is looked at ten times a second.
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(error.code, ErrorCode::DiskFull);
    assert!(error.message.contains("storage.min_free_bytes (3145728)"), "{error}");
    assert_eq!(code_of(raw.produce(kept, batch(&["refused"]))), ErrorCode::DiskFull);
    assert_eq!(raw.fetch(kept, 0).unwrap().1, [(0, "before".to_owned())], "reading goes on");
    assert_eq!(raw.fetch(filler, appended - 1).unwrap().1.len(), 1);
    delete(&client, "filler").await;
    wait_until("there is space again", || raw.produce(kept, batch(&["after"])).is_ok());
    assert_eq!(raw.fetch(kept, 0).unwrap().1, [(0, "before".to_owned()), (1, "after".to_owned())]);
    node.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_disk_that_is_truly_full_takes_the_partition_offline_and_nothing_acknowledged_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: a small file system can be mounted by root only");
        return;
    };
    let data = disk.0.join("data");
    let node = Node::start_in(&data, |_| {}).unwrap();
    let client = connect(&node.address()).await;
    let topic = create(&client, "t", 1, &[]).await;
    let other = create(&client, "other", 1, &[]).await;
    let mut raw = RawClient::greeted(&node.address());
    raw.produce(other, batch(&["fine"])).unwrap();
    let wide = batch(&["w".repeat(200_000).as_str()]);
    let mut appended = 0;
    let error = loop {
        match raw.produce(topic, wide.clone()) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 60, "more than the disk holds");
    };
    assert!(matches!(error.code, ErrorCode::DiskFull | ErrorCode::StorageFailed), "{error}");
    assert!(error.is_retryable() && error.message.contains("disk"), "{error}");
    for offset in 0..appended {
        assert_eq!(raw.fetch(topic, offset).unwrap().1[0].0, offset, "what was acknowledged is read");
    }
    assert_eq!(raw.fetch(other, 0).unwrap().1, [(0, "fine".to_owned())]);
    serves_others(&node);
    drop(client);
    // The stop cannot be clean, or it can: that depends on what the disk still takes.
    let _ = node.stop();
    let ballast = disk.0.join("data").join("quarantine");
    assert!(!ballast.exists());
    let grown = Command::new("mount").args(["-o", "remount,size=32m"]).arg(&*disk.0).status().unwrap();
    assert!(grown.success());
    let node = Node::start_in(&data, |_| {}).unwrap();
    let mut raw = RawClient::greeted(&node.address());
    for offset in 0..appended {
        assert_eq!(raw.fetch(topic, offset).unwrap().1[0].0, offset, "with space again all of it is there");
    }
    raw.produce(topic, wide).expect("and it takes more");
    node.stop().unwrap();
}

#[tokio::test]
async fn a_failed_sync_takes_one_partition_offline_and_only_what_was_acknowledged_survives_the_power_loss() {
    let dir = Directory::new();
    let disk = VirtualDisk::new(7);
    let config = || {
        let mut config = NodeConfig::default();
        config.node.data_dir = dir.to_path_buf();
        config.listener.native.bind = "127.0.0.1:0".to_owned();
        config.listener.http.bind = None;
        config.storage.min_free_bytes = 0;
        config
    };
    let node = RunningNode::start_on(Arc::new(disk.clone()), config()).unwrap();
    let address = node.ready().native.unwrap().to_string();
    let client = connect(&address).await;
    let topic = create(&client, "hit", 1, &[]).await;
    let other = create(&client, "spared", 1, &[]).await;
    let mut raw = RawClient::greeted(&address);
    for n in 0..5 {
        raw.produce(topic, batch(&[&format!("value {n}")])).unwrap();
    }
    disk.fail_nth(FaultyOperation::Sync, 1, ".log");
    let error = raw.produce(topic, batch(&["lost"])).unwrap_err();
    assert_eq!(error.code, ErrorCode::StorageFailed, "{error}");
    for _ in 0..3 {
        assert_eq!(code_of(raw.produce(topic, batch(&["refused"]))), ErrorCode::StorageFailed, "for good");
    }
    assert_eq!(raw.fetch(topic, 0).unwrap().1, numbered(0..5), "what was acknowledged is read");
    assert_eq!(raw.produce(other, batch(&["fine"])).unwrap().base_offset.0, 0);
    serves_others_at(&address);
    drop(client);
    let error = node.stop().expect_err("not a clean stop");
    assert!(error.to_string().contains("recovers from its log"), "{error}");

    disk.power_loss(&mut fastrand::Rng::with_seed(3));
    let node = RunningNode::start_on(Arc::new(disk), config()).unwrap();
    let address = node.ready().native.unwrap().to_string();
    let mut raw = RawClient::greeted(&address);
    let there = raw.fetch(topic, 0).unwrap().1;
    assert_eq!(there[..5], numbered(0..5));
    assert!(there.len() <= 6 && there[5..].iter().all(|record| record.1 == "lost"), "{there:?}");
    assert_eq!(raw.fetch(other, 0).unwrap().1, [(0, "fine".to_owned())]);
    raw.produce(topic, batch(&["again"])).expect("after a restart it takes records again");
    node.stop().expect("a clean stop");
}
