//! `callboard topic` and `callboard cluster`, for people and for programs.

use rustix::process::Signal;
use serde_json::json;

use crate::support::*;

#[test]
fn a_topic_lives_from_create_to_delete_and_its_files_with_it() {
    let node = Node::start();
    let empty = node.callboard(&["topic", "list"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (0, ""));
    assert_eq!(empty.stderr, "there are no topics; create one with callboard topic create NAME\n");

    let create = ["topic", "create", "orders", "--partitions", "3", "--config", "retention_ms=86400000"];
    assert_eq!(node.callboard(&create).quietly(), "topic orders created: 3 partitions, replication factor 1\n");
    node.create("a", 1);
    assert_eq!(
        node.callboard(&["topic", "list"]).quietly(),
        "TOPIC   PARTITIONS\n\
         a       1\n\
         orders  3\n"
    );
    assert_eq!(node.partitions("orders").len(), 3);

    assert_eq!(node.callboard(&["topic", "delete", "orders", "--yes"]).quietly(), "topic orders deleted\n");
    wait_for("the files are gone", || node.partitions("orders").is_empty().then_some(()));
    assert_eq!(node.partitions("a").len(), 1);
    assert_eq!(node.callboard(&["topic", "list"]).quietly(), "TOPIC  PARTITIONS\na      1\n");
    let gone = node.callboard(&["topic", "describe", "orders"]);
    let expected = "error: topic 'orders' cannot be described: there is no topic 'orders': create it first";
    assert_eq!(gone.refusal(), (1, expected));
}

#[test]
fn each_refusal_is_one_line_and_exit_code_1() {
    let node = Node::start();
    node.create("t", 1);
    for (arguments, expected) in [
        (&["create", "t"][..], "topic 't' was not created: topic 't' exists"),
        (
            &["create", "a/b"],
            "topic 'a/b' was not created: a topic name consists of letters, digits, '.', '_' and '-'; \"a/b\" has '/' at byte 1",
        ),
        (
            &["create", "x", "--config", "retention=1"],
            "topic 'x' was not created: there is no topic setting 'retention'; did you mean 'retention_ms'?",
        ),
        (
            &["create", "x", "--partitions", "0"],
            "topic 'x' was not created: a topic has 1 to 1000 partitions (limits.max_partitions_per_topic), not 0",
        ),
        (
            &["create", "x", "--replication-factor", "3"],
            "topic 'x' was not created: replication factor 3 needs as many live brokers, there are 1",
        ),
        (
            &["alter", "t", "--set", "retention_m=5"],
            "topic 't' was not altered: there is no topic setting 'retention_m'; did you mean 'retention_ms'?",
        ),
        (
            &["alter", "x", "--set", "retention_ms=5"],
            "topic 'x' was not altered: there is no topic 'x': create it first",
        ),
        (&["delete", "x", "--yes"], "topic 'x' was not deleted: there is no topic 'x': create it first"),
    ] {
        let arguments: Vec<&str> = ["topic"].iter().chain(arguments).copied().collect();
        let outcome = node.callboard(&arguments);
        assert_eq!(outcome.refusal(), (1, format!("error: {expected}").as_str()), "{arguments:?}");
    }
    let twice = node.callboard(&["topic", "create", "t", "--if-not-exists"]);
    assert_eq!(twice.quietly(), "topic t exists already\n");
    let checked = node.callboard(&["topic", "create", "x", "--validate-only"]);
    assert_eq!(checked.quietly(), "topic x would be created: 1 partition, replication factor 1\n");
    assert_eq!(node.callboard(&["topic", "list"]).quietly(), "TOPIC  PARTITIONS\nt      1\n");
}

#[test]
fn programs_get_the_same_as_json_with_stable_keys() {
    let node = Node::start();
    assert_eq!(node.callboard(&["topic", "list", "--json"]).json(), json!([]));
    let created = node.callboard(&["topic", "create", "t", "--partitions", "2", "--json"]).json();
    let id = created["id"].as_str().expect("an id").to_owned();
    let expected = json!({"name": "t", "id": id, "partitions": 2, "replication_factor": 1, "created": true});
    assert_eq!(created, expected);
    let again = node.callboard(&["topic", "create", "t", "--if-not-exists", "--json"]).json();
    assert_eq!(again, json!({"name": "t", "created": false}));
    let list = node.callboard(&["topic", "list", "--json"]).json();
    assert_eq!(list, json!([{"name": "t", "id": id, "partitions": 2}]));

    node.produce(b"one\ntwo\n", &["--topic", "t", "--partition", "1"]).quietly();
    let described = node.callboard(&["topic", "describe", "--json"]).json();
    let topic = &described[0];
    assert_eq!(keys(topic), ["config", "id", "name", "partitions"]);
    assert_eq!((&topic["name"], &topic["id"]), (&json!("t"), &json!(id)));
    let size = &topic["partitions"][1]["log"]["size_bytes"];
    assert!(size.as_u64() > Some(61), "{size}");
    let log = json!({"log_start_offset": 0, "high_watermark": 2, "durable_end_offset": 2, "log_end_offset": 2,
        "size_bytes": size, "segments": 1, "damaged": [], "followers": []});
    let expected = json!({"partition": 1, "leader": 1, "leader_epoch": 0, "replicas": [1], "in_sync": [1],
        "eligible": [], "error": null, "log": log});
    assert_eq!(topic["partitions"][1], expected);
    assert_eq!(topic["config"]["flush"], json!({"value": "always", "overridden": false}));

    let altered = node.callboard(&["topic", "alter", "t", "--set", "retention_ms=5000", "--json"]).json();
    assert_eq!(keys(&altered), ["config", "name"]);
    assert_eq!(altered["config"]["retention_ms"], json!({"value": "5000", "overridden": true}));
    let reset = node.callboard(&["topic", "alter", "t", "--reset", "retention_ms", "--json"]).json();
    assert_eq!(reset["config"]["retention_ms"], json!({"value": "604800000", "overridden": false}));

    let missing = node.callboard(&["topic", "describe", "nope", "--json"]);
    let error = json!({"code": "unknown-topic-or-partition", "message": "there is no topic 'nope': create it first"});
    assert_eq!((missing.code, missing.json()), (1, json!([{"name": "nope", "error": error}])));
    let deleted = node.callboard(&["topic", "delete", "t", "nope", "--yes", "--json"]);
    let expected =
        json!([{"name": "t", "deleted": true, "error": null}, {"name": "nope", "deleted": false, "error": error}]);
    assert_eq!((deleted.code, deleted.json()), (1, expected));
}

#[test]
fn people_see_settings_and_partitions_in_columns() {
    let node = Node::start();
    node.create("t", 2);
    node.produce(b"one\ntwo\n", &["--topic", "t", "--partition", "0", "--linger", "1s"]).quietly();
    let altered =
        node.callboard(&["topic", "alter", "t", "--set", "retention_ms=86400000", "--set", "flush=os"]).quietly();
    let settings = "SETTING                    VALUE        FROM\n\
                    flush                      os           this topic\n\
                    flush_interval_ms          1000         default\n\
                    segment_bytes              268435456    default\n\
                    segment_ms                 604800000    default\n\
                    retention_ms               86400000     this topic\n\
                    retention_bytes            -1           default\n\
                    max_batch_bytes            4194304      default\n\
                    index_interval_bytes       4096         default\n\
                    timestamp_type             create-time  default\n\
                    min_insync_replicas        1            default\n\
                    unclean_recovery           never        default\n\
                    catch_up_bytes_per_second  -1           default\n";
    assert_eq!(altered, format!("topic t altered; in force now:\n{settings}"));
    let described = node.callboard(&["topic", "describe", "t"]).quietly();
    let id = node.callboard(&["topic", "list", "--json"]).json()[0]["id"].as_str().expect("an id").to_owned();
    let expected = format!(
        "topic t (id {id})\n\n\
         PARTITION  LEADER  EPOCH  REPLICAS  IN SYNC  ELIGIBLE  START  END  SIZE  SEGMENTS  STATE\n\
         0          1       0      1         1        -         0      2    81 B  1         ok\n\
         1          1       0      1         1        -         0      0    0 B   0         ok\n\n{settings}"
    );
    assert_eq!(described, expected);
}

#[test]
fn a_topics_file_creates_what_is_missing_and_only_warns_of_differences() {
    let node = Node::start();
    let home = directory();
    node.create("orders", 3);
    let file = write(
        home.path(),
        "topics.json",
        r#"[{"name": "orders", "partitions": 2, "config": {"flush": "os"}}, {"name": "new", "partitions": 2}]"#,
    );
    let warnings = "warning: topic orders differs from the file: it has 3 partitions, the file says 2\n\
                    warning: topic orders differs from the file: flush is always, the file says os\n";
    let first = node.callboard(&["topic", "apply", &file]);
    let expected = "topic orders exists, left as it is\ntopic new created: 2 partitions\n";
    assert_eq!((first.code, first.stdout.as_str(), first.stderr.as_str()), (0, expected, warnings));

    let second = node.callboard(&["topic", "apply", &file]);
    let expected = "topic orders exists, left as it is\ntopic new exists, left as it is\nnothing to do\n";
    assert_eq!((second.code, second.stdout.as_str(), second.stderr.as_str()), (0, expected, warnings));

    let differences = ["it has 3 partitions, the file says 2", "flush is always, the file says os"];
    let expected = json!([{"name": "orders", "outcome": "exists", "differences": differences},
        {"name": "new", "outcome": "exists", "differences": []}]);
    assert_eq!(node.callboard(&["topic", "apply", &file, "--json"]).json(), expected);
    let list = node.callboard(&["topic", "list"]).quietly();
    assert_eq!(list, "TOPIC   PARTITIONS\nnew     2\norders  3\n");

    // What is in the repository is what a new user tries.
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/topics.json");
    assert!(node.callboard(&["topic", "apply", shipped]).stdout.contains("topic syslog created: 1 partition\n"));
    assert!(node.callboard(&["topic", "apply", shipped]).stdout.ends_with("\nnothing to do\n"));
}

#[test]
fn nothing_is_deleted_in_a_pipe_without_yes() {
    let node = Node::start();
    node.create("t", 1);
    let outcome = node.callboard(&["topic", "delete", "t"]);
    assert_eq!(outcome.refusal(), (2, "error: deleting takes all records with it: confirm with --yes"));
    assert_eq!(node.callboard(&["topic", "list"]).quietly(), "TOPIC  PARTITIONS\nt      1\n");
}

#[test]
fn a_topic_gets_more_partitions_and_moves_only_to_brokers_that_there_are() {
    let node = Node::start();
    node.create("t", 1);
    let add = |total: &str| node.callboard(&["topic", "add-partitions", "t", "--total", total]);
    assert_eq!(add("3").quietly(), "topic t has 3 partitions now\n");
    let refused = add("3");
    let (code, line) = refused.refusal();
    assert_eq!(code, 1);
    assert!(line.contains("topic 't' has 3 partitions: it can have more, not fewer and not 3"), "{line}");
    assert_eq!(node.callboard(&["topic", "list"]).quietly(), "TOPIC  PARTITIONS\nt      3\n");
    node.produce(b"one\n", &["--topic", "t", "--partition", "2"]).quietly();

    let moved = node.callboard(&["topic", "reassign", "t", "--partition", "0", "--replicas", "2", "--json"]);
    let error = json!({"code": "invalid-replication-factor", "message": "there is no broker 2: start it first"});
    assert_eq!((moved.code, moved.json()), (1, json!([{"partition": 0, "replicas": null, "error": error}])));
    let here = node.callboard(&["topic", "reassign", "t", "--replicas", "1", "--json"]).json();
    let stays = |partition: u32| json!({"partition": partition, "replicas": [1], "error": null});
    assert_eq!(here, json!([stays(0), stays(1), stays(2)]));
    let back = node.callboard(&["topic", "reassign", "t", "-p", "1", "--cancel"]).quietly();
    assert_eq!(back, "partition 1 of topic t goes back; replicas now: 1\n");
}

#[test]
fn the_cluster_shows_its_brokers_and_is_not_reached_once_it_stopped() {
    let node = Node::start();
    node.create("t", 1);
    let described = node.callboard(&["cluster", "describe", "--json"]).json();
    let cluster = described["cluster_id"].as_str().expect("an id").to_owned();
    let (host, port) = node.address.split_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port");
    let version = env!("CARGO_PKG_VERSION");
    let epoch = described["brokers"][0]["registration_epoch"].as_u64().expect("a number");
    assert!(epoch > 0, "it is registered");
    let lease = described["brokers"][0]["lease_ms"].as_u64().expect("it is counted on");
    assert!((1..=5_000).contains(&lease), "{lease}");
    let broker = json!({"node_id": 1, "host": host, "port": port, "rack": null, "fenced": false, "stopping": false,
        "registration_epoch": epoch, "leads": 1, "replicas": 1, "software": version, "lease_ms": lease});
    let directory = described["controllers"][0]["directory"].as_str().expect("an id");
    let controller = json!({"node_id": 1, "directory": directory, "host": "", "port": 0, "role": "leader", "behind": 0,
        "trouble": null});
    let trouble = json!({"count": 0, "without_leader": 0, "below_minimum": 0, "under_replicated": 0, "partitions": []});
    let expected = json!({"cluster_id": cluster, "controller": 1, "controllers": [controller], "topics": 1, "partitions": 1,
        "brokers": [broker], "trouble": trouble});
    assert_eq!(described, expected);
    let text = node.callboard(&["cluster", "describe"]).quietly();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let lease = lines[8][4..=5].join(" ");
    assert!(lease.ends_with(" s") || lease.ends_with(" ms"), "{text}");
    let epoch = epoch.to_string();
    let expected: [&[&str]; 11] = [
        &["cluster", &cluster],
        &["controller:", "node", "1"],
        &["1", "topic", "with", "1", "partition"],
        &[],
        &["CONTROLLER", "ADDRESS", "ROLE", "BEHIND", "DIRECTORY", "TROUBLE"],
        &["1", "-", "leader", "0", directory, "-"],
        &[],
        &["BROKER", "ADDRESS", "RACK", "STATE", "LEASE", "LEADS", "REPLICAS", "EPOCH", "SOFTWARE"],
        &["1", &node.address, "-", "up", lines[8][4], lines[8][5], "1", "1", &epoch, version],
        &[],
        &["every", "replica", "is", "in", "sync"],
    ];
    assert_eq!(lines, expected);

    let address = node.address.clone();
    assert_eq!(node.stop(Signal::TERM).code, 0);
    let arguments = ["--server", &address, "cluster", "describe"];
    let outcome = run_with(command(CALLBOARD), &arguments, b"");
    let (code, line) = outcome.refusal();
    assert_eq!(code, 3);
    assert!(line.starts_with(&format!("error: cannot reach the cluster; tried {address}")), "{line}");
}
