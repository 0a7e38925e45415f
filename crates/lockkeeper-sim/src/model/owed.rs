//! What a turn still owes: every fact must be owed, and at its end nothing may be.

use super::state::{Hold, Outcome, Wait};
use lockkeeper_core::{
    Answer, EndCause, Grant, LeaveCause, LockId, LockMode, Refusal, ReleaseCause, Reply, RequestId,
    Resource, SessionId, SessionKind, Task, TicketId, Timestamp, Token, WhyNotClaimed,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// What a command, or a verdict on a deadlock, makes due.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// New facts that the command itself must cause, in this order.
    pub(crate) fresh: VecDeque<Fresh>,
    /// Waits that must end.
    pub(crate) leave: BTreeMap<TicketId, LeaveCause>,
    /// Holds that must be counted down or ended.
    pub(crate) free: BTreeMap<LockId, Freed>,
    /// Holds that must be revoked, and until when they may last.
    pub(crate) revoke: BTreeMap<LockId, Timestamp>,
    /// Declared waits that must be withdrawn.
    pub(crate) withdraw: BTreeSet<(SessionId, SessionId)>,
    /// Sessions that must end.
    pub(crate) end: BTreeMap<SessionId, EndCause>,
}

/// How a hold is counted down.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Freed {
    pub(crate) remaining: u32,
    pub(crate) cause: ReleaseCause,
    /// The request that takes its share back, if it is that.
    pub(crate) share: Option<TicketId>,
    pub(crate) request_id: Option<RequestId>,
}

/// A fact that only the command itself can cause.
#[derive(Clone, Debug)]
pub(crate) enum Fresh {
    /// A session opens.
    Open { agent: Arc<str>, kind: SessionKind, priority: i8, birth: Option<TicketId>, aborts: u32 },
    /// A request queues; its ticket is not minted yet.
    Queue(Wait),
    /// A request is granted at once; its ticket is not minted yet.
    Grant(Wait),
    /// A hold changes its mode.
    Convert { lock: LockId, mode: LockMode, token: NewToken, request_id: Option<RequestId> },
    /// A lease gets an end, perhaps the one it had.
    Renew { lock: LockId, expires_at: Timestamp, request_id: Option<RequestId> },
    /// A wait is declared.
    Declare { session: SessionId, on: SessionId },
    /// A capacity changes.
    Capacity { resource: Resource, capacity: Option<u32> },
    /// A ticket need not be polled any more.
    Unpoll(TicketId),
    /// A rebuilt table is in service again; tickets must be polled by then.
    Resume(Timestamp),
    /// A session claims a task, whose hold is granted by now.
    Claim(SessionId, Resource),
    /// A task is open again.
    Reopen(Task),
    /// A task is forgotten.
    Forget(Resource),
    /// A session remembers by a request that a task became this.
    Remember(SessionId, RequestId, Task),
}

/// Why a task cannot be claimed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum NotClaimed {
    /// By so many holds, and so many wait there.
    Held(usize, usize),
    Done,
    /// Another version was seen.
    Version(u64),
}

/// What token a change of mode brings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum NewToken {
    /// One larger than all before.
    Fresh,
    /// The one it had.
    Kept(Token),
}

impl Owed {
    /// What is still due, for people.
    pub(crate) fn rest(&self) -> Option<String> {
        if let Some(fresh) = self.fresh.front() {
            Some(format!("{fresh:?}"))
        } else if let Some((ticket, cause)) = self.leave.first_key_value() {
            Some(format!("ticket {ticket} must leave: {cause:?}"))
        } else if let Some((lock, freed)) = self.free.first_key_value() {
            Some(format!("hold {lock} must be released: {freed:?}"))
        } else if let Some((lock, until)) = self.revoke.first_key_value() {
            Some(format!("hold {lock} must be revoked until {}", until.0))
        } else if let Some((from, on)) = self.withdraw.first() {
            Some(format!("the declared wait of {from} on {on} must be withdrawn"))
        } else {
            self.end.first_key_value().map(|(id, cause)| format!("{id} must end: {cause:?}"))
        }
    }

    /// The next fresh fact, if it is of the kind that `fits` names.
    pub(crate) fn take<T>(&mut self, fits: impl Fn(&Fresh) -> Option<T>) -> Option<T> {
        let found = fits(self.fresh.front()?)?;
        self.fresh.pop_front();
        Some(found)
    }

    /// Whether nobody must leave, and nothing must be released, any more.
    pub(crate) fn nothing_to_free(&self) -> bool {
        self.leave.is_empty() && self.free.is_empty() && self.revoke.is_empty()
    }

    /// Whether the command's own request must be granted at once.
    pub(crate) fn fresh_grant(&self) -> bool {
        matches!(self.fresh.front(), Some(Fresh::Grant(_)))
    }

    /// A session must give up all it waits for.
    pub(crate) fn leave_all<'a>(
        &mut self,
        waits: impl Iterator<Item = &'a Wait>,
        cause: &LeaveCause,
    ) -> usize {
        let before = self.leave.len();
        self.leave.extend(waits.map(|wait| (wait.ticket, cause.clone())));
        self.leave.len() - before
    }

    /// Holds must end, however often they are counted.
    pub(crate) fn free_all<'a>(
        &mut self,
        holds: impl Iterator<Item = &'a Hold>,
        cause: &ReleaseCause,
    ) -> usize {
        let before = self.free.len();
        let whole = |hold: &'a Hold| {
            (hold.lock, Freed { remaining: 0, cause: cause.clone(), share: None, request_id: None })
        };
        self.free.extend(holds.map(whole));
        self.free.len() - before
    }
}

/// What a call must be told.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Expect {
    /// A refusal with this code.
    Refused(&'static str),
    /// Exactly these cannot be claimed.
    ClaimFailed(Vec<(Task, NotClaimed)>),
    /// Exactly these are taken.
    Busy(Vec<Resource>),
    /// Exactly this.
    Said(Answer),
    /// This grant, save what the request it is told to adds to it.
    Changed(Grant),
    /// The session was opened under an id that is not minted yet.
    Opened,
}

impl Expect {
    /// All of these, in the order of their resources.
    pub(crate) fn granted(grants: Vec<Grant>) -> Expect {
        Expect::Said(Answer::Granted(sorted(grants)))
    }

    /// What a remembered request is told.
    pub(crate) fn of(outcome: &Outcome, held: impl Fn(&LockId) -> Option<Grant>) -> Expect {
        match outcome {
            Outcome::Moved(task) => Expect::Said(Answer::TaskMoved(task.clone())),
            Outcome::Granted(locks) | Outcome::Claimed(locks) => {
                let grants: Option<Vec<Grant>> = locks.iter().map(held).collect();
                grants.map_or(Expect::Refused("not_holder"), Expect::granted)
            }
            Outcome::Converted(lock) => {
                held(lock).map_or(Expect::Refused("not_holder"), Expect::Changed)
            }
            Outcome::Refused(code) => Expect::Refused(code),
            Outcome::Released(lock, remaining) => {
                Expect::Said(Answer::Released { lock: *lock, remaining: *remaining })
            }
            Outcome::Renewed(lock, expires_at) => {
                Expect::Said(Answer::Renewed { lock: *lock, expires_at: *expires_at })
            }
        }
    }

    /// Whether a reply says so.
    pub(crate) fn is_met_by(&self, reply: &Reply) -> bool {
        match (self, &reply.outcome) {
            (Expect::Refused(code), Err(refusal)) => refusal.code() == *code,
            (Expect::ClaimFailed(due), Err(Refusal::ClaimFailed { failed })) => {
                let why = |why: &WhyNotClaimed| match why {
                    WhyNotClaimed::Held(by) => Some(NotClaimed::Held(by.held_by, by.waiting)),
                    WhyNotClaimed::Done => Some(NotClaimed::Done),
                    WhyNotClaimed::VersionMismatch { expected } => {
                        Some(NotClaimed::Version(*expected))
                    }
                    _ => None,
                };
                let said = failed.iter().map(|one| (one.task.clone(), why(&one.why)));
                said.eq(due.iter().map(|(task, why)| (task.clone(), Some(why.clone()))))
            }
            (Expect::Busy(taken), Err(Refusal::Busy { obstacles })) => {
                taken.iter().eq(obstacles.iter().map(|obstacle| &obstacle.resource))
            }
            (Expect::Said(Answer::Granted(due)), Ok(Answer::Granted(said))) => {
                *due == sorted(said.clone())
            }
            (Expect::Said(due), Ok(said)) => due == said,
            (Expect::Changed(due), Ok(Answer::Changed(said))) => {
                *due == Grant { ticket: due.ticket, wait_ms: due.wait_ms, ..(**said).clone() }
            }
            (Expect::Opened, Ok(Answer::SessionOpened { .. })) => true,
            _ => false,
        }
    }
}

fn sorted(mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.sort_by(|a, b| a.resource.cmp(&b.resource));
    grants
}

/// The code that a call is told whose wait ended like this.
pub(crate) fn code_of(cause: &LeaveCause) -> &'static str {
    match cause {
        LeaveCause::Cancelled | LeaveCause::ReleasedAll => "cancelled",
        LeaveCause::TimedOut => "timed_out",
        LeaveCause::Deadlock => "deadlock",
        LeaveCause::SessionEnded => "session_ended",
        LeaveCause::HoldEnded(_) => "not_holder",
        LeaveCause::Abandoned => "abandoned",
        LeaveCause::CapacityShrunk => "over_capacity",
        LeaveCause::Exhausted => "exhausted",
    }
}

/// What was told, for messages.
pub(crate) fn told(outcome: &Result<Answer, Refusal>) -> String {
    match outcome {
        Ok(answer) => format!("{answer:?}"),
        Err(refusal) => format!("refused: {} ({refusal})", refusal.code()),
    }
}
