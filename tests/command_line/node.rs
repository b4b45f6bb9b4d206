//! `callboard node`: how it starts, refuses to start, and stops.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use crate::support::*;

/// Runs a node that is not expected to come up.
fn refused(data_dir: &Path, settings: &[&str]) -> Outcome {
    run_with(node_command(data_dir, settings), &[], b"")
}

#[test]
fn a_node_says_where_it_is_and_stops_cleanly_on_either_signal() {
    let home = directory();
    let data = home.path().join("data");
    for (round, signal) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
        let node = Node::start_in(&data, &[]);
        let cluster = node.callboard(&["cluster", "describe", "--json"]).json();
        let (address, cluster) = (node.address.clone(), cluster["cluster_id"].as_str().expect("a text").to_owned());
        if round == 0 {
            node.create("orders", 2);
        }
        let topics = if round == 0 { "0 topics" } else { "1 topic" };
        let ready =
            format!("ready: native protocol at {address}, data in {}, cluster {cluster}, {topics}\n", data.display());
        assert!(!data.join("clean-stop").exists());
        let sent: String = (0..500).map(|n| format!("round {round} line {n}\n")).collect();
        node.produce(sent.as_bytes(), &["--topic", "orders", "--partition", "1"]).quietly();
        let stopped = node.stop(signal);
        assert_eq!((stopped.code, stopped.stdout), (0, ready), "{}", stopped.stderr);
        let said = lines(&stopped.stderr);
        assert_eq!(said.len(), 2, "{}", stopped.stderr);
        assert!(said[0].contains("INFO callboard::actors::node: stopping:"), "{}", stopped.stderr);
        assert!(said[1].contains("stopped cleanly"), "{}", stopped.stderr);
        assert!(data.join("clean-stop").exists());
    }

    let node = Node::start_in(&data, &["log.level=callboard=debug"]);
    let log = node.log();
    let opened: Vec<&str> = log.lines().filter(|line| line.contains(": opened ")).collect();
    assert_eq!(opened.len(), 2, "{log}");
    assert!(opened.iter().all(|line| line.contains("clean=true scanned_bytes=0")), "{log}");
    let kept = node.consume(&["--topic", "orders", "--exit-at-end"]).quietly();
    let expected: String = (0..1_000).map(|n| format!("round {} line {}\n", n / 500, n % 500)).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let node = Node::start();
    let data = node.data_dir.clone();
    let stopped = node.stop_at_once();
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(!data.join("clean-stop").exists());
}

#[test]
fn a_wrong_setting_is_one_line_that_names_the_nearest_key() {
    let home = directory();
    let (path, data) = (home.path(), home.path().join("data"));
    let misspelt = write(path, "misspelt.toml", "[limits]\nmax_topic = 3\n");
    let broken = write(path, "broken.toml", "[limits\n");
    let missing = path.join("missing.toml").display().to_string();
    let with_file = |file: &str| run_with(node_command(&data, &[]), &["--config", file], b"");
    let with_environment = |name: &str, value: &str| {
        let mut command = node_command(&data, &[]);
        command.env(name, value);
        run_with(command, &[], b"")
    };
    for (outcome, expected) in [
        (
            refused(&data, &["limits.max_topic=3"]),
            "--set limits.max_topic=3: there is no key \"limits.max_topic\"; did you mean limits.max_topics?".to_owned(),
        ),
        (
            refused(&data, &["limits.max_topics=many"]),
            "--set limits.max_topics=many: limits.max_topics = many is not valid: give 1 to 1000000".to_owned(),
        ),
        (
            refused(&data, &["node.roles=broker"]),
            "node.roles (--set node.roles=broker) does not hold both \"controller\" and \"broker\", so this node needs others: set cluster.controllers to all controllers of its cluster".to_owned(),
        ),
        (with_file(&misspelt), format!("{misspelt}:2: there is no key \"limits.max_topic\"; did you mean limits.max_topics?")),
        (with_file(&broken), format!("{broken}: not valid TOML at line 1, column 8: unclosed table, expected `]`")),
        (with_file(&missing), format!("cannot read {missing}: No such file or directory (os error 2); check the path")),
        (
            with_environment("CALLBOARD__LIMITS__MAX_TOPIC", "3"),
            "there is no environment variable CALLBOARD__LIMITS__MAX_TOPIC; did you mean CALLBOARD__LIMITS__MAX_TOPICS?".to_owned(),
        ),
        (
            with_environment("CALLBOARD__LIMITS__MAX_TOPICS", "0"),
            "environment variable CALLBOARD__LIMITS__MAX_TOPICS: limits.max_topics = 0 is not valid: give 1 to 1000000".to_owned(),
        ),
    ] {
        assert_eq!(outcome.refusal(), (2, format!("error: {expected}").as_str()));
    }
    assert!(!data.exists(), "a node that was told nonsense leaves nothing behind");
}

#[test]
fn a_port_or_a_directory_in_use_is_one_line_that_says_what_to_do() {
    let home = directory();
    let other = home.path().join("other");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("bound");
    let bind = format!("listener.native.bind={}", taken.1);
    let expected = format!(
        "error: {} is in use by another process: stop it (`ss -ltnp` shows which) or choose another port",
        taken.1
    );
    assert_eq!(refused(&other, &[&bind]).refusal(), (1, expected.as_str()));
    assert!(!other.exists(), "a port in use leaves nothing behind");

    let node = Node::start();
    let in_use = refused(&node.data_dir, &[]);
    let (code, line) = in_use.refusal();
    let begin = format!("error: data directory {} is in use by another process (pid ", node.data_dir.display());
    assert!(line.starts_with(&begin), "{line}");
    assert!(line.ends_with("): stop that one, or set node.data_dir to another directory"), "{line}");
    assert_eq!(code, 1);
    node.callboard(&["topic", "list", "--json"]).quietly();
}

#[test]
fn a_directory_of_another_cluster_or_node_or_with_other_things_in_it_is_refused_and_untouched() {
    let home = directory();
    let data = home.path().join("data");
    let node = Node::start_in(&data, &[]);
    let described = node.callboard(&["cluster", "describe", "--json"]).json();
    let cluster = described["cluster_id"].as_str().expect("a text").to_owned();
    assert_eq!(node.stop(Signal::TERM).code, 0);

    let stranger = "00000000000040008000000000000001";
    let outcome = refused(&data, &[&format!("node.cluster_id={stranger}")]);
    let expected = format!(
        "error: data directory {} belongs to cluster {cluster}, this node to cluster {stranger}: set node.data_dir to this cluster's directory, or to a new one",
        data.display()
    );
    assert_eq!(outcome.refusal(), (1, expected.as_str()));
    let outcome = refused(&data, &["node.id=2"]);
    let expected = format!(
        "error: data directory {} belongs to node 1, this is node 2: set node.id to 1, or node.data_dir to another directory",
        data.display()
    );
    assert_eq!(outcome.refusal(), (1, expected.as_str()));
    assert!(data.join("clean-stop").exists(), "a refused start changes nothing");

    let file = write(home.path(), "notes.txt", "mine");
    let outcome = refused(home.path(), &[]);
    let (code, line) = outcome.refusal();
    assert_eq!(code, 1);
    assert!(line.contains("so it is no data directory: set node.data_dir to an empty or new directory"), "{line}");
    let outcome = refused(Path::new(&file), &[]);
    let (code, line) = outcome.refusal();
    assert_eq!(code, 1);
    assert!(line.starts_with("error: ") && line.contains("notes.txt"), "{line}");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "mine");
    // Named as it is, the cluster's own directory is taken.
    Node::start_in(&data, &[&format!("node.cluster_id={cluster}")]);
}

#[test]
fn the_environment_wins_over_the_file_and_set_wins_over_both() {
    let home = directory();
    let data = home.path().join("data");
    let file = write(
        home.path(),
        "node.toml",
        "[topics]\ndefault_partitions = 2\n[topic_defaults]\nretention_ms = 1000000\nsegment_ms = 2000000\n",
    );
    let mut command = node_command(&data, &["topic_defaults.segment_ms=2000002"]);
    command.args(["--config", &file]);
    command.env("CALLBOARD__TOPIC_DEFAULTS__RETENTION_MS", "1000001");
    command.env("CALLBOARD__TOPIC_DEFAULTS__SEGMENT_MS", "2000001");
    let node = Node::start_with(command, &data);
    node.callboard(&["topic", "create", "t"]).quietly();
    let topic = node.callboard(&["topic", "describe", "t", "--json"]).json();
    assert_eq!(topic[0]["partitions"].as_array().map(Vec::len), Some(2), "from the file");
    assert_eq!(topic[0]["config"]["retention_ms"]["value"], "1000001", "from the environment");
    assert_eq!(topic[0]["config"]["segment_ms"]["value"], "2000002", "from --set");
}

#[test]
fn the_topics_file_is_applied_at_every_start_and_a_fault_in_it_is_one_line() {
    let home = directory();
    let data = home.path().join("data");
    let file = write(home.path(), "topics.json", r#"[{"name": "a", "partitions": 2}, {"name": "b"}]"#);
    let setting = format!("topics.file={file}");
    let node = Node::start_in(&data, &[&setting]);
    let said = node.stdout();
    let created = lines(&said);
    assert_eq!((&created[..2], created.len()), (&["created topic 'a'", "created topic 'b'"][..], 3), "{said}");
    assert!(created[2].ends_with(", 2 topics"), "{said}");
    node.callboard(&["topic", "delete", "b", "--yes"]).quietly();
    assert_eq!(node.stop(Signal::TERM).code, 0);

    let node = Node::start_in(&data, &[&setting]);
    assert_eq!(lines(&node.stdout())[0], "created topic 'b'");
    assert_eq!(node.stop(Signal::TERM).code, 0);

    write(home.path(), "topics.json", r#"[{"name": "a/b"}]"#);
    let outcome = refused(&data, &[&setting]);
    let expected = format!(
        "error: {file}:1: entry 1: a topic name consists of letters, digits, '.', '_' and '-'; \"a/b\" has '/' at byte 1"
    );
    assert_eq!(outcome.refusal(), (2, expected.as_str()));

    write(home.path(), "topics.json", r#"[{"name": "c", "replication_factor": 3}]"#);
    let outcome = refused(&data, &[&setting]);
    let expected = format!(
        "error: topic 'c' of {file} could not be created: replication factor 3 needs as many live brokers, there are 1"
    );
    assert_eq!(outcome.refusal(), (1, expected.as_str()));
}

#[test]
fn without_any_argument_a_node_keeps_its_data_under_the_working_directory() {
    let home = directory();
    let mut command = command(CALLBOARD);
    // Only the ports differ from the default: another node may run here.
    command.arg("node").current_dir(home.path()).env("CALLBOARD__LISTENER__NATIVE__BIND", "127.0.0.1:0");
    command.env("CALLBOARD__LISTENER__HTTP__BIND", "127.0.0.1:0");
    let node = Node::start_with(command, &home.path().join("data"));
    assert!(node.stdout().contains(", data in ./data, cluster "), "{}", node.stdout());
    assert!(node.data_dir.join("callboard.meta").exists());
    assert_eq!(node.stop(Signal::INT).code, 0);
}

#[test]
fn a_node_goes_on_when_nobody_reads_what_it_prints() {
    let home = directory();
    let data = home.path().join("data");
    let file = write(home.path(), "topics.json", r#"[{"name": "a"}]"#);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = node_command(&data, &[&format!("topics.file={file}")]);
    let mut child = command.stdin(std::process::Stdio::null()).stdout(writer).spawn().expect("the program was built");
    // The topic's directory is there before the node is ready; the marker only when it stopped as it should.
    wait_for("the topic is created", || {
        let entries = std::fs::read_dir(&data).ok()?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.any(|name| name.starts_with("a-")).then_some(())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    let status = wait_for("the node ends", || child.try_wait().expect("our own child"));
    assert_eq!((status.code(), data.join("clean-stop").exists()), (Some(0), true));
}
