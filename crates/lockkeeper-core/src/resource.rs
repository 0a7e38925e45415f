//! What is locked: `type:key`.

use crate::ids::Text;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// The kind of thing a resource is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ResourceType {
    /// A file, by its path from the project's root.
    File,
    /// A database, or a part of one.
    Database,
    /// A language model, usually with a capacity.
    Llm,
    /// A feature of the product under work.
    Feature,
    /// A task in somebody's plan.
    Task,
    /// Any other lower-case word: `git`, `gpu`, `browser`, `workspace`, …
    Other(Arc<str>),
}

impl ResourceType {
    /// The word in front of the colon.
    pub fn as_str(&self) -> &str {
        match self {
            ResourceType::File => "file",
            ResourceType::Database => "database",
            ResourceType::Llm => "llm",
            ResourceType::Feature => "feature",
            ResourceType::Task => "task",
            ResourceType::Other(word) => word,
        }
    }
}

impl From<&str> for ResourceType {
    fn from(word: &str) -> ResourceType {
        match word {
            "file" => ResourceType::File,
            "database" => ResourceType::Database,
            "llm" => ResourceType::Llm,
            "feature" => ResourceType::Feature,
            "task" => ResourceType::Task,
            other => ResourceType::Other(other.into()),
        }
    }
}

/// One lockable thing of a project, cheap to clone.
///
/// ```
/// use lockkeeper_core::{Resource, ResourceType};
///
/// let main = Resource::file("src/main.rs");
/// assert_eq!(main.to_string(), "file:src/main.rs");
/// assert_eq!("gpu:0".parse::<Resource>().unwrap().resource_type().as_str(), "gpu");
/// assert!("src/main.rs".parse::<Resource>().is_err(), "no colon: refused, not guessed");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    text: Arc<str>,
}

impl Resource {
    /// A resource from its type and key. A key that no table would accept is refused by the table,
    /// with its reason, when the resource is first asked for.
    pub fn new(resource_type: ResourceType, key: &str) -> Resource {
        Resource { text: format!("{}:{key}", resource_type.as_str()).into() }
    }

    /// `file:path`.
    pub fn file(path: &str) -> Resource {
        Resource::new(ResourceType::File, path)
    }

    /// `database:name`.
    pub fn database(name: &str) -> Resource {
        Resource::new(ResourceType::Database, name)
    }

    /// `llm:name`.
    pub fn llm(name: &str) -> Resource {
        Resource::new(ResourceType::Llm, name)
    }

    /// `task:id`.
    pub fn task(id: &str) -> Resource {
        Resource::new(ResourceType::Task, id)
    }

    /// The whole text, `type:key`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The kind of thing it is.
    pub fn resource_type(&self) -> ResourceType {
        ResourceType::from(self.parts().0)
    }

    /// What comes after the first colon.
    pub fn key(&self) -> &str {
        self.parts().1
    }

    /// Whether it is of the type [`ResourceType::Task`].
    pub(crate) fn is_task(&self) -> bool {
        self.text.starts_with("task:")
    }

    fn parts(&self) -> (&str, &str) {
        self.text.split_once(':').unwrap_or((&self.text, ""))
    }

    /// Why no table should accept it, if so.
    pub fn problem(&self, key_bytes_max: usize) -> Option<ResourceProblem> {
        let (word, key) = self.parts();
        let mut bytes = word.bytes();
        let starts_well = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let goes_on_well =
            bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !(starts_well && goes_on_well) {
            Some(ResourceProblem::Type)
        } else if key.is_empty() {
            Some(ResourceProblem::EmptyKey)
        } else if key.len() > key_bytes_max {
            Some(ResourceProblem::KeyTooLong { bytes: key.len(), bytes_max: key_bytes_max })
        } else if has_control_character(key) {
            Some(ResourceProblem::ControlCharacter)
        } else {
            None
        }
    }
}

/// Looks at every byte rather than stopping at the first bad one: nearly all keys have none. The
/// control characters beyond ASCII are two bytes, of which the first is 0xc2.
fn has_control_character(text: &str) -> bool {
    let suspicious =
        text.bytes().fold(false, |bad, byte| bad | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2));
    suspicious && text.chars().any(char::is_control)
}

impl FromStr for Resource {
    type Err = ResourceProblem;

    fn from_str(text: &str) -> Result<Resource, ResourceProblem> {
        if !text.contains(':') {
            return Err(ResourceProblem::NoColon);
        }
        let resource = Resource { text: text.into() };
        match resource.problem(usize::MAX) {
            Some(problem) => Err(problem),
            None => Ok(resource),
        }
    }
}

/// Why a text is not a resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResourceProblem {
    /// There is no colon, and the type is not guessed.
    NoColon,
    /// The type is not a lower-case word.
    Type,
    /// Nothing follows the colon.
    EmptyKey,
    /// The key is longer than the table allows.
    KeyTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The key holds a line break or another control character.
    ControlCharacter,
    /// It is not of the type `task`, and only tasks can be claimed.
    NotATask,
}

impl fmt::Display for ResourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourceProblem::NoColon => {
                f.write_str("a resource is written type:key, for example file:src/main.rs")
            }
            ResourceProblem::Type => f.write_str(
                "the type before the colon must be a lower-case word, for example file, llm or git",
            ),
            ResourceProblem::EmptyKey => f.write_str("the key after the colon is empty"),
            ResourceProblem::KeyTooLong { bytes, bytes_max } => {
                write!(f, "the key has {bytes} bytes, {bytes_max} are allowed")
            }
            ResourceProblem::ControlCharacter => {
                f.write_str("the key holds a line break or another control character")
            }
            ResourceProblem::NotATask => {
                f.write_str("only a task can be claimed, for example task:42")
            }
        }
    }
}

impl std::error::Error for ResourceProblem {}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({:?})", self.text)
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Resource, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_look_alike_are_different_resources() {
        let spellings = ["file:x/y", "file:x_y", "file:x:y", "file:x/Y", "file:ü"];
        for (at, a) in spellings.iter().enumerate() {
            for b in &spellings[at + 1..] {
                assert_ne!(a.parse::<Resource>(), b.parse::<Resource>());
            }
        }
        assert_eq!("file:x:y".parse::<Resource>().unwrap().key(), "x:y");
    }

    #[test]
    fn what_no_table_accepts_is_named() {
        let problem = |text: &str| text.parse::<Resource>().unwrap_err();
        assert_eq!(problem("src/main.rs"), ResourceProblem::NoColon);
        assert_eq!(problem("File:a"), ResourceProblem::Type);
        assert_eq!(problem(":a"), ResourceProblem::Type);
        assert_eq!(problem("file:"), ResourceProblem::EmptyKey);
        assert_eq!(problem("file:a\nb"), ResourceProblem::ControlCharacter);
        assert_eq!(problem("file:a\u{85}b"), ResourceProblem::ControlCharacter);
        assert_eq!(problem("file:a\u{7f}"), ResourceProblem::ControlCharacter);
        assert!("file:\u{a7}".parse::<Resource>().is_ok());
        let long = Resource::file(&"k".repeat(11));
        assert_eq!(
            long.problem(10),
            Some(ResourceProblem::KeyTooLong { bytes: 11, bytes_max: 10 })
        );
    }

    #[test]
    fn a_type_with_a_colon_is_not_smuggled_in() {
        let sneaky = Resource::new(ResourceType::from("git"), "a:b");
        assert_eq!((sneaky.resource_type().as_str(), sneaky.key()), ("git", "a:b"));
    }
}
