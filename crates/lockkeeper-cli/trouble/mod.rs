//! Why something was not done: the one place that knows, for each reason, the exit code, the text
//! and the JSON.
//!
//! A text says what happened, who holds what and why, since when, until when, how many wait, and
//! one next step. It never names the command that would take a lock from somebody.

mod refusal;
#[cfg(test)]
mod tests;

use crate::{
    exit::Exit,
    output::{
        style::{Ink, Style},
        words,
    },
};
use lockkeeper::{CallError, StoreError, Timestamp, Unavailable};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Something was not done.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Trouble {
    /// What scripts see.
    pub(crate) exit: Exit,
    /// A stable word for programs.
    pub(crate) code: Cow<'static, str>,
    /// The number of the earlier lock registries, where they had one.
    pub(crate) legacy_code: Option<&'static str>,
    /// Whether the same command may succeed later.
    pub(crate) retryable: bool,
    /// What happened; perhaps several lines.
    pub(crate) message: String,
    /// What to do now.
    pub(crate) next: Option<String>,
    /// What else programs may want to know.
    pub(crate) more: Map<String, Value>,
}

/// Who asked, and for what: a refusal speaks to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// The agent.
    pub(crate) agent: &'a str,
    /// Whether it has a name of its own, or that of the terminal.
    pub(crate) is_named: bool,
    /// What it wanted.
    pub(crate) wanted: Wanted,
    /// The time on the daemon's clock.
    pub(crate) now: Timestamp,
}

/// What somebody wanted when it was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// A lock, with the flag that makes it wait.
    Lock {
        /// `--wait` or `-w`.
        wait_flag: &'static str,
    },
    /// To go on waiting, or to give a place up.
    Ticket,
    /// To give a lock back, or to keep it longer.
    Hold,
    /// A task.
    Task,
    /// To change something as an administrator.
    Admin,
}

impl Trouble {
    pub(crate) fn new(
        exit: Exit,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Trouble {
        Trouble {
            exit,
            code: code.into(),
            legacy_code: None,
            retryable: false,
            message: message.into(),
            next: None,
            more: Map::new(),
        }
    }

    /// With what to do now.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Trouble {
        self.next = Some(next.into());
        self
    }

    /// With something else for programs.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Trouble {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The answer could not be written.
    pub(crate) fn unwritten(error: &std::io::Error) -> Trouble {
        Trouble::new(Exit::Failed, "unwritten", format!("cannot write the answer: {error}"))
    }

    /// The store cannot be used.
    pub(crate) fn store(error: &StoreError) -> Trouble {
        let (exit, code) = match error {
            // Nothing is wrong with it: somebody else serves it.
            StoreError::Owned { .. } => (Exit::Unavailable, "owned"),
            _ => (Exit::Store, "store"),
        };
        let mut trouble = Trouble::new(exit, code, error.to_string());
        trouble.legacy_code = Some(error.legacy_code());
        trouble.retryable = !matches!(error, StoreError::Corrupt { .. });
        trouble
    }

    /// A call came to nothing.
    pub(crate) fn call(error: &CallError, asker: &Asker<'_>) -> Trouble {
        match error {
            CallError::Refused(refusal) => refusal::told(refusal, asker),
            CallError::Unavailable(Unavailable::Store(error) | Unavailable::NotServing(error)) => {
                Trouble::store(error)
            }
            CallError::Unavailable(Unavailable::Daemon { code, said }) if **code == *"store" => {
                let mut trouble = Trouble::new(Exit::Store, "store", &**said);
                trouble.retryable = true;
                trouble
            }
            CallError::Unavailable(other) => {
                let mut trouble = Trouble::new(Exit::Unavailable, "unavailable", other.to_string());
                trouble.legacy_code = Some("E306");
                trouble.retryable = true;
                trouble
            }
        }
    }

    /// Reads back what [`Trouble::json`] wrote, in another process.
    pub(crate) fn from_json(said: &Value) -> Option<Trouble> {
        let code = u8::try_from(said.get("exit")?.as_u64()?).ok()?;
        let Value::Object(mut more) = said.get("error")?.clone() else { return None };
        let mut text = |name: &str| match more.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (word, message) = (text("code")?, text("message")?);
        let next = text("next");
        text("legacy_code");
        let retryable = more.remove("retryable") == Some(Value::Bool(true));
        let exit = Exit::of_code(code);
        let mut trouble = Trouble::new(exit, word, message);
        (trouble.next, trouble.retryable, trouble.more) = (next, retryable, more);
        Some(trouble)
    }

    /// For people, in lines.
    pub(crate) fn text(&self, style: Style) -> String {
        let is_fault = matches!(
            self.exit,
            Exit::Failed | Exit::Usage | Exit::Unavailable | Exit::Store | Exit::Config
        );
        let mut text = String::new();
        if is_fault {
            text.push_str(&format!("{} ", style.paint(Ink::Bad, "error:")));
        }
        // What others named is in it.
        text.push_str(&words::plain_lines(&self.message));
        if let Some(next) = &self.next {
            let next = words::plain(next);
            text.push_str(&format!("\n{} {next}", style.paint(Ink::Quiet, "next:")));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), self.code.as_ref().into());
        if let Some(number) = self.legacy_code {
            error.insert("legacy_code".into(), number.into());
        }
        error.insert("retryable".into(), self.retryable.into());
        error.insert("message".into(), self.message.as_str().into());
        if let Some(next) = &self.next {
            error.insert("next".into(), next.as_str().into());
        }
        error.extend(self.more.clone());
        serde_json::json!({ "ok": false, "exit": self.exit.code(), "error": error })
    }
}
