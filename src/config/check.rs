//! What a configuration must satisfy beyond its keys: limits that fit each other. And what deserves a warning.

use super::keys::{self, Kind, host_and_port, is_every_address, is_loopback};
use super::{ConfigError, NodeConfig, Role};

/// What a request's or reply's frame holds beside its record batches, at most, when there is one batch.
pub const FRAME_HEAD_BYTES: u64 = 4 << 10;

/// Tells where a key was set; nothing when it has its default.
type OriginOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Two keys of which the first must not be below the second (plus a margin).
struct AtLeast {
    larger: (&'static str, u64),
    smaller: (&'static str, u64),
    margin: u64,
}

impl NodeConfig {
    /// Checks every value, and that the values fit each other. [`load`](super::load) has done so already; this is for
    /// a configuration put together by a program.
    ///
    /// # Errors
    /// [`ConfigError`] for the first key or pair of keys at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check(&|_| None)
    }

    pub(super) fn check(&self, origin_of: OriginOf<'_>) -> Result<(), ConfigError> {
        for key in keys::all() {
            if let Some((text, shown)) = self.value_of(&key.path)
                && !key.allows(&text)
            {
                return Err(ConfigError::invalid(origin_of(&key.path), &key, shown));
            }
        }
        self.check_pairs(origin_of)?;
        self.check_replication(origin_of)?;
        self.check_listener(origin_of)?;
        self.check_cluster(origin_of)
    }

    fn check_pairs(&self, origin_of: OriginOf<'_>) -> Result<(), ConfigError> {
        let (limits, storage) = (&self.limits, &self.storage);
        let max_batch = ("topic_defaults.max_batch_bytes", u64::from(self.topic_defaults.max_batch_bytes));
        let max_frame = ("limits.max_frame_bytes", u64::from(limits.max_frame_bytes));
        let in_flight = ("limits.connection_bytes_in_flight", limits.connection_bytes_in_flight as u64);
        let write_queue = ("limits.write_queue_bytes", limits.write_queue_bytes as u64);
        let per_topic = ("limits.max_partitions_per_topic", u64::from(limits.max_partitions_per_topic));
        let default_partitions = ("topics.default_partitions", u64::from(self.topics.default_partitions));
        let before_hello = ("limits.max_frame_bytes_before_hello", u64::from(limits.max_frame_bytes_before_hello));
        let pair = |larger, smaller, margin| AtLeast { larger, smaller, margin };
        let pairs = [
            pair(max_frame, max_batch, FRAME_HEAD_BYTES),
            pair(max_frame, before_hello, 0),
            pair(in_flight, max_frame, 0),
            pair(("limits.node_bytes_in_flight", limits.node_bytes_in_flight as u64), in_flight, 0),
            pair(write_queue, ("limits.fetch_max_bytes", u64::from(limits.fetch_max_bytes)), 0),
            pair(write_queue, max_batch, FRAME_HEAD_BYTES),
            pair(
                ("storage.tail_cache_bytes", storage.tail_cache_bytes as u64),
                ("storage.tail_cache_partition_bytes", storage.tail_cache_partition_bytes as u64),
                0,
            ),
            pair(per_topic, default_partitions, 0),
            pair(("limits.max_partitions", limits.max_partitions as u64), default_partitions, 0),
        ];
        match pairs.iter().find(|pair| pair.larger.1 < pair.smaller.1 + pair.margin) {
            None => Ok(()),
            Some(pair) => Err(ConfigError::Contradiction { text: pair.to_text(origin_of) }),
        }
    }

    fn check_replication(&self, origin_of: OriginOf<'_>) -> Result<(), ConfigError> {
        let (wanted, minimum) = (self.topics.default_replication_factor, self.topic_defaults.min_insync_replicas);
        match wanted {
            Some(factor) if factor < minimum => Err(ConfigError::Contradiction {
                text: AtLeast {
                    larger: ("topics.default_replication_factor", u64::from(factor)),
                    smaller: ("topic_defaults.min_insync_replicas", u64::from(minimum)),
                    margin: 0,
                }
                .to_text(origin_of),
            }),
            _ => Ok(()),
        }
    }

    fn check_listener(&self, origin_of: OriginOf<'_>) -> Result<(), ConfigError> {
        let (native, peer) = (&self.listener.native, &self.listener.peer);
        let listeners = [
            ("native", "clients", Some(&native.bind), &native.advertise),
            ("peer", "other nodes", peer.bind.as_ref(), &peer.advertise),
        ];
        for (name, who, bind, advertise) in listeners {
            let Some(bind) = bind.filter(|_| advertise.is_none()) else { continue };
            if is_every_address(host_and_port(bind).map_or("", |(host, _)| host)) {
                let place = shown_origin(origin_of(&format!("listener.{name}.bind")));
                return Err(ConfigError::Contradiction {
                    text: format!(
                        "listener.{name}.bind = {bind:?} ({place}) listens on every address of the machine, so {who} must be \
                         told which one to use: set listener.{name}.advertise to HOST:PORT"
                    ),
                });
            }
        }
        Ok(())
    }

    /// What this node does must fit the list of controllers.
    fn check_cluster(&self, origin_of: OriginOf<'_>) -> Result<(), ConfigError> {
        let (id, decides) = (self.node.id, self.node.roles.contains(&Role::Controller));
        let roles = || format!("node.roles ({})", shown_origin(origin_of("node.roles")));
        let listed = || format!("cluster.controllers ({})", shown_origin(origin_of("cluster.controllers")));
        let text = match &self.cluster.controllers {
            None if !(decides && self.node.roles.contains(&Role::Broker)) => Some(format!(
                "{} does not hold both \"controller\" and \"broker\", so this node needs others: set cluster.controllers to \
                 all controllers of its cluster",
                roles()
            )),
            None => None,
            Some(_) if self.listener.peer.bind.is_none() => Some(format!(
                "{} names the controllers of a cluster, and other nodes cannot reach this one: set listener.peer.bind",
                listed()
            )),
            Some(controllers) => match (controllers.iter().any(|one| one.node == id), decides) {
                (false, true) => Some(format!(
                    "{} holds \"controller\", and {} does not name this node, {id}: add it there, on all nodes, or take the \
                     role away",
                    roles(),
                    listed()
                )),
                (true, false) => Some(format!(
                    "{} names this node, {id}, and {} does not hold \"controller\": correct one of the two",
                    listed(),
                    roles()
                )),
                _ => None,
            },
        };
        text.map_or(Ok(()), |text| Err(ConfigError::Contradiction { text }))
    }

    /// What is allowed but deserves attention, one line each, to be logged at the start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let bind = &self.listener.native.bind;
        if host_and_port(bind).is_none_or(|(host, _)| !is_loopback(host)) {
            warnings.push(format!(
                "listener.native.bind = {bind:?} is reachable from other machines and nothing authenticates them: \
                 anyone who can connect can read and delete everything; bind to 127.0.0.1 or guard the port with a firewall"
            ));
        }
        if let Some(bind) = &self.listener.http.bind
            && host_and_port(bind).is_none_or(|(host, _)| !is_loopback(host))
        {
            warnings.push(format!(
                "listener.http.bind = {bind:?} is reachable from other machines and nothing authenticates them: anyone who \
                 can connect reads the names, sizes and offsets of all topics; guard the port with a firewall"
            ));
        }
        if let Some(bind) = &self.listener.peer.bind
            && host_and_port(bind).is_none_or(|(host, _)| !is_loopback(host))
        {
            warnings.push(format!(
                "listener.peer.bind = {bind:?} is reachable from other machines and nothing authenticates them: anyone who can \
                 connect can pass for a node of the cluster; guard the port with a firewall that lets only the cluster's nodes in"
            ));
        }
        if self.topics.file.is_some() && !self.node.roles.contains(&Role::Broker) {
            warnings.push("topics.file is ignored on a node that is no broker: set it on a broker".to_owned());
        }
        if let Some(controllers) = self.cluster.controllers.as_ref().filter(|controllers| controllers.len() % 2 == 0) {
            let count = controllers.len();
            warnings.push(format!(
                "cluster.controllers names {count} controllers, which survive no more losses than {}: take an odd number",
                count - 1
            ));
        }
        warnings
    }

    /// The value of a key as text for checking and as it is shown; nothing when it is unset.
    pub(super) fn value_of(&self, path: &str) -> Option<(String, String)> {
        let tree = serde_json::to_value(self).expect("a configuration is plain data");
        let value = path.split('.').try_fold(&tree, |value, name| value.get(name))?;
        match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some((text.clone(), format!("{text:?}"))),
            serde_json::Value::Array(items) => {
                let texts: Vec<&str> = items.iter().filter_map(serde_json::Value::as_str).collect();
                Some((texts.join(", "), format!("[{}]", texts.join(", "))))
            }
            other => Some((other.to_string(), other.to_string())),
        }
    }

    /// Every key with its value in force, in the order of the sections: a complete file, with unset keys commented out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (defaults, mut text) = (Self::default(), String::new());
        let mut section = String::new();
        for key in keys::all() {
            let (table, name) = key.path.rsplit_once('.').expect("every key lies in a section");
            if table != section {
                if !section.is_empty() {
                    text.push('\n');
                }
                text.push_str(&format!("[{table}]\n"));
                table.clone_into(&mut section);
            }
            let shown = self.value_of(&key.path).map(|(plain, shown)| match key.kind {
                Kind::Words(_) | Kind::Controllers => {
                    let words: Vec<String> = keys::list(&plain).map(|word| format!("{word:?}")).collect();
                    format!("[{}]", words.join(", "))
                }
                _ => shown,
            });
            match shown {
                Some(shown) => text.push_str(&format!("{name} = {shown}\n")),
                // An empty text unsets what would otherwise have its default.
                None if defaults.value_of(&key.path).is_some() => text.push_str(&format!("{name} = \"\"\n")),
                None => text.push_str(&format!("# {name} is not set\n")),
            }
        }
        text
    }
}

impl AtLeast {
    fn to_text(&self, origin_of: OriginOf<'_>) -> String {
        let (larger, smaller) = (self.larger, self.smaller);
        let margin = if self.margin == 0 { String::new() } else { format!(" plus {}", self.margin) };
        format!(
            "{} = {} ({}) must be at least {} = {} ({}){margin}: raise the first or lower the second",
            larger.0,
            larger.1,
            shown_origin(origin_of(larger.0)),
            smaller.0,
            smaller.1,
            shown_origin(origin_of(smaller.0)),
        )
    }
}

fn shown_origin(origin: Option<String>) -> String {
    origin.unwrap_or_else(|| "the default".to_owned())
}
