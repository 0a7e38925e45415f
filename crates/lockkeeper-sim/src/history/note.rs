//! What clients and whoever torments them write down.

use lockkeeper_core::{LockId, LockMode, Resource, SessionId, Token};
use serde::{Deserialize, Serialize};

/// One line of somebody's notes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// When, in nanoseconds of a clock that everybody on the machine shares and nobody sets. A
    /// question is written down before it is asked, an answer after it was heard.
    pub at: u64,
    /// By which process, or about which.
    pub process: u32,
    /// A question and its answer have the same number, counted by the process.
    pub call: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A session is open.
    Opened {
        /// Which.
        session: SessionId,
        /// Whether it ends with its connection.
        attached: bool,
        /// How long it outlives its connection, in nanoseconds.
        linger: u64,
    },
    /// Asks for a lock.
    Acquire {
        /// Who.
        session: SessionId,
        /// What.
        resource: Resource,
        /// How.
        mode: LockMode,
    },
    /// Gives a lock back, or counts it down.
    Release {
        /// Which.
        lock: LockId,
    },
    /// Wants a longer lease.
    Renew {
        /// Of which lock.
        lock: LockId,
    },
    /// Shows a token to a protected resource, to write or to read.
    Touch {
        /// The lock the token is of.
        lock: LockId,
        /// The register behind it: 0, or that of a slot.
        slot: u32,
        /// The token.
        token: Token,
        /// What is written there; nothing: it reads. No value is written twice.
        write: Option<u64>,
    },
    /// The lock is held.
    Granted {
        /// Its id; the same as before if a hold was counted up.
        lock: LockId,
        /// Its token.
        token: Token,
        /// Which slots.
        slots: Vec<u32>,
        /// When its lease ends, by the client's own reckoning.
        until: u64,
    },
    /// No.
    Refused {
        /// In a word.
        code: String,
    },
    /// It is given back.
    Released {
        /// Whether that ended the hold, and did not only count it down; as the client reckons.
        over: bool,
    },
    /// The lease is longer.
    Renewed {
        /// Its new end, by the client's own reckoning.
        until: u64,
    },
    /// The resource let it in.
    Accepted {
        /// What it read, or the value that it wrote.
        value: u64,
    },
    /// The resource turned it away.
    Bounced {
        /// The newest token that it had seen.
        newest: Token,
    },
    /// There was no answer, or none that says what was done.
    Unanswered,
    /// A client learned that a hold is over.
    Lost {
        /// Which.
        lock: LockId,
        /// Why.
        why: Ended,
    },
    /// The connections of the process are about to be cut, or it is about to be killed.
    Cut,
}

/// Why a hold is over that was not given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its lease ended.
    Expired,
    /// It was taken away, or its session ended: at some moment before the client heard of it.
    Taken,
}
