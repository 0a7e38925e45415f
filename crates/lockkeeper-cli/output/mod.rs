//! How answers look: text for people, JSON for programs.
//!
//! | file | its part |
//! |---|---|
//! | `graph.rs` | who waits for whom, drawn |
//! | `shape.rs` | the JSON of holders, waiters, grants, deadlocks |
//! | `style.rs` | colours, and when there are none |
//! | `table.rs` | columns that fit the terminal |
//! | `words.rs` | times, spans and modes in words |

pub(crate) mod graph;
pub(crate) mod shape;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod words;

use crate::{exit::Exit, trouble::Trouble};
use serde_json::Value;
use std::io::{self, Write};

/// What came of a verb, for both kinds of readers.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    /// For people; empty says nothing.
    pub(crate) text: String,
    /// For programs: the fields beside `ok`.
    pub(crate) fields: Value,
    /// How the program ends.
    pub(crate) exit: Exit,
}

impl Answer {
    /// What was asked for is done.
    pub(crate) fn done(text: String, fields: Value) -> Answer {
        Answer { text, fields, exit: Exit::Done }
    }

    /// Writes it to stdout, in the form that is asked for.
    pub(crate) fn write(&self, json: bool) -> Result<Exit, Trouble> {
        let text = match json {
            true => self.json().to_string(),
            false if self.text.is_empty() => return Ok(self.exit),
            false => self.text.trim_end().to_owned(),
        };
        match say(&mut io::stdout().lock(), &text) {
            Ok(_) => Ok(self.exit),
            Err(error) => Err(Trouble::unwritten(&error)),
        }
    }

    fn json(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("ok".into(), (self.exit == Exit::Done).into());
        if self.exit != Exit::Done {
            object.insert("exit".into(), self.exit.code().into());
        }
        if let Value::Object(fields) = &self.fields {
            object.extend(fields.clone());
        }
        Value::Object(object)
    }
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
