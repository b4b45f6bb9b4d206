//! Topic names, with Kafka's rules.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest legal topic name, in bytes (Kafka's limit: 255 for a file name, less what `-partition` takes).
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// A legal topic name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// Nothing was given.
    #[error("a topic name must not be empty")]
    Empty,
    /// More than 249 bytes.
    #[error("a topic name has at most {MAX_TOPIC_NAME_BYTES} bytes, this one has {length}")]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
    /// `.` or `..`.
    #[error("'{name}' names a directory and cannot be a topic: choose another name")]
    Reserved {
        /// The name given.
        name: String,
    },
    /// A character outside the legal set.
    #[error(
        "a topic name consists of letters, digits, '.', '_' and '-'; {name:?} has {character:?} at byte {position}"
    )]
    IllegalCharacter {
        /// The name given.
        name: String,
        /// The first character that is not legal.
        character: char,
        /// Where it stands.
        position: usize,
    },
}

impl TopicName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`TopicNameError`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if name.len() > MAX_TOPIC_NAME_BYTES {
            return Err(TopicNameError::TooLong { length: name.len() });
        }
        if name == "." || name == ".." {
            return Err(TopicNameError::Reserved { name: name.to_owned() });
        }
        let illegal = |c: &(usize, char)| !(c.1.is_ascii_alphanumeric() || matches!(c.1, '.' | '_' | '-'));
        if let Some((position, character)) = name.char_indices().find(illegal) {
            return Err(TopicNameError::IllegalCharacter { name: name.to_owned(), character, position });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicNameError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_are_kept_as_they_are() {
        for name in ["a", "ride-positions", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(TopicName::new(name).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_are_empty_too_long_or_climb_are_refused_with_the_reason() {
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new(&"x".repeat(250)), Err(TopicNameError::TooLong { length: 250 }));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::Reserved { name: "..".into() }));
        assert_eq!(
            TopicName::new("../etc"),
            Err(TopicNameError::IllegalCharacter { name: "../etc".into(), character: '/', position: 2 })
        );
        assert!(TopicName::new("naïve").is_err());
        assert!(TopicName::new("a\0b").is_err());
    }
}
