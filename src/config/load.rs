//! Reads the sources, checks each entry where it still knows where it came from, and merges them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Map, Source, Value, ValueKind};

use super::keys::{self, Key, Kind};
use super::{ConfigError, NodeConfig};

/// The configuration that holds without a file: configs/single.toml of the repository.
pub const EMBEDDED: &str = include_str!("../../configs/single.toml");

const ENVIRONMENT_PREFIX: &str = "CALLBOARD__";

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file built into the program.
    BuiltIn,
    /// A line of a file, counted from 1.
    File(PathBuf, Option<usize>),
    /// An environment variable, by name.
    Environment(String),
    /// A `--set`, with what was given to it.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in configuration"),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// Reads the configuration: the embedded default, then `file`, then `env` (variables that do not start with
/// `CALLBOARD__` are ignored), then `sets` (`section.key=value`). Later sources win. An empty text unsets an
/// optional key.
///
/// # Errors
/// [`ConfigError`] names the source, the key, the value and what is legal.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<NodeConfig, ConfigError> {
    load_with_origins(file, env, sets).map(|(config, _)| config)
}

/// Like [`load`], with where each key was given last. A key that is in no source, the built-in one included, is missing.
///
/// # Errors
/// As [`load`].
pub fn load_with_origins(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<(NodeConfig, BTreeMap<String, Origin>), ConfigError> {
    let known = keys::all();
    let mut layers = vec![read_toml(&known, EMBEDDED, None)?];
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        layers.push(read_toml(&known, &text, Some(path))?);
    }
    let mut from_env: Vec<(String, String)> = env.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
    from_env.sort();
    let texts = from_env.iter().map(|(name, value)| read_variable(&known, name, value));
    let texts = texts.chain(sets.iter().map(|set| read_set(&known, set)));
    layers.push(Layer { entries: texts.collect::<Result<_, _>>()? });

    let origins: BTreeMap<String, Origin> =
        layers.iter().flat_map(|layer| layer.entries.iter().map(|e| (e.path.clone(), e.origin.clone()))).collect();
    let builder = layers.into_iter().fold(config::Config::builder(), |builder, layer| builder.add_source(layer));
    let merged = builder.build().and_then(config::Config::try_deserialize::<NodeConfig>);
    let config = merged.map_err(|error| ConfigError::Malformed {
        origin: "configuration".to_owned(),
        reason: error.to_string().replace('\n', " "),
    })?;
    config.check(&|path| origins.get(path).map(Origin::to_string))?;
    Ok((config, origins))
}

/// The variables of this process that can be part of a configuration. Bytes that are not UTF-8 become `U+FFFD`, so that
/// such a value is reported instead of overlooked.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(ENVIRONMENT_PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// One checked value of a source.
#[derive(Clone, Debug)]
struct Entry {
    path: String,
    value: Value,
    origin: Origin,
}

/// The checked values of one source.
#[derive(Clone, Debug)]
struct Layer {
    entries: Vec<Entry>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.entries.iter().map(|entry| (entry.path.clone(), entry.value.clone())).collect())
    }
}

fn read_toml(known: &[Key], text: &str, path: Option<&Path>) -> Result<Layer, ConfigError> {
    let origin_at = |line| path.map_or(Origin::BuiltIn, |path| Origin::File(path.to_owned(), line));
    let file = config::File::from_str(text, config::FileFormat::Toml);
    let tables = file.collect().map_err(|error| malformed_toml(&origin_at(None), &error))?;
    let mut flat = Vec::new();
    flatten(known, "", tables, &mut flat);
    flat.sort_by(|a, b| a.0.cmp(&b.0));
    let entries = flat.into_iter().map(|(path, value)| {
        let origin = origin_at(line_of(text, &path));
        let key = find(known, &path).ok_or_else(|| unknown(known, &path, &origin))?;
        if key.optional && matches!(&value.kind, ValueKind::String(text) if text.is_empty()) {
            return Ok(unset(key, origin));
        }
        let (text, right_form) = as_text(key, &value.kind);
        if !right_form || !key.allows(&text) {
            let shown = if matches!(value.kind, ValueKind::String(_)) { format!("{text:?}") } else { text };
            return Err(ConfigError::invalid(Some(origin.to_string()), key, shown));
        }
        Ok(Entry { value: typed(key, &text, &origin), path, origin })
    });
    Ok(Layer { entries: entries.collect::<Result<_, _>>()? })
}

/// The TOML parser draws a picture of several lines; what counts is its first line and its last.
fn malformed_toml(origin: &Origin, error: &config::ConfigError) -> ConfigError {
    let text = error.to_string();
    let place = text.lines().next().unwrap_or_default().trim_start_matches("TOML parse error at ");
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    ConfigError::Malformed { origin: origin.to_string(), reason: format!("not valid TOML at {place}: {last}") }
}

/// Tables become dotted keys. A table that no known key lies in is kept, so that it is reported.
fn flatten(known: &[Key], prefix: &str, tables: Map<String, Value>, out: &mut Vec<(String, Value)>) {
    for (name, value) in tables {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) if inner.is_empty() && is_section(known, &path) => {}
            ValueKind::Table(inner) if !inner.is_empty() => flatten(known, &path, inner, out),
            _ => out.push((path, value)),
        }
    }
}

fn is_section(known: &[Key], path: &str) -> bool {
    known.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The line, from 1, on which a file sets `path` or opens the table `path`.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name.trim_matches(['[', ' ']).to_owned();
        }
        let key = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.starts_with('#'));
        let full = match (key, table.as_str()) {
            (Some(key), "") => key.to_owned(),
            (Some(key), table) => format!("{table}.{key}"),
            (None, table) => table.to_owned(),
        };
        if full == path {
            return Some(index + 1);
        }
    }
    None
}

/// A TOML value as text, and whether it has the form that the key wants.
fn as_text(key: &Key, value: &ValueKind) -> (String, bool) {
    match value {
        ValueKind::String(text) => (text.clone(), !key.is_number() && !key.is_list()),
        ValueKind::Array(items) => {
            let texts: Vec<String> = items.iter().map(|item| item.to_string()).collect();
            let strings = items.iter().all(|item| matches!(item.kind, ValueKind::String(_)));
            let shown = texts.join(", ");
            if strings && key.is_list() && !items.is_empty() { (shown, true) } else { (format!("[{shown}]"), false) }
        }
        ValueKind::I64(number) => (number.to_string(), key.is_number()),
        ValueKind::U64(number) => (number.to_string(), key.is_number()),
        ValueKind::I128(number) => (number.to_string(), key.is_number()),
        ValueKind::U128(number) => (number.to_string(), key.is_number()),
        ValueKind::Boolean(value) => (value.to_string(), false),
        ValueKind::Float(value) => (value.to_string(), false),
        ValueKind::Table(_) => ("a table".to_owned(), false),
        ValueKind::Nil => ("nothing".to_owned(), false),
    }
}

fn read_variable(known: &[Key], name: &str, value: &str) -> Result<Entry, ConfigError> {
    let path = name[ENVIRONMENT_PREFIX.len()..].replace("__", ".").to_lowercase();
    let origin = Origin::Environment(name.to_owned());
    let Some(key) = find(known, &path) else {
        return Err(ConfigError::UnknownKey {
            origin: None,
            key: format!("environment variable {name}"),
            nearest: keys::nearest(known, &path).map(Key::environment_variable),
        });
    };
    read_text(key, value, origin)
}

fn read_set(known: &[Key], set: &str) -> Result<Entry, ConfigError> {
    let origin = Origin::Set(set.to_owned());
    let Some((path, value)) = set.split_once('=') else {
        return Err(ConfigError::Malformed {
            origin: origin.to_string(),
            reason: "give section.key=value, such as limits.max_topics=100".to_owned(),
        });
    };
    let path = path.trim();
    let key = find(known, path).ok_or_else(|| unknown(known, path, &origin))?;
    read_text(key, value.trim(), origin)
}

fn read_text(key: &Key, text: &str, origin: Origin) -> Result<Entry, ConfigError> {
    if key.optional && text.is_empty() {
        return Ok(unset(key, origin));
    }
    if !key.allows(text) {
        let shown = if key.is_number() { text.to_owned() } else { format!("{text:?}") };
        return Err(ConfigError::invalid(Some(origin.to_string()), key, shown));
    }
    Ok(Entry { path: key.path.clone(), value: typed(key, text, &origin), origin })
}

fn unset(key: &Key, origin: Origin) -> Entry {
    Entry { path: key.path.clone(), value: Value::new(None, ValueKind::Nil), origin }
}

fn typed(key: &Key, text: &str, origin: &Origin) -> Value {
    let origin = origin.to_string();
    let kind = match key.kind {
        Kind::Words(_) | Kind::Controllers => {
            ValueKind::Array(keys::list(text).map(|item| Value::new(Some(&origin), item)).collect())
        }
        _ if key.is_number() => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => ValueKind::I64(number),
            (_, Ok(number)) => ValueKind::U64(number),
            _ => ValueKind::String(text.to_owned()),
        },
        _ => ValueKind::String(text.to_owned()),
    };
    Value::new(Some(&origin), kind)
}

fn find<'a>(known: &'a [Key], path: &str) -> Option<&'a Key> {
    known.iter().find(|key| key.path == path)
}

fn unknown(known: &[Key], path: &str, origin: &Origin) -> ConfigError {
    if is_section(known, path) {
        let reason = format!("{path} is a section: set its keys, such as {path}.KEY, or write [{path}] above them");
        return ConfigError::Malformed { origin: origin.to_string(), reason };
    }
    let nearest = keys::nearest(known, path).map(|key| key.path.clone());
    ConfigError::UnknownKey { origin: Some(origin.to_string()), key: format!("key {path:?}"), nearest }
}
