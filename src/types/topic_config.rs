//! What can be set on a topic: each key with its default, its unit and its limits, in one table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// When an append counts as safe on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushPolicy {
    /// fdatasync before a record counts as committed. What `acks = all` acknowledged survives power loss.
    #[default]
    Always,
    /// fdatasync every `flush_interval_ms`. Power loss can take what came since the last one.
    Interval,
    /// The operating system decides. A crash of the process loses nothing, power loss can.
    Os,
}

/// Whose clock stamps the records of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at the moment of the append.
    LogAppendTime,
}

/// What happens to a partition when all who held its newest records lost some of them at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UncleanRecovery {
    /// It stays offline until somebody decides.
    #[default]
    Never,
    /// Once all of them are back, the one that kept most leads. What none of them kept is gone.
    LastMembers,
}

/// The settings of a topic in force: defaults with the topic's overrides laid over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicConfig {
    /// See [`FlushPolicy`].
    pub flush: FlushPolicy,
    /// Milliseconds between syncs with `flush = "interval"`.
    pub flush_interval_ms: u64,
    /// A segment is closed before it would grow beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is closed when its first record is older than this many milliseconds.
    pub segment_ms: u64,
    /// Segments whose newest record is older than this many milliseconds are deleted; -1 keeps them for ever.
    pub retention_ms: i64,
    /// The oldest segments are deleted while the partition has more than this many bytes; -1 for no bound.
    pub retention_bytes: i64,
    /// The largest record batch accepted, in bytes as sent (compressed), header included.
    pub max_batch_bytes: u32,
    /// One index entry for about this many bytes of records.
    pub index_interval_bytes: u32,
    /// See [`TimestampType`].
    pub timestamp_type: TimestampType,
    /// With `acks = all` a record is refused while fewer replicas than this are in sync.
    pub min_insync_replicas: u32,
    /// See [`UncleanRecovery`].
    pub unclean_recovery: UncleanRecovery,
    /// How many bytes a second a broker fetches, in all, for its replicas of the topic that are not in sync; -1 for no limit. Who is
    /// in sync is never held up.
    pub catch_up_bytes_per_second: i64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            flush: FlushPolicy::Always,
            flush_interval_ms: 1_000,
            segment_bytes: 256 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            max_batch_bytes: 4 << 20,
            index_interval_bytes: 4_096,
            timestamp_type: TimestampType::CreateTime,
            min_insync_replicas: 1,
            unclean_recovery: UncleanRecovery::Never,
            catch_up_bytes_per_second: -1,
        }
    }
}

/// One key of [`TopicConfig`]: its name and what it means, for help texts, errors and the documentation.
#[derive(Clone, Copy, Debug)]
pub struct TopicConfigKey {
    /// The key's name.
    pub name: &'static str,
    /// The legal values, in words.
    pub values: &'static str,
    /// What it does, in a sentence.
    pub meaning: &'static str,
}

/// Every key that can be set on a topic.
pub const TOPIC_CONFIG_KEYS: &[TopicConfigKey] = &[
    key(
        "flush",
        "always | interval | os",
        "when an append counts as safe: after fdatasync, after a periodic one, or as the operating system likes",
    ),
    key("flush_interval_ms", "1 to 3600000", "milliseconds between syncs with flush = interval"),
    key("segment_bytes", "16384 to 1073741824", "a segment file is closed before it would grow beyond this many bytes"),
    key(
        "segment_ms",
        "1000 or more",
        "a segment file is closed when its first record is older than this many milliseconds",
    ),
    key(
        "retention_ms",
        "-1, or 0 or more",
        "segments whose newest record is older than this many milliseconds are deleted; -1 keeps them for ever",
    ),
    key(
        "retention_bytes",
        "-1, or 0 or more",
        "the oldest segments are deleted while the partition has more than this many bytes; -1 for no bound",
    ),
    key("max_batch_bytes", "1024 to 67108864", "the largest record batch accepted, in bytes as sent, header included"),
    key("index_interval_bytes", "1 to 16777216", "one index entry for about this many bytes of records"),
    key(
        "timestamp_type",
        "create-time | log-append-time",
        "whose clock stamps the records: the producer's or the broker's",
    ),
    key(
        "min_insync_replicas",
        "1 to 32",
        "with acks = all a record is refused while fewer replicas than this are in sync",
    ),
    key(
        "unclean_recovery",
        "never | last_members",
        "when all replicas that could lead lost unsynced records at once: stay offline, or let the one that kept most lead",
    ),
    key(
        CATCH_UP_BYTES_PER_SECOND,
        "-1, or 65536 or more",
        "bytes a second that a broker fetches, in all, for its replicas of the topic that are not in sync; -1 for no limit",
    ),
];

/// The key of [`TopicConfig::catch_up_bytes_per_second`].
pub const CATCH_UP_BYTES_PER_SECOND: &str = "catch_up_bytes_per_second";
/// The least that it may be where there is a limit: the largest batches would take hours with less.
pub const MIN_CATCH_UP_BYTES_PER_SECOND: i64 = 65_536;

const fn key(name: &'static str, values: &'static str, meaning: &'static str) -> TopicConfigKey {
    TopicConfigKey { name, values, meaning }
}

/// Why a topic setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// No such key.
    #[error("there is no topic setting '{key}'{}", nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    UnknownKey {
        /// The key given.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The value is not one of the legal ones.
    #[error("topic setting {key} = {value:?} is not valid: give {values}")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The value given.
        value: String,
        /// What is legal.
        values: &'static str,
    },
}

/// The settings that a topic overrides, as text by key. A key that is absent follows the cluster's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicConfigOverrides(pub BTreeMap<String, String>);

impl TopicConfigOverrides {
    /// Lays these overrides over `defaults`.
    ///
    /// # Errors
    /// [`TopicConfigError`] names the first key or value that is not legal.
    pub fn resolve(&self, defaults: &TopicConfig) -> Result<TopicConfig, TopicConfigError> {
        let mut config = defaults.clone();
        for (key, value) in &self.0 {
            config.set(key, value)?;
        }
        Ok(config)
    }

    /// [`TopicConfig::catch_up_bytes_per_second`] over `defaults`; `None` for no limit. Without the other settings, since it is asked for
    /// each fetch of a replica that is behind.
    #[must_use]
    pub fn catch_up_limit(&self, defaults: &TopicConfig) -> Option<u64> {
        let own = self.0.get(CATCH_UP_BYTES_PER_SECOND).and_then(|value| value.parse().ok());
        u64::try_from(own.unwrap_or(defaults.catch_up_bytes_per_second)).ok()
    }
}

impl TopicConfig {
    /// Sets one key from text.
    ///
    /// # Errors
    /// [`TopicConfigError`] for an unknown key or an illegal value; nothing is changed then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), TopicConfigError> {
        let Some(known) = TOPIC_CONFIG_KEYS.iter().find(|known| known.name == key) else {
            return Err(TopicConfigError::UnknownKey { key: key.to_owned(), nearest: nearest_key(key) });
        };
        let mut next = self.clone();
        if next.assign(key, value).is_none() || !next.is_legal(key) {
            return Err(TopicConfigError::InvalidValue {
                key: known.name,
                value: value.to_owned(),
                values: known.values,
            });
        }
        *self = next;
        Ok(())
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`TopicConfigError::InvalidValue`] for the first that is outside.
    pub fn validate(&self) -> Result<(), TopicConfigError> {
        match TOPIC_CONFIG_KEYS.iter().find(|key| !self.is_legal(key.name)) {
            None => Ok(()),
            Some(key) => Err(TopicConfigError::InvalidValue {
                key: key.name,
                value: self.get(key.name).unwrap_or_default(),
                values: key.values,
            }),
        }
    }

    /// The value of `key` as text, `None` if there is no such key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        Some(match key {
            "flush" => word(&self.flush)?,
            "flush_interval_ms" => self.flush_interval_ms.to_string(),
            "segment_bytes" => self.segment_bytes.to_string(),
            "segment_ms" => self.segment_ms.to_string(),
            "retention_ms" => self.retention_ms.to_string(),
            "retention_bytes" => self.retention_bytes.to_string(),
            "max_batch_bytes" => self.max_batch_bytes.to_string(),
            "index_interval_bytes" => self.index_interval_bytes.to_string(),
            "timestamp_type" => word(&self.timestamp_type)?,
            "min_insync_replicas" => self.min_insync_replicas.to_string(),
            "unclean_recovery" => word(&self.unclean_recovery)?,
            CATCH_UP_BYTES_PER_SECOND => self.catch_up_bytes_per_second.to_string(),
            _ => return None,
        })
    }

    fn assign(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "flush" => self.flush = from_word(value)?,
            "flush_interval_ms" => self.flush_interval_ms = value.parse().ok()?,
            "segment_bytes" => self.segment_bytes = value.parse().ok()?,
            "segment_ms" => self.segment_ms = value.parse().ok()?,
            "retention_ms" => self.retention_ms = value.parse().ok()?,
            "retention_bytes" => self.retention_bytes = value.parse().ok()?,
            "max_batch_bytes" => self.max_batch_bytes = value.parse().ok()?,
            "index_interval_bytes" => self.index_interval_bytes = value.parse().ok()?,
            "timestamp_type" => self.timestamp_type = from_word(value)?,
            "min_insync_replicas" => self.min_insync_replicas = value.parse().ok()?,
            "unclean_recovery" => self.unclean_recovery = from_word(value)?,
            CATCH_UP_BYTES_PER_SECOND => self.catch_up_bytes_per_second = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn is_legal(&self, key: &str) -> bool {
        match key {
            "flush_interval_ms" => (1..=3_600_000).contains(&self.flush_interval_ms),
            "segment_bytes" => (16_384..=1 << 30).contains(&self.segment_bytes),
            "segment_ms" => self.segment_ms >= 1_000,
            "retention_ms" => self.retention_ms >= -1,
            "retention_bytes" => self.retention_bytes >= -1,
            "max_batch_bytes" => (1_024..=64 << 20).contains(&self.max_batch_bytes),
            "index_interval_bytes" => (1..=16 << 20).contains(&self.index_interval_bytes),
            "min_insync_replicas" => (1..=32).contains(&self.min_insync_replicas),
            CATCH_UP_BYTES_PER_SECOND => {
                let limit = self.catch_up_bytes_per_second;
                limit == -1 || limit >= MIN_CATCH_UP_BYTES_PER_SECOND
            }
            _ => true,
        }
    }
}

fn word<T: Serialize>(value: &T) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

fn from_word<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

fn nearest_key(key: &str) -> Option<&'static str> {
    TOPIC_CONFIG_KEYS
        .iter()
        .map(|known| (strsim::jaro_winkler(key, known.name), known.name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_can_be_read_and_set_to_its_own_default() {
        let mut config = TopicConfig::default();
        for key in TOPIC_CONFIG_KEYS {
            let value = config.get(key.name).expect("a key of the table has a value");
            assert_eq!(config.set(key.name, &value), Ok(()), "{}", key.name);
        }
        assert_eq!(config, TopicConfig::default());
        assert_eq!(config.validate(), Ok(()));
        let fields = serde_json::to_value(&config).expect("plain data");
        assert_eq!(fields.as_object().map(|o| o.len()), Some(TOPIC_CONFIG_KEYS.len()), "a field without a key");
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest_one() {
        let error = TopicConfig::default().set("retention_msec", "5").expect_err("no such key");
        assert_eq!(error.to_string(), "there is no topic setting 'retention_msec'; did you mean 'retention_ms'?");
    }

    #[test]
    fn the_limit_of_catching_up_is_the_topic_s_own_or_the_default() {
        let slow = TopicConfig { catch_up_bytes_per_second: 70_000, ..TopicConfig::default() };
        let own = |value: &str| TopicConfigOverrides([(CATCH_UP_BYTES_PER_SECOND.to_owned(), value.to_owned())].into());
        for (overrides, defaults, limit) in [
            (TopicConfigOverrides::default(), &TopicConfig::default(), None),
            (TopicConfigOverrides::default(), &slow, Some(70_000)),
            (own("-1"), &slow, None),
            (own("1000000"), &slow, Some(1_000_000)),
        ] {
            assert_eq!(overrides.catch_up_limit(defaults), limit, "{overrides:?}");
        }
    }

    #[test]
    fn a_value_outside_its_limits_changes_nothing() {
        let mut config = TopicConfig::default();
        for (key, value) in [
            ("segment_bytes", "12"),
            ("flush", "sometimes"),
            ("retention_ms", "-2"),
            ("min_insync_replicas", "0"),
            ("catch_up_bytes_per_second", "65535"),
            ("catch_up_bytes_per_second", "-2"),
        ] {
            assert!(matches!(config.set(key, value), Err(TopicConfigError::InvalidValue { .. })), "{key}");
        }
        assert_eq!(config, TopicConfig::default());
    }
}
