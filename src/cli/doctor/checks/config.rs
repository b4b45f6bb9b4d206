//! A configuration against the directory it is for, and against itself.

use std::path::Path;

use super::{reach, topics};
use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::config::{NodeConfig, Role};
use crate::storage::data_dir::DirectoryMeta;

/// What findings about the configuration are about.
const ABOUT: &str = "the configuration";

/// What is wrong with a configuration by itself.
#[must_use]
pub fn alone(config: &NodeConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A controller by itself does not listen for clients.
    if config.node.roles.contains(&Role::Broker) {
        findings.extend(reach::bound_wide(ABOUT, &config.listener.native.bind));
    }
    if let Some(bind) = &config.listener.http.bind {
        let fix = "set listener.http.bind to 127.0.0.1:PORT, or guard the port with a firewall";
        let cause = "nothing authenticates who asks there: anyone may read the names, sizes and offsets of all topics";
        findings.extend(reach::bound_wide(ABOUT, bind).map(|finding| finding.because(cause).fixed_by(fix)));
    }
    let level = &config.log.level;
    if level.split(',').any(|part| part.ends_with("trace") || part.ends_with("debug")) {
        findings.push(Finding::new(Code::LogLevelCostly, ABOUT, format!("log.level = {level:?}")));
    }
    let frame = u64::from(config.limits.max_frame_bytes);
    findings.extend(topics::settings("topic_defaults in the configuration", &config.topic_defaults, Some(frame)));
    findings
}

/// Whether the configuration and the directory at `root` belong together.
#[must_use]
pub fn against_directory(config: &NodeConfig, root: &Path, meta: Option<&DirectoryMeta>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let configured = &config.node.data_dir;
    let same = match (configured.canonicalize(), root.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => configured == root,
    };
    if !same {
        let seen = format!("node.data_dir is {}, and {} was looked at", configured.display(), root.display());
        findings.push(Finding::new(Code::DataDirDiffers, ABOUT, seen));
    }
    let Some(meta) = meta else { return findings };
    if meta.node != config.node.id {
        let seen = format!("node.id is {}, and {} belongs to node {}", config.node.id, root.display(), meta.node);
        let fix = format!("set node.id to {}, or node.data_dir to the directory of node {}", meta.node, config.node.id);
        findings.push(Finding::new(Code::NodeDiffers, ABOUT, seen).fixed_by(fix));
    }
    if let Some(cluster) = config.node.cluster_id.filter(|cluster| *cluster != meta.cluster) {
        let seen = format!("node.cluster_id is {cluster}, and {} belongs to cluster {}", root.display(), meta.cluster);
        findings.push(Finding::new(Code::ClusterDiffers, ABOUT, seen));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, DirectoryId, NodeId};

    fn codes(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.code.name()).collect()
    }

    #[test]
    fn the_defaults_are_fine_by_themselves() {
        assert_eq!(alone(&NodeConfig::default()), []);
    }

    #[test]
    fn what_a_configuration_says_against_itself_is_found() {
        let mut config = NodeConfig::default();
        config.listener.native.bind = "0.0.0.0:9644".to_owned();
        config.log.level = "info,callboard::storage=trace".to_owned();
        config.topic_defaults.retention_bytes = 5;
        let findings = alone(&config);
        assert_eq!(codes(&findings), ["bind-wide", "log-level-costly", "retention-below-segment"]);
        assert!(findings[0].fix.contains("listener.native.bind") && findings[1].fix.contains("log.level"));
        config.node.roles = vec![Role::Controller];
        let of_a_controller = ["log-level-costly", "retention-below-segment"];
        assert_eq!(codes(&alone(&config)), of_a_controller, "it does not listen there");
        config.node.roles.push(Role::Broker);
        config.listener.native.bind = "127.0.0.1:9644".to_owned();
        config.listener.http.bind = Some("192.0.2.7:9645".to_owned());
        let findings = alone(&config);
        assert_eq!(codes(&findings)[..1], ["bind-wide"]);
        assert!(findings[0].fix.contains("listener.http.bind") && findings[0].seen.contains("192.0.2.7:9645"));
    }

    #[test]
    fn a_configuration_for_another_directory_node_or_cluster_is_found() {
        let root = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::default();
        config.node.data_dir = root.path().to_owned();
        let (cluster, other) = (ClusterId(uuid::Uuid::from_u128(1)), ClusterId(uuid::Uuid::from_u128(2)));
        let meta = DirectoryMeta {
            cluster,
            node: NodeId(1),
            directory: DirectoryId::random(),
            broker_epoch: None,
            boot_id: None,
            holds_votes: false,
        };
        assert_eq!(against_directory(&config, root.path(), Some(&meta)), []);
        config.node.cluster_id = Some(cluster);
        assert_eq!(against_directory(&config, &root.path().join("."), Some(&meta)), [], "the same by another path");
        config.node.cluster_id = Some(other);
        config.node.id = NodeId(2);
        config.node.data_dir = root.path().join("elsewhere");
        let findings = against_directory(&config, root.path(), Some(&meta));
        assert_eq!(codes(&findings), ["data-dir-differs", "node-differs", "cluster-differs"]);
        assert!(
            findings[1].fix.contains("node.id to 1") && findings[2].fix.contains("node.cluster_id"),
            "{findings:?}"
        );
        assert_eq!(codes(&against_directory(&config, root.path(), None)), ["data-dir-differs"]);
    }
}
