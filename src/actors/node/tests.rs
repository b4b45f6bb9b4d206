//! A node by itself, on a real disk: it comes, goes, and comes back.

use std::time::Duration;

use super::*;

const TOPICS: &str = r#"[{"name": "a", "partitions": 3}, {"name": "b", "partitions": 1}]"#;

fn config(root: &std::path::Path) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.node.data_dir = root.join("data");
    config.listener.native.bind = "127.0.0.1:0".to_owned();
    config.listener.http.bind = None;
    config.storage.min_free_bytes = 0;
    config.topics.file = Some(root.join("topics.json"));
    config
}

#[test]
fn a_node_by_itself_is_counted_on_when_it_is_ready_and_stops_at_once() {
    let root = std::env::temp_dir().join(format!("callboard-node-{}", uuid::Uuid::new_v4().as_simple()));
    std::fs::create_dir_all(&root).expect("a directory");
    std::fs::write(root.join("topics.json"), TOPICS).expect("written");
    let mut clusters = Vec::new();
    for declared in [2, 0] {
        let node = RunningNode::start(config(&root)).expect("it starts");
        let ready = node.ready().clone();
        assert_eq!((ready.topics, ready.declared.len()), (2, declared), "{ready:?}");
        clusters.push(ready.cluster);
        let (stopped, stopping) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || stopped.send(node.stop()));
        // Nothing could be handed over: none of the times that a stop may take is waited for.
        let stopped = stopping.recv_timeout(Duration::from_millis(2_100)).expect("at once");
        stopped.expect("cleanly");
    }
    assert_eq!(clusters[0], clusters[1]);
    std::fs::remove_dir_all(&root).expect("its own");
}
