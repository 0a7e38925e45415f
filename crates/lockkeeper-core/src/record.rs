//! What happened, in the past tense: the only thing that changes a table, and what a journal keeps.

use crate::{
    DeadlockReport, EndCause, LockId, LockMode, RequestId, Resource, SessionId, SessionKind,
    TicketId, Timestamp, Token,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One fact about a project's locks, at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    pub fact: Fact,
}

/// What can happen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the commands and grants they come from")]
pub enum Fact {
    /// A session began.
    SessionOpened {
        session: SessionId,
        agent: Arc<str>,
        kind: SessionKind,
        priority: i8,
        birth: Option<TicketId>,
        aborts: u32,
    },
    /// A session ended; its holds and waits have ended before, each by a fact of its own.
    SessionEnded { session: SessionId, agent: Arc<str>, cause: EndCause },
    /// A request took its place in every queue it needs.
    Queued(Box<Queued>),
    /// A request left its queues without a grant.
    Left { ticket: TicketId, session: SessionId, cause: LeaveCause },
    /// A ticket must be polled until then, or (`None`) a call waits on it.
    PollSet { ticket: TicketId, poll_by: Option<Timestamp> },
    /// A lock is held.
    Granted(Granted),
    /// A hold is counted up.
    Reentered {
        ticket: TicketId,
        session: SessionId,
        lock: LockId,
        count: u32,
        request_id: Option<RequestId>,
    },
    /// A hold is counted down, or (`remaining` 0) over. `share` is the request whose acquire is
    /// taken back, which cannot be taken back twice; none when the hold ends as a whole, however
    /// often it is counted.
    Released {
        lock: LockId,
        remaining: u32,
        cause: ReleaseCause,
        share: Option<TicketId>,
        request_id: Option<RequestId>,
    },
    /// A lease has a new end.
    Renewed { lock: LockId, expires_at: Timestamp, request_id: Option<RequestId> },
    /// A hold has another mode and token, by this ticket.
    Converted {
        lock: LockId,
        ticket: TicketId,
        mode: LockMode,
        token: Token,
        request_id: Option<RequestId>,
    },
    /// A hold will end by force then, unless it is released before.
    RevocationSet { lock: LockId, until: Timestamp },
    /// A session waits for another one outside the table.
    WaitDeclared { session: SessionId, on: SessionId, birth: Option<TicketId> },
    /// It no longer does.
    WaitWithdrawn { session: SessionId, on: SessionId },
    /// A resource has so many slots, or none any more.
    CapacityDeclared { resource: Resource, capacity: Option<u32> },
    /// A task has another version and status; claimed, by this hold. It follows at once on the
    /// fact that ends a claim.
    TaskMoved { task: crate::Task, lock: Option<LockId> },
    /// A task is forgotten.
    TaskForgotten { task: Resource },
    /// A table was rebuilt and is in service again: every lease is as long as it was granted for,
    /// counted from now, unless it is longer; every ticket nobody waits on must be polled until
    /// `poll_by`, unless it need not before later.
    Resumed { poll_by: Timestamp },
    /// A finished request that a session remembers, so that asking again changes nothing. Told
    /// when a table is rebuilt from live rows, where it replaces what the table remembers of the
    /// request; and of the end of a claim. Of everything else a journal tells it by other facts.
    Remembered {
        session: SessionId,
        request_id: Option<RequestId>,
        ticket: Option<TicketId>,
        outcome: Outcome,
    },
    /// A deadlock was found; what is done about it follows in facts of its own.
    DeadlockFound(Arc<DeadlockReport>),
}

/// What became of a finished request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It got these holds.
    Granted(Vec<LockId>),
    /// It changed the mode of this one.
    Converted(LockId),
    /// It was refused after a wait.
    Refused(Box<crate::Refusal>),
    /// It counted a hold down to so many.
    Released(LockId, u32),
    /// It moved the end of a lease.
    Renewed(LockId, Timestamp),
    /// It ended the claim of this task, which was then like this.
    TaskMoved(crate::Task),
}

/// A request that waits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named as in the command they come from")]
pub struct Queued {
    pub ticket: TicketId,
    pub session: SessionId,
    /// What it queues for, in the order of resources; not what it already holds.
    pub wants: Vec<(Resource, LockMode)>,
    /// Holds of the session that the request builds on: those it counts up when it is granted, or
    /// the one that it turns exclusive. The wait ends with them.
    pub built_on: Vec<LockId>,
    /// Whether it turns a hold exclusive.
    pub upgrade: bool,
    pub wait_until: Timestamp,
    pub lease_ms: u64,
    pub priority: i8,
    pub reason: Option<Arc<str>>,
    pub metadata: Option<Arc<str>>,
    pub request_id: Option<RequestId>,
}

/// A hold that begins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named as in the grant that comes of it")]
pub struct Granted {
    pub lock: LockId,
    pub ticket: TicketId,
    pub session: SessionId,
    pub resource: Resource,
    pub mode: LockMode,
    pub token: Token,
    pub slots: Vec<u32>,
    pub lease_ms: u64,
    pub expires_at: Timestamp,
    pub wait_ms: u64,
    pub reason: Option<Arc<str>>,
    pub metadata: Option<Arc<str>>,
    pub request_id: Option<RequestId>,
    /// Whether nothing but this hold remembers that id when the table is rebuilt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fleeting: bool,
}

/// Why a request left its queues without a grant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveCause {
    /// Its session took it back.
    Cancelled,
    /// Its wait ran out.
    TimedOut,
    /// It was chosen to break a deadlock.
    Deadlock,
    /// Its session ended.
    SessionEnded,
    /// A hold it built on ended.
    HoldEnded(LockId),
    /// Nobody polled its ticket.
    Abandoned,
    /// The capacity shrank below what it asked for.
    CapacityShrunk,
    /// An administrator released everything of the agent.
    ReleasedAll,
    /// The reign ran out of tokens.
    Exhausted,
}

/// Why a hold ended or was counted down.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCause {
    /// Its holder gave it back.
    Released,
    /// The request it came from was taken back.
    Cancelled,
    /// Its lease ended.
    Expired,
    /// It was revoked to break a deadlock.
    Deadlock,
    /// An administrator ended it.
    Forced {
        /// Who.
        admin: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// An administrator released everything of the agent.
    ReleasedAll,
    /// Its session ended.
    SessionEnded(EndCause),
}
