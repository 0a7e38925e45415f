//! Why not: refusals, which name who stands in the way and say whether asking again can help.

use crate::{
    DeadlockReport, Holder, LockId, LockMode, RequestId, Resource, ResourceProblem, SessionId,
    TicketId, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// What stands in the way of a request on one resource.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Obstacle {
    /// Where.
    pub resource: Resource,
    /// The holders it conflicts with: the first few of them.
    pub holders: Vec<Holder>,
    /// How many they are in all.
    pub held_by: usize,
    /// How many wait there.
    pub waiting: usize,
}

/// Why not. Each says what happened; [`Refusal::retryable`] says whether asking again can help.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// Not free now, and the request would not wait.
    Busy {
        /// Every resource that was taken.
        obstacles: Vec<Obstacle>,
    },
    /// The wait ran out.
    TimedOut {
        /// Every resource that was still taken.
        obstacles: Vec<Obstacle>,
        /// How long it queued, in milliseconds.
        waited_ms: u64,
    },
    /// The request closed a cycle of waits and lost, or was chosen to break one.
    Deadlock(Arc<DeadlockReport>),
    /// The session itself holds it, and did not ask for a counted hold, or not for a covered mode.
    AlreadyHeld {
        /// The hold.
        holder: Box<Holder>,
    },
    /// The session already waits for it.
    AlreadyWaiting {
        /// With this ticket.
        ticket: TicketId,
        /// For this.
        resource: Resource,
    },
    /// The queue is full.
    QueueFull {
        /// Whose queue.
        resource: Resource,
        /// How many may wait there.
        limit: usize,
    },
    /// A limit of the table is reached.
    LimitReached {
        /// Which.
        limit: Limit,
        /// How many are allowed.
        max: u64,
    },
    /// The session is over, or never was.
    SessionEnded {
        /// Which.
        session: SessionId,
    },
    /// The token is not that of the hold; a newer one has been issued since.
    StaleToken {
        /// The hold that was named.
        lock: LockId,
    },
    /// The hold is not, or no longer, the caller's.
    NotHolder {
        /// The hold that was named.
        lock: LockId,
        /// Who holds it, if anybody does.
        holder: Option<Box<Holder>>,
    },
    /// There is no such thing.
    Unknown(Subject),
    /// The mode does not fit the resource: permits need a capacity, locks must not have one.
    WrongMode {
        /// Which resource.
        resource: Resource,
        /// The mode asked for.
        mode: LockMode,
        /// Its capacity.
        capacity: Option<u32>,
    },
    /// More permits than the resource has, or none at all.
    OverCapacity {
        /// Which resource.
        resource: Resource,
        /// So many asked for.
        asked: u32,
        /// So many there are.
        capacity: u32,
    },
    /// The capacity cannot change like that while the resource is in use.
    InUse {
        /// Which resource.
        resource: Resource,
        /// By so many holds.
        holds: usize,
        /// And so many waits.
        waits: usize,
    },
    /// The resource's text is not one.
    InvalidResource {
        /// The text.
        resource: String,
        /// Why not.
        problem: ResourceProblem,
    },
    /// A batch without members.
    EmptyBatch,
    /// The hold is being revoked: it can be released, nothing else.
    Revoking {
        /// Which.
        lock: LockId,
        /// When it ends.
        until: Timestamp,
    },
    /// The session has used the request id for something else.
    RequestIdReused {
        /// The id.
        request: RequestId,
    },
    /// Tasks that cannot be claimed, so none of the request is: each that stood in the way.
    ClaimFailed {
        /// Which, and why.
        failed: Vec<FailedClaim>,
    },
    /// The task is at another version than the caller has seen.
    VersionMismatch {
        /// The task as it is.
        task: crate::Task,
        /// The version the caller has seen.
        expected: u64,
    },
    /// The task is not in a state in which this can be done to it.
    WrongStatus {
        /// The task as it is.
        task: crate::Task,
    },
    /// The request was taken back.
    Cancelled,
    /// The call waits no longer because a newer call waits on the same ticket.
    Superseded {
        /// The ticket.
        ticket: TicketId,
    },
    /// Nobody polled the ticket in time.
    Abandoned {
        /// The ticket.
        ticket: TicketId,
    },
    /// The reign has issued as many numbers as it can; a new take-over helps.
    Exhausted,
}

/// A task that could not be claimed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FailedClaim {
    /// The task as it is.
    pub task: crate::Task,
    /// Why not.
    pub why: WhyNotClaimed,
}

/// Why a task could not be claimed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhyNotClaimed {
    /// Somebody has it, or waits for it.
    Held(Box<Obstacle>),
    /// It is done.
    Done,
    /// It is at another version than this one, which the claimer has seen.
    VersionMismatch {
        /// That one.
        expected: u64,
    },
}

/// What a table bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Sessions open at once.
    Sessions,
    /// Holds of one session.
    HoldsPerSession,
    /// Waits of one session, declared ones included.
    WaitsPerSession,
    /// Members of one batch.
    Batch,
    /// Bytes of an agent's name, a reason, or metadata.
    TextBytes,
    /// Resources with a declared capacity.
    Capacities,
    /// Slots of one resource.
    Slots,
    /// Tasks that are remembered.
    Tasks,
}

/// What is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Subject {
    /// A ticket.
    Ticket(TicketId),
    /// A request id.
    Request(RequestId),
    /// A session somebody declares to wait for.
    Session(SessionId),
    /// A wait that was not declared.
    DeclaredWait,
    /// A resource that nobody holds.
    Resource(Resource),
    /// A task.
    Task(Resource),
}

impl Refusal {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Busy { .. } => "busy",
            Refusal::TimedOut { .. } => "timed_out",
            Refusal::Deadlock(_) => "deadlock",
            Refusal::AlreadyHeld { .. } => "already_held",
            Refusal::AlreadyWaiting { .. } => "already_waiting",
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::LimitReached { .. } => "limit_reached",
            Refusal::SessionEnded { .. } => "session_ended",
            Refusal::StaleToken { .. } => "stale_token",
            Refusal::NotHolder { .. } => "not_holder",
            Refusal::Unknown(_) => "unknown",
            Refusal::WrongMode { .. } => "wrong_mode",
            Refusal::OverCapacity { .. } => "over_capacity",
            Refusal::InUse { .. } => "in_use",
            Refusal::InvalidResource { .. } => "invalid_resource",
            Refusal::EmptyBatch => "empty_batch",
            Refusal::Revoking { .. } => "revoking",
            Refusal::RequestIdReused { .. } => "request_id_reused",
            Refusal::ClaimFailed { .. } => "claim_failed",
            Refusal::VersionMismatch { .. } => "version_mismatch",
            Refusal::WrongStatus { .. } => "wrong_status",
            Refusal::Cancelled => "cancelled",
            Refusal::Superseded { .. } => "superseded",
            Refusal::Abandoned { .. } => "abandoned",
            Refusal::Exhausted => "exhausted",
        }
    }

    /// The number of the earlier lock registries, where they had one: E300 timeout, E301
    /// contention, E302 not found, E303 stale lock, E304 deadlock, E305 invalid state.
    pub fn legacy_code(&self) -> &'static str {
        match self {
            Refusal::TimedOut { .. } | Refusal::Abandoned { .. } => "E300",
            Refusal::Busy { .. }
            | Refusal::QueueFull { .. }
            | Refusal::LimitReached { .. }
            | Refusal::InUse { .. }
            | Refusal::ClaimFailed { .. } => "E301",
            Refusal::Unknown(_) | Refusal::NotHolder { .. } => "E302",
            Refusal::StaleToken { .. } | Refusal::SessionEnded { .. } => "E303",
            Refusal::Deadlock(_) => "E304",
            _ => "E305",
        }
    }

    /// Whether the same request may succeed later. One that carries a request id needs a new one:
    /// with the old one it is told the same again.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Refusal::Busy { .. }
                | Refusal::TimedOut { .. }
                | Refusal::Deadlock(_)
                | Refusal::QueueFull { .. }
                | Refusal::LimitReached {
                    limit: Limit::Sessions
                        | Limit::HoldsPerSession
                        | Limit::WaitsPerSession
                        | Limit::Capacities
                        | Limit::Tasks,
                    ..
                }
                | Refusal::InUse { .. }
                | Refusal::ClaimFailed { .. }
                | Refusal::Abandoned { .. }
                | Refusal::Exhausted
        )
    }
}

impl std::error::Error for Refusal {}

fn list(f: &mut fmt::Formatter<'_>, obstacles: &[Obstacle]) -> fmt::Result {
    for (at, obstacle) in obstacles.iter().enumerate() {
        write!(f, "{}{}", if at == 0 { " " } else { "; " }, obstacle.resource)?;
        match obstacle.holders.as_slice() {
            [] => f.write_str(" is promised to an earlier waiter")?,
            [one] => {
                write!(f, " is held ({}) by {}", one.mode, one.agent)?;
                if let Some(reason) = &one.reason {
                    write!(f, " for {reason:?}")?;
                }
                write!(f, " until {}", one.revoked_at.unwrap_or(one.expires_at))?;
            }
            [one, ..] => {
                let more = obstacle.held_by.saturating_sub(1);
                write!(f, " is held ({}) by {} and {more} more", one.mode, one.agent)?;
            }
        }
        if obstacle.waiting > 0 {
            write!(f, ", {} waiting", obstacle.waiting)?;
        }
    }
    Ok(())
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Busy { obstacles } => {
                f.write_str("not free now:")?;
                list(f, obstacles)?;
                f.write_str("; ask with a wait to queue for it")
            }
            Refusal::TimedOut { obstacles, waited_ms } => {
                write!(f, "not obtained in {waited_ms} ms")?;
                f.write_str(if obstacles.is_empty() { "" } else { ":" })?;
                list(f, obstacles)?;
                f.write_str("; ask again, or wait longer")
            }
            Refusal::Deadlock(report) => report.fmt(f),
            Refusal::AlreadyHeld { holder } => write!(
                f,
                "{} is already held by this session ({}): ask for a counted hold of a covered \
                 mode, upgrade it, or release it first",
                holder.resource, holder.mode
            ),
            Refusal::AlreadyWaiting { ticket, resource } => {
                write!(f, "this session already waits for {resource} with ticket {ticket}")
            }
            Refusal::QueueFull { resource, limit } => {
                write!(f, "{limit} are already waiting for {resource}, no more are let in")
            }
            Refusal::LimitReached { limit, max } => {
                let what = match limit {
                    Limit::Sessions => "open sessions",
                    Limit::HoldsPerSession => "holds of one session",
                    Limit::WaitsPerSession => "waits of one session",
                    Limit::Batch => "resources in one request",
                    Limit::TextBytes => "bytes in a name, reason or metadata",
                    Limit::Capacities => "resources with a capacity",
                    Limit::Slots => "slots of one resource",
                    Limit::Tasks => "remembered tasks",
                };
                write!(f, "the limit of {max} {what} is reached")
            }
            Refusal::SessionEnded { session } => {
                write!(f, "session {session} is over: open a new one")
            }
            Refusal::StaleToken { lock } => {
                write!(f, "the token is not that of lock {lock}: stop using the resource")
            }
            Refusal::NotHolder { lock, holder: None } => {
                write!(f, "lock {lock} is over: it was released, expired or revoked")
            }
            Refusal::NotHolder { lock, holder: Some(holder) } => {
                write!(f, "lock {lock} on {} belongs to {}", holder.resource, holder.agent)
            }
            Refusal::Unknown(subject) => match subject {
                Subject::Ticket(ticket) => {
                    write!(f, "this session has no ticket {ticket}, or no longer: ask again")
                }
                Subject::Request(_) => f.write_str("there is no such request"),
                Subject::Session(session) => write!(f, "there is no session {session}"),
                Subject::DeclaredWait => f.write_str("that wait was not declared"),
                Subject::Resource(resource) => write!(f, "nobody holds {resource}"),
                Subject::Task(task) => write!(f, "there is no {task}"),
            },
            Refusal::WrongMode { resource, mode, capacity: None } => {
                write!(f, "{resource} has no capacity, so {mode} cannot be had: declare one first")
            }
            Refusal::WrongMode { resource, mode, capacity: Some(n) } => {
                write!(f, "{resource} is shared out in {n} permits: ask for some, not for {mode}")
            }
            Refusal::OverCapacity { resource, asked, capacity } => {
                write!(f, "{resource} has {capacity} permits in all, {asked} can never be granted")
            }
            Refusal::InUse { resource, holds, waits } => write!(
                f,
                "{resource} is in use ({holds} holds, {waits} waiting): change it when it is free"
            ),
            Refusal::InvalidResource { resource, problem } => {
                write!(f, "{resource:?} is not a resource: {problem}")
            }
            Refusal::EmptyBatch => f.write_str("no resource was named"),
            Refusal::Revoking { lock, until } => {
                write!(f, "lock {lock} is being revoked and ends at {until}: release it")
            }
            Refusal::RequestIdReused { request } => {
                write!(f, "request id {request} was used for something else: take a new one")
            }
            Refusal::ClaimFailed { failed } => {
                f.write_str("nothing is claimed:")?;
                for (at, one) in failed.iter().enumerate() {
                    write!(f, "{} {}", if at == 0 { "" } else { ";" }, one.task.resource)?;
                    match &one.why {
                        WhyNotClaimed::Held(obstacle) => match obstacle.holders.first() {
                            Some(holder) => write!(f, " is claimed by {}", holder.agent)?,
                            None => f.write_str(" is promised to an earlier waiter")?,
                        },
                        WhyNotClaimed::Done => f.write_str(" is done")?,
                        WhyNotClaimed::VersionMismatch { expected } => {
                            write!(f, " is at version {}, not {expected}", one.task.version)?;
                        }
                    }
                }
                Ok(())
            }
            Refusal::VersionMismatch { task, expected } => write!(
                f,
                "{} is at version {}, not {expected}: look at it again",
                task.resource, task.version
            ),
            Refusal::WrongStatus { task } => {
                write!(f, "{} is {}", task.resource, task.status)
            }
            Refusal::Cancelled => f.write_str("the request was taken back"),
            Refusal::Superseded { ticket } => {
                write!(f, "another call waits on ticket {ticket} now")
            }
            Refusal::Abandoned { ticket } => {
                write!(f, "ticket {ticket} was not polled in time and left the queue")
            }
            Refusal::Exhausted => f.write_str("no more numbers in this epoch: restart the project"),
        }
    }
}
