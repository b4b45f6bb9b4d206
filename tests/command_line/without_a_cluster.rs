//! The programs as a shell meets them without a cluster: exit codes, one-line errors, quiet ends.

use std::io::Read;
use std::process::Stdio;

use crate::support::{CALLBOARD, CONSUMER, PRODUCER, command, run_with};

/// A port that nobody listens on: bound and given back.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").to_string()
}

/// Exit code, stdout, stderr.
fn outcome(program: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(program);
    command.env("CALLBOARD_SERVER", nobody());
    let outcome = run_with(command, arguments, b"a line\n");
    (outcome.code, outcome.stdout, outcome.stderr)
}

#[test]
fn a_cluster_that_is_not_there_is_exit_code_3_and_one_line() {
    for (program, arguments) in [
        (CALLBOARD, &["topic", "list"][..]),
        (CALLBOARD, &["topic", "create", "t"]),
        (CALLBOARD, &["cluster", "describe"]),
        (CALLBOARD, &["produce", "--topic", "t"]),
        (CALLBOARD, &["consume", "--topic", "t"]),
        (PRODUCER, &["--topic", "t"]),
        (PRODUCER, &["--topic", "t", "--create-topic"]),
        (CONSUMER, &["--topic", "t"]),
    ] {
        let (code, stdout, stderr) = outcome(program, arguments);
        assert_eq!((code, stdout.as_str()), (3, ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: cannot reach the cluster; tried 127.0.0.1:"), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for (program, arguments) in [
        (CALLBOARD, &["nonsense"][..]),
        (CALLBOARD, &["topic", "alter", "t"]),
        (CALLBOARD, &["--server", "nowhere", "topic", "list"]),
        (PRODUCER, &[]),
        (PRODUCER, &["--topic", "t", "--acks", "7"]),
        (CONSUMER, &["--topic", "t", "--from", "yesterday"]),
    ] {
        let (code, stdout, stderr) = outcome(program, arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    }
}

#[test]
fn topics_are_not_deleted_in_a_pipe_without_yes() {
    assert_eq!(
        outcome(CALLBOARD, &["topic", "delete", "t"]),
        (2, String::new(), "error: deleting takes all records with it: confirm with --yes\n".to_owned())
    );
}

#[test]
fn a_topics_file_at_fault_is_found_before_the_cluster_is_asked() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("topics.json");
    std::fs::write(&path, "[{\"name\": \"a/b\"}]").expect("a small file");
    let path = path.to_str().expect("text");
    let (code, _, stderr) = outcome(CALLBOARD, &["topic", "apply", path]);
    let expected = format!(
        "error: {path}:1: entry 1: a topic name consists of letters, digits, '.', '_' and '-'; \"a/b\" has '/' at byte 1\n"
    );
    assert_eq!((code, stderr), (2, expected));
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let (code, stdout, stderr) = outcome(CALLBOARD, &["config", "check", "--set", "limits.max_topics=7"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("\nmax_topics = 7\n"), "{stdout}");

    let (code, stdout, stderr) = outcome(CALLBOARD, &["config", "check", "--set", "limits.max_topic=7"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    let expected =
        "error: --set limits.max_topic=7: there is no key \"limits.max_topic\"; did you mean limits.max_topics?\n";
    assert_eq!(stderr, expected);

    let (code, stdout, _) = outcome(CALLBOARD, &["config", "check", "--json"]);
    let config: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &config["listener"]["native"]["bind"]), (0, &"127.0.0.1:9644".into()));
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let mut command = command(CALLBOARD);
    command.args(["config", "check"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = command.stdout(writer).spawn().expect("the program was built");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    assert_eq!((child.wait().expect("it ends").code(), stderr.as_str()), (Some(0), ""));
}
