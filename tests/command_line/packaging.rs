//! What packaging/ ships is what the program takes: the commands, variables and paths in it are tried here. No container is
//! built and no service manager runs.

use std::collections::BTreeMap;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::*;

const DOCKERFILE: &str = include_str!("../../packaging/Dockerfile");
const UNIT: &str = include_str!("../../packaging/callboard.service");

/// The instructions of a Dockerfile, with what follows each, comments and empty lines left out.
fn instructions() -> Vec<(&'static str, &'static str)> {
    let lines = DOCKERFILE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("INSTRUCTION arguments")).collect()
}

fn all(name: &str) -> Vec<&'static str> {
    instructions().into_iter().filter(|(instruction, _)| *instruction == name).map(|(_, rest)| rest).collect()
}

fn only(name: &str) -> &'static str {
    let found = all(name);
    assert_eq!(found.len(), 1, "one {name}");
    found[0]
}

/// The words of `["a", "b"]`.
fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).expect("the exec form: no shell stands between the node and its signals")
}

#[test]
fn the_dockerfile_is_two_stages_and_runs_as_nobody_special_on_a_volume() {
    let known = [
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "RUN",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    for (instruction, _) in instructions() {
        assert!(known.contains(&instruction), "{instruction}");
    }
    assert_eq!(all("FROM").len(), 2);
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(all("FROM")[0].starts_with(&format!("rust:{rust}-")), "the compiler that Cargo.toml asks for: {rust}");
    let built = "/src/target/release/callboard";
    assert!(all("COPY").contains(&format!("--from=build {built} /usr/local/bin/callboard").as_str()));
    assert_eq!(only("USER"), "callboard");
    assert!(all("RUN").iter().any(|run| run.starts_with("useradd --system ") && run.contains(only("VOLUME"))));
    let place = |name| instructions().iter().rposition(|(instruction, _)| *instruction == name).expect("there");
    assert!(place("RUN") < place("USER") && place("USER") < place("ENTRYPOINT"), "nothing runs as root in the end");
    assert_eq!(only("STOPSIGNAL"), "SIGTERM");
}

#[test]
fn the_image_s_command_runs_a_node_that_its_health_check_finds_well() {
    let environment: BTreeMap<_, _> =
        all("ENV").into_iter().map(|env| env.split_once('=').expect("NAME=VALUE")).collect();
    let data = environment["CALLBOARD__NODE__DATA_DIR"];
    assert!(data.starts_with(only("VOLUME")), "{data} lies on the volume");
    for address in ["CALLBOARD__LISTENER__NATIVE__BIND", "CALLBOARD__LISTENER__NATIVE__ADVERTISE", "CALLBOARD_SERVER"] {
        assert!(environment[address].ends_with(&format!(":{}", only("EXPOSE"))), "{address}");
    }

    // The same on a directory and a port of the test's own.
    let home = directory();
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port().to_string();
    let here = |program: &str| {
        let mut command = command(program);
        for (name, value) in &environment {
            let value = value.replace(only("VOLUME"), home.path().to_str().expect("text"));
            command.env(name, value.replace(only("EXPOSE"), &port).replace("0.0.0.0", "127.0.0.1"));
        }
        command.env("CALLBOARD__STORAGE__MIN_FREE_BYTES", "0");
        command
    };
    let mut node = here(CALLBOARD);
    assert_eq!(words(only("ENTRYPOINT")), ["callboard"]);
    node.args(words(only("CMD")));
    let node = Node::start_with(node, &home.path().join("data"));
    let (_, check) = only("HEALTHCHECK").split_once(" CMD ").expect("a command");
    let check = words(check);
    assert_eq!(check[0], "callboard");
    let arguments: Vec<&str> = check[1..].iter().map(String::as_str).collect();
    let healthy = run_with(here(CALLBOARD), &arguments, b"");
    assert_eq!(healthy.code, 0, "{healthy:?}");
    assert_eq!(node.stop(Signal::TERM).code, 0);
    assert_ne!(run_with(here(CALLBOARD), &arguments, b"").code, 0, "a node that is gone is not healthy");
}

/// The value of a key of the unit.
fn setting(key: &str) -> &'static str {
    let values: Vec<_> = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "one {key}");
    values[0]
}

#[test]
fn the_unit_starts_what_there_is_and_stops_it_cleanly() {
    assert_eq!((setting("Type"), setting("Restart"), setting("KillSignal")), ("exec", "on-failure", "SIGTERM"));
    assert!(setting("TimeoutStopSec").parse::<u32>().expect("seconds") >= 60, "a clean stop gets time");
    let files: u32 = setting("LimitNOFILE").parse().expect("a number");
    let config = callboard::config::NodeConfig::default();
    let wanted = config.limits.max_connections + config.storage.open_files + 1_024;
    assert!(files as usize >= wanted, "the limits of the default configuration fit: {wanted}");
    // Exit codes that a restart does not help: see `callboard node --help`.
    assert_eq!(setting("RestartPreventExitStatus"), "2 130");

    let start: Vec<&str> = setting("ExecStart").split(' ').collect();
    assert_eq!(start[..3], ["/usr/local/bin/callboard", "node", "--config"]);
    assert!(
        UNIT.contains(&format!("install -D -m 644 configs/single.toml {}", start[3])),
        "the file it reads is put there"
    );
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/single.toml");
    assert_eq!(run_with(command(CALLBOARD), &["config", "check", "--config", shipped], b"").code, 0);
    assert_eq!(setting("WorkingDirectory"), format!("/var/lib/{}", setting("StateDirectory")));
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset")), "a node reads its boot id under /proc/sys");
}
