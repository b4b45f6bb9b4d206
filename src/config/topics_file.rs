//! The topics file: topics that shall exist, as JSON.
//!
//! ```json
//! [{"name": "orders", "partitions": 2, "replication_factor": 1, "config": {"retention_ms": "86400000"}}]
//! ```
//!
//! It is input: topics that are missing are created, existing ones are never touched. Every error names the file, the
//! line on which it was noticed, and the entry.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::types::{TopicConfig, TopicName};

/// The largest topics file that is read, in bytes: 10,000 topics take about a mebibyte.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A topic that shall exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions; none for the cluster's default.
    pub partitions: Option<u32>,
    /// How many replicas of each; none for the cluster's default.
    pub replication_factor: Option<u32>,
    /// Settings that differ from the cluster's defaults. Each is known and legal.
    pub config: BTreeMap<String, String>,
}

/// Why a topics file cannot be used. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicsFileError {
    /// The file could not be read.
    #[error("cannot read the topics file {}: {reason}; check the path", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The content is not what a topics file holds.
    #[error("{}:{line}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where it was noticed, from 1.
        line: usize,
        /// The entry and what is wrong with it.
        reason: String,
    },
}

/// Reads and checks a topics file.
///
/// # Errors
/// [`TopicsFileError`] for the first entry at fault.
pub fn read(path: &Path) -> Result<Vec<DeclaredTopic>, TopicsFileError> {
    let unreadable = |reason: String| TopicsFileError::Unreadable { path: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable(format!("it has {length} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(|error| {
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = full.strip_suffix(&place).unwrap_or(&full).to_owned();
        TopicsFileError::Invalid { path: path.to_owned(), line: error.line(), reason }
    })
}

fn parse(text: &str) -> Result<Vec<DeclaredTopic>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let topics = deserializer.deserialize_seq(Entries)?;
    deserializer.end()?;
    Ok(topics)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<DeclaredTopic>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of topics, such as [{\"name\": \"orders\", \"partitions\": 2}]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut topics: Vec<DeclaredTopic> = Vec::new();
        loop {
            let number = topics.len() + 1;
            let entry = entries.next_element::<Entry>().map_err(|error| A::Error::custom(at_entry(number, &error)))?;
            let Some(entry) = entry else { return Ok(topics) };
            let topic = entry.check().map_err(|reason| A::Error::custom(at_entry(number, &reason)))?;
            if let Some(earlier) = topics.iter().position(|other| other.name == topic.name) {
                let reason = format!("entry {} is '{}' too: give each topic once", earlier + 1, topic.name);
                return Err(A::Error::custom(at_entry(number, &reason)));
            }
            topics.push(topic);
        }
    }
}

fn at_entry(number: usize, reason: &dyn fmt::Display) -> String {
    format!("entry {number}: {reason}")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    partitions: Option<u32>,
    replication_factor: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, Setting>,
}

/// A setting's value: a text, or a number for convenience.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a setting is given as a text or a whole number")]
enum Setting {
    Text(String),
    Number(i64),
}

impl Entry {
    fn check(self) -> Result<DeclaredTopic, String> {
        let name = TopicName::new(&self.name).map_err(|error| error.to_string())?;
        let at = |reason: String| format!("topic '{name}': {reason}");
        if self.partitions == Some(0) {
            return Err(at("partitions = 0 is not valid: give 1 or more".to_owned()));
        }
        if self.replication_factor == Some(0) {
            return Err(at("replication_factor = 0 is not valid: give 1 or more".to_owned()));
        }
        let mut config = BTreeMap::new();
        for (key, value) in self.config {
            let value = match value {
                Setting::Text(text) => text,
                Setting::Number(number) => number.to_string(),
            };
            TopicConfig::default().set(&key, &value).map_err(|error| at(error.to_string()))?;
            config.insert(key, value);
        }
        Ok(DeclaredTopic { partitions: self.partitions, replication_factor: self.replication_factor, config, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("topics.json");
        std::fs::write(&path, text).expect("a small file");
        let error = read(&path).expect_err("this file is at fault").to_string();
        error.replace(&*directory.path().to_string_lossy(), "DIR")
    }

    #[test]
    fn a_topics_file_is_read_with_texts_and_numbers_as_settings() {
        let topics = parse(
            r#"[{"name": "a", "partitions": 2, "replication_factor": 1, "config": {"retention_ms": "5", "segment_ms": 9000}},
               {"name": "b"}]"#,
        )
        .expect("a good file");
        let config = BTreeMap::from([("retention_ms".into(), "5".into()), ("segment_ms".into(), "9000".into())]);
        let a = TopicName::new("a").expect("legal");
        let b = TopicName::new("b").expect("legal");
        assert_eq!(
            topics,
            [
                DeclaredTopic { name: a, partitions: Some(2), replication_factor: Some(1), config },
                DeclaredTopic { name: b, partitions: None, replication_factor: None, config: BTreeMap::new() },
            ]
        );
    }

    #[test]
    fn each_fault_of_a_topics_file_is_one_line_that_names_the_entry() {
        let cases = [
            ("", "DIR/topics.json:1: EOF while parsing a value"),
            ("[{\"name\": \"a\"},\n {\"name\": \"b\",}]", "DIR/topics.json:2: entry 2: trailing comma"),
            (
                "{\"name\": \"a\"}",
                "DIR/topics.json:1: invalid type: map, expected a list of topics, such as [{\"name\": \"orders\", \"partitions\": 2}]",
            ),
            (
                "[\n{\"nme\": \"a\"}]",
                "DIR/topics.json:2: entry 1: unknown field `nme`, expected one of `name`, `partitions`, `replication_factor`, `config`",
            ),
            ("[{\"name\": \"\"}]", "DIR/topics.json:1: entry 1: a topic name must not be empty"),
            (
                "[{\"name\": \"a\", \"partitions\": 0}]",
                "DIR/topics.json:1: entry 1: topic 'a': partitions = 0 is not valid: give 1 or more",
            ),
            (
                "[{\"name\": \"a\", \"config\": {\"flush\": \"never\"}}]",
                "DIR/topics.json:1: entry 1: topic 'a': topic setting flush = \"never\" is not valid: give always | interval | os",
            ),
            (
                "[{\"name\": \"a\", \"config\": {\"flush\": true}}]",
                "DIR/topics.json:1: entry 1: a setting is given as a text or a whole number",
            ),
            (
                "[{\"name\": \"a\"},\n{\"name\": \"a\"}]",
                "DIR/topics.json:2: entry 2: entry 1 is 'a' too: give each topic once",
            ),
            ("[] []", "DIR/topics.json:1: trailing characters"),
        ];
        for (text, expected) in cases {
            assert_eq!(error_of(text), expected);
        }
    }

    #[test]
    fn a_missing_topics_file_says_so() {
        let error = read(Path::new("no/such/topics.json")).expect_err("there is none").to_string();
        assert_eq!(
            error,
            "cannot read the topics file no/such/topics.json: No such file or directory (os error 2); check the path"
        );
    }
}
