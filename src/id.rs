//! The names and numbers that the public interface speaks in: newtypes with validated constructors.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// The longest job id, in bytes.
pub(crate) const MAX_JOB_ID: usize = 255;

/// A job's id: a short string, unique in its cluster while the job lives.
///
/// At most 255 bytes, not empty, without control characters; anything else that is UTF-8 may be in it
/// (`user@example.com/INBOX`). Short ids are cheaper: the server keeps each one in three places.
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Arc<str>);

impl JobId {
    /// Takes a string as an id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`] if it is empty, longer than 255 bytes or has a control character.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Error> {
        let id = id.as_ref();
        let fault = if id.is_empty() {
            "it is empty"
        } else if id.len() > MAX_JOB_ID {
            "it is longer than 255 bytes"
        } else if id.chars().any(char::is_control) {
            "it has a control character"
        } else {
            return Ok(Self(id.into()));
        };
        Err(Error::new(
            ErrorKind::InvalidId,
            format!("job id refused: {fault}; use 1 to 255 bytes of plain text"),
        ))
    }

    /// A fresh id: a UUIDv7, so that ids sort by the time they were made.
    pub fn generate() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.0)
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for JobId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for JobId {
    type Error = Error;

    fn try_from(id: &str) -> Result<Self, Error> {
        Self::new(id)
    }
}

impl TryFrom<String> for JobId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self, Error> {
        Self::new(id)
    }
}

impl std::str::FromStr for JobId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        Self::new(id)
    }
}

/// As its text.
impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// From text that [`JobId::new`] takes.
impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A worker's number in its cluster, given by the server at join, never given twice as
/// long as the cluster is not wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) u64);

impl WorkerId {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What [`get`](WorkerId::get) gave, typed in or kept somewhere: to say which worker is to be drained.
impl From<u64> for WorkerId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in a cluster's history: a number that grows with each change.
///
/// It is a hybrid clock, `max(last + 1, the server's time in microseconds)`, so it also tells about when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub(crate) u64);

impl Revision {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What [`get`](Revision::get) gave, kept somewhere: to go on from it after a restart.
impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing number of an assignment: each new owner of a job has a larger one than the owner before.
///
/// Store it beside what the job writes and refuse a smaller one: then a process that was paused for longer
/// than its lock cannot overwrite what its successor wrote (Kleppmann, *How to do distributed locking*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(crate) u64);

impl Epoch {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: an id that comes from outside is as good as one from `new`, and the text of a refusal does not have it.
    #[test]
    fn an_id_is_written_as_its_text_and_looked_at_when_it_is_read() {
        let id = JobId::new("user@example.com/INBOX").expect("an id");
        let text = serde_json::to_string(&id).expect("text");
        assert_eq!(text, r#""user@example.com/INBOX""#);
        assert_eq!(serde_json::from_str::<JobId>(&text).expect("as it was"), id);
        for bad in [
            r#""""#.to_owned(),
            r#""hunter2\u0007""#.to_owned(),
            format!("\"{}\"", "x".repeat(256)),
            "7".into(),
        ] {
            let error = serde_json::from_str::<JobId>(&bad).expect_err("it is refused").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
