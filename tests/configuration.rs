//! The configuration as an operator meets it: four sources, one line for each mistake, and documents that tell the truth.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use callboard::config::{self, ConfigError, LogWriterPlacement, NodeConfig, Role, keys};
use callboard::types::{FlushPolicy, NodeId};

/// Loads `toml` as a file with these variables and `--set`s; the file is called `node.toml` in errors.
fn load(toml: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<NodeConfig, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("node.toml");
    std::fs::write(&path, toml).expect("a small file");
    let env = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let shorten = |error: ConfigError| error.to_string().replace(&format!("{}/", directory.path().display()), "");
    config::load(Some(&path), env, &sets).map_err(shorten)
}

fn error(toml: &str, env: &[(&str, &str)], sets: &[&str]) -> String {
    let error = load(toml, env, sets).expect_err("this configuration is at fault");
    assert!(!error.contains('\n'), "more than one line: {error}");
    error
}

#[test]
fn without_a_file_the_built_in_configuration_is_the_default() {
    assert_eq!(config::load(None, std::iter::empty(), &[]), Ok(NodeConfig::default()));
    assert_eq!(NodeConfig::default().validate(), Ok(()));
    assert_eq!(NodeConfig::default().warnings(), Vec::<String>::new());
}

#[test]
fn the_environment_wins_over_the_file_and_set_over_both() {
    let toml = "[limits]\nmax_topics = 1\nmax_partitions = 2\nmax_connections = 3\n";
    let env =
        [("CALLBOARD__LIMITS__MAX_PARTITIONS", "20"), ("CALLBOARD__LIMITS__MAX_CONNECTIONS", "30"), ("HOME", "/")];
    let config = load(toml, &env, &["limits.max_connections=300"]).expect("a good configuration");
    assert_eq!((config.limits.max_topics, config.limits.max_partitions, config.limits.max_connections), (1, 20, 300));
}

#[test]
fn every_kind_of_value_can_come_from_every_source() {
    let mut expected = NodeConfig::default();
    expected.node.id = NodeId(7);
    expected.node.roles = vec![Role::Broker, Role::Controller];
    expected.node.data_dir = PathBuf::from("/srv/callboard");
    expected.node.rack = Some("r1".to_owned());
    expected.node.cluster_id = Some("0192f0c1-2d4e-4a4b-8a55-111122223333".parse().expect("a UUID"));
    expected.listener.native.bind = "[::1]:0".to_owned();
    expected.threads.log_writer = LogWriterPlacement::Disk;
    expected.topics.default_replication_factor = Some(1);
    expected.topic_defaults.flush = FlushPolicy::Os;
    expected.topic_defaults.retention_bytes = 5;

    let toml = r#"
        node.id = 7
        node.roles = ["broker", "controller"]
        node.data_dir = "/srv/callboard"
        node.rack = "r1"
        node.cluster_id = "0192f0c1-2d4e-4a4b-8a55-111122223333"
        listener.native.bind = "[::1]:0"
        threads.log_writer = "disk"
        topics.default_replication_factor = 1
        topic_defaults.flush = "os"
        topic_defaults.retention_bytes = 5
    "#;
    assert_eq!(load(toml, &[], &[]).as_ref(), Ok(&expected));

    let pairs = [
        ("node.id", "7"),
        ("node.roles", "broker, controller"),
        ("node.data_dir", "/srv/callboard"),
        ("node.rack", "r1"),
        ("node.cluster_id", "0192f0c12d4e4a4b8a55111122223333"),
        ("listener.native.bind", "[::1]:0"),
        ("threads.log_writer", "disk"),
        ("topics.default_replication_factor", "1"),
        ("topic_defaults.flush", "os"),
        ("topic_defaults.retention_bytes", "5"),
    ];
    let known = keys::all();
    let variable = |path: &str| known.iter().find(|key| key.path == path).expect("known").environment_variable();
    let env: Vec<(String, &str)> = pairs.iter().map(|(path, value)| (variable(path), *value)).collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(load("", &env, &[]).as_ref(), Ok(&expected));

    let sets: Vec<String> = pairs.iter().map(|(path, value)| format!("{path}={value}")).collect();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    assert_eq!(load("", &[], &sets).as_ref(), Ok(&expected));
}

#[test]
fn an_empty_text_unsets_an_optional_key() {
    let config = load("[node]\nrack = \"r1\"\n", &[], &["node.rack="]).expect("a good configuration");
    assert_eq!(config.node.rack, None);
    let config = load("", &[], &["listener.http.bind="]).expect("a good configuration");
    assert_eq!(config.listener.http.bind, None, "one with a default, too");
    let config = load("[topics]\nfile = \"t.json\"\n", &[("CALLBOARD__TOPICS__FILE", "")], &[]).expect("good");
    assert_eq!(config.topics.file, None);
}

#[test]
fn an_unknown_key_is_answered_with_its_source_and_the_nearest_one() {
    assert_eq!(
        error("# a comment\n[limits]\nmax_topic = 5\n", &[], &[]),
        "node.toml:3: there is no key \"limits.max_topic\"; did you mean limits.max_topics?"
    );
    assert_eq!(
        error("[listener.nativ]\nbind = \"127.0.0.1:1\"\n", &[], &[]),
        "node.toml:2: there is no key \"listener.nativ.bind\"; did you mean listener.native.bind?"
    );
    assert_eq!(
        error("[listener.native]\nadress = \"127.0.0.1:1\"\n", &[], &[]),
        "node.toml:2: there is no key \"listener.native.adress\"; did you mean listener.native.advertise?"
    );
    assert_eq!(
        error("[node]\nmax_topics = 5\n", &[], &[]),
        "node.toml:2: there is no key \"node.max_topics\"; did you mean limits.max_topics?"
    );
    assert_eq!(
        error("[xyzzy]\n", &[], &[]),
        "node.toml:1: there is no key \"xyzzy\"; docs/configuration.md lists every key"
    );
    assert_eq!(
        error("", &[("CALLBOARD__LIMITS__MAX_TOPIC", "5")], &[]),
        "there is no environment variable CALLBOARD__LIMITS__MAX_TOPIC; did you mean CALLBOARD__LIMITS__MAX_TOPICS?"
    );
    assert_eq!(
        error("", &[], &["storage.open_file=5"]),
        "--set storage.open_file=5: there is no key \"storage.open_file\"; did you mean storage.open_files?"
    );
    assert_eq!(
        error("", &[], &["topic_defaults.retention_msec=5"]),
        "--set topic_defaults.retention_msec=5: there is no key \"topic_defaults.retention_msec\"; did you mean topic_defaults.retention_ms?"
    );
}

#[test]
fn a_bad_value_is_answered_with_its_source_and_what_is_legal() {
    let cases = [
        ("[limits]\nmax_topics = 0\n", "node.toml:2: limits.max_topics = 0 is not valid: give 1 to 1000000"),
        ("[limits]\nmax_topics = -1\n", "node.toml:2: limits.max_topics = -1 is not valid: give 1 to 1000000"),
        ("[limits]\nmax_topics = \"9\"\n", "node.toml:2: limits.max_topics = \"9\" is not valid: give 1 to 1000000"),
        ("[limits]\nmax_topics = 1.5\n", "node.toml:2: limits.max_topics = 1.5 is not valid: give 1 to 1000000"),
        (
            "limits = 3\n",
            "node.toml:1: limits is a section: set its keys, such as limits.KEY, or write [limits] above them",
        ),
        (
            "[node]\nroles = []\n",
            "node.toml:2: node.roles = [] is not valid: give one or more of controller, broker, each once",
        ),
        (
            "[node]\nroles = [\"broker\", \"broker\"]\n",
            "node.toml:2: node.roles = broker, broker is not valid: give one or more of controller, broker, each once",
        ),
        ("[node]\ndata_dir = \"\"\n", "node.toml:2: node.data_dir = \"\" is not valid: give a path"),
        ("[node]\ndata_dir = 4\n", "node.toml:2: node.data_dir = 4 is not valid: give a path"),
        (
            "[node]\ncluster_id = \"main\"\n",
            "node.toml:2: node.cluster_id = \"main\" is not valid: give a UUID, as 'callboard cluster describe' shows it",
        ),
        (
            "[listener.native]\nbind = \"9644\"\n",
            "node.toml:2: listener.native.bind = \"9644\" is not valid: give HOST:PORT, such as 127.0.0.1:9644 or [::1]:9644; port 0 takes a free one",
        ),
        (
            "[listener.native]\nadvertise = \"0.0.0.0:9644\"\n",
            "node.toml:2: listener.native.advertise = \"0.0.0.0:9644\" is not valid: give HOST:PORT that clients can connect to",
        ),
        (
            "[threads]\nlog_writer = \"fast\"\n",
            "node.toml:2: threads.log_writer = \"fast\" is not valid: give core | disk",
        ),
        (
            "[log]\nlevel = \"inof\"\n",
            "node.toml:2: log.level = \"inof\" is not valid: give off, error, warn, info, debug or trace, or such as info,callboard::storage=debug",
        ),
        (
            "[topic_defaults]\nsegment_bytes = 12\n",
            "node.toml:2: topic_defaults.segment_bytes = 12 is not valid: give 16384 to 1073741824",
        ),
        (
            "[topic_defaults]\nflush = \"never\"\n",
            "node.toml:2: topic_defaults.flush = \"never\" is not valid: give always | interval | os",
        ),
    ];
    for (toml, expected) in cases {
        assert_eq!(error(toml, &[], &[]), expected);
    }
    assert_eq!(
        error("", &[("CALLBOARD__THREADS__DISK", "many")], &[]),
        "environment variable CALLBOARD__THREADS__DISK: threads.disk = many is not valid: give 1 to 1024"
    );
    assert_eq!(
        error("", &[], &["threads.disk=0"]),
        "--set threads.disk=0: threads.disk = 0 is not valid: give 1 to 1024"
    );
    assert_eq!(
        error("", &[], &["threads.disk"]),
        "--set threads.disk: give section.key=value, such as limits.max_topics=100"
    );
}

#[test]
fn values_that_contradict_each_other_are_refused_with_both_names_and_sources() {
    assert_eq!(
        error("[topic_defaults]\nmax_batch_bytes = 33554432\n", &[], &[]),
        "limits.max_frame_bytes = 16777216 (the default) must be at least topic_defaults.max_batch_bytes = 33554432 \
         (node.toml:2) plus 4096: raise the first or lower the second"
    );
    assert_eq!(
        error("", &[("CALLBOARD__LIMITS__CONNECTION_BYTES_IN_FLIGHT", "65536")], &[]),
        "limits.connection_bytes_in_flight = 65536 (environment variable CALLBOARD__LIMITS__CONNECTION_BYTES_IN_FLIGHT) \
         must be at least limits.max_frame_bytes = 16777216 (the default): raise the first or lower the second"
    );
    assert_eq!(
        error("[limits]\nnode_bytes_in_flight = 1048576\n", &[], &[]),
        "limits.node_bytes_in_flight = 1048576 (node.toml:2) must be at least limits.connection_bytes_in_flight = 16777216 \
         (the default): raise the first or lower the second"
    );
    assert_eq!(
        error("", &[], &["topics.default_partitions=1001"]),
        "limits.max_partitions_per_topic = 1000 (the default) must be at least topics.default_partitions = 1001 \
         (--set topics.default_partitions=1001): raise the first or lower the second"
    );
    assert_eq!(
        error("", &[], &["topics.default_replication_factor=1", "topic_defaults.min_insync_replicas=2"]),
        "topics.default_replication_factor = 1 (--set topics.default_replication_factor=1) must be at least \
         topic_defaults.min_insync_replicas = 2 (--set topic_defaults.min_insync_replicas=2): raise the first or lower the second"
    );
    assert_eq!(
        error("", &[], &["listener.native.bind=0.0.0.0:9644"]),
        "listener.native.bind = \"0.0.0.0:9644\" (--set listener.native.bind=0.0.0.0:9644) listens on every address of the \
         machine, so clients must be told which one to use: set listener.native.advertise to HOST:PORT"
    );
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_one_line() {
    let missing = config::load(Some(Path::new("no/such.toml")), std::iter::empty(), &[]).expect_err("there is none");
    assert_eq!(missing.to_string(), "cannot read no/such.toml: No such file or directory (os error 2); check the path");
    let broken = error("[node]\nid = = 4\n", &[], &[]);
    assert!(broken.starts_with("node.toml: not valid TOML at line 2, column 6: "), "{broken}");
    let twice = error("[node]\nid = 4\nid = 5\n", &[], &[]);
    assert_eq!(twice, "node.toml: not valid TOML at line 3, column 1: duplicate key");
}

#[test]
fn a_listener_that_others_can_reach_is_warned_of() {
    for (bind, warned) in [
        ("127.0.0.1:1", false),
        ("127.9.9.9:1", false),
        ("localhost:1", false),
        ("[::1]:1", false),
        ("10.0.0.1:1", true),
        ("broker-1.example.org:1", true),
    ] {
        for listener in ["native", "http"] {
            let set = format!("listener.{listener}.bind={bind}");
            let config = load("", &[], &[&set]).expect("a good configuration");
            assert_eq!(config.warnings().len(), usize::from(warned), "{set}");
        }
    }
    let config = load("", &[], &["listener.native.bind=[::]:1", "listener.native.advertise=h:1"]).expect("good");
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn a_configuration_that_a_program_put_together_is_checked_too() {
    let mut config = NodeConfig::default();
    config.node.roles.clear();
    assert_eq!(
        config.validate().expect_err("no role").to_string(),
        "node.roles = [] is not valid: give one or more of controller, broker, each once"
    );
}

#[test]
fn the_effective_configuration_is_printed_so_that_it_reads_back() {
    let sets = [
        "node.rack=a \"b\"",
        "limits.max_topics=3",
        "topic_defaults.flush=os",
        "node.roles=broker",
        "node.id=9",
        "listener.peer.bind=[::1]:9646",
        "cluster.controllers=1@db-1:9646,2@db-2:9646,3@db-3:9646",
        "listener.http.bind=",
    ];
    let config = load("", &[], &sets).expect("a good configuration");
    assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config));
}

/// All leaves of the default as `section.key`, found by walking the serialised default.
fn keys_of_the_code() -> BTreeSet<String> {
    fn walk(prefix: &str, value: &serde_json::Value, out: &mut BTreeSet<String>) {
        match value.as_object() {
            Some(fields) => {
                for (name, value) in fields {
                    walk(&if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") }, value, out);
                }
            }
            None => {
                out.insert(prefix.to_owned());
            }
        }
    }
    let mut out = BTreeSet::new();
    walk("", &serde_json::to_value(NodeConfig::default()).expect("plain data"), &mut out);
    out
}

#[test]
fn the_table_of_keys_is_the_code() {
    let table: BTreeSet<String> = keys::all().into_iter().map(|key| key.path).collect();
    assert_eq!(table, keys_of_the_code());
}

fn repository_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the repository")
}

#[test]
fn the_document_tells_of_every_key_its_default_what_is_legal_and_its_variable() {
    let document = repository_file("docs/configuration.md");
    let documented: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split('`').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, keys_of_the_code());
    let default = serde_json::to_value(NodeConfig::default()).expect("plain data");
    for key in keys::all() {
        let value = key.path.split('.').fold(&default, |value, name| &value[name]);
        let shown = if value.is_null() { "unset".to_owned() } else { format!("`{value}`").replace(',', ", ") };
        let legal = key.legal_values().replace('|', "\\|");
        let start = format!("| `{}` | {shown} | {legal} | `{}` | ", key.path, key.environment_variable());
        let row =
            document.lines().find(|line| line.starts_with(&format!("| `{}` ", key.path))).expect("compared above");
        assert!(row.starts_with(&start), "\nthe document has  {row}\nthe code says     {start}…");
        assert!(row.len() > start.len() + 20, "no meaning is given: {row}");
    }
}

#[test]
fn the_example_file_holds_every_key_commented_out_with_its_default() {
    let example = repository_file("configs/single.toml");
    let mut keys_seen = BTreeSet::new();
    let mut table = String::new();
    let uncommented: String = example
        .lines()
        .map(|line| {
            if let Some(name) = line.strip_prefix('[') {
                name.trim_end_matches(']').clone_into(&mut table);
                return format!("{line}\n");
            }
            let is_key = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            match line.strip_prefix("# ").and_then(|rest| Some((rest, rest.split_once(" = ")?.0))) {
                Some((rest, name)) if is_key(name) => {
                    assert!(keys_seen.insert(format!("{table}.{name}")), "{name} stands twice in {table}");
                    format!("{rest}\n")
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    assert_eq!(keys_seen, keys_of_the_code());
    assert_eq!(load(&uncommented, &[], &[]), Ok(NodeConfig::default()));
}

#[test]
fn the_example_topics_file_is_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/topics.json");
    let topics = config::topics_file::read(&path).expect("the example is good");
    assert!(!topics.is_empty());
}

#[test]
fn the_list_of_controllers_fits_the_node_that_has_it() {
    let peers = ["listener.peer.bind=127.0.0.1:9646", "cluster.controllers=1@db-1:9646, 2@[::1]:9646,3@db-3:9646"];
    let with = |more: &[&'static str]| load("", &[], &[&peers[..], more].concat());
    let config = with(&[]).expect("a good configuration");
    let controllers = config.cluster.controllers.clone().expect("given");
    assert_eq!((controllers[1].node, controllers[1].host.as_str(), controllers[1].port), (NodeId(2), "[::1]", 9_646));
    let shown = config.to_toml();
    assert!(shown.contains(r#"controllers = ["1@db-1:9646", "2@[::1]:9646", "3@db-3:9646"]"#), "{shown}");
    assert_eq!(load(&shown, &[], &[]), Ok(config), "what is shown is a file");
    with(&["node.roles=broker", "node.id=9"]).expect("a broker of theirs");

    let refused = |more: &[&'static str]| with(more).expect_err("does not fit");
    assert!(refused(&["node.id=9"]).contains("does not name this node, 9: add it there"));
    assert!(refused(&["node.roles=broker"]).contains("names this node, 1, and node.roles"));
    assert!(refused(&["listener.peer.bind="]).contains("other nodes cannot reach this one: set listener.peer.bind"));
    assert!(refused(&["listener.peer.bind=0.0.0.0:9646"]).contains("set listener.peer.advertise to HOST:PORT"));
    for wrong in ["", "1", "1@db", "@db:1", "1@db:0", "x@db:1", "1@db:1,1@other:1"] {
        let set = format!("cluster.controllers={wrong}");
        let sets = ["node.roles=broker", "node.id=9", peers[0], &set];
        assert!(load("", &[], &sets).is_err(), "{wrong:?} is taken");
    }
    let even = with(&["cluster.controllers=1@a:1,2@b:1"]).expect("allowed").warnings();
    assert!(even.iter().any(|warning| warning.contains("survive no more losses than 1")), "{even:?}");
}

/// What the file `name` of configs/ says.
fn example(name: &str) -> NodeConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(format!("{name}.toml"));
    config::load(Some(&path), std::iter::empty(), &[]).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_example_cluster_is_three_controllers_and_four_brokers_in_two_racks() {
    let controllers = [1, 2, 3].map(|number| (format!("controller-{number}"), number, Role::Controller));
    let brokers = [1, 2, 3, 4].map(|number| (format!("broker-{number}"), 10 + number, Role::Broker));
    let mut binds = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for (at, (name, id, role)) in controllers.into_iter().chain(brokers).enumerate() {
        let config = example(&name);
        assert_eq!((config.node.id, &config.node.roles), (NodeId(id), &vec![role]), "{name}");
        let rack = if [0, 2, 3, 5].contains(&at) { "a" } else { "b" };
        assert_eq!(config.node.rack.as_deref(), Some(rack), "{name}");
        assert!(directories.insert(config.node.data_dir.clone()), "{name} shares its directory");
        assert!(binds.insert(config.listener.http.bind.clone()), "{name} shares its HTTP port");
        if role == Role::Broker {
            assert!(binds.insert(Some(config.listener.native.bind.clone())), "{name} shares its port");
            let topics = config.topics.file.expect("brokers create topics");
            let topics = config::topics_file::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(topics)).expect("good");
            assert_eq!(topics.iter().map(|topic| topic.replication_factor).collect::<Vec<_>>(), [Some(4), Some(3)]);
        }
    }
}
