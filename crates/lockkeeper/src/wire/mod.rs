//! What travels between a daemon and its clients: JSON-RPC 2.0, one object per line.
//!
//! The parameters of a method are the command or the question of that name as JSON, and beside them
//! the `project` it is about. A command is answered with an [`lockkeeper_core::Answer`], a question
//! with the answer of its type. Spans are whole milliseconds in fields that end in `_ms`; moments
//! are milliseconds since 1970 on the daemon's clock, which [`Hello`] shows.
//!
//! ```text
//! → {"jsonrpc":"2.0","id":1,"method":"session.open","params":{"project":"demo","agent":"coder"}}
//! ← {"jsonrpc":"2.0","id":1,"result":{"session_opened":{"session":4294967297}}}
//! → {"jsonrpc":"2.0","id":2,"method":"acquire",
//!    "params":{"project":"demo","session":4294967297,"resource":"file:a","wait_ms":1000}}
//! ← {"jsonrpc":"2.0","id":2,"result":{"granted":[{"lock":"0190…","token":4294967297,…}]}}
//! ```

mod methods;
mod quick;
#[cfg(test)]
mod tests;

use crate::{CallError, Lost, ProjectEvent, Unavailable};
use lockkeeper_core::{Grant, LockId, OpenSession, Refusal, SessionId, TicketId, Timestamp};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use std::{fmt, sync::Arc};

pub use methods::{
    CLEANUP_EXPIRED, COMMANDS, InProject, read_command, write_command, write_command_line,
    write_line,
};
pub use quick::{QuickLine, read_quickly};

/// The version of what is spoken here. A daemon and a client understand each other if theirs are
/// the same.
pub const PROTOCOL: u32 = 1;

/// Says who is there: [`HelloAsk`] is answered with [`Hello`]. Over TCP with a token it must come
/// first.
pub const HELLO: &str = "hello";
/// Nothing: keeps an idle connection open.
pub const PING: &str = "ping";
/// Opens a session: [`Open`] is answered with `session_opened`.
pub const SESSION_OPEN: &str = "session.open";
/// Takes up a session again after its connection or its daemon was gone: [`Attach`] is answered
/// with [`Attached`]. If another connection had it, that one is closed before this is answered, and
/// nothing that it may have asked for and was not read yet is done any more: whoever comes back
/// asks again for what it still wants, and must find no older wish of its own behind it. Other
/// sessions of that connection have the grace of a restart to be taken up as well.
pub const SESSION_ATTACH: &str = "session.attach";
/// The names of all projects: a list.
pub const PROJECTS: &str = "projects";
/// The audit log: a [`crate::AuditFilter`] is answered with a list of [`crate::AuditRow`].
pub const AUDIT: &str = "audit";
/// From now on events come as notifications: [`Subscribe`] is answered with [`Subscribed`].
pub const SUBSCRIBE: &str = "subscribe";
/// Ends all subscriptions of the connection.
pub const UNSUBSCRIBE: &str = "unsubscribe";
/// How the daemon is: answered with [`Status`].
pub const DAEMON_STATUS: &str = "daemon.status";
/// Asks the daemon to stop in order; answered before it does, with [`Status`].
pub const DAEMON_STOP: &str = "daemon.stop";
/// The metrics in the text format of Prometheus: a string.
pub const METRICS: &str = "metrics";

/// A request as a client writes it.
#[derive(Serialize, Debug)]
pub struct Request<'a, P> {
    /// Always `2.0`.
    pub jsonrpc: &'a str,
    /// Names the answer. Without one there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// What is asked.
    pub method: &'a str,
    /// And with what.
    pub params: P,
}

/// A line as a client reads it: an answer or a notification.
#[derive(Deserialize, Debug)]
pub struct Incoming {
    /// Which request is answered.
    pub id: Option<u64>,
    /// What it is answered with.
    pub result: Option<Box<RawValue>>,
    /// Or why it is not.
    pub error: Option<ErrorObject>,
    /// The name of a notification.
    pub method: Option<String>,
    /// What it says.
    pub params: Option<Box<RawValue>>,
}

/// The same, read where it is.
#[derive(Deserialize)]
pub(crate) struct Said<'a> {
    pub(crate) id: Option<u64>,
    #[serde(borrow)]
    pub(crate) result: Option<&'a RawValue>,
    pub(crate) error: Option<ErrorObject>,
    method: Option<IgnoredAny>,
}

impl Said<'_> {
    /// Whether it is a notification.
    pub(crate) fn is_note(&self) -> bool {
        self.method.is_some()
    }
}

/// Why a request is not answered with a result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ErrorObject {
    /// One of the numbers in [`code`].
    pub code: i64,
    /// For people.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<ErrorData>>,
}

/// The numbers of errors.
pub mod code {
    /// The line is not JSON.
    pub const PARSE: i64 = -32_700;
    /// It is JSON, but not a request.
    pub const INVALID_REQUEST: i64 = -32_600;
    /// There is no such method.
    pub const NO_METHOD: i64 = -32_601;
    /// The parameters are not those of the method.
    pub const INVALID_PARAMS: i64 = -32_602;
    /// A defect of the daemon.
    pub const INTERNAL: i64 = -32_603;
    /// The lock table said no: `data.refusal` says why.
    pub const REFUSED: i64 = -32_000;
    /// There is no answer: the store cannot be written, or the daemon is about to stop.
    pub const UNAVAILABLE: i64 = -32_001;
    /// The token is missing or wrong, or the user is another one.
    pub const FORBIDDEN: i64 = -32_002;
    /// A limit of the daemon is reached.
    pub const LIMIT: i64 = -32_003;
}

/// The word of an error that says: the daemon is about to stop, and has done nothing. Ask the next
/// one again, with the same request id.
pub const STOPPING: &str = "stopping";

/// What a program can make of an error.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ErrorData {
    /// A stable word, such as `busy` or `deadlock`.
    pub code: String,
    /// The number of the earlier lock registries, E300 to E307.
    #[serde(default)]
    pub legacy_code: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// What the lock table said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

impl From<&CallError> for ErrorObject {
    fn from(error: &CallError) -> ErrorObject {
        let (code, word, refusal) = match error {
            CallError::Refused(refusal) => (code::REFUSED, error.code(), Some(refusal.clone())),
            CallError::Unavailable(Unavailable::Store(_) | Unavailable::NotServing(_)) => {
                (code::UNAVAILABLE, "store", None)
            }
            CallError::Unavailable(Unavailable::ShutDown) => (code::UNAVAILABLE, STOPPING, None),
            CallError::Unavailable(_) => (code::UNAVAILABLE, error.code(), None),
        };
        let data = ErrorData {
            code: word.to_owned(),
            legacy_code: error.legacy_code().to_owned(),
            retryable: error.retryable(),
            refusal,
        };
        ErrorObject { code, message: error.to_string(), data: Some(Box::new(data)) }
    }
}

impl From<ErrorObject> for CallError {
    fn from(error: ErrorObject) -> CallError {
        let (word, refusal) = match error.data {
            Some(data) => (data.code, data.refusal),
            None => ("error".to_owned(), None),
        };
        match refusal {
            Some(refusal) => CallError::Refused(refusal),
            None => {
                let (code, said) = (word.into(), error.message.into());
                Unavailable::Daemon { code, said }.into()
            }
        }
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct HelloAsk {
    /// The client's name and version, for the log.
    #[serde(default)]
    pub client: String,
    /// What proves that it may ask, over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Who answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The daemon's version.
    pub version: String,
    /// What it speaks, see [`PROTOCOL`].
    pub protocol: u32,
    /// Its process.
    pub pid: u32,
    /// The store it owns; none if it keeps everything in memory.
    pub store: Option<String>,
    /// Since when it serves.
    pub started_at: Timestamp,
    /// What its clock shows now.
    pub now: Timestamp,
    /// For how long it has, in microseconds, rounded up: with it a client's clock can be as exact
    /// as the daemon's without ever being behind.
    #[serde(default = "a_millisecond")]
    pub now_for_us: u32,
}

fn a_millisecond() -> u32 {
    1_000
}

impl Hello {
    /// What the clock showed, and for how long it had.
    pub(crate) fn clock(&self) -> (Timestamp, std::time::Duration) {
        (self.now, std::time::Duration::from_micros(self.now_for_us.into()))
    }
}

/// Opens a session.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Open {
    /// For whom.
    #[serde(flatten)]
    pub open: OpenSession,
    /// Whether a detached session that the agent has already is used instead of a new one.
    #[serde(default)]
    pub reuse: bool,
    /// How long an attached session outlives its connection, for a client that comes back.
    #[serde(default)]
    pub linger_ms: u64,
}

/// Takes up a session again.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// Which.
    pub session: SessionId,
    /// As in [`Open`].
    #[serde(default)]
    pub linger_ms: u64,
}

/// What a session has that was taken up again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// Its holds. Whatever it held before and is not here, it has lost.
    pub grants: Vec<Grant>,
}

/// Asks for events.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe {
    /// Of one project; all of them otherwise.
    pub project: Option<String>,
    /// Also what happened after the event of this number, of one project.
    pub since: Option<u64>,
}

/// Events will come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Subscribed {
    /// How many of the events after `since` are not known any more; the audit log has them.
    pub missed: u64,
}

/// How a daemon is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Who it is.
    #[serde(flatten)]
    pub hello: Hello,
    /// Its socket.
    pub socket: Option<String>,
    /// Where else it listens.
    pub listens: Vec<String>,
    /// Open connections.
    pub connections: usize,
    /// Projects that were named since it serves.
    pub projects: usize,
    /// Open sessions of all of them.
    pub sessions: usize,
    /// Locks that are held.
    pub holds: usize,
    /// Waits.
    pub waits: usize,
    /// After how long it ends when nobody needs it.
    pub idle_exit_ms: Option<u64>,
}

/// What a daemon says without being asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// Something happened that the connection has subscribed to.
    Event(Box<ProjectEvent>),
    /// The connection was too slow, and so many events are gone.
    Missed {
        /// How many.
        missed: u64,
    },
    /// A ticket's turn came while no call waited on it.
    Granted {
        /// In which project.
        project: Arc<str>,
        /// Whose.
        session: SessionId,
        /// The ticket.
        ticket: TicketId,
        /// What is held now.
        grants: Vec<Grant>,
    },
    /// A hold of one of the connection's sessions is over, and not because it was given back.
    Lost {
        /// In which project.
        project: Arc<str>,
        /// Whose.
        session: SessionId,
        /// Which hold.
        lock: LockId,
        /// Why.
        why: Lost,
    },
    /// A hold of one of the connection's sessions will be taken away.
    Revoking {
        /// In which project.
        project: Arc<str>,
        /// Whose.
        session: SessionId,
        /// Which hold.
        lock: LockId,
        /// When.
        until: Timestamp,
    },
}
