//! What may be asked of a lock table: one struct a verb, and the enum of them all.

use crate::{LockId, LockMode, RequestId, Resource, SessionId, TicketId, Token};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

mod json;
use json::{millis_or_none, wants};

/// Everything that can be asked of a [`crate::LockTable`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is documented at its struct")]
pub enum Command {
    OpenSession(OpenSession),
    EndSession(EndSession),
    Acquire(Acquire),
    AcquireAll(AcquireAll),
    Wait(Wait),
    Cancel(Cancel),
    Release(Release),
    Renew(Renew),
    Upgrade(Upgrade),
    Downgrade(Downgrade),
    DeclareWait(DeclareWait),
    WithdrawWait(WithdrawWait),
    ForceUnlock(ForceUnlock),
    ReleaseAll(ReleaseAll),
    DeclareCapacity(DeclareCapacity),
    ClaimTasks(ClaimTasks),
    FinishTask(FinishTask),
    ReopenTask(ReopenTask),
    ForgetTask(ForgetTask),
    Resume(Resume),
    /// Time passed, nothing else.
    Tick,
}

/// How a session proves that it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// Ended by whoever holds the connection or the actor link.
    #[default]
    Attached,
    /// Lives by its leases and by polling its tickets; ends by itself once it has had neither for
    /// [`crate::TableConfig::session_idle`].
    Detached,
}

/// Opens a session for an agent. Two sessions are two owners, also under one name.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct OpenSession {
    /// The agent's readable name.
    pub agent: Arc<str>,
    /// How it proves that it lives.
    #[serde(default)]
    pub kind: SessionKind,
    /// What its requests weigh when a deadlock must be broken, -10 to 10; the lowest loses.
    #[serde(default)]
    pub priority: i8,
    /// The age and the aborts of an earlier session whose work it takes up again.
    pub lineage: Option<Lineage>,
}

/// What a restarted agent takes over from the session before it, so that it does not start as the
/// youngest again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lineage {
    /// The first ticket of the work, see [`crate::Candidate::birth`]. One that this reign could
    /// not have given yet is cut to its last: nothing is younger.
    pub birth: TicketId,
    /// How often that work has been a deadlock's victim.
    pub aborts: u32,
}

/// Ends a session, and with it all it holds and all it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndSession {
    /// Which one.
    pub session: SessionId,
    /// Why.
    #[serde(default)]
    pub cause: EndCause,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// It said goodbye.
    #[default]
    Closed,
    /// Its agent or its connection died.
    OwnerDied,
    /// A detached session had neither holds nor tickets for too long.
    Idle,
}

/// What every request for a lock may say beside the resource.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct AskOptions {
    /// How long to queue: `None` is the table's default, zero is now or never.
    #[serde(rename = "wait_ms", with = "millis_or_none", default)]
    pub wait: Option<Duration>,
    /// How long the call itself waits before it is answered with a ticket that keeps the place.
    /// `None`: until the wait ends.
    #[serde(rename = "slice_ms", with = "millis_or_none", default)]
    pub slice: Option<Duration>,
    /// How long the hold lives unless renewed; `None` is the table's default.
    #[serde(rename = "lease_ms", with = "millis_or_none", default)]
    pub lease: Option<Duration>,
    /// For people: why.
    pub reason: Option<Arc<str>>,
    /// For programs: any text, usually JSON.
    pub metadata: Option<Arc<str>>,
    /// Weighs this wait in a deadlock, -10 to 10; `None` is the session's priority.
    pub priority: Option<i8>,
    /// Whether a hold of the same session that covers this request is counted up, not refused.
    #[serde(default)]
    pub reentrant: bool,
    /// Makes asking again a no-op.
    pub request_id: Option<RequestId>,
    /// Whether nobody knows that id once this process has ended. A grant at once of one resource is
    /// then remembered by nothing on record but its hold: a table that is rebuilt when that is over
    /// grants it anew. For ids that a program makes up for itself; nobody can say so from afar.
    #[serde(skip)]
    pub fleeting: bool,
}

/// Asks for one resource.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Acquire {
    /// Who asks.
    pub session: SessionId,
    /// For what.
    pub resource: Resource,
    /// How.
    #[serde(default)]
    pub mode: LockMode,
    /// And else.
    #[serde(flatten)]
    pub options: AskOptions,
}

/// Asks for several resources, all or nothing; holds none of them while it waits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AcquireAll {
    /// Who asks.
    pub session: SessionId,
    /// For what; a resource named twice is merged to its strongest mode.
    #[serde(with = "wants")]
    pub wants: Vec<(Resource, LockMode)>,
    /// And else.
    #[serde(flatten)]
    pub options: AskOptions,
}

/// Goes on waiting on a ticket, in its place, or learns what became of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Wait {
    /// Whose ticket.
    pub session: SessionId,
    /// Which one.
    pub ticket: TicketId,
    /// How long this call waits; `None`: until the wait ends.
    #[serde(rename = "slice_ms", with = "millis_or_none", default)]
    pub slice: Option<Duration>,
}

/// Takes a request back: a place in the queue is given up, and what it was granted meanwhile is
/// released. This is what a vanished asker leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// Whose request.
    pub session: SessionId,
    /// Which one.
    #[serde(flatten)]
    pub target: CancelTarget,
}

/// The two names of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelTarget {
    /// The ticket it was given.
    Ticket(TicketId),
    /// The id its sender chose.
    Request(RequestId),
}

/// Who may end or change a hold: its session, or whoever can show its token.
///
/// A token guards against mistakes, not against malice: it is a number that others may guess, and
/// readers of one phase share theirs. Nor has its bearer a memory: a request id counts only with a
/// session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The session that holds it.
    Session(SessionId),
    /// Its fencing token.
    Token(Token),
}

impl Credential {
    /// The request id, if there is a session that remembers it: whoever shows a token has none of
    /// its own, and must not write into the holder's memory.
    pub(crate) fn remembers(self, request_id: Option<RequestId>) -> Option<RequestId> {
        request_id.filter(|_| matches!(self, Credential::Session(_)))
    }
}

/// Gives a hold back; a hold counted `n` times needs `n` releases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    /// Who says so.
    #[serde(flatten)]
    pub by: Credential,
    /// Which hold.
    pub lock: LockId,
    /// Which acquire of a counted hold is taken back; `None` is the latest that is left. An
    /// acquire that was taken back already is not taken back again.
    pub share: Option<TicketId>,
    /// Makes asking again a no-op.
    pub request_id: Option<RequestId>,
}

/// Sets a new end to a hold's lease, counted from now.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// Who says so.
    #[serde(flatten)]
    pub by: Credential,
    /// Which hold.
    pub lock: LockId,
    /// The new lease; `None` is the lease it was granted with.
    #[serde(rename = "lease_ms", with = "millis_or_none", default)]
    pub lease: Option<Duration>,
    /// Whether the new end may lie before the old one.
    #[serde(default)]
    pub shorten: bool,
    /// Makes asking again a no-op.
    pub request_id: Option<RequestId>,
}

/// Turns a Shared or Update hold Exclusive, ahead of all who hold nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Upgrade {
    /// Who holds it.
    pub session: SessionId,
    /// Which hold.
    pub lock: LockId,
    /// `wait`, `slice`, `priority` and `request_id` count; the lease stays as it is.
    #[serde(flatten)]
    pub options: AskOptions,
}

/// Turns a hold into a weaker one, at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Downgrade {
    /// Who holds it.
    pub session: SessionId,
    /// Which hold.
    pub lock: LockId,
    /// To what.
    pub mode: LockMode,
    /// Makes asking again a no-op.
    pub request_id: Option<RequestId>,
}

/// Says that a session waits for another one outside the lock table: a parent for its child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeclareWait {
    /// Who waits.
    pub session: SessionId,
    /// For whom.
    pub on: SessionId,
}

/// Takes a declared wait back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WithdrawWait {
    /// Who waited.
    pub session: SessionId,
    /// For whom.
    pub on: SessionId,
}

/// An administrator ends every hold of a resource.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ForceUnlock {
    /// Of what.
    pub resource: Resource,
    /// Who does it.
    pub admin: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
}

/// Releases all holds and gives up all waits of every session of an agent; the sessions stay open.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReleaseAll {
    /// Whose.
    pub agent: Arc<str>,
}

/// Says that a resource has so many slots, changes their number, or (`None`) takes that back.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeclareCapacity {
    /// Of what.
    pub resource: Resource,
    /// How many, at least one.
    pub capacity: Option<u32>,
}

/// Claims tasks for an agent, all or nothing, now or never. A claim is an exclusive hold of the
/// task's resource; the task keeps a version, which moves when it is claimed, given back, lost,
/// completed or reopened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClaimTasks {
    /// Who claims.
    pub session: SessionId,
    /// Which tasks; a task nobody has heard of begins at version 0, open.
    pub claims: Vec<TaskClaim>,
    /// `lease`, `reason`, `metadata` and `request_id` count.
    #[serde(flatten)]
    pub options: AskOptions,
}

/// One task of a claim.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskClaim {
    /// Which: a resource of the type `task`.
    pub task: Resource,
    /// The version the claimer has seen; another one is a conflict.
    pub expect_version: Option<u64>,
}

/// Ends the claim of a task: given back, or completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FinishTask {
    /// Who says so.
    #[serde(flatten)]
    pub by: Credential,
    /// Which hold.
    pub lock: LockId,
    /// Whether the task is done; if not, it is open again.
    #[serde(default)]
    pub done: bool,
    /// The version the caller has seen; another one is a conflict.
    pub expect_version: Option<u64>,
    /// Makes asking again a no-op.
    pub request_id: Option<RequestId>,
}

/// Opens a task that was done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReopenTask {
    /// Which.
    pub task: Resource,
    /// The version the caller has seen; another one is a conflict.
    pub expect_version: Option<u64>,
}

/// Forgets a task that nobody has claimed; should it be claimed again, it begins at version 0.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ForgetTask {
    /// Which.
    pub task: Resource,
}

/// The first command of a table that was rebuilt: whatever happened while nobody was there, no
/// lease ends for it. Every hold gets its full lease again, every ticket its full time to be
/// polled, every idle session its full time to come back; then the queues are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Whether the attached sessions died with the process that held their connections; they end,
    /// with [`EndCause::OwnerDied`].
    pub orphaned: bool,
}

macro_rules! into_command {
    ($($verb:ident),*) => {
        $(impl From<$verb> for Command {
            fn from(verb: $verb) -> Command {
                Command::$verb(verb)
            }
        })*
    };
}

into_command!(
    OpenSession,
    EndSession,
    Acquire,
    AcquireAll,
    Wait,
    Cancel,
    Release,
    Renew,
    Upgrade,
    Downgrade,
    DeclareWait,
    WithdrawWait,
    ForceUnlock,
    ReleaseAll,
    DeclareCapacity,
    ClaimTasks,
    FinishTask,
    ReopenTask,
    ForgetTask,
    Resume
);
