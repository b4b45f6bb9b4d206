//! Settings of topics that do not fit each other or the node, or that deserve a look.

use crate::cli::doctor::code::Code;
use crate::cli::doctor::finding::Finding;
use crate::config::FRAME_HEAD_BYTES;
use crate::types::{FlushPolicy, TopicConfig};

/// Looks at the settings in force of what `about` names. `max_frame_bytes` is the node's, where it is known.
#[must_use]
pub fn settings(about: &str, config: &TopicConfig, max_frame_bytes: Option<u64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.flush != FlushPolicy::Always {
        let flush = if config.flush == FlushPolicy::Os { "os" } else { "interval" };
        let replicas = config.min_insync_replicas;
        let seen = format!("flush = {flush} with min_insync_replicas = {replicas}");
        findings.push(Finding::new(Code::FlushNotAlways, about, seen));
    }
    let segment = config.segment_bytes;
    if u64::try_from(config.retention_bytes).is_ok_and(|retention| retention < segment) {
        let seen = format!("retention_bytes = {} is less than segment_bytes = {segment}", config.retention_bytes);
        findings.push(Finding::new(Code::RetentionBelowSegment, about, seen));
    }
    let batch = u64::from(config.max_batch_bytes);
    if let Some(frame) = max_frame_bytes.filter(|frame| batch + FRAME_HEAD_BYTES > *frame) {
        let seen = format!("max_batch_bytes = {batch}, and limits.max_frame_bytes is {frame}");
        findings.push(Finding::new(Code::BatchExceedsFrame, about, seen));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(config: &TopicConfig) -> Vec<&'static str> {
        settings("topic t", config, Some(16 << 20)).iter().map(|finding| finding.code.name()).collect()
    }

    #[test]
    fn the_defaults_are_fine_and_each_setting_that_is_not_is_found() {
        let fine = TopicConfig::default();
        assert_eq!(codes(&fine), [""; 0]);
        assert_eq!(codes(&TopicConfig { flush: FlushPolicy::Os, ..fine.clone() }), ["flush-not-always"]);
        assert_eq!(codes(&TopicConfig { flush: FlushPolicy::Interval, ..fine.clone() }), ["flush-not-always"]);
        assert_eq!(codes(&TopicConfig { retention_bytes: 1_000, ..fine.clone() }), ["retention-below-segment"]);
        assert_eq!(codes(&TopicConfig { retention_bytes: 256 << 20, ..fine.clone() }), [""; 0]);
        let large = TopicConfig { max_batch_bytes: 16 << 20, ..fine };
        assert_eq!(codes(&large), ["batch-exceeds-frame"]);
        assert!(settings("topic t", &large, None).is_empty());
        let finding = &settings("topic t", &large, Some(1))[0];
        assert!(finding.fix.contains("max_batch_bytes") && finding.fix.contains("limits.max_frame_bytes"));
    }
}
