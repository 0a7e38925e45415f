//! How answers look: text for people, JSON for programs.
//!
//! | file | its part |
//! |---|---|
//! | `shape.rs` | the JSON of holders, waiters, grants, deadlocks |
//! | `style.rs` | colours, and when there are none |
//! | `words.rs` | times, spans and modes in words |

pub(crate) mod shape;
pub(crate) mod style;
pub(crate) mod words;

use crate::trouble::Trouble;
use serde_json::Value;
use std::io::{self, Write};

/// What came of a verb, for both kinds of readers.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    /// For people; empty says nothing.
    pub(crate) text: String,
    /// For programs: the fields beside `ok`.
    pub(crate) fields: Value,
}

impl Answer {
    /// Writes it to stdout, in the form that is asked for.
    pub(crate) fn write(&self, json: bool) -> Result<(), Trouble> {
        let text = match json {
            true => with_ok(&self.fields).to_string(),
            false if self.text.is_empty() => return Ok(()),
            false => self.text.trim_end().to_owned(),
        };
        match say(&mut io::stdout().lock(), &text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Trouble::unwritten(&error)),
        }
    }
}

fn with_ok(fields: &Value) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("ok".into(), true.into());
    if let Value::Object(fields) = fields {
        object.extend(fields.clone());
    }
    Value::Object(object)
}

/// Writes and flushes one answer. `false`: nobody reads any more, as after `| head`; that is the
/// reader's good right and no failure of ours.
pub(crate) fn say(out: &mut impl Write, text: &str) -> io::Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says something on stderr. If that is closed, nobody wants to know.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
