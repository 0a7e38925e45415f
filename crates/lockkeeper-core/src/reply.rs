//! What comes back when something was done: answers, and the grants they carry.

use crate::{LockId, LockMode, Refusal, Resource, SessionId, TicketId, Timestamp, Token};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The answer to one command, for the call that asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// Where it belongs.
    pub call: crate::CallId,
    /// What it says.
    pub outcome: Result<Answer, Refusal>,
}

/// What was done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// The session is open.
    SessionOpened {
        /// Its id.
        session: SessionId,
    },
    /// The session is over.
    SessionEnded {
        /// How many holds it had.
        released: usize,
        /// How many waits it had.
        left: usize,
    },
    /// The locks are held; several for a batch, in the order of their resources.
    Granted(Vec<Grant>),
    /// The call is over, the wait goes on: the ticket keeps the place until it is polled.
    Queued {
        /// The place.
        ticket: TicketId,
        /// How many stand before it, at most, in any of its queues.
        ahead: usize,
        /// When the ticket is dropped unless [`crate::Wait`] asks for it.
        poll_by: Timestamp,
    },
    /// The hold is given back, or counted down.
    Released {
        /// Which.
        lock: LockId,
        /// How many releases it still needs; 0 when it is over.
        remaining: u32,
    },
    /// The lease has a new end.
    Renewed {
        /// Of which hold.
        lock: LockId,
        /// The end.
        expires_at: Timestamp,
    },
    /// The hold has the mode asked for.
    Changed(Box<Grant>),
    /// The request is taken back.
    Cancelled {
        /// How many holds it had been granted and are released now.
        released: usize,
        /// Whether it still waited.
        was_waiting: bool,
    },
    /// The declared wait stands.
    WaitDeclared,
    /// The declared wait is gone.
    WaitWithdrawn,
    /// The holds are ended by force.
    ForceUnlocked {
        /// Who held it.
        previous: Vec<Holder>,
    },
    /// All holds and waits of the agent are gone.
    AllReleased {
        /// How many holds.
        released: usize,
        /// How many waits.
        left: usize,
    },
    /// The resource has this capacity.
    CapacityDeclared {
        /// So many slots.
        capacity: Option<u32>,
    },
    /// The tasks are claimed, in the order of the request.
    TasksClaimed(Vec<ClaimedTask>),
    /// The task has moved.
    TaskMoved(crate::Task),
    /// The task is forgotten.
    TaskForgotten,
    /// The rebuilt table is in service.
    Resumed {
        /// How many holds came back.
        holds: usize,
        /// How many waits came back.
        tickets: usize,
        /// How many attached sessions had died.
        ended: usize,
        /// How many holds those had.
        released: usize,
    },
    /// Time has passed.
    Ticked,
}

/// A task and the hold that is its claim.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClaimedTask {
    /// The task, with its new version.
    pub task: crate::Task,
    /// The claim.
    pub grant: Grant,
}

/// A lock that is held: what a guard is made of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Its identity.
    pub lock: LockId,
    /// The request it came from.
    pub ticket: TicketId,
    /// What is held.
    pub resource: Resource,
    /// How.
    pub mode: LockMode,
    /// The fencing token to show to the resource.
    pub token: Token,
    /// Which slots, for permits.
    pub slots: Vec<u32>,
    /// When the lease ends.
    pub expires_at: Timestamp,
    /// How many releases it needs.
    pub count: u32,
    /// How long the request queued, in milliseconds.
    pub wait_ms: u64,
}

/// Who holds something, as others may know it: never the token.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// What is held.
    pub resource: Resource,
    /// The hold.
    pub lock: LockId,
    /// Whose.
    pub session: SessionId,
    /// The agent's name.
    pub agent: Arc<str>,
    /// How.
    pub mode: LockMode,
    /// Why, if it said so.
    pub reason: Option<Arc<str>>,
    /// What its program noted beside it.
    pub metadata: Option<Arc<str>>,
    /// Since when.
    pub acquired_at: Timestamp,
    /// Until when, unless renewed.
    pub expires_at: Timestamp,
    /// When it ends by force, if it is being revoked.
    pub revoked_at: Option<Timestamp>,
}
