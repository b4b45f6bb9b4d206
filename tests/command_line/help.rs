//! What helps to type commands: completions, manual pages, and the environment.

use std::fs;
use std::process::Stdio;

use crate::support::*;

fn callboard(arguments: &[&str]) -> Outcome {
    run_with(command(CALLBOARD), arguments, b"")
}

#[test]
fn each_shell_gets_a_script_that_knows_the_commands_of_each_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        for (program, words) in [
            ("callboard", &["topic", "trim", "before-time", "completions"][..]),
            ("callboard-producer", &["key-separator"]),
            ("callboard-consumer", &["exit-at-end"]),
        ] {
            let script = callboard(&["completions", shell, "--program", program]).quietly();
            for word in words.iter().chain([&program]) {
                assert!(script.contains(word), "{shell}: no {word} in {script}");
            }
        }
    }
    let wrong = callboard(&["completions", "cobol"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""));
}

#[test]
fn bash_takes_its_script_and_completes_with_it() {
    let home = directory();
    let script = write(home.path(), "callboard.bash", &callboard(&["completions", "bash"]).quietly());
    let test = format!(
        "source {script} && COMP_WORDS=(callboard topic tr) COMP_CWORD=2 && \
         _callboard callboard tr topic && printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = command("bash");
    bash.args(["-c", &test]);
    let completed = Process::spawn(bash, Stdio::null()).wait();
    assert_eq!((completed.code, completed.stdout.as_str()), (0, "trim\n"), "{}", completed.stderr);
}

#[test]
fn each_command_gets_a_manual_page() {
    let home = directory();
    let man = home.path().join("new/man1");
    let man = man.to_str().expect("text");
    let said = callboard(&["man", "--output", man]).quietly();
    let pages: Vec<String> = fs::read_dir(man)
        .expect("created")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(said, format!("{} pages written to {man}\n", pages.len()));
    for page in
        ["callboard.1", "callboard-topic.1", "callboard-topic-trim.1", "callboard-producer.1", "callboard-consumer.1"]
    {
        assert!(pages.iter().any(|name| name == page), "no {page} in {pages:?}");
    }
    let page = fs::read_to_string(format!("{man}/callboard-topic-trim.1")).expect("a page");
    assert!(page.starts_with(".ie \\n(.g .ds Aq") && page.contains(".TH callboard-topic-trim 1"), "{page}");
    assert!(page.contains("before\\-time") && page.contains("Exit codes"), "{page}");

    assert!(page.contains("CALLBOARD_SERVER") && page.contains(env!("CARGO_PKG_VERSION")), "{page}");

    let file = write(home.path(), "file", "");
    let refused = callboard(&["man", "--output", &file]);
    let (code, line) = refused.refusal();
    assert!(code == 1 && line.starts_with(&format!("error: cannot write {file}")), "{line}");
}

#[test]
fn every_client_command_finds_the_server_in_the_environment() {
    let node = Node::start();
    node.create("t", 1);
    // The vocabulary gives the address in CALLBOARD_SERVER and nowhere else.
    node.produce(b"line\n", &["--topic", "t"]).quietly();
    assert_eq!(node.consume(&["--topic", "t", "--exit-at-end"]).quietly(), "line\n");
    for arguments in [
        &["topic", "list"][..],
        &["topic", "describe", "t"],
        &["topic", "alter", "t", "--set", "flush=os"],
        &["topic", "offsets", "t"],
        &["topic", "trim", "t", "--all", "--yes"],
        &["cluster", "describe"],
        &["consume", "--topic", "t", "--exit-at-end"],
        &["topic", "delete", "t", "--yes"],
    ] {
        node.callboard(arguments).quietly();
    }
    // What is typed wins.
    let elsewhere = node.callboard(&["--server", "127.0.0.1:1", "topic", "list"]);
    assert_eq!(elsewhere.refusal().0, 3);
    let mut wrong = command(CALLBOARD);
    wrong.env("CALLBOARD_SERVER", "nowhere");
    let outcome = run_with(wrong, &["topic", "list"], b"");
    assert!(outcome.code == 2 && outcome.stderr.contains("'nowhere' is not HOST:PORT"), "{outcome:?}");
}

#[test]
fn the_configuration_in_force_is_shown_with_where_it_comes_from() {
    let home = directory();
    let file = write(home.path(), "node.toml", "[limits]\nmax_topics = 5\nmax_partitions = 50\n");
    let show = |more: &[&str]| {
        let mut command = command(CALLBOARD);
        command.env("CALLBOARD__LIMITS__MAX_PARTITIONS", "60").env("CALLBOARD__NODE__RACK", "");
        let always = ["config", "show", "--config", &file, "--set", "threads.disk=3"];
        run_with(command, &[&always, more].concat(), b"")
    };
    let table = show(&[]).quietly();
    let row = |key: &str| {
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(key)).expect("a row");
        row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("limits.max_topics"), format!("5 {file}:2"));
    assert_eq!(row("limits.max_partitions"), "60 environment variable CALLBOARD__LIMITS__MAX_PARTITIONS");
    assert_eq!(row("threads.disk"), "3 --set threads.disk=3");
    assert_eq!(row("limits.max_connections"), "20000 default");
    assert_eq!(row("node.roles"), "controller,broker default");
    assert_eq!(row("node.rack"), "(unset) environment variable CALLBOARD__NODE__RACK");
    assert_eq!(row("topics.file"), "(unset) default");
    assert_eq!(row("topic_defaults.flush"), "always default");

    let entries = show(&["--json"]).json();
    let entry =
        |key: &str| entries.as_array().expect("a list").iter().find(|e| e["key"] == key).expect("a key").clone();
    let expected =
        serde_json::json!({"key": "limits.max_topics", "value": 5, "source": "file", "origin": format!("{file}:2")});
    assert_eq!(entry("limits.max_topics"), expected);
    assert_eq!(entry("limits.max_connections")["origin"], serde_json::Value::Null);
    let sources =
        ["limits.max_partitions", "threads.disk", "limits.max_connections"].map(|key| entry(key)["source"].clone());
    assert_eq!(sources, ["environment", "set", "default"]);
    let keys = entries.as_array().expect("a list").len();
    assert_eq!((keys, table.lines().count()), (callboard::config::keys::all().len(), keys + 1));

    let wrong = show(&["--set", "limits.max_topic=1"]);
    assert_eq!(wrong.refusal().0, 2);
}
