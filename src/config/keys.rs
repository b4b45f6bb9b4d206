//! The table of keys: what each takes. Reading, checking and the documentation go by it.

use std::net::{IpAddr, SocketAddr};

use super::sections::ControllerAddress;
use crate::types::ClusterId;
use crate::types::topic_config::{TOPIC_CONFIG_KEYS, TopicConfig};

/// What kind of value a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, both ends inclusive.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words, each once.
    Words(&'static [&'static str]),
    /// Controllers, `ID@HOST:PORT`, each node once.
    Controllers,
    /// Any text but none.
    Text,
    /// A path.
    Path,
    /// An address to listen on: `host:port`, port 0 allowed.
    Bind,
    /// An address to connect to: `host:port`.
    Address,
    /// A UUID.
    Uuid,
    /// Log levels.
    Levels,
    /// A setting of topics, which [`TopicConfig`] checks.
    TopicSetting(&'static str),
}

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its full name, `section.key`.
    pub path: String,
    /// What it takes.
    pub kind: Kind,
    /// Whether it may be left unset, which has a meaning of its own.
    pub optional: bool,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const YEAR_MS: u64 = 366 * 24 * 3_600_000;

/// Name, kind, optional. The topic settings follow from [`TOPIC_CONFIG_KEYS`].
const NODE_KEYS: &[(&str, Kind, bool)] = &[
    ("node.id", Kind::Number(0, i32::MAX as u64), false),
    ("node.roles", Kind::Words(&["controller", "broker"]), false),
    ("node.data_dir", Kind::Path, false),
    ("node.cluster_id", Kind::Uuid, true),
    ("node.rack", Kind::Text, true),
    ("listener.native.bind", Kind::Bind, false),
    ("listener.native.advertise", Kind::Address, true),
    ("listener.peer.bind", Kind::Bind, true),
    ("listener.peer.advertise", Kind::Address, true),
    ("listener.http.bind", Kind::Bind, true),
    ("cluster.controllers", Kind::Controllers, true),
    ("cluster.lease_ms", Kind::Number(500, 600_000), false),
    ("threads.core", Kind::Number(0, 1_024), false),
    ("threads.disk", Kind::Number(1, 1_024), false),
    ("threads.log_writer", Kind::Word(&["core", "disk"]), false),
    ("limits.max_frame_bytes", Kind::Number(64 << 10, GIB), false),
    ("limits.max_frame_bytes_before_hello", Kind::Number(1 << 10, MIB), false),
    ("limits.max_connections", Kind::Number(1, 1_000_000), false),
    ("limits.max_connections_per_address", Kind::Number(1, 1_000_000), false),
    ("limits.connection_bytes_in_flight", Kind::Number(64 << 10, u32::MAX as u64), false),
    ("limits.node_bytes_in_flight", Kind::Number(64 << 10, u32::MAX as u64), false),
    ("limits.idle_timeout_ms", Kind::Number(100, YEAR_MS), false),
    ("limits.partial_frame_timeout_ms", Kind::Number(10, YEAR_MS), false),
    ("limits.write_queue_bytes", Kind::Number(64 << 10, u32::MAX as u64), false),
    ("limits.write_timeout_ms", Kind::Number(10, YEAR_MS), false),
    ("limits.requests_in_flight_per_connection", Kind::Number(1, 65_536), false),
    ("limits.max_topics", Kind::Number(1, 1_000_000), false),
    ("limits.max_partitions", Kind::Number(1, 1_000_000), false),
    ("limits.max_partitions_per_topic", Kind::Number(1, 1_000_000), false),
    ("limits.fetch_max_bytes", Kind::Number(1 << 10, GIB), false),
    ("limits.max_wait_ms", Kind::Number(0, 24 * 3_600_000), false),
    ("storage.tail_cache_bytes", Kind::Number(64 << 10, 1 << 40), false),
    ("storage.tail_cache_partition_bytes", Kind::Number(16 << 10, 1 << 40), false),
    ("storage.open_files", Kind::Number(16, 1_000_000), false),
    ("storage.min_free_bytes", Kind::Number(0, 1 << 50), false),
    ("storage.retention_check_ms", Kind::Number(10, YEAR_MS), false),
    ("storage.checkpoint_interval_ms", Kind::Number(10, YEAR_MS), false),
    ("storage.append_group_bytes", Kind::Number(4 << 10, GIB), false),
    ("storage.producer_expiry_ms", Kind::Number(1_000, 100 * YEAR_MS), false),
    ("storage.scrub_bytes_per_second", Kind::Number(0, 1 << 40), false),
    ("storage.scrub_interval_ms", Kind::Number(10, YEAR_MS), false),
    ("topics.default_partitions", Kind::Number(1, 1_000_000), false),
    ("topics.default_replication_factor", Kind::Number(1, 32), true),
    ("topics.file", Kind::Path, true),
    ("log.level", Kind::Levels, false),
    ("log.format", Kind::Word(&["text", "json"]), false),
];

/// Every key there is, in the order of the sections.
#[must_use]
pub fn all() -> Vec<Key> {
    let node = NODE_KEYS.iter().map(|&(path, kind, optional)| Key { path: path.to_owned(), kind, optional });
    let topic = TOPIC_CONFIG_KEYS.iter().map(|key| Key {
        path: format!("topic_defaults.{}", key.name),
        kind: Kind::TopicSetting(key.name),
        optional: false,
    });
    node.chain(topic).collect()
}

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn environment_variable(&self) -> String {
        format!("CALLBOARD__{}", self.path.replace('.', "__").to_uppercase())
    }

    /// What is legal, in words.
    #[must_use]
    pub fn legal_values(&self) -> String {
        match self.kind {
            Kind::Number(least, most) => format!("{least} to {most}"),
            Kind::Word(words) => words.join(" | "),
            Kind::Words(words) => format!("one or more of {}, each once", words.join(", ")),
            Kind::Controllers => "one or more of ID@HOST:PORT, such as 1@127.0.0.1:9646, each ID once".to_owned(),
            Kind::Text => "a text that is not empty".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Bind => "HOST:PORT, such as 127.0.0.1:9644 or [::1]:9644; port 0 takes a free one".to_owned(),
            Kind::Address => "HOST:PORT that clients can connect to".to_owned(),
            Kind::Uuid => "a UUID, as 'callboard cluster describe' shows it".to_owned(),
            Kind::Levels => {
                "off, error, warn, info, debug or trace, or such as info,callboard::storage=debug".to_owned()
            }
            Kind::TopicSetting(name) => topic_key(name).values.to_owned(),
        }
    }

    /// Whether a TOML file gives it as a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        match self.kind {
            Kind::Number(..) => true,
            Kind::TopicSetting(name) => TopicConfig::default().get(name).is_some_and(|text| is_whole_number(&text)),
            _ => false,
        }
    }

    /// Whether a TOML file gives it as a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::Words(_) | Kind::Controllers)
    }

    /// Whether `text` is legal. Lists are given with commas.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        match self.kind {
            Kind::Number(least, most) => text.parse().is_ok_and(|number: u64| (least..=most).contains(&number)),
            Kind::Word(words) => words.contains(&text),
            Kind::Words(words) => {
                let given: Vec<&str> = list(text).collect();
                let distinct = given.iter().enumerate().all(|(i, word)| !given[..i].contains(word));
                !given.is_empty() && distinct && given.iter().all(|word| words.contains(word))
            }
            Kind::Controllers => {
                let given: Result<Vec<ControllerAddress>, _> = list(text).map(str::parse).collect();
                given.is_ok_and(|given| {
                    let distinct =
                        given.iter().enumerate().all(|(i, one)| given[..i].iter().all(|o| o.node != one.node));
                    !given.is_empty() && distinct
                })
            }
            Kind::Text | Kind::Path => !text.is_empty() && !text.contains('\0'),
            Kind::Bind => host_and_port(text).is_some(),
            Kind::Address => host_and_port(text).is_some_and(|(host, port)| port != 0 && !is_every_address(host)),
            Kind::Uuid => text.parse::<ClusterId>().is_ok(),
            Kind::Levels => text.split(',').all(is_level_directive),
            Kind::TopicSetting(name) => TopicConfig::default().set(name, text).is_ok(),
        }
    }
}

fn topic_key(name: &str) -> &'static crate::types::topic_config::TopicConfigKey {
    let found = TOPIC_CONFIG_KEYS.iter().find(|key| key.name == name);
    found.expect("Kind::TopicSetting is only made from this table")
}

/// The items of a list given as text: `a, b`.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_whole_number(text: &str) -> bool {
    text.parse::<i64>().is_ok()
}

fn is_level_directive(directive: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    match directive.split_once('=') {
        None => LEVELS.contains(&directive),
        Some((target, level)) => {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            !target.is_empty() && target.chars().all(legal) && LEVELS.contains(&level)
        }
    }
}

/// Splits `host:port`, with an IPv6 address in brackets; nothing when it is not of that form.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok()?;
    if host.starts_with('[') {
        text.parse::<SocketAddr>().ok()?;
        return Some((host, port));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // A host of digits and dots only is meant as an IPv4 address and must be one.
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let fine = !host.is_empty() && host.chars().all(legal) && (!numeric || host.parse::<IpAddr>().is_ok());
    fine.then_some((host, port))
}

/// Whether `host` stands for all addresses of the machine: `0.0.0.0` or `[::]`.
pub(super) fn is_every_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

/// Whether `host` can only be reached from this machine. A name counts only when it is `localhost`.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The known key that looks most like `path`.
pub(super) fn nearest<'a>(known: &'a [Key], path: &str) -> Option<&'a Key> {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |key: &Key| {
        // A right key in a wrong section is nearer than anything spelt similarly.
        let section_only = if leaf(&key.path) == leaf(path) { 0.5 } else { 0.0 };
        strsim::jaro_winkler(path, &key.path).max(strsim::jaro_winkler(&leaf(path), &leaf(&key.path)) - 0.05)
            + section_only
    };
    let scored = known.iter().map(|key| (likeness(key), key)).filter(|(score, _)| *score > 0.75);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}
